//! The Fwps functions over net buffer lists, called from the export table.

use super::exports::entry;
use super::rig::Rig;
use core::ptr::null_mut;
use nt_abi::NtStatus;
use nt_abi::fwp::{FwpsStreamData0, FwpsStreamDataOffset0};
use nt_abi::{NetBuffer, NetBufferList, PacketBuffer};

type Copy = unsafe extern "win64" fn(*const FwpsStreamData0, *mut u8, usize, *mut usize);
type Clone = unsafe extern "win64" fn(*mut FwpsStreamData0, u64, u64, u32, *mut *mut NetBufferList) -> NtStatus;
type Discard = unsafe extern "win64" fn(*mut NetBufferList, u32, u8);

/// Stream data over the packets of lists, from byte `skip` of the first on.
fn stream(lists: &[*mut NetBufferList], skip: u32, length: usize) -> FwpsStreamData0 {
    // SAFETY: the lists are the tests' own and alive.
    unsafe {
        for pair in lists.windows(2) {
            (*pair[0]).next = pair[1];
        }
        let first = lists[0];
        FwpsStreamData0 {
            flags: 1,
            data_offset: FwpsStreamDataOffset0 {
                net_buffer_list: first.cast(),
                net_buffer: (*first).first_net_buffer.cast(),
                mdl: null_mut(),
                mdl_offset: 0,
                net_buffer_offset: skip,
                stream_data_offset: 0,
            },
            data_length: length,
            net_buffer_list_chain: first.cast(),
        }
    }
}

#[test]
fn stream_data_is_copied_and_cloned_across_packets_and_cut_to_itself() {
    let rig = Rig::new();
    rig.run(|| {
        let (mut one, mut two) = (PacketBuffer::copy_of(b"..hello, "), PacketBuffer::copy_of(b"world!junk"));
        // The first two bytes of the first packet are a header out of reach; the last four of the second are not data.
        let lists = [one.list(0, 2, 9), two.list(0, 0, 10)];
        let (copy, clone, discard) = (
            entry("FwpsCopyStreamDataToBuffer0"),
            entry("FwpsCloneStreamData0"),
            entry("FwpsDiscardClonedStreamData0"),
        );
        // SAFETY: the prototypes of the three imports.
        let (copy, clone, discard): (Copy, Clone, Discard) = unsafe {
            (
                core::mem::transmute::<*const (), Copy>(copy),
                core::mem::transmute::<*const (), Clone>(clone),
                core::mem::transmute::<*const (), Discard>(discard),
            )
        };
        for (skip, length, room, expected) in [
            (0, 13, 64, "hello, world!"),
            (2, 11, 64, "llo, world!"),
            (0, 13, 9, "hello, wo"),
            (3, 2, 64, "lo"),
            (0, 0, 64, ""),
        ] {
            let mut data = stream(&lists, skip, length);
            let (mut out, mut copied) = (vec![0u8; room], 0usize);
            // SAFETY: `out` is as long as said.
            unsafe { copy(&data, out.as_mut_ptr(), room, &mut copied) };
            assert_eq!(String::from_utf8_lossy(&out[..copied]), expected);

            let mut clones: *mut NetBufferList = null_mut();
            // SAFETY: the lists are alive; null pools are allowed.
            let status = unsafe { clone(&mut data, 0, 0, 0, &mut clones) };
            assert_eq!(status, NtStatus::SUCCESS);
            let (mut text, mut list) = (Vec::new(), clones);
            // SAFETY: the clones are chains of live lists and packets.
            unsafe {
                while let Some(one) = list.as_ref() {
                    let mut buffer: *mut NetBuffer = one.first_net_buffer;
                    while let Some(packet) = buffer.as_ref() {
                        text.extend(crate::ndis::data::to_vec(packet));
                        buffer = packet.next;
                    }
                    list = one.next;
                }
                discard(clones, 0, 1);
            }
            let whole = &"hello, world!junk"[skip as usize..][..length];
            assert_eq!(String::from_utf8_lossy(&text), whole);
        }
        assert_eq!(rig.machine.pool.usage(), (0, 0), "every clone was given back");
    });
}

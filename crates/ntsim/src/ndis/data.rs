//! The bytes behind a `NET_BUFFER`: reads them and moves the data start.

use crate::cpu::{self, code};
use crate::nt::pool::Kind;
use crate::verifier::callback::{self, At};
use core::ptr::{self, null_mut};
use nt_abi::ndis::{MDL_MAPPED_TO_SYSTEM_VA, MDL_SOURCE_IS_NONPAGED_POOL, Mdl, NetBuffer};

/// Tag of the memory NDIS adds in front of a packet, "NDrt".
const RETREAT_TAG: u32 = u32::from_le_bytes(*b"NDrt");
/// The value of `Process` in an MDL that NDIS added, and that NDIS frees.
const RETREAT_MARK: usize = 0x7274_4e44;

/// Where the bytes of an MDL are.
///
/// # Safety
/// `mdl` is a live MDL over memory that is mapped.
#[must_use]
pub unsafe fn address(mdl: *const Mdl) -> *mut u8 {
    // SAFETY: the caller's promise.
    let mdl = unsafe { &*mdl };
    if mdl.mdl_flags & (MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL) != 0 {
        mdl.mapped_system_va.cast()
    } else {
        // User memory and kernel memory share one address space here.
        mdl.start_va.cast::<u8>().wrapping_add(mdl.byte_offset as usize)
    }
}

/// The used data of a packet, MDL by MDL.
#[derive(Debug)]
pub struct Pieces {
    mdl: *mut Mdl,
    offset: usize,
    left: usize,
}

/// The pieces of a packet's used data, in order. The iterator ends early when the MDL chain is shorter than
/// `DataLength` says.
///
/// # Safety
/// `buffer` and its MDLs are live, and stay so while the iterator is used.
#[must_use]
pub unsafe fn pieces(buffer: *const NetBuffer) -> Pieces {
    // SAFETY: the caller's promise.
    let buffer = unsafe { &*buffer };
    Pieces {
        mdl: buffer.current_mdl,
        offset: buffer.current_mdl_offset as usize,
        left: buffer.data_length as u32 as usize,
    }
}

impl Iterator for Pieces {
    type Item = (*mut u8, usize);

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 && !self.mdl.is_null() {
            // SAFETY: `pieces` was promised live MDLs.
            let (start, len, next) = unsafe { (address(self.mdl), (*self.mdl).byte_count as usize, (*self.mdl).next) };
            let here = len.saturating_sub(self.offset).min(self.left);
            let at = start.wrapping_add(self.offset);
            self.mdl = next;
            self.offset = 0;
            self.left -= here;
            if here > 0 {
                return Some((at, here));
            }
        }
        None
    }
}

/// Copies used data, from its byte `skip` on; returns how many bytes, at most `out`'s length.
///
/// # Safety
/// `buffer`, its MDLs and the memory they describe are live.
pub unsafe fn copy_out(buffer: *const NetBuffer, mut skip: usize, out: &mut [u8]) -> usize {
    let mut done = 0;
    // SAFETY: the caller's promise.
    for (at, len) in unsafe { pieces(buffer) } {
        let skipped = skip.min(len);
        skip -= skipped;
        let count = (len - skipped).min(out.len() - done);
        // SAFETY: `at` is readable for `len` bytes, `out` is ours and has `count` bytes left.
        unsafe { ptr::copy_nonoverlapping(at.add(skipped), out[done..].as_mut_ptr(), count) };
        done += count;
        if done == out.len() {
            break;
        }
    }
    done
}

/// Copies `bytes` over used data, from its byte `skip` on; returns how many fit.
///
/// # Safety
/// As [`copy_out`], and nothing else uses the memory meanwhile.
pub unsafe fn copy_in(buffer: *mut NetBuffer, mut skip: usize, bytes: &[u8]) -> usize {
    let mut done = 0;
    // SAFETY: the caller's promise.
    for (at, len) in unsafe { pieces(buffer) } {
        let skipped = skip.min(len);
        skip -= skipped;
        let count = (len - skipped).min(bytes.len() - done);
        // SAFETY: `at` is writable for `len` bytes, and `bytes` has `count` left.
        unsafe { ptr::copy(bytes[done..].as_ptr(), at.add(skipped), count) };
        done += count;
    }
    done
}

/// All of a packet's used data.
///
/// # Safety
/// As [`copy_out`].
#[must_use]
pub unsafe fn to_vec(buffer: *const NetBuffer) -> Vec<u8> {
    // SAFETY: the caller's promise.
    let len = unsafe { (*buffer).data_length } as u32 as usize;
    let mut out = vec![0; len];
    // SAFETY: the caller's promise.
    let there = unsafe { copy_out(buffer, 0, &mut out) };
    out.truncate(there);
    out
}

/// `NdisGetDataBuffer`: the first `needed` bytes of used data in one piece: in place if they are contiguous, else
/// copied to `storage`. Null when there are fewer, or when they would have to be copied and there is no storage.
///
/// # Safety
/// As [`copy_out`]; `storage` is null or writable for `needed` bytes.
pub unsafe fn contiguous(
    buffer: *const NetBuffer,
    needed: u32,
    storage: *mut u8,
    align_multiple: u32,
    align_offset: u32,
) -> *mut u8 {
    // SAFETY: the caller's promise.
    let len = unsafe { (*buffer).data_length } as u32;
    if needed == 0 || needed > len {
        return null_mut();
    }
    // SAFETY: the caller's promise.
    if let Some((at, piece)) = unsafe { pieces(buffer) }.next()
        && piece >= needed as usize
        && at.addr() as u64 % u64::from(align_multiple.max(1)) == u64::from(align_offset)
    {
        return at;
    }
    if storage.is_null() {
        return null_mut();
    }
    // SAFETY: not null, and writable for `needed` bytes by this function's contract.
    let out = unsafe { core::slice::from_raw_parts_mut(storage, needed as usize) };
    // SAFETY: the caller's promise.
    match unsafe { copy_out(buffer, 0, out) } {
        copied if copied == needed as usize => storage,
        _ => null_mut(),
    }
}

/// Sets `CurrentMdl` and `CurrentMdlOffset` from `DataOffset`.
///
/// # Safety
/// `buffer` and its MDLs are live.
unsafe fn find_current(buffer: *mut NetBuffer) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut mdl = (*buffer).mdl_chain;
        let mut offset = (*buffer).data_offset;
        while !mdl.is_null() && offset >= (*mdl).byte_count && !(*mdl).next.is_null() {
            offset -= (*mdl).byte_count;
            mdl = (*mdl).next;
        }
        (*buffer).current_mdl = mdl;
        (*buffer).current_mdl_offset = offset;
    }
}

/// Points a packet at a chain of MDLs.
///
/// # Safety
/// `buffer` is live; `chain` is null or a live chain of MDLs.
pub unsafe fn describe(buffer: *mut NetBuffer, chain: *mut Mdl, data_offset: u32, data_length: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        (*buffer).mdl_chain = chain;
        (*buffer).data_offset = data_offset;
        (*buffer).data_length = data_length;
        find_current(buffer);
    }
}

/// `NET_BUFFER_ALLOCATE_MDL_HANDLER`: allocates an MDL and memory of at least the given size, and returns the size.
pub(super) type AllocateMdl = unsafe extern "win64" fn(*mut u32) -> *mut Mdl;
/// `NET_BUFFER_FREE_MDL_HANDLER`.
pub(super) type FreeMdl = unsafe extern "win64" fn(*mut Mdl);

/// `NdisRetreatNetBufferDataStart`: moves the data start `delta` bytes back, with memory added in front where there is
/// no room. `false` when there is no memory.
///
/// # Safety
/// `buffer` and its MDLs are live; `allocate` is a driver's function of that type. Runs driver code, so inside
/// [`cpu::enter`] with no lock held.
pub(super) unsafe fn retreat(
    buffer: *mut NetBuffer,
    delta: u32,
    back_fill: u32,
    allocate: Option<AllocateMdl>,
) -> bool {
    // SAFETY: the caller's promise, for this and the accesses below.
    let offset = unsafe { (*buffer).data_offset };
    if let Some(earlier) = offset.checked_sub(delta) {
        // SAFETY: as above.
        unsafe {
            (*buffer).data_offset = earlier;
            (*buffer).data_length += u64::from(delta);
            find_current(buffer);
        }
        return true;
    }
    let missing = delta - offset;
    let Some(mut size) = missing.checked_add(back_fill) else { return false };
    let mdl = match allocate {
        Some(allocate) => {
            // SAFETY: a NET_BUFFER_ALLOCATE_MDL function by this function's contract, and a size that outlives the
            // call.
            let call = || unsafe { allocate(&raw mut size) };
            callback::call(&At("the allocate MDL handler", allocate as usize as u64), "NetBufferAllocateMdl", call)
        }
        None => new_mdl(size),
    };
    if mdl.is_null() {
        return false;
    }
    // SAFETY: the MDL is checked for null and, by the function's page, live until the free function gets it; `buffer`
    // is live by this function's contract.
    unsafe {
        (*mdl).next = (*buffer).mdl_chain;
        let length = (*buffer).data_length + u64::from(delta);
        describe(buffer, mdl, (*mdl).byte_count.saturating_sub(missing), length);
    }
    true
}

/// An MDL and `size` bytes behind it, in one block.
fn new_mdl(size: u32) -> *mut Mdl {
    let block = cpu::with_machine(|machine| {
        if machine.low_resources.fails("NdisRetreatNetBufferDataStart") {
            return null_mut();
        }
        machine.pool.allocate(RETREAT_TAG, size_of::<Mdl>() + size as usize, Kind::NonPaged)
    });
    let mdl = block.cast::<Mdl>();
    if !mdl.is_null() {
        // SAFETY: the block is new, aligned to 16 and large enough.
        unsafe {
            mdl.write(Mdl::EMPTY);
            (*mdl).describe(block.add(size_of::<Mdl>()), size);
            (*mdl).process = ptr::without_provenance_mut(RETREAT_MARK);
        }
    }
    mdl
}

/// `NdisAdvanceNetBufferDataStart`: moves the data start `delta` bytes forward. With `free_mdls`, frees MDLs at the
/// front that [`retreat`] added and that are no longer used.
///
/// # Safety
/// As [`retreat`].
pub(super) unsafe fn advance(buffer: *mut NetBuffer, delta: u32, free_mdls: bool, free: Option<FreeMdl>) {
    // SAFETY: the caller's promise, for this and the accesses below.
    let length = unsafe { (*buffer).data_length };
    if u64::from(delta) > length {
        cpu::bugcheck(
            code::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [buffer.addr() as u64, u64::from(delta), length, 0],
            format!("NdisAdvanceNetBufferDataStart by {delta} bytes in a NET_BUFFER with {length} bytes of data"),
        );
    }
    // SAFETY: as above.
    unsafe {
        (*buffer).data_offset += delta;
        (*buffer).data_length -= u64::from(delta);
        if free_mdls {
            free_unused(buffer, free);
        }
        find_current(buffer);
    }
}

/// Frees MDLs at the front that are no longer used and that [`retreat`] added (or that `free`, a function of the
/// driver, may free).
///
/// # Safety
/// As [`retreat`].
unsafe fn free_unused(buffer: *mut NetBuffer, free: Option<FreeMdl>) {
    // SAFETY: the caller's promise.
    unsafe {
        loop {
            let first = (*buffer).mdl_chain;
            let unused = !first.is_null() && (*buffer).data_offset >= (*first).byte_count && !(*first).next.is_null();
            if !unused || (free.is_none() && (*first).process.addr() != RETREAT_MARK) {
                return;
            }
            (*buffer).data_offset -= (*first).byte_count;
            (*buffer).mdl_chain = (*first).next;
            match free {
                Some(free) => {
                    callback::call(&At("the free MDL handler", free as usize as u64), "NetBufferFreeMdl", || {
                        free(first)
                    });
                }
                None => cpu::with_machine(|machine| machine.pool.free(first.cast(), RETREAT_TAG)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use nt_abi::Irql;

    /// A packet over two MDLs, "head" and "tail data", its data beginning at byte 2.
    struct Two {
        first: Vec<u8>,
        second: Vec<u8>,
        mdls: Box<[Mdl; 2]>,
        buffer: NetBuffer,
    }

    fn two() -> Box<Two> {
        let mut two = Box::new(Two {
            first: b"head".to_vec(),
            second: b"tail data".to_vec(),
            mdls: Box::new([Mdl::EMPTY, Mdl::EMPTY]),
            buffer: NetBuffer::EMPTY,
        });
        let Two { first, second, mdls, buffer } = &mut *two;
        mdls[0].describe(first.as_mut_ptr(), 4);
        mdls[1].describe(second.as_mut_ptr(), 9);
        mdls[0].next = &raw mut mdls[1];
        // SAFETY: all of it is in the box.
        unsafe { describe(buffer, &raw mut mdls[0], 2, 11) };
        two
    }

    #[test]
    fn data_is_read_across_mdls() {
        let mut two = two();
        let buffer = &raw mut two.buffer;
        // SAFETY: the packet is in the box.
        unsafe {
            assert_eq!(to_vec(buffer), b"adtail data");
            let mut out = [0; 4];
            assert_eq!(copy_out(buffer, 1, &mut out), 4);
            assert_eq!(&out, b"dtai");
            assert_eq!(copy_out(buffer, 9, &mut out), 2);
            assert_eq!(copy_in(buffer, 1, b"DTA"), 3);
            assert_eq!(to_vec(buffer), b"aDTAil data");
        }
    }

    #[test]
    fn one_piece_is_shown_where_it_lies_and_two_are_copied() {
        let mut two = two();
        let start = two.first.as_mut_ptr().wrapping_add(2);
        let buffer = &raw const two.buffer;
        let mut storage = [0; 16];
        // SAFETY: the packet lives in the box; the storage has 16 bytes.
        unsafe {
            assert_eq!(contiguous(buffer, 2, null_mut(), 1, 0), start);
            assert!(contiguous(buffer, 5, null_mut(), 1, 0).is_null(), "two pieces and nowhere to put them");
            assert_eq!(contiguous(buffer, 5, storage.as_mut_ptr(), 1, 0), storage.as_mut_ptr());
            assert_eq!(&storage[..5], b"adtai");
            assert!(contiguous(buffer, 12, storage.as_mut_ptr(), 1, 0).is_null(), "only 11 bytes");
            assert!(contiguous(buffer, 0, storage.as_mut_ptr(), 1, 0).is_null());
            let offset = start.addr() as u32 % 8;
            assert_eq!(contiguous(buffer, 1, null_mut(), 8, offset), start);
            assert!(contiguous(buffer, 1, null_mut(), 8, (offset + 1) % 8).is_null(), "another alignment");
        }
    }

    #[test]
    fn data_start_moves_within_the_packet_and_before_it() {
        let machine = Machine::new();
        cpu::enter(&machine, Irql::PASSIVE, || {
            let mut two = two();
            let chain = two.buffer.mdl_chain;
            let buffer = &raw mut two.buffer;
            // SAFETY: the packet is in the box.
            unsafe {
                advance(buffer, 3, false, None);
                assert_eq!(to_vec(buffer), b"ail data");
                assert!(retreat(buffer, 5, 0, None));
                assert_eq!(to_vec(buffer), b"headtail data");
                assert_eq!((*buffer).mdl_chain, chain, "no memory was needed");
                assert!(retreat(buffer, 6, 2, None));
                assert_eq!((*buffer).data_offset, 2, "the back fill");
                assert_eq!(to_vec(buffer), b"\0\0\0\0\0\0headtail data");
                assert_eq!(copy_in(buffer, 0, b"before"), 6);
                advance(buffer, 6, true, None);
                assert_eq!(to_vec(buffer), b"headtail data");
                assert_eq!(((*buffer).mdl_chain, (*buffer).data_offset), (chain, 0));
            }
        })
        .expect("no bugcheck");
        assert_eq!(machine.pool.usage().0, 0, "the memory added in front was freed");
    }

    #[test]
    fn advancing_beyond_the_data_stops_the_machine() {
        let machine = Machine::new();
        let mut two = two();
        let buffer = &raw mut two.buffer;
        let bugcheck = cpu::enter(&machine, Irql::PASSIVE, || {
            // SAFETY: the packet is in the box.
            unsafe { advance(buffer, 12, false, None) };
        })
        .expect_err("a violation");
        assert!(bugcheck.why.contains("12 bytes"), "{}", bugcheck.why);
    }
}

//! Net buffer lists: lists that drivers allocate to inject, clones, references, and stream data.

use crate::cpu;
use crate::ndis::{data, pool};
use core::ffi::c_void;
use core::ptr::null_mut;
use nt_abi::NtStatus;
use nt_abi::fwp::FwpsStreamData0;
use nt_abi::ndis::Mdl;
use nt_abi::{NetBuffer, NetBufferList, packet};

/// Returns a new list to the driver.
///
/// # Safety
/// `out` is writable.
unsafe fn give(list: *mut NetBufferList, out: *mut *mut NetBufferList) -> NtStatus {
    if list.is_null() {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    // SAFETY: writable by this function's contract.
    unsafe { out.write(list) };
    NtStatus::SUCCESS
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsAllocateNetBufferAndNetBufferList0(
    pool_handle: *mut c_void,
    context_size: u16,
    _context_back_fill: u16,
    mdl_chain: *mut Mdl,
    data_offset: u32,
    data_length: usize,
    out: *mut *mut NetBufferList,
) -> NtStatus {
    if out.is_null() || pool_handle.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    let call = "FwpsAllocateNetBufferAndNetBufferList0";
    // SAFETY: `out` is checked for null. The page demands a pool of NdisAllocateNetBufferListPool, whose magic number
    // is checked, and an MDL chain that outlives the list. The driver frees the list with FwpsFreeNetBufferList0.
    unsafe {
        let length = data_length as u64;
        give(pool::allocate_list_over(pool_handle, context_size, mdl_chain, data_offset, length, call), out)
    }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsFreeNetBufferList0(list: *mut NetBufferList) {
    // SAFETY: the page demands a list of FwpsAllocateNetBufferAndNetBufferList0; `free_list` checks its owner and that
    // it is not a clone, and frees it.
    unsafe { pool::free_list(list, false, "FwpsFreeNetBufferList0") };
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsAllocateCloneNetBufferList0(
    original: *mut NetBufferList,
    list_pool: *mut c_void,
    _buffer_pool: *mut c_void,
    _flags: u32,
    out: *mut *mut NetBufferList,
) -> NtStatus {
    if out.is_null() || original.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    // SAFETY: `out` and `original` are checked for null. The page demands a live original, of which the clone holds a
    // reference; the pool's magic number is checked. The driver frees the clone with FwpsFreeCloneNetBufferList0.
    unsafe { give(pool::clone_list(original, list_pool, "FwpsAllocateCloneNetBufferList0"), out) }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsFreeCloneNetBufferList0(list: *mut NetBufferList, _flags: u32) {
    // SAFETY: the page demands a list of FwpsAllocateCloneNetBufferList0; `free_list` checks its owner and that it is a
    // clone, and frees it.
    unsafe { pool::free_list(list, true, "FwpsFreeCloneNetBufferList0") };
}

/// `intend_to_modify` asks for a copy of a list that is shared; here every packet is indicated to one stack only.
#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsReferenceNetBufferList0(list: *mut NetBufferList, _intend_to_modify: u8) {
    // SAFETY: the page demands a live list, whose references are counted in the list. The driver gives the reference
    // back with FwpsDereferenceNetBufferList0.
    unsafe { packet::reference(list) };
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsDereferenceNetBufferList0(list: *mut NetBufferList, _dispatch_level: u8) {
    // SAFETY: the page demands a list that the driver referenced; the last reference frees what ntsim allocated.
    unsafe { packet::dereference(list) };
}

/// The packets that carry a stream's data, each with the offset and length of that data in its used data.
///
/// # Safety
/// `stream` describes live lists and packets.
unsafe fn portions(stream: &FwpsStreamData0) -> Vec<(*mut NetBufferList, *mut NetBuffer, usize, usize)> {
    let mut list: *mut NetBufferList = stream.data_offset.net_buffer_list.cast();
    let mut buffer: *mut NetBuffer = stream.data_offset.net_buffer.cast();
    let mut skip = stream.data_offset.net_buffer_offset as usize;
    let mut left = stream.data_length;
    let mut found = Vec::new();
    // SAFETY: the caller's promise, for every step along the chains.
    unsafe {
        while left != 0 && !list.is_null() {
            if buffer.is_null() {
                list = (*list).next;
                buffer = list.as_ref().map_or(null_mut(), |list| list.first_net_buffer);
                continue;
            }
            let here = ((*buffer).data_length as usize).saturating_sub(skip).min(left);
            found.push((list, buffer, skip, here));
            left -= here;
            skip = 0;
            buffer = (*buffer).next;
        }
    }
    found
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsCopyStreamDataToBuffer0(
    stream: *const FwpsStreamData0,
    out: *mut u8,
    length: usize,
    copied: *mut usize,
) {
    let mut done = 0;
    // SAFETY: the page demands the stream data of a classify call or a clone of it, whose lists are live, and `length`
    // writable bytes at `out`, of which `here` never exceeds the rest; `copied` is checked for null.
    unsafe {
        for (_, buffer, skip, here) in portions(&*stream) {
            let here = here.min(length - done);
            done += data::copy_out(buffer, skip, core::slice::from_raw_parts_mut(out.add(done), here));
        }
        if let Some(copied) = copied.as_mut() {
            *copied = done;
        }
    }
}

/// Clones the lists that carry a stream's data, cut to that data.
#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsCloneStreamData0(
    stream: *mut FwpsStreamData0,
    list_pool: *mut c_void,
    _buffer_pool: *mut c_void,
    _flags: u32,
    out: *mut *mut NetBufferList,
) -> NtStatus {
    if stream.is_null() || out.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    let mut first: *mut NetBufferList = null_mut();
    // SAFETY: both are checked for null. The page demands the stream data of a classify call, whose lists are live and
    // referenced by the clones. The clones are new, so nothing else points to them; the driver frees them with
    // FwpsDiscardClonedStreamData0.
    unsafe {
        let portions = portions(&*stream);
        let mut link = &raw mut first;
        let mut at = 0;
        while at < portions.len() {
            let (original, began) = (portions[at].0, at);
            let clone = pool::clone_list(original, list_pool, "FwpsCloneStreamData0");
            if clone.is_null() {
                discard(first, "FwpsCloneStreamData0");
                return NtStatus::INSUFFICIENT_RESOURCES;
            }
            (*clone).next = null_mut();
            *link = clone;
            link = &raw mut (*clone).next;
            // A clone has one packet for each of the original's, in order; packets that carry no stream data become
            // empty.
            let (mut from, mut buffer) = ((*original).first_net_buffer, (*clone).first_net_buffer);
            while !from.is_null() && !buffer.is_null() {
                let (skip, here) = match portions.get(at) {
                    Some((_, carrier, skip, here)) if *carrier == from => (*skip, *here),
                    _ => (0, 0),
                };
                at += usize::from(portions.get(at).is_some_and(|portion| portion.1 == from));
                data::describe(buffer, (*buffer).mdl_chain, (*buffer).data_offset + skip as u32, here as u64);
                (from, buffer) = ((*from).next, (*buffer).next);
            }
            if at == began {
                // The packet at which the stream data begins is not in its list.
                discard(first, "FwpsCloneStreamData0");
                return NtStatus::INVALID_PARAMETER;
            }
        }
        out.write(first);
    }
    NtStatus::SUCCESS
}

/// # Safety
/// `list` is null or a chain of clones that the driver owns.
unsafe fn discard(mut list: *mut NetBufferList, call: &str) {
    while !list.is_null() {
        // SAFETY: the caller's promise; the link is read before the list goes.
        unsafe {
            let next = (*list).next;
            pool::free_list(list, true, call);
            list = next;
        }
    }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsDiscardClonedStreamData0(list: *mut NetBufferList, _flags: u32, _dispatch: u8) {
    // SAFETY: the page demands a chain of FwpsCloneStreamData0; `free_list` checks of each list that it is a clone of a
    // driver's, and frees it.
    unsafe { discard(list, "FwpsDiscardClonedStreamData0") };
}

/// `FWPS_PACKET_LIST_INFORMATION0`. There is no IPsec here, so its half is zero.
#[repr(C)]
pub(super) struct PacketListInformation {
    ipsec: u32,
    fwp: u32,
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsGetPacketListSecurityInformation0(
    list: *mut NetBufferList,
    query: u32,
    out: *mut PacketListInformation,
) -> NtStatus {
    /// FWPS_PACKET_LIST_INFORMATION_QUERY_INBOUND and _OUTBOUND: one of them, not both.
    const BOTH_DIRECTIONS: u32 = 0x3;
    if list.is_null() || out.is_null() || query & BOTH_DIRECTIONS == BOTH_DIRECTIONS {
        return NtStatus::INVALID_PARAMETER;
    }
    // SAFETY: both are checked for null; the page demands a live list, which is only read, and a structure to write.
    unsafe {
        let injected = cpu::with_machine(|machine| machine.wfp.injections.is_injected(list));
        out.write(PacketListInformation { ipsec: 0, fwp: u32::from(injected) });
    }
    NtStatus::SUCCESS
}

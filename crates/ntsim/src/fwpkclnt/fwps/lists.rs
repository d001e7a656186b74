//! Net buffer lists: those drivers allocate to inject, clones, references, and the data of a stream.

use crate::cpu;
use crate::ndis::{data, pool};
use core::ffi::c_void;
use core::ptr::null_mut;
use nt_abi::NtStatus;
use nt_abi::fwp::FwpsStreamData0;
use nt_abi::ndis::Mdl;
use nt_abi::{NetBuffer, NetBufferList, packet};

/// Hands a new list to the driver.
///
/// # Safety
/// `out` is null or writable.
unsafe fn give(list: *mut NetBufferList, out: *mut *mut NetBufferList) -> NtStatus {
    if list.is_null() {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    // SAFETY: the caller's promise; checked for null by every caller.
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
    // SAFETY: the documented contract of the import.
    unsafe {
        let length = data_length as u64;
        give(pool::allocate_list_over(pool_handle, context_size, mdl_chain, data_offset, length, call), out)
    }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsFreeNetBufferList0(list: *mut NetBufferList) {
    // SAFETY: the documented contract of the import.
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
    // SAFETY: the documented contract of the import.
    unsafe { give(pool::clone_list(original, list_pool, "FwpsAllocateCloneNetBufferList0"), out) }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsFreeCloneNetBufferList0(list: *mut NetBufferList, _flags: u32) {
    // SAFETY: the documented contract of the import.
    unsafe { pool::free_list(list, true, "FwpsFreeCloneNetBufferList0") };
}

/// `intend_to_modify` asks for a copy where the list is shared; every packet here is indicated to one stack only.
#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsReferenceNetBufferList0(list: *mut NetBufferList, _intend_to_modify: u8) {
    // SAFETY: the documented contract of the import.
    unsafe { packet::reference(list) };
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsDereferenceNetBufferList0(list: *mut NetBufferList, _dispatch_level: u8) {
    // SAFETY: the documented contract of the import.
    unsafe { packet::dereference(list) };
}

/// The packets that carry a stream's data, each with how much of its used data comes before and how much belongs to it.
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
    // SAFETY: the documented contract of the import: the stream data is that of a classify call or a clone of it, and
    // `out` is writable for `length` bytes.
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
    // SAFETY: the documented contract of the import; the clones are new and the driver's alone once they are handed out.
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
            // A clone has one packet for each of the original's, in order; those that carry nothing become empty.
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
                // The packet that the stream data begins with is none of its list.
                discard(first, "FwpsCloneStreamData0");
                return NtStatus::INVALID_PARAMETER;
            }
        }
        out.write(first);
    }
    NtStatus::SUCCESS
}

/// # Safety
/// `list` is a chain of clones that are the driver's.
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
    // SAFETY: the documented contract of the import.
    unsafe { discard(list, "FwpsDiscardClonedStreamData0") };
}

/// `FWPS_PACKET_LIST_INFORMATION0`. There is no IPsec here, so its half says nothing.
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
    // SAFETY: the documented contract of the import.
    unsafe {
        let injected = cpu::with_machine(|machine| machine.wfp.injections.is_injected(list));
        out.write(PacketListInformation { ipsec: 0, fwp: u32::from(injected) });
    }
    NtStatus::SUCCESS
}

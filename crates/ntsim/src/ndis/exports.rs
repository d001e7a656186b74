//! The functions of NDIS.SYS that drivers import. Signatures: ndis.h and ndis/nblapi.h; the IRQL is that of each
//! function's page in windows-driver-docs-ddi.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use super::data;
use super::pool::{self, PoolKind};
use crate::cpu;
use crate::export::exports;
use crate::nt::pool::Kind;
use core::ffi::c_void;
use core::ptr::null_mut;
use nt_abi::ndis::{Mdl, NetBuffer, NetBufferList};

/// `NDIS_STATUS_SUCCESS`.
const SUCCESS: i32 = 0;
/// `NDIS_STATUS_RESOURCES`: STATUS_INSUFFICIENT_RESOURCES.
const RESOURCES: i32 = 0xC000_009Au32 as i32;
/// `NdisGetVersion` of Windows 10 22H2: NDIS 6.83, in the form 0x00MMmmmm.
const VERSION: u32 = 0x0006_0053;
/// Tag of MDLs, "NDml".
const MDL_TAG: u32 = u32::from_le_bytes(*b"NDml");
/// `sizeof(NDIS_GENERIC_OBJECT)`: an object header and three pointers; the driver's memory follows it.
const GENERIC_OBJECT: usize = 32;

exports! {
    "NDIS.SYS";
    NdisGetVersion: HIGH,
    NdisAllocateGenericObject: DISPATCH,
    NdisFreeGenericObject: DISPATCH,
    NdisAllocateNetBufferListPool: DISPATCH,
    NdisFreeNetBufferListPool: DISPATCH,
    NdisAllocateNetBufferPool: DISPATCH,
    NdisFreeNetBufferPool: DISPATCH,
    NdisAllocateNetBufferList: DISPATCH,
    NdisFreeNetBufferList: DISPATCH,
    NdisAllocateNetBuffer: DISPATCH,
    NdisAllocateNetBufferMdlAndData: DISPATCH,
    NdisFreeNetBuffer: DISPATCH,
    NdisAllocateNetBufferAndNetBufferList: DISPATCH,
    NdisAllocateCloneNetBufferList: DISPATCH,
    NdisFreeCloneNetBufferList: DISPATCH,
    NdisGetDataBuffer: DISPATCH,
    NdisAdvanceNetBufferDataStart: DISPATCH,
    NdisRetreatNetBufferDataStart: DISPATCH,
    NdisAdvanceNetBufferListDataStart: DISPATCH,
    NdisRetreatNetBufferListDataStart: DISPATCH,
    NdisCopyFromNetBufferToNetBuffer: DISPATCH,
    NdisAllocateMdl: DISPATCH,
    NdisFreeMdl: DISPATCH,
    NdisAllocateMemoryWithTagPriority: DISPATCH,
    NdisFreeMemory: DISPATCH,
}

/// `NDIS_OBJECT_HEADER` and the members of `NET_BUFFER_LIST_POOL_PARAMETERS` of its first revision.
#[repr(C)]
struct ListPoolParameters {
    object_type: u8,
    revision: u8,
    size: u16,
    protocol_id: u8,
    allocate_net_buffer: u8,
    context_size: u16,
    pool_tag: u32,
    data_size: u32,
}

/// `NET_BUFFER_POOL_PARAMETERS`.
#[repr(C)]
struct BufferPoolParameters {
    object_type: u8,
    revision: u8,
    size: u16,
    pool_tag: u32,
    data_size: u32,
}

const _: () = {
    assert!(size_of::<ListPoolParameters>() == 16);
    assert!(size_of::<BufferPoolParameters>() == 12);
};

// What the pages demand of pointers is trusted ([`crate::export`]).

extern "win64" fn NdisGetVersion() -> u32 {
    VERSION
}

unsafe extern "win64" fn NdisAllocateGenericObject(_driver: *mut c_void, tag: u32, size: u16) -> *mut c_void {
    cpu::with_machine(|machine| {
        if machine.low_resources.fails("NdisAllocateGenericObject") {
            return null_mut();
        }
        machine.pool.allocate(tag, GENERIC_OBJECT + usize::from(size), Kind::NonPaged).cast()
    })
}

unsafe extern "win64" fn NdisFreeGenericObject(object: *mut c_void) {
    cpu::with_machine(|machine| machine.pool.free(object.cast(), 0));
}

unsafe extern "win64" fn NdisAllocateNetBufferListPool(
    _handle: *mut c_void,
    parameters: *const ListPoolParameters,
) -> *mut c_void {
    // SAFETY: the page demands NET_BUFFER_LIST_POOL_PARAMETERS; only members of its first revision are read, and
    // copied.
    let parameters = unsafe { &*parameters };
    let kind = PoolKind::Lists { with_buffer: parameters.allocate_net_buffer != 0 };
    pool::create(kind, parameters.pool_tag, parameters.context_size, parameters.data_size)
}

unsafe extern "win64" fn NdisFreeNetBufferListPool(handle: *mut c_void) {
    // SAFETY: the page demands a handle of NdisAllocateNetBufferListPool; `destroy` checks null, the magic number and
    // that no structure is out, and frees the pool.
    unsafe { pool::destroy(handle, "NdisFreeNetBufferListPool") };
}

unsafe extern "win64" fn NdisAllocateNetBufferPool(
    _handle: *mut c_void,
    parameters: *const BufferPoolParameters,
) -> *mut c_void {
    // SAFETY: the page demands NET_BUFFER_POOL_PARAMETERS, whose members are copied.
    let parameters = unsafe { &*parameters };
    pool::create(PoolKind::Buffers, parameters.pool_tag, 0, parameters.data_size)
}

unsafe extern "win64" fn NdisFreeNetBufferPool(handle: *mut c_void) {
    // SAFETY: the page demands a handle of NdisAllocateNetBufferPool; `destroy` checks null, the magic number and that
    // no structure is out, and frees the pool.
    unsafe { pool::destroy(handle, "NdisFreeNetBufferPool") };
}

unsafe extern "win64" fn NdisAllocateNetBufferList(
    handle: *mut c_void,
    context_size: u16,
    _back_fill: u16,
) -> *mut NetBufferList {
    // SAFETY: the page demands a pool of NdisAllocateNetBufferListPool; `allocate_list` checks the magic number. The
    // driver frees the list with NdisFreeNetBufferList.
    unsafe { pool::allocate_list(handle, context_size, "NdisAllocateNetBufferList") }
}

unsafe extern "win64" fn NdisFreeNetBufferList(list: *mut NetBufferList) {
    // SAFETY: the page demands a list from a pool; `free_list` checks null, its owner and that it is not a clone, and
    // frees it.
    unsafe { pool::free_list(list, false, "NdisFreeNetBufferList") };
}

unsafe extern "win64" fn NdisAllocateNetBuffer(
    handle: *mut c_void,
    chain: *mut Mdl,
    data_offset: u32,
    data_length: usize,
) -> *mut NetBuffer {
    // SAFETY: the page demands a pool of NdisAllocateNetBufferPool, whose magic number is checked, and an MDL chain
    // that outlives the packet. The driver frees the packet with NdisFreeNetBuffer.
    unsafe { pool::allocate_buffer(handle, chain, data_offset, data_length as u64, "NdisAllocateNetBuffer") }
}

unsafe extern "win64" fn NdisAllocateNetBufferMdlAndData(handle: *mut c_void) -> *mut NetBuffer {
    // SAFETY: the page demands a pool of NdisAllocateNetBufferPool, whose magic number is checked. The MDL and its
    // memory are in the packet's block, freed by NdisFreeNetBuffer.
    unsafe { pool::allocate_buffer(handle, null_mut(), 0, 0, "NdisAllocateNetBufferMdlAndData") }
}

unsafe extern "win64" fn NdisFreeNetBuffer(buffer: *mut NetBuffer) {
    // SAFETY: the page demands a packet from a pool; `free_buffer` checks null, and the pool its block, and frees it.
    unsafe { pool::free_buffer(buffer, "NdisFreeNetBuffer") };
}

unsafe extern "win64" fn NdisAllocateNetBufferAndNetBufferList(
    handle: *mut c_void,
    context_size: u16,
    _back_fill: u16,
    chain: *mut Mdl,
    data_offset: u32,
    data_length: usize,
) -> *mut NetBufferList {
    let call = "NdisAllocateNetBufferAndNetBufferList";
    // SAFETY: the page demands a list pool, whose magic number is checked, and an MDL chain that outlives the list. The
    // driver frees the list with NdisFreeNetBufferList.
    unsafe { pool::allocate_list_over(handle, context_size, chain, data_offset, data_length as u64, call) }
}

unsafe extern "win64" fn NdisAllocateCloneNetBufferList(
    original: *mut NetBufferList,
    list_pool: *mut c_void,
    _buffer_pool: *mut c_void,
    _flags: u32,
) -> *mut NetBufferList {
    // SAFETY: the page demands a live original, of which the clone holds a reference, and a list pool or null, whose
    // magic number is checked. The driver frees the clone with NdisFreeCloneNetBufferList.
    unsafe { pool::clone_list(original, list_pool, "NdisAllocateCloneNetBufferList") }
}

unsafe extern "win64" fn NdisFreeCloneNetBufferList(list: *mut NetBufferList, _flags: u32) {
    // SAFETY: the page demands a list of NdisAllocateCloneNetBufferList; `free_list` checks null, its owner and that it
    // is a clone, and frees it.
    unsafe { pool::free_list(list, true, "NdisFreeCloneNetBufferList") };
}

unsafe extern "win64" fn NdisGetDataBuffer(
    buffer: *mut NetBuffer,
    needed: u32,
    storage: *mut u8,
    align_multiple: u32,
    align_offset: u32,
) -> *mut u8 {
    // SAFETY: the page demands a live packet, and null or `needed` writable bytes at `storage`; null is checked, and
    // the length against the packet's.
    unsafe { data::contiguous(buffer, needed, storage, align_multiple, align_offset) }
}

unsafe extern "win64" fn NdisAdvanceNetBufferDataStart(
    buffer: *mut NetBuffer,
    delta: u32,
    free_mdl: u8,
    free: Option<data::FreeMdl>,
) {
    // SAFETY: the page demands a live packet, and null or a NET_BUFFER_FREE_MDL function; `delta` is checked against
    // the data's length. MDLs that a retreat added are freed.
    unsafe { data::advance(buffer, delta, free_mdl != 0, free) };
}

unsafe extern "win64" fn NdisRetreatNetBufferDataStart(
    buffer: *mut NetBuffer,
    delta: u32,
    back_fill: u32,
    allocate: Option<data::AllocateMdl>,
) -> i32 {
    // SAFETY: the page demands a live packet, and null or a NET_BUFFER_ALLOCATE_MDL function. Memory that is added in
    // front is freed by the advance.
    if unsafe { data::retreat(buffer, delta, back_fill, allocate) } { SUCCESS } else { RESOURCES }
}

unsafe extern "win64" fn NdisAdvanceNetBufferListDataStart(
    list: *mut NetBufferList,
    delta: u32,
    free_mdl: u8,
    free: Option<data::FreeMdl>,
) {
    // SAFETY: as in NdisAdvanceNetBufferDataStart, for each packet of a live list.
    unsafe {
        let mut buffer = (*list).first_net_buffer;
        while !buffer.is_null() {
            data::advance(buffer, delta, free_mdl != 0, free);
            buffer = (*buffer).next;
        }
    }
}

unsafe extern "win64" fn NdisRetreatNetBufferListDataStart(
    list: *mut NetBufferList,
    delta: u32,
    back_fill: u32,
    allocate: Option<data::AllocateMdl>,
    free: Option<data::FreeMdl>,
) -> i32 {
    // SAFETY: as in NdisRetreatNetBufferDataStart, for each packet of a live list.
    unsafe {
        let first = (*list).first_net_buffer;
        let mut buffer = first;
        while !buffer.is_null() {
            if !data::retreat(buffer, delta, back_fill, allocate) {
                // All or nothing: undo the earlier ones.
                let mut done = first;
                while done != buffer {
                    data::advance(done, delta, true, free);
                    done = (*done).next;
                }
                return RESOURCES;
            }
            buffer = (*buffer).next;
        }
    }
    SUCCESS
}

unsafe extern "win64" fn NdisCopyFromNetBufferToNetBuffer(
    to: *mut NetBuffer,
    to_offset: u32,
    count: u32,
    from: *const NetBuffer,
    from_offset: u32,
    copied: *mut u32,
) -> i32 {
    // Whatever length the driver passes, no more is copied than the source has. SAFETY: the page demands two live
    // packets and a variable for the count; the copy is bounded by the data of both.
    unsafe {
        let there = ((*from).data_length as u32).saturating_sub(from_offset);
        let mut bytes = vec![0; count.min(there) as usize];
        let read = data::copy_out(from, from_offset as usize, &mut bytes);
        *copied = data::copy_in(to, to_offset as usize, &bytes[..read]) as u32;
    }
    SUCCESS
}

unsafe extern "win64" fn NdisAllocateMdl(_handle: *mut c_void, va: *mut u8, len: u32) -> *mut Mdl {
    let block = cpu::with_machine(|machine| {
        if machine.low_resources.fails("NdisAllocateMdl") {
            return null_mut();
        }
        machine.pool.allocate(MDL_TAG, size_of::<Mdl>(), Kind::NonPaged)
    });
    let mdl = block.cast::<Mdl>();
    if !mdl.is_null() {
        // SAFETY: a new block of that size, aligned to 16.
        unsafe {
            mdl.write(Mdl::EMPTY);
            (*mdl).describe(va, len);
        }
    }
    mdl
}

unsafe extern "win64" fn NdisFreeMdl(mdl: *mut Mdl) {
    cpu::with_machine(|machine| machine.pool.free(mdl.cast(), MDL_TAG));
}

unsafe extern "win64" fn NdisAllocateMemoryWithTagPriority(
    _handle: *mut c_void,
    len: u32,
    tag: u32,
    _priority: u32,
) -> *mut c_void {
    cpu::with_machine(|machine| {
        if machine.low_resources.fails("NdisAllocateMemoryWithTagPriority") {
            return null_mut();
        }
        machine.pool.allocate(tag, len as usize, Kind::NonPaged).cast()
    })
}

unsafe extern "win64" fn NdisFreeMemory(memory: *mut c_void, _len: u32, _flags: u32) {
    cpu::with_machine(|machine| machine.pool.free(memory.cast(), 0));
}

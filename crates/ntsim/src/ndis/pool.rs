//! Pools of `NET_BUFFER_LIST` and `NET_BUFFER` structures, and clones.
//!
//! All of it is pool memory of the machine, under the driver's tag for its pool, so that what a driver does not free is
//! in its leak report.

use super::data;
use crate::cpu::{self, code};
use crate::nt::pool::Kind;
use core::ffi::c_void;
use core::ptr::{self, null_mut};
use core::sync::atomic::{AtomicU32, Ordering};
use nt_abi::ndis::{Mdl, NetBuffer, NetBufferList};
use nt_abi::packet::{ListOwner, dereference, reference};

/// Tag of lists and packets that come from no pool, "NDnb".
const TAG: u32 = u32::from_le_bytes(*b"NDnb");

/// What a pool hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// `NET_BUFFER_LIST` structures.
    Lists {
        /// fAllocateNetBuffer: each comes with a `NET_BUFFER`.
        with_buffer: bool,
    },
    /// `NET_BUFFER` structures.
    Buffers,
}

/// A pool. Its address is the driver's handle.
#[repr(C)]
#[derive(Debug)]
struct Pool {
    magic: u64,
    tag: u32,
    context_size: u16,
    data_size: u32,
    kind: PoolKind,
    /// Structures handed out and not freed.
    outstanding: AtomicU32,
}

const POOL_MAGIC: u64 = 0x6c6f_6f50_4c42_4e54;
const BUFFER_MAGIC: u32 = 0x6675_424e;

/// A list from a pool, with its packet and context behind it.
#[repr(C)]
struct PoolList {
    list: NetBufferList, // first: a pointer to the list is a pointer to its PoolList
    buffer: NetBuffer,
    owner: ListOwner,
    /// The pool, or null.
    pool: *const Pool,
    tag: u32,
    /// A clone holds a reference to the list whose data it shows.
    is_clone: bool,
}

/// A packet from a pool or of a clone.
#[repr(C)]
struct PoolBuffer {
    buffer: NetBuffer, // first
    pool: *const Pool,
    tag: u32,
    /// [`BUFFER_MAGIC`] in a packet that the driver may free by itself.
    magic: u32,
}

fn allocate(what: &str, tag: u32, size: usize) -> *mut u8 {
    cpu::with_machine(|machine| {
        if machine.low_resources.fails(what) {
            return null_mut();
        }
        machine.pool.allocate(tag, size, Kind::NonPaged)
    })
}

fn free(block: *mut u8, tag: u32) {
    cpu::with_machine(|machine| machine.pool.free(block, tag));
}

fn violation(parameter: u64, why: String) -> ! {
    cpu::bugcheck(code::DRIVER_VERIFIER_DETECTED_VIOLATION, [parameter, 0, 0, 0], why)
}

/// Makes a pool; null when there is no memory.
#[must_use]
pub fn create(kind: PoolKind, tag: u32, context_size: u16, data_size: u32) -> *mut c_void {
    let pool = allocate("NdisAllocateNetBufferListPool", tag, size_of::<Pool>()).cast::<Pool>();
    if !pool.is_null() {
        let new = Pool { magic: POOL_MAGIC, tag, context_size, data_size, kind, outstanding: AtomicU32::new(0) };
        // SAFETY: a new block of that size, aligned to 16.
        unsafe { pool.write(new) };
    }
    pool.cast()
}

/// The pool behind a handle; stops the machine when the handle is not valid.
///
/// # Safety
/// `handle` is readable for the size of a pool, or null.
unsafe fn pool<'a>(handle: *mut c_void, call: &str) -> Option<&'a Pool> {
    if handle.is_null() {
        return None;
    }
    // SAFETY: the caller's promise; what is read is checked next.
    let pool = unsafe { &*handle.cast::<Pool>() };
    if pool.magic != POOL_MAGIC {
        violation(handle.addr() as u64, format!("{call} with {handle:?}, which is not a NET_BUFFER or list pool"));
    }
    Some(pool)
}

/// Frees a pool, of which every structure must have been freed.
///
/// # Safety
/// `handle` is readable for the size of a pool.
pub unsafe fn destroy(handle: *mut c_void, call: &str) {
    // SAFETY: the caller's promise.
    let Some(found) = (unsafe { pool(handle, call) }) else {
        violation(0, format!("{call} with a null handle"));
    };
    let (tag, outstanding) = (found.tag, found.outstanding.load(Ordering::Acquire));
    if outstanding != 0 {
        violation(handle.addr() as u64, format!("{call}: {outstanding} structures of the pool have not been freed"));
    }
    // SAFETY: `found` is a pool by its magic number, with nothing out. The magic number is erased so that a second free
    // is detected.
    unsafe { (*handle.cast::<Pool>()).magic = 0 };
    free(handle.cast(), tag);
}

/// Allocates a list, with room for a context; null when there is no memory.
///
/// # Safety
/// `handle` is null or a live list pool.
pub unsafe fn allocate_list(handle: *mut c_void, context_size: u16, call: &str) -> *mut NetBufferList {
    // SAFETY: the caller's promise.
    let from = unsafe { pool(handle, call) };
    let tag = from.map_or(TAG, |pool| pool.tag);
    let context = usize::from(from.map_or(0, |pool| pool.context_size).max(context_size));
    let data_size = from.map_or(0, |pool| pool.data_size) as usize;
    // After the structure: the context's header (16 bytes), the context, an MDL and the data.
    let context_at = size_of::<PoolList>().next_multiple_of(16);
    let room = if context > 0 { 16 + context } else { 0 };
    let mdl_at = (context_at + room).next_multiple_of(16);
    let block = allocate(call, tag, mdl_at + if data_size > 0 { size_of::<Mdl>() + data_size } else { 0 });
    let new = block.cast::<PoolList>();
    if new.is_null() {
        return null_mut();
    }
    let pool_pointer = from.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: a new block of that size, aligned to 16.
    unsafe {
        new.write(PoolList {
            list: NetBufferList::EMPTY,
            buffer: NetBuffer::EMPTY,
            owner: ListOwner::new(release_list),
            pool: pool_pointer,
            tag,
            is_clone: false,
        });
        (*new).list.ndis_pool_handle = handle;
        (*new).list.ndis_reserved[0] = (&raw mut (*new).owner).cast();
        if matches!(from.map(|pool| pool.kind), Some(PoolKind::Lists { with_buffer: true })) {
            (*new).list.first_net_buffer = &raw mut (*new).buffer;
        }
        if room > 0 {
            let header = block.add(context_at);
            header.add(8).cast::<u16>().write(context as u16); // NET_BUFFER_LIST_CONTEXT.Size; Offset stays 0
            (*new).list.context = header.cast();
        }
        if data_size > 0 {
            let mdl = block.add(mdl_at).cast::<Mdl>();
            mdl.write(Mdl::EMPTY);
            (*mdl).describe(block.add(mdl_at + size_of::<Mdl>()), data_size as u32);
            (*new).list.first_net_buffer = &raw mut (*new).buffer;
            data::describe(&raw mut (*new).buffer, mdl, 0, 0);
        }
    }
    if let Some(pool) = from {
        pool.outstanding.fetch_add(1, Ordering::AcqRel);
    }
    new.cast()
}

/// Allocates a list with one packet over a chain of MDLs; null when there is no memory.
///
/// # Safety
/// `handle` is null or a live list pool; `chain` is null or a live chain of MDLs that outlives the list.
pub unsafe fn allocate_list_over(
    handle: *mut c_void,
    context_size: u16,
    chain: *mut Mdl,
    data_offset: u32,
    data_length: u64,
    call: &str,
) -> *mut NetBufferList {
    // SAFETY: the caller's promise; the list is new and has its packet in the same block.
    unsafe {
        let list = allocate_list(handle, context_size, call);
        if !list.is_null() {
            let buffer = &raw mut (*list.cast::<PoolList>()).buffer;
            (*list).first_net_buffer = buffer;
            data::describe(buffer, chain, data_offset, data_length);
        }
        list
    }
}

/// Drops the driver's reference to a list from a pool, which must be a clone if `clone`, and must not be otherwise.
///
/// # Safety
/// `list` is readable for the size of a list.
pub unsafe fn free_list(list: *mut NetBufferList, clone: bool, call: &str) {
    if list.is_null() {
        violation(0, format!("{call} with a null list"));
    }
    // SAFETY: readable by this function's contract. Only a list from a pool has its own `owner` field as owner, so
    // anything else, as a list over a packet, is told from one before it is taken for a `PoolList`.
    unsafe {
        let owner = (*list).ndis_reserved[0].cast::<ListOwner>();
        if owner != &raw mut (*list.cast::<PoolList>()).owner {
            violation(
                list.addr() as u64,
                format!("{call} with {list:?}, which was not allocated by the driver (or has been freed)"),
            );
        }
        let is_clone = (*list.cast::<PoolList>()).is_clone;
        if is_clone != clone {
            let is = if is_clone { "a clone" } else { "not a clone" };
            violation(list.addr() as u64, format!("{call} with {list:?}, which is {is}"));
        }
        if (*list).child_ref_count != 0 {
            let count = (*list).child_ref_count;
            violation(list.addr() as u64, format!("{call} with {list:?}, of which {count} clones exist"));
        }
        dereference(list);
    }
}

/// # Safety
/// `list` is the first member of a [`PoolList`] that nothing else refers to.
unsafe fn release_list(list: *mut NetBufferList) {
    let block = list.cast::<PoolList>();
    // SAFETY: a `PoolList` that nobody else has, by this function's contract; a clone's further packets are in blocks
    // of `clone_buffer`, which only it has.
    unsafe {
        if (*block).is_clone {
            release_clone(block);
        }
        if let Some(pool) = (*block).pool.as_ref() {
            pool.outstanding.fetch_sub(1, Ordering::AcqRel);
        }
        (*block).list.ndis_reserved[0] = null_mut();
        free(block.cast(), (*block).tag);
    }
}

/// Clones a list: new packets over new MDLs that describe the same used data. The clone keeps the original alive. Null
/// when there is no memory.
///
/// # Safety
/// `original` is a live list that ntsim made; `handle` is null or a live list pool.
pub unsafe fn clone_list(original: *mut NetBufferList, handle: *mut c_void, call: &str) -> *mut NetBufferList {
    // SAFETY: the original is live by this function's contract; the clone is new.
    unsafe {
        let clone = allocate_list(handle, 0, call);
        if clone.is_null() {
            return null_mut();
        }
        let block = clone.cast::<PoolList>();
        (*block).is_clone = true;
        (*block).list.first_net_buffer = null_mut();
        (*clone).parent_net_buffer_list = original;
        (*clone).net_buffer_list_info = (*original).net_buffer_list_info;
        reference(original);
        (*original).child_ref_count += 1;
        let mut link = &raw mut (*clone).first_net_buffer;
        let mut from = (*original).first_net_buffer;
        while !from.is_null() {
            let buffer = clone_buffer(from, (*block).tag, call);
            if buffer.is_null() {
                dereference(clone); // frees what was built so far
                return null_mut();
            }
            *link = buffer;
            link = &raw mut (*buffer).next;
            from = (*from).next;
        }
        clone
    }
}

/// A packet with MDLs over the same used data, in one block.
///
/// # Safety
/// `from` and its MDLs are live.
unsafe fn clone_buffer(from: *const NetBuffer, tag: u32, call: &str) -> *mut NetBuffer {
    // SAFETY: the caller's promise.
    let count = unsafe { data::pieces(from) }.count();
    let block = allocate(call, tag, size_of::<PoolBuffer>() + count * size_of::<Mdl>());
    let buffer = block.cast::<PoolBuffer>();
    if buffer.is_null() {
        return null_mut();
    }
    // SAFETY: a new block with room for the packet and `count` MDLs behind it.
    unsafe {
        buffer.write(PoolBuffer { buffer: NetBuffer::EMPTY, magic: 0, pool: ptr::null(), tag });
        let mdls = block.add(size_of::<PoolBuffer>()).cast::<Mdl>();
        let mut length = 0;
        for (i, (at, len)) in data::pieces(from).enumerate() {
            let mdl = mdls.add(i);
            mdl.write(Mdl::EMPTY);
            (*mdl).describe(at, len as u32);
            if i + 1 < count {
                (*mdl).next = mdls.add(i + 1);
            }
            length += len as u64;
        }
        let chain = if count > 0 { mdls } else { null_mut() };
        data::describe(&raw mut (*buffer).buffer, chain, 0, length);
    }
    buffer.cast()
}

/// # Safety
/// `block` is a clone that nothing else refers to.
unsafe fn release_clone(block: *mut PoolList) {
    // SAFETY: a clone that nothing else refers to, by this function's contract; its packets are blocks of
    // `clone_buffer`, and the parent is live because the clone holds a reference to it.
    unsafe {
        let mut buffer = (*block).list.first_net_buffer;
        while !buffer.is_null() {
            let next = (*buffer).next;
            free(buffer.cast(), (*block).tag);
            buffer = next;
        }
        let parent = (*block).list.parent_net_buffer_list;
        (*parent).child_ref_count -= 1;
        dereference(parent);
    }
}

/// Allocates a packet over a chain of MDLs; null when there is no memory.
///
/// # Safety
/// `handle` is null or a live packet pool; `chain` is null or a live chain of MDLs that outlives the packet.
pub unsafe fn allocate_buffer(
    handle: *mut c_void,
    chain: *mut Mdl,
    data_offset: u32,
    data_length: u64,
    call: &str,
) -> *mut NetBuffer {
    // SAFETY: the caller's promise.
    let from = unsafe { pool(handle, call) };
    let tag = from.map_or(TAG, |pool| pool.tag);
    // A pool with a data size gives each packet an MDL and memory of that size.
    let data_size = if chain.is_null() { from.map_or(0, |pool| pool.data_size) } else { 0 };
    let mdl_at = size_of::<PoolBuffer>();
    let room = if data_size > 0 { size_of::<Mdl>() + data_size as usize } else { 0 };
    let block = allocate(call, tag, mdl_at + room);
    let new = block.cast::<PoolBuffer>();
    if new.is_null() {
        return null_mut();
    }
    // SAFETY: a new block of that size, aligned to 16; the chain is null or live by this function's contract.
    unsafe {
        let pool = from.map_or(ptr::null(), ptr::from_ref);
        new.write(PoolBuffer { buffer: NetBuffer::EMPTY, magic: BUFFER_MAGIC, pool, tag });
        (*new).buffer.ndis_pool_handle = handle;
        let mut chain = chain;
        if data_size > 0 {
            chain = block.add(mdl_at).cast::<Mdl>();
            chain.write(Mdl::EMPTY);
            (*chain).describe(block.add(mdl_at + size_of::<Mdl>()), data_size);
        }
        data::describe(&raw mut (*new).buffer, chain, data_offset, data_length);
    }
    if let Some(pool) = from {
        pool.outstanding.fetch_add(1, Ordering::AcqRel);
    }
    new.cast()
}

/// Frees a packet from [`allocate_buffer`].
///
/// # Safety
/// `buffer` is null or readable for the size of a packet.
pub unsafe fn free_buffer(buffer: *mut NetBuffer, call: &str) {
    if buffer.is_null() {
        violation(0, format!("{call} with a null NET_BUFFER"));
    }
    let block = buffer.cast::<PoolBuffer>();
    // SAFETY: readable by this function's contract. The magic number tells a packet of `allocate_buffer` from one of a
    // list or a clone, and is erased so that a second free is detected; a pool outlives its packets (`destroy`).
    unsafe {
        if (*block).magic != BUFFER_MAGIC {
            violation(
                buffer.addr() as u64,
                format!("{call} with {buffer:?}, which is not a NET_BUFFER from a pool (or has been freed)"),
            );
        }
        (*block).magic = 0;
        if let Some(pool) = (*block).pool.as_ref() {
            pool.outstanding.fetch_sub(1, Ordering::AcqRel);
        }
        free(block.cast(), (*block).tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use nt_abi::Irql;
    use nt_abi::packet::PacketBuffer;
    use std::sync::Arc;

    fn on<R>(machine: &Arc<Machine>, f: impl FnOnce() -> R) -> Result<R, cpu::Bugcheck> {
        cpu::enter(machine, Irql::PASSIVE, f)
    }

    const DRIVER_TAG: u32 = u32::from_le_bytes(*b"test");

    #[test]
    fn a_list_over_mdls_and_back() {
        let machine = Machine::new();
        let mut bytes = *b"some packet";
        let mut mdl = Mdl::EMPTY;
        mdl.describe(bytes.as_mut_ptr(), 11);
        on(&machine, || {
            let handle = create(PoolKind::Lists { with_buffer: true }, DRIVER_TAG, 32, 0);
            // SAFETY: the pool and the MDL are live.
            unsafe {
                let list = allocate_list_over(handle, 0, &raw mut mdl, 5, 6, "test");
                assert_eq!(data::to_vec((*list).first_net_buffer), b"packet");
                assert!(!(*list).context.is_null());
                free_list(list, false, "test");
                destroy(handle, "test");
            }
        })
        .expect("no bugcheck");
        assert_eq!(machine.pool.usage(), (0, 0));
    }

    #[test]
    fn a_clone_shows_the_same_data_and_keeps_the_original() {
        let machine = Machine::new();
        on(&machine, || {
            let mut packet = PacketBuffer::copy_of(b"header and data");
            let original = packet.list(0, 7, 15);
            // SAFETY: both lists are live until freed; the clone keeps the packet's memory.
            unsafe {
                let clone = clone_list(original, null_mut(), "test");
                assert!(packet.is_kept());
                assert_eq!((*clone).parent_net_buffer_list, original);
                assert_eq!((*original).child_ref_count, 1);
                assert_eq!(data::to_vec((*clone).first_net_buffer), b"and data");
                drop(packet);
                assert_eq!(data::to_vec((*clone).first_net_buffer), b"and data");
                assert!(data::retreat((*clone).first_net_buffer, 4, 0, None), "a clone has no room for headers");
                assert_eq!(data::to_vec((*clone).first_net_buffer), b"\0\0\0\0and data");
                data::advance((*clone).first_net_buffer, 4, true, None);
                free_list(clone, true, "test");
            }
        })
        .expect("no bugcheck");
        assert_eq!(machine.pool.usage(), (0, 0));
    }

    #[test]
    fn misuse_stops_the_machine() {
        let kinds: [(&str, fn()); 5] = [
            ("have not been freed", || {
                let handle = create(PoolKind::Lists { with_buffer: false }, DRIVER_TAG, 0, 0);
                // SAFETY: the pool is live.
                unsafe {
                    allocate_list(handle, 0, "test");
                    destroy(handle, "test");
                }
            }),
            ("not a clone", || {
                // SAFETY: the list is live.
                unsafe { free_list(allocate_list(null_mut(), 0, "test"), true, "test") };
            }),
            ("not allocated by the driver", || {
                let mut packet = PacketBuffer::copy_of(b"indicated");
                // SAFETY: the list is live.
                unsafe { free_list(packet.list(0, 0, 9), false, "test") };
            }),
            ("not a NET_BUFFER from a pool", || {
                let handle = create(PoolKind::Lists { with_buffer: true }, DRIVER_TAG, 0, 0);
                // SAFETY: the pool, the list and the list's packet are live.
                unsafe { free_buffer((*allocate_list(handle, 0, "test")).first_net_buffer, "test") };
            }),
            ("not a NET_BUFFER or list pool", || {
                let mut not_a_pool = [0u64; 8];
                // SAFETY: readable for the size of a pool.
                unsafe { destroy(not_a_pool.as_mut_ptr().cast(), "test") };
            }),
        ];
        for (expected, misuse) in kinds {
            let bugcheck = on(&Machine::new(), misuse).expect_err(expected);
            assert!(bugcheck.why.contains(expected), "{}", bugcheck.why);
        }
    }

    #[test]
    fn lists_of_a_pool_with_memory() {
        let machine = Machine::new();
        on(&machine, || {
            let handle = create(PoolKind::Lists { with_buffer: true }, DRIVER_TAG, 16, 100);
            // SAFETY: the pool is live.
            unsafe {
                let list = allocate_list(handle, 0, "test");
                let buffer = (*list).first_net_buffer;
                assert_eq!(((*buffer).data_length, (*(*buffer).mdl_chain).byte_count), (0, 100));
                data::describe(buffer, (*buffer).mdl_chain, 0, 100);
                assert_eq!(data::copy_in(buffer, 90, b"0123456789ab"), 10);
                free_list(list, false, "test");
                destroy(handle, "test");
            }
        })
        .expect("no bugcheck");
        assert_eq!(machine.pool.usage(), (0, 0));
    }

    #[test]
    fn packets_of_a_pool_with_memory() {
        let machine = Machine::new();
        on(&machine, || {
            let handle = create(PoolKind::Buffers, DRIVER_TAG, 0, 64);
            // SAFETY: the pool is live.
            unsafe {
                let buffer = allocate_buffer(handle, null_mut(), 0, 64, "test");
                assert_eq!(data::copy_in(buffer, 0, b"hello"), 5);
                assert_eq!(&data::to_vec(buffer)[..6], b"hello\0");
                free_buffer(buffer, "test");
                destroy(handle, "test");
            }
        })
        .expect("no bugcheck");
        assert_eq!(machine.pool.usage(), (0, 0));
    }
}

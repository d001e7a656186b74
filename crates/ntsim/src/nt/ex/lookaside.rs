//! Lookaside lists.
//!
//! Allocating from one and freeing to one are inline functions of wdm.h, over an SLIST in the list's header and the two
//! routines in it; what the kernel does is to fill the header in and to empty the list. The structure is
//! `GENERAL_LOOKASIDE_POOL` of wdm.h. With special pool the lists keep nothing, as under Driver Verifier, so that every
//! block goes through the checks of the pool.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use super::slist;
use crate::cpu;
use crate::export::exports;
use crate::nt::violation;
use crate::pe::gate::Catalogue;
use crate::verifier::callback::{self, At};
use core::mem::offset_of;
use core::ops::Range;
use core::ptr;
use nt_abi::Irql;
use nt_abi::NtStatus;
use parking_lot::Mutex;
use std::collections::BTreeMap;

exports! {
    "ntoskrnl.exe";
    ExInitializeLookasideListEx: DISPATCH,
    ExDeleteLookasideListEx: DISPATCH,
    ExFlushLookasideListEx: DISPATCH,
    ExInitializeNPagedLookasideList: DISPATCH,
    ExDeleteNPagedLookasideList: DISPATCH,
    ExInitializePagedLookasideList: APC,
    ExDeletePagedLookasideList: APC,
}

/// `GENERAL_LOOKASIDE_POOL`.
#[repr(C, align(16))]
struct List {
    head: slist::Head,
    depth: u16,
    maximum_depth: u16,
    total_allocates: u32,
    allocate_misses: u32,
    total_frees: u32,
    free_misses: u32,
    pool_type: u32,
    tag: u32,
    size: u32,
    allocate: *const (),
    free: *const (),
    link: [u64; 2],
    last: [u32; 2],
    future: [u32; 2],
}

const _: () = {
    assert!(size_of::<List>() == 0x60);
    assert!(offset_of!(List, depth) == 0x10);
    assert!(offset_of!(List, pool_type) == 0x24);
    assert!(offset_of!(List, size) == 0x2c);
    assert!(offset_of!(List, allocate) == 0x30);
    assert!(offset_of!(List, free) == 0x38);
    assert!(offset_of!(List, link) == 0x40);
};

/// Blocks a list keeps to begin with (ExMinimumLookasideDepth), and at most.
const DEPTH: u16 = 4;
const MAXIMUM_DEPTH: u16 = 256;
/// A free block holds an SLIST_ENTRY.
const SMALLEST: usize = 16;

/// POOL_TYPE values and flags.
const PAGED_POOL: u32 = 1;
const NON_PAGED_POOL: u32 = 0;
const NON_PAGED_POOL_NX: u32 = 0x200;
const POOL_RAISE_IF_ALLOCATION_FAILURE: u32 = 0x10;
const POOL_QUOTA_FAIL_INSTEAD_OF_RAISE: u32 = 0x8;
const POOL_NX_ALLOCATION: u32 = 0x200;
/// EX_LOOKASIDE_LIST_EX_FLAGS_*.
const RAISE_ON_FAIL: u32 = 1;
const FAIL_NO_RAISE: u32 = 2;
const STATUS_INVALID_PARAMETER_5: NtStatus = NtStatus(0xC000_00F3_u32 as i32);

/// The lookaside lists of one machine that are initialised.
#[derive(Debug, Default)]
pub struct Lookasides {
    /// Address to who initialised it.
    lists: Mutex<BTreeMap<u64, u64>>,
}

impl Lookasides {
    /// Lists that code within `range` initialised and did not delete.
    #[must_use]
    pub fn left_by(&self, range: &Range<u64>) -> Vec<String> {
        let lists = self.lists.lock();
        let theirs = lists.iter().filter(|(_, by)| range.contains(by));
        theirs.map(|(at, by)| format!("lookaside list {at:#x}, initialised by {}", cpu::frame_of(*by))).collect()
    }
}

/// What a list calls when the driver brings no routine: the import's own gate, so that the block is accounted to the
/// code that allocates from the list.
fn routine(given: *const (), name: &str) -> *const () {
    if !given.is_null() {
        return given;
    }
    match Catalogue::get().find("ntoskrnl.exe", name) {
        Some((_, gate)) => gate,
        None => unreachable!("{name} is in the export tables"),
    }
}

/// What is asked for when a list is initialised.
struct Request {
    allocate: *const (),
    free: *const (),
    pool_type: u32,
    size: usize,
    tag: u32,
}

fn initialize(list: *mut List, request: &Request) {
    if !list.is_aligned() {
        violation([0xE1, list as u64, 0, 0], format!("the lookaside list at {list:p} does not lie on 16 bytes"));
    }
    let caller = cpu::caller();
    let known = cpu::with_machine(|machine| {
        let lists = &machine.executive.lookasides.lists;
        lists.lock().insert(list as u64, caller).is_some()
    });
    if known {
        violation([0xCA, list as u64, 0, 0], format!("the lookaside list at {list:p} was initialised again"));
    }
    let keep = cpu::with_machine(|machine| !machine.pool.is_special());
    // SAFETY: the page demands nonpaged memory for a lookaside list, alignment of which is checked above, and which is
    // not read before this.
    unsafe {
        list.write(List {
            head: slist::Head::default(),
            depth: if keep { DEPTH } else { 0 },
            maximum_depth: if keep { MAXIMUM_DEPTH } else { 0 },
            total_allocates: 0,
            allocate_misses: 0,
            total_frees: 0,
            free_misses: 0,
            pool_type: request.pool_type,
            tag: request.tag,
            size: request.size.max(SMALLEST) as u32,
            allocate: routine(request.allocate, "ExAllocatePoolWithTag"),
            free: routine(request.free, "ExFreePool"),
            link: [list as u64 + offset_of!(List, link) as u64; 2],
            last: [0; 2],
            future: [0; 2],
        });
    }
}

/// Frees what a list keeps. The free routine of an `Ex` list also gets the list; the older ones ignore it.
fn flush(list: *mut List) {
    // SAFETY: an initialized list, by the table (`delete`) or by the page of ExFlushLookasideListEx, so `free` is the
    // driver's LOOKASIDE_FREE routine or the gate of ExFreePool. No lock is held while it runs.
    unsafe {
        let free: extern "win64" fn(*mut slist::Entry, *mut List) = core::mem::transmute((*list).free);
        loop {
            let block = slist::pop(&raw mut (*list).head);
            if block.is_null() {
                return;
            }
            callback::call(&At("the free routine of a lookaside list", (*list).free as u64), "FreeEx", || {
                free(block, list)
            });
        }
    }
}

fn delete(list: *mut List) {
    let known = cpu::with_machine(|machine| machine.executive.lookasides.lists.lock().remove(&(list as u64)).is_some());
    if !known {
        violation(
            [0xCB, list as u64, 0, 0],
            format!("the lookaside list at {list:p} was deleted but never initialised"),
        );
    }
    // SAFETY: the table above shows that the list was initialized; the page forbids its use by others during the
    // deletion.
    let paged = unsafe { (*list).pool_type } & PAGED_POOL != 0;
    if paged && cpu::irql() > Irql::APC {
        violation(
            [0x11, u64::from(cpu::irql().0), 1, list as u64],
            format!("the paged lookaside list at {list:p} was deleted at {}", cpu::irql()),
        );
    }
    flush(list);
    // SAFETY: the table above shows that the list was initialized; the page forbids its use by others during the
    // deletion.
    unsafe {
        (*list).allocate = ptr::null();
        (*list).free = ptr::null();
    }
}

unsafe extern "win64" fn ExInitializeLookasideListEx(
    list: *mut List,
    allocate: *const (),
    free: *const (),
    pool_type: u32,
    flags: u32,
    size: usize,
    tag: u32,
    _depth: u16,
) -> NtStatus {
    if flags & !(RAISE_ON_FAIL | FAIL_NO_RAISE) != 0 || flags == RAISE_ON_FAIL | FAIL_NO_RAISE {
        return STATUS_INVALID_PARAMETER_5;
    }
    let raise = if flags & RAISE_ON_FAIL != 0 { POOL_RAISE_IF_ALLOCATION_FAILURE } else { 0 };
    let quiet = if flags & FAIL_NO_RAISE != 0 { POOL_QUOTA_FAIL_INSTEAD_OF_RAISE } else { 0 };
    initialize(list, &Request { allocate, free, pool_type: pool_type | raise | quiet, size, tag });
    NtStatus::SUCCESS
}

/// `flags` may hold POOL_NX_ALLOCATION and POOL_RAISE_IF_ALLOCATION_FAILURE.
unsafe extern "win64" fn ExInitializeNPagedLookasideList(
    list: *mut List,
    allocate: *const (),
    free: *const (),
    flags: u32,
    size: usize,
    tag: u32,
    _depth: u16,
) {
    let base = if flags & POOL_NX_ALLOCATION != 0 { NON_PAGED_POOL_NX } else { NON_PAGED_POOL };
    let pool_type = base | flags & POOL_RAISE_IF_ALLOCATION_FAILURE;
    initialize(list, &Request { allocate, free, pool_type, size, tag });
}

unsafe extern "win64" fn ExInitializePagedLookasideList(
    list: *mut List,
    allocate: *const (),
    free: *const (),
    flags: u32,
    size: usize,
    tag: u32,
    _depth: u16,
) {
    let pool_type = PAGED_POOL | flags & POOL_RAISE_IF_ALLOCATION_FAILURE;
    initialize(list, &Request { allocate, free, pool_type, size, tag });
}

unsafe extern "win64" fn ExDeleteLookasideListEx(list: *mut List) {
    delete(list);
}

unsafe extern "win64" fn ExDeleteNPagedLookasideList(list: *mut List) {
    delete(list);
}

unsafe extern "win64" fn ExDeletePagedLookasideList(list: *mut List) {
    delete(list);
}

unsafe extern "win64" fn ExFlushLookasideListEx(list: *mut List) {
    flush(list);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Config, Machine};

    const TAG: u32 = u32::from_le_bytes(*b"Look");

    /// As the inline function of wdm.h.
    unsafe fn allocate(list: *mut List) -> *mut slist::Entry {
        // SAFETY: the test's list.
        unsafe {
            let kept = slist::pop(&raw mut (*list).head);
            if !kept.is_null() {
                return kept;
            }
            let routine: extern "win64" fn(u32, usize, u32, *mut List) -> *mut slist::Entry =
                core::mem::transmute((*list).allocate);
            routine((*list).pool_type, (*list).size as usize, (*list).tag, list)
        }
    }

    /// As the inline function of wdm.h.
    unsafe fn free(list: *mut List, block: *mut slist::Entry) {
        // SAFETY: the test's list and block.
        unsafe {
            if slist::depth(&raw const (*list).head) >= (*list).depth {
                let routine: extern "win64" fn(*mut slist::Entry, *mut List) = core::mem::transmute((*list).free);
                routine(block, list);
            } else {
                slist::push(&raw mut (*list).head, block);
            }
        }
    }

    fn list() -> Box<core::mem::MaybeUninit<List>> {
        Box::new_uninit()
    }

    #[test]
    fn a_list_keeps_some_blocks_and_deleting_it_frees_them() {
        let machine = Machine::new();
        cpu::enter(&machine, Irql::DISPATCH, || {
            let mut list = list();
            let list = list.as_mut_ptr();
            // SAFETY: the list is ours.
            unsafe {
                let status = ExInitializeLookasideListEx(list, ptr::null(), ptr::null(), 0x200, 0, 100, TAG, 0);
                assert_eq!(status, NtStatus::SUCCESS);
                let blocks = [(); 6].map(|()| allocate(list));
                assert_eq!(machine.pool.usage().0, 6);
                for block in blocks {
                    free(list, block);
                }
                assert_eq!(machine.pool.usage().0, usize::from(DEPTH));
                assert_eq!(allocate(list), blocks[3], "the last one kept comes first");
                free(list, blocks[3]);
                ExDeleteLookasideListEx(list);
            }
        })
        .unwrap();
        assert_eq!(machine.pool.usage().0, 0);
        assert!(machine.executive.lookasides.left_by(&(0..u64::MAX)).is_empty());
    }

    #[test]
    fn special_pool_sees_every_block() {
        let machine = Machine::with(Config { special_pool: true, ..Config::default() });
        cpu::enter(&machine, Irql::PASSIVE, || {
            let mut list = list();
            let list = list.as_mut_ptr();
            // SAFETY: the list is ours.
            unsafe {
                ExInitializeNPagedLookasideList(list, ptr::null(), ptr::null(), 0x200, 8, TAG, 0);
                assert_eq!((*list).size, 16, "room for an SLIST_ENTRY");
                free(list, allocate(list));
                assert_eq!(machine.pool.usage().0, 0);
                ExDeleteNPagedLookasideList(list);
            }
        })
        .unwrap();
    }

    #[test]
    fn a_drivers_own_routines_are_called() {
        static FREED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        static BLOCK: slist::Head = slist::Head::EMPTY;
        extern "win64" fn allocate_own(_: u32, _: usize, _: u32, _: *mut List) -> *mut slist::Entry {
            (&raw const BLOCK).cast_mut().cast()
        }
        extern "win64" fn free_own(_: *mut slist::Entry, _: *mut List) {
            FREED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        cpu::enter(&Machine::with(Config { special_pool: true, ..Config::default() }), Irql::PASSIVE, || {
            let mut list = list();
            let list = list.as_mut_ptr();
            // SAFETY: the list is ours.
            unsafe {
                let (a, f) = (allocate_own as *const (), free_own as *const ());
                ExInitializeLookasideListEx(list, a, f, 0x200, 0, 16, TAG, 0);
                free(list, allocate(list));
                ExDeleteLookasideListEx(list);
            }
        })
        .unwrap();
        assert_eq!(FREED.load(std::sync::atomic::Ordering::Relaxed), 1);
    }

    #[test]
    fn initialising_or_deleting_twice_stops_the_machine() {
        let again = cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let mut list = list();
            let list = list.as_mut_ptr();
            // SAFETY: the list is ours.
            unsafe {
                ExInitializePagedLookasideList(list, ptr::null(), ptr::null(), 0, 16, TAG, 0);
                ExInitializePagedLookasideList(list, ptr::null(), ptr::null(), 0, 16, TAG, 0);
            }
        });
        assert_eq!(again.unwrap_err().parameters[0], 0xCA);
        let never = cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            // SAFETY: not touched.
            unsafe { ExDeleteLookasideListEx(list().as_mut_ptr()) };
        });
        assert_eq!(never.unwrap_err().parameters[0], 0xCB);
    }

    #[test]
    fn contradicting_flags_are_refused() {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let mut list = list();
            // SAFETY: the list is ours.
            let status =
                unsafe { ExInitializeLookasideListEx(list.as_mut_ptr(), ptr::null(), ptr::null(), 0, 3, 16, TAG, 0) };
            assert_eq!(status, STATUS_INVALID_PARAMETER_5);
        })
        .unwrap();
    }
}

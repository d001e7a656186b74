//! Lists and counters that a spin lock of the driver guards.
//!
//! The routines raise to HIGH_LEVEL, so that an interrupt routine may use the same list. A list whose links contradict
//! each other stops the machine, as since Windows 8 ("Bug Check 0x139", parameter 3).

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu::{self, code};
use crate::export::exports;
use crate::nt::ke::spinlock;
use core::ptr;
use core::sync::atomic::AtomicU64;
use nt_abi::Irql;

exports! {
    "ntoskrnl.exe";
    ExInterlockedInsertHeadList: HIGH,
    ExInterlockedInsertTailList: HIGH,
    ExInterlockedRemoveHeadList: HIGH,
    ExInterlockedPushEntryList: HIGH,
    ExInterlockedPopEntryList: HIGH,
    ExInterlockedAddLargeInteger: HIGH,
    ExInterlockedAddUlong: HIGH,
}

/// `LIST_ENTRY`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct ListEntry {
    pub(crate) next: *mut ListEntry,
    pub(crate) previous: *mut ListEntry,
}

fn locked<R>(lock: *const AtomicU64, f: impl FnOnce() -> R) -> R {
    let old = cpu::raise(Irql::HIGH);
    // SAFETY: the pages demand an initialized KSPIN_LOCK; taking it twice stops the machine.
    unsafe { spinlock::acquire_at(lock) };
    let result = f();
    // SAFETY: the lock was acquired above.
    unsafe { spinlock::release_at(lock) };
    cpu::lower(old);
    result
}

/// Stops the machine unless both neighbours lead to `entry`.
///
/// # Safety
/// `entry` is a LIST_ENTRY in a list of the driver.
unsafe fn check(entry: *mut ListEntry) {
    // SAFETY: the caller's promise.
    let intact = unsafe { (*(*entry).next).previous == entry && (*(*entry).previous).next == entry };
    if !intact {
        cpu::bugcheck(
            code::KERNEL_SECURITY_CHECK_FAILURE,
            [3, entry as u64, 0, 0],
            format!("the list entry at {entry:p} is not what its neighbours point at: removed twice, or overwritten"),
        );
    }
}

/// Inserts after `before`.
///
/// # Safety
/// `before` is in a list, and `entry` in none.
unsafe fn insert_after(before: *mut ListEntry, entry: *mut ListEntry) {
    // SAFETY: the caller's promise.
    unsafe {
        let after = (*before).next;
        entry.write(ListEntry { next: after, previous: before });
        (*before).next = entry;
        (*after).previous = entry;
    }
}

/// Null when the list was empty, else what `neighbour` was.
fn unless_head(neighbour: *mut ListEntry, head: *mut ListEntry) -> *mut ListEntry {
    if neighbour == head { ptr::null_mut() } else { neighbour }
}

unsafe extern "win64" fn ExInterlockedInsertHeadList(
    head: *mut ListEntry,
    entry: *mut ListEntry,
    lock: *const AtomicU64,
) -> *mut ListEntry {
    // SAFETY: the page demands an initialized list whose every access is under this lock, and an entry in no list,
    // which the driver keeps; `check` verifies the links.
    locked(lock, || unsafe {
        check(head);
        let first = (*head).next;
        insert_after(head, entry);
        unless_head(first, head)
    })
}

unsafe extern "win64" fn ExInterlockedInsertTailList(
    head: *mut ListEntry,
    entry: *mut ListEntry,
    lock: *const AtomicU64,
) -> *mut ListEntry {
    // SAFETY: the page demands an initialized list whose every access is under this lock, and an entry in no list,
    // which the driver keeps; `check` verifies the links.
    locked(lock, || unsafe {
        check(head);
        let last = (*head).previous;
        insert_after(last, entry);
        unless_head(last, head)
    })
}

unsafe extern "win64" fn ExInterlockedRemoveHeadList(head: *mut ListEntry, lock: *const AtomicU64) -> *mut ListEntry {
    // SAFETY: the page demands an initialized list whose every access is under this lock; `check` verifies the links of
    // the entry that is removed.
    locked(lock, || unsafe {
        let first = (*head).next;
        if first == head {
            return ptr::null_mut();
        }
        check(head);
        check(first);
        (*head).next = (*first).next;
        (*(*first).next).previous = head;
        first
    })
}

/// `SINGLE_LIST_ENTRY` is one link; the head is one too.
unsafe extern "win64" fn ExInterlockedPushEntryList(
    head: *mut *mut u8,
    entry: *mut *mut u8,
    lock: *const AtomicU64,
) -> *mut u8 {
    // SAFETY: the page demands a list head whose every access is under this lock, and an entry in no list, which the
    // driver keeps.
    locked(lock, || unsafe {
        let first = head.read();
        entry.write(first);
        head.write(entry.cast());
        first
    })
}

unsafe extern "win64" fn ExInterlockedPopEntryList(head: *mut *mut u8, lock: *const AtomicU64) -> *mut u8 {
    // SAFETY: the page demands a list head whose every access is under this lock; an entry in the list is live memory
    // of the driver.
    locked(lock, || unsafe {
        let first = head.read();
        if !first.is_null() {
            head.write(first.cast::<*mut u8>().read());
        }
        first
    })
}

unsafe extern "win64" fn ExInterlockedAddLargeInteger(sum: *mut i64, by: i64, lock: *const AtomicU64) -> i64 {
    // SAFETY: the page demands an aligned number whose every access is under this lock.
    locked(lock, || unsafe {
        let before = sum.read();
        sum.write(before.wrapping_add(by));
        before
    })
}

unsafe extern "win64" fn ExInterlockedAddUlong(sum: *mut u32, by: u32, lock: *const AtomicU64) -> u32 {
    // SAFETY: the page demands an aligned number whose every access is under this lock.
    locked(lock, || unsafe {
        let before = sum.read();
        sum.write(before.wrapping_add(by));
        before
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    fn head() -> Box<ListEntry> {
        let mut head = Box::new(ListEntry { next: ptr::null_mut(), previous: ptr::null_mut() });
        let at: *mut ListEntry = &raw mut *head;
        *head = ListEntry { next: at, previous: at };
        head
    }

    #[test]
    fn entries_go_in_at_both_ends_and_out_at_the_head() {
        cpu::enter(&Machine::new(), Irql::DISPATCH, || {
            let (mut list, mut a, mut b, lock) = (head(), head(), head(), AtomicU64::new(0));
            let (list, a, b): (*mut _, *mut _, *mut _) = (&raw mut *list, &raw mut *a, &raw mut *b);
            // SAFETY: all ours.
            unsafe {
                assert!(ExInterlockedInsertHeadList(list, a, &lock).is_null(), "the list was empty");
                assert_eq!(ExInterlockedInsertTailList(list, b, &lock), a);
                assert_eq!(ExInterlockedRemoveHeadList(list, &lock), a);
                assert_eq!(ExInterlockedRemoveHeadList(list, &lock), b);
                assert!(ExInterlockedRemoveHeadList(list, &lock).is_null());
            }
            assert_eq!(cpu::irql(), Irql::DISPATCH);
        })
        .unwrap();
    }

    #[test]
    fn single_links_and_sums() {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let (mut list, mut entry, lock) = (ptr::null_mut(), ptr::null_mut(), AtomicU64::new(0));
            let (mut large, mut small) = (i64::MAX, 5);
            // SAFETY: all ours.
            unsafe {
                assert!(ExInterlockedPushEntryList(&mut list, &mut entry, &lock).is_null());
                assert_eq!(ExInterlockedPopEntryList(&mut list, &lock), (&raw mut entry).cast());
                assert!(ExInterlockedPopEntryList(&mut list, &lock).is_null());
                assert_eq!(ExInterlockedAddLargeInteger(&mut large, 1, &lock), i64::MAX);
                assert_eq!(ExInterlockedAddUlong(&mut small, 2, &lock), 5);
            }
            assert_eq!((large, small), (i64::MIN, 7));
        })
        .unwrap();
    }

    #[test]
    fn a_corrupt_list_stops_the_machine() {
        let stopped = cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let (mut list, mut a, lock) = (head(), head(), AtomicU64::new(0));
            list.next = &raw mut *a;
            // SAFETY: all ours.
            unsafe { ExInterlockedRemoveHeadList(&raw mut *list, &lock) };
        });
        let stopped = stopped.unwrap_err();
        assert_eq!((stopped.code, stopped.parameters[0]), (code::KERNEL_SECURITY_CHECK_FAILURE, 3));
    }
}

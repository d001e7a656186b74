//! Singly linked lists without a lock (`SLIST_HEADER`).
//!
//! The header is what wdm.h calls `HeaderX64`: depth (16 bits) and a sequence number (48), then the first entry, whose
//! low four bits are free because entries are on 16 bytes. Headers and drivers read the depth themselves, so the form
//! matters. All changes are one exchange of 16 bytes.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu::{self, code};
use crate::export::exports;

exports! {
    "ntoskrnl.exe";
    InitializeSListHead: HIGH,
    ExpInterlockedPushEntrySList: HIGH,
    ExpInterlockedPopEntrySList: HIGH,
    ExpInterlockedFlushSList: HIGH,
    ExInterlockedFlushSList: DISPATCH,
    ExQueryDepthSList: DISPATCH,
}

/// `SLIST_HEADER`.
#[repr(C, align(16))]
#[derive(Debug, Default)]
pub(crate) struct Head([u64; 2]);

/// `SLIST_ENTRY`.
#[repr(C, align(16))]
#[derive(Debug)]
pub(crate) struct Entry {
    next: *mut Entry,
    _unused: u64,
}

/// A header's value.
#[derive(Clone, Copy)]
struct Value(u128);

impl Head {
    /// An empty list.
    #[cfg(test)]
    pub(crate) const EMPTY: Self = Self([0; 2]);
}

impl Value {
    fn depth(self) -> u16 {
        self.0 as u16
    }

    fn first(self) -> *mut Entry {
        ((self.0 >> 64) as u64 & !0xf) as *mut Entry
    }

    /// What follows it: another first entry and depth, the next sequence number.
    fn next(self, first: *mut Entry, depth: u16) -> Self {
        let sequence = (self.0 as u64 >> 16).wrapping_add(1);
        let low = sequence << 16 | u64::from(depth);
        Self(u128::from(first as u64) << 64 | u128::from(low))
    }
}

/// Replaces the value at `at` if it is `old`; returns what it was.
///
/// The instruction itself, because the standard library's function for it calls into an atomics library that is not
/// there when nothing is optimised.
///
/// # Safety
/// `at` is aligned, and an SLIST_HEADER that is only changed through here; the processor has CMPXCHG16B.
unsafe fn exchange(at: *mut Head, old: u128, new: u128) -> u128 {
    let (low, high): (u64, u64);
    // SAFETY: the caller's promise. The compiler keeps rbx for itself, so it is put back.
    unsafe {
        core::arch::asm!(
            "xchg {new_low}, rbx",
            "lock cmpxchg16b [{at}]",
            "mov rbx, {new_low}",
            at = in(reg) at,
            new_low = inout(reg) new as u64 => _,
            in("rcx") (new >> 64) as u64,
            inout("rax") old as u64 => low,
            inout("rdx") (old >> 64) as u64 => high,
            options(nostack),
        );
    }
    u128::from(high) << 64 | u128::from(low)
}

/// Changes a header to what `f` makes of it, atomically; returns the value before.
///
/// # Safety
/// `head` is readable as an SLIST_HEADER.
unsafe fn change(head: *mut Head, mut f: impl FnMut(Value) -> Option<Value>) -> Value {
    if !head.is_aligned() {
        cpu::bugcheck(
            code::KMODE_EXCEPTION_NOT_HANDLED,
            [0xffff_ffff_8000_0002, head as u64, 0, 0], // STATUS_DATATYPE_MISALIGNMENT
            format!("{head:p} was used as SLIST_HEADER, which must lie on 16 bytes"),
        );
    }
    assert!(std::is_x86_feature_detected!("cmpxchg16b"), "Windows and ntsim need a processor with CMPXCHG16B");
    // SAFETY: the callers' pages demand an SLIST_HEADER, whose alignment is checked above; the two halves may be read
    // torn, and the exchange then fails.
    let [low, high] = unsafe { [(*head).0[0], (*head).0[1]] };
    let mut current = u128::from(high) << 64 | u128::from(low);
    loop {
        let Some(new) = f(Value(current)) else { return Value(current) };
        // SAFETY: aligned, and CMPXCHG16B is there, as checked above; every change of a header is such an exchange.
        let seen = unsafe { exchange(head, current, new.0) };
        if seen == current {
            return Value(current);
        }
        current = seen;
    }
}

/// Adds an entry in front; returns the one that was there.
///
/// # Safety
/// `head` is an initialized SLIST_HEADER, and `entry` is in no list.
pub(crate) unsafe fn push(head: *mut Head, entry: *mut Entry) -> *mut Entry {
    // SAFETY: the caller's promise; until the exchange succeeds the entry is nobody else's.
    unsafe {
        change(head, |value| {
            (*entry).next = value.first();
            Some(value.next(entry, value.depth().wrapping_add(1)))
        })
        .first()
    }
}

/// Takes the first entry out, or returns null.
///
/// Another processor may take the entry, and its owner free it, between the look at the header and the look at the
/// entry; the sequence number then makes the exchange fail. Windows lets that look fault and tries again. Here it reads
/// what freed pool holds, except with special pool, where it faults for good: a race of a few instructions.
///
/// # Safety
/// `head` is an initialized SLIST_HEADER.
pub(crate) unsafe fn pop(head: *mut Head) -> *mut Entry {
    // SAFETY: the caller's promise.
    unsafe {
        change(head, |value| {
            let first = value.first();
            if first.is_null() {
                return None;
            }
            let rest = (&raw const (*first).next).read_volatile();
            Some(value.next(rest, value.depth().wrapping_sub(1)))
        })
        .first()
    }
}

/// Takes all entries out; returns the first, from which the others hang.
///
/// # Safety
/// `head` is an initialized SLIST_HEADER.
unsafe fn flush(head: *mut Head) -> *mut Entry {
    // SAFETY: the caller's promise.
    unsafe { change(head, |value| (!value.first().is_null()).then(|| value.next(core::ptr::null_mut(), 0))).first() }
}

/// How many entries a list has.
///
/// # Safety
/// `head` is an initialized SLIST_HEADER.
pub(crate) unsafe fn depth(head: *const Head) -> u16 {
    // SAFETY: the caller's promise.
    unsafe { (&raw const (*head).0[0]).read_volatile() as u16 }
}

unsafe extern "win64" fn InitializeSListHead(head: *mut Head) {
    // SAFETY: the page demands memory for an SLIST_HEADER that nothing uses yet.
    unsafe { head.write(Head::default()) };
}

unsafe extern "win64" fn ExpInterlockedPushEntrySList(head: *mut Head, entry: *mut Entry) -> *mut Entry {
    if !entry.is_aligned() {
        cpu::bugcheck(
            code::KMODE_EXCEPTION_NOT_HANDLED,
            [0xffff_ffff_8000_0002, entry as u64, 0, 0],
            format!("{entry:p} was pushed to an SLIST, whose entries must lie on 16 bytes"),
        );
    }
    // SAFETY: the page demands an initialized SLIST_HEADER, whose alignment is checked, and an entry in no list, which
    // the driver keeps.
    unsafe { push(head, entry) }
}

unsafe extern "win64" fn ExpInterlockedPopEntrySList(head: *mut Head) -> *mut Entry {
    // SAFETY: the page demands an initialized SLIST_HEADER, whose alignment is checked; entries in a list are live
    // memory of the driver.
    unsafe { pop(head) }
}

unsafe extern "win64" fn ExpInterlockedFlushSList(head: *mut Head) -> *mut Entry {
    // SAFETY: the page demands an initialized SLIST_HEADER, whose alignment is checked; entries in a list are live
    // memory of the driver.
    unsafe { flush(head) }
}

unsafe extern "win64" fn ExInterlockedFlushSList(head: *mut Head) -> *mut Entry {
    // SAFETY: the page demands an initialized SLIST_HEADER, whose alignment is checked; entries in a list are live
    // memory of the driver.
    unsafe { flush(head) }
}

unsafe extern "win64" fn ExQueryDepthSList(head: *const Head) -> u16 {
    // SAFETY: the page demands an initialized SLIST_HEADER; one word of it is read.
    unsafe { depth(head) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use nt_abi::Irql;

    fn entry() -> Entry {
        Entry { next: core::ptr::null_mut(), _unused: 0 }
    }

    #[test]
    fn last_in_first_out_with_depth() {
        let (mut head, mut a, mut b) = (Head::default(), entry(), entry());
        let (a, b) = (&raw mut a, &raw mut b);
        // SAFETY: list and entries are ours.
        unsafe {
            assert!(push(&mut head, a).is_null());
            assert_eq!(push(&mut head, b), a);
            assert_eq!(ExQueryDepthSList(&head), 2);
            assert_eq!(pop(&mut head), b);
            assert_eq!(pop(&mut head), a);
            assert!(pop(&mut head).is_null());
            assert_eq!(depth(&head), 0);
            push(&mut head, a);
            push(&mut head, b);
            assert_eq!(flush(&mut head), b);
            assert_eq!((*b).next, a);
            assert_eq!(depth(&head), 0);
        }
    }

    #[test]
    fn entries_are_neither_lost_nor_given_twice() {
        struct Shared(*mut Head);
        // SAFETY: lists are changed by exchanges only.
        unsafe impl Sync for Shared {}
        const EACH: usize = 64;
        let mut head = Head::default();
        let entries: &'static mut [Entry] = Box::leak((0..4 * EACH).map(|_| entry()).collect());
        for entry in entries.iter_mut() {
            // SAFETY: ours.
            unsafe { push(&mut head, entry) };
        }
        let shared = Shared(&raw mut head);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let head = &shared;
                    for _ in 0..5000 {
                        // SAFETY: ours; an entry that was taken out is this thread's.
                        unsafe {
                            let taken = pop(head.0);
                            assert!(!taken.is_null());
                            push(head.0, taken);
                        }
                    }
                });
            }
        });
        let mut seen = std::collections::HashSet::new();
        loop {
            // SAFETY: ours.
            let taken = unsafe { pop(&mut head) };
            if taken.is_null() {
                break;
            }
            assert!(seen.insert(taken as usize));
        }
        assert_eq!(seen.len(), 4 * EACH);
    }

    #[test]
    fn a_misaligned_entry_stops_the_machine() {
        let stopped = cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let mut head = Head::default();
            // SAFETY: none; the check is what is tested.
            unsafe { ExpInterlockedPushEntrySList(&mut head, 0x1008 as *mut Entry) };
        });
        assert!(stopped.unwrap_err().why.contains("16 bytes"));
    }
}

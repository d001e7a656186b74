//! Rundown protection, plain and cache-aware.
//!
//! `EX_RUNDOWN_REF` is one word in driver memory: twice the number of holders, and bit 0 once the rundown has begun
//! (wdm.h). The waiter's address, which Windows puts into the word, is not needed: waiters look at the word. A
//! cache-aware reference is opaque to drivers; it holds one plain reference here, which changes its speed and nothing
//! else.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu::{self, code};
use crate::export::exports;
use crate::nt::pool::Kind;
use core::sync::atomic::{AtomicU64, Ordering};
use nt_abi::Irql;

exports! {
    "ntoskrnl.exe";
    ExInitializeRundownProtection: APC,
    ExReInitializeRundownProtection: APC,
    ExAcquireRundownProtection: DISPATCH,
    ExAcquireRundownProtectionEx: DISPATCH,
    ExReleaseRundownProtection: DISPATCH,
    ExReleaseRundownProtectionEx: DISPATCH,
    ExRundownCompleted: APC,
    ExWaitForRundownProtectionRelease: APC,
    ExAllocateCacheAwareRundownProtection: APC,
    ExFreeCacheAwareRundownProtection: APC,
    ExSizeOfRundownProtectionCacheAware: HIGH,
    ExInitializeRundownProtectionCacheAware: HIGH,
    ExReInitializeRundownProtectionCacheAware: HIGH,
    ExAcquireRundownProtectionCacheAware: DISPATCH,
    ExAcquireRundownProtectionCacheAwareEx: DISPATCH,
    ExReleaseRundownProtectionCacheAware: DISPATCH,
    ExReleaseRundownProtectionCacheAwareEx: DISPATCH,
    ExRundownCompletedCacheAware: HIGH,
    ExWaitForRundownProtectionReleaseCacheAware: APC,
}

/// EX_RUNDOWN_ACTIVE.
const ACTIVE: u64 = 1;
/// One holder.
const HOLDER: u64 = 2;

/// A reference in driver memory.
///
/// # Safety
/// `reference` points at an aligned word the driver uses as an `EX_RUNDOWN_REF`; when it does not, the access faults.
unsafe fn word<'a>(reference: *const AtomicU64) -> &'a AtomicU64 {
    // SAFETY: the caller's promise.
    unsafe { &*reference }
}

fn acquire(word: &AtomicU64, count: u64) -> bool {
    let taken = word.try_update(Ordering::Acquire, Ordering::Relaxed, |value| {
        (value & ACTIVE == 0).then(|| value.wrapping_add(count * HOLDER))
    });
    taken.is_ok()
}

fn release(word: &AtomicU64, count: u64) {
    let released = word.try_update(Ordering::Release, Ordering::Relaxed, |value| value.checked_sub(count * HOLDER));
    if released.is_err() {
        cpu::bugcheck(
            code::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [0x2008, word as *const _ as u64, count, 0],
            format!("the rundown protection at {word:p} was released more often than it was acquired"),
        );
    }
    if word.load(Ordering::Relaxed) == ACTIVE {
        cpu::with_machine(|machine| machine.dispatcher.notify());
    }
}

fn wait(word: &AtomicU64) {
    if cpu::irql() >= Irql::DISPATCH {
        cpu::bugcheck(
            code::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [0x3b, u64::from(cpu::irql().0), 0, 0],
            format!("a rundown was waited for at {}", cpu::irql()),
        );
    }
    word.fetch_or(ACTIVE, Ordering::AcqRel);
    cpu::with_machine(|machine| machine.dispatcher.wait_until(machine, || word.load(Ordering::Acquire) == ACTIVE));
}

unsafe extern "win64" fn ExInitializeRundownProtection(reference: *const AtomicU64) {
    // SAFETY: the page demands memory for an EX_RUNDOWN_REF, an aligned word that nothing uses yet or any more.
    unsafe { word(reference) }.store(0, Ordering::Release);
}

unsafe extern "win64" fn ExReInitializeRundownProtection(reference: *const AtomicU64) {
    // SAFETY: the page demands memory for an EX_RUNDOWN_REF, an aligned word that nothing uses yet or any more.
    unsafe { word(reference) }.store(0, Ordering::Release);
}

unsafe extern "win64" fn ExAcquireRundownProtection(reference: *const AtomicU64) -> u8 {
    // SAFETY: the page demands an initialized EX_RUNDOWN_REF, an aligned word that is only accessed atomically.
    u8::from(acquire(unsafe { word(reference) }, 1))
}

unsafe extern "win64" fn ExAcquireRundownProtectionEx(reference: *const AtomicU64, count: u32) -> u8 {
    // SAFETY: the page demands an initialized EX_RUNDOWN_REF, an aligned word that is only accessed atomically.
    u8::from(acquire(unsafe { word(reference) }, u64::from(count)))
}

unsafe extern "win64" fn ExReleaseRundownProtection(reference: *const AtomicU64) {
    // SAFETY: the page demands an EX_RUNDOWN_REF on which this caller holds protection; releasing more than was
    // acquired stops the machine.
    release(unsafe { word(reference) }, 1);
}

unsafe extern "win64" fn ExReleaseRundownProtectionEx(reference: *const AtomicU64, count: u32) {
    // SAFETY: the page demands an EX_RUNDOWN_REF on which this caller holds protection; releasing more than was
    // acquired stops the machine.
    release(unsafe { word(reference) }, u64::from(count));
}

unsafe extern "win64" fn ExRundownCompleted(reference: *const AtomicU64) {
    // SAFETY: the page demands an EX_RUNDOWN_REF whose rundown has been waited for, an aligned word that is only
    // accessed atomically.
    unsafe { word(reference) }.store(ACTIVE, Ordering::Release);
}

unsafe extern "win64" fn ExWaitForRundownProtectionRelease(reference: *const AtomicU64) {
    // SAFETY: the page demands an initialized EX_RUNDOWN_REF, an aligned word that is only accessed atomically.
    wait(unsafe { word(reference) });
}

extern "win64" fn ExAllocateCacheAwareRundownProtection(pool_type: u32, tag: u32) -> *mut u8 {
    let kind = if pool_type & 1 == 1 { Kind::Paged } else { Kind::NonPaged };
    cpu::with_machine(|machine| {
        if machine.low_resources.fails("ExAllocateCacheAwareRundownProtection") {
            return core::ptr::null_mut();
        }
        machine.pool.allocate(tag, ExSizeOfRundownProtectionCacheAware(), kind)
    })
}

extern "win64" fn ExFreeCacheAwareRundownProtection(reference: *mut u8) {
    cpu::with_machine(|machine| machine.pool.free(reference, 0));
}

extern "win64" fn ExSizeOfRundownProtectionCacheAware() -> usize {
    64
}

unsafe extern "win64" fn ExInitializeRundownProtectionCacheAware(reference: *const AtomicU64, _size: usize) {
    // SAFETY: the page demands memory of the size that ExSizeOfRundownProtectionCacheAware returned, which holds one
    // EX_RUNDOWN_REF.
    unsafe { ExInitializeRundownProtection(reference) };
}

unsafe extern "win64" fn ExReInitializeRundownProtectionCacheAware(reference: *const AtomicU64) {
    // SAFETY: the page demands memory of the size that ExSizeOfRundownProtectionCacheAware returned, which holds one
    // EX_RUNDOWN_REF.
    unsafe { ExInitializeRundownProtection(reference) };
}

unsafe extern "win64" fn ExAcquireRundownProtectionCacheAware(reference: *const AtomicU64) -> u8 {
    // SAFETY: the page demands an initialized EX_RUNDOWN_REF_CACHE_AWARE, which holds one EX_RUNDOWN_REF.
    u8::from(acquire(unsafe { word(reference) }, 1))
}

unsafe extern "win64" fn ExAcquireRundownProtectionCacheAwareEx(reference: *const AtomicU64, count: u32) -> u8 {
    // SAFETY: the page demands an initialized EX_RUNDOWN_REF_CACHE_AWARE, which holds one EX_RUNDOWN_REF.
    u8::from(acquire(unsafe { word(reference) }, u64::from(count)))
}

unsafe extern "win64" fn ExReleaseRundownProtectionCacheAware(reference: *const AtomicU64) {
    // SAFETY: the page demands a reference on which this caller holds protection; releasing more than was acquired
    // stops the machine.
    release(unsafe { word(reference) }, 1);
}

unsafe extern "win64" fn ExReleaseRundownProtectionCacheAwareEx(reference: *const AtomicU64, count: u32) {
    // SAFETY: the page demands a reference on which this caller holds protection; releasing more than was acquired
    // stops the machine.
    release(unsafe { word(reference) }, u64::from(count));
}

unsafe extern "win64" fn ExRundownCompletedCacheAware(reference: *const AtomicU64) {
    // SAFETY: the page demands an EX_RUNDOWN_REF_CACHE_AWARE whose rundown has been waited for.
    unsafe { ExRundownCompleted(reference) };
}

unsafe extern "win64" fn ExWaitForRundownProtectionReleaseCacheAware(reference: *const AtomicU64) {
    // SAFETY: the page demands an initialized EX_RUNDOWN_REF_CACHE_AWARE, which holds one EX_RUNDOWN_REF.
    wait(unsafe { word(reference) });
}

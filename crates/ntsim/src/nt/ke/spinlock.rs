//! Spin locks: `KSPIN_LOCK`, in-stack queued ones, and reader/writer ones (`EX_SPIN_LOCK`).
//!
//! A `KSPIN_LOCK` is one word in driver memory. It holds its owner while it is held, as in checked builds of Windows,
//! so that a lock taken twice or released by somebody else is found. Queued locks exclude in the same way; that
//! waiters get them in order is not modelled.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu::{self, code};
use crate::export::exports;
use crate::verifier::locks::{self, Class};
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use nt_abi::Irql;

// Where a routine wants DISPATCH_LEVEL at least, its page says so and names no level above which it may not be called;
// only KeReleaseSpinLockFromDpcLevel's names DISPATCH_LEVEL alone, against that of the routine it belongs to.
exports! {
    "ntoskrnl.exe";
    KeInitializeSpinLock: HIGH,
    KeAcquireSpinLockRaiseToDpc: DISPATCH,
    KeReleaseSpinLock: DISPATCH,
    KeAcquireSpinLockAtDpcLevel: HIGH,
    KeReleaseSpinLockFromDpcLevel: HIGH,
    KeTryToAcquireSpinLockAtDpcLevel: HIGH,
    KeTestSpinLock: HIGH,
    KeAcquireInStackQueuedSpinLock: DISPATCH,
    KeReleaseInStackQueuedSpinLock: DISPATCH,
    KeAcquireInStackQueuedSpinLockAtDpcLevel: HIGH,
    KeReleaseInStackQueuedSpinLockFromDpcLevel: HIGH,
    ExAcquireSpinLockShared: DISPATCH,
    ExReleaseSpinLockShared: DISPATCH,
    ExAcquireSpinLockSharedAtDpcLevel: HIGH,
    ExReleaseSpinLockSharedFromDpcLevel: HIGH,
    ExAcquireSpinLockExclusive: DISPATCH,
    ExReleaseSpinLockExclusive: DISPATCH,
    ExAcquireSpinLockExclusiveAtDpcLevel: HIGH,
    ExReleaseSpinLockExclusiveFromDpcLevel: HIGH,
    ExTryConvertSharedSpinLockExclusive: DISPATCH,
}

/// `KLOCK_QUEUE_HANDLE` (wdm.h).
#[repr(C)]
struct LockQueueHandle {
    next: u64,
    lock: *const AtomicU64,
    old_irql: u8,
}

/// What a lock holds while this thread has it.
fn me() -> u64 {
    cpu::current_processor().thread() | 1
}

fn spin(mut attempt: impl FnMut() -> bool) {
    for round in 1_u32.. {
        if attempt() {
            return;
        }
        cpu::leave_if_stopped();
        if round.is_multiple_of(64) { std::thread::yield_now() } else { core::hint::spin_loop() }
    }
}

fn address<T>(lock: &T) -> u64 {
    core::ptr::from_ref(lock) as u64
}

fn acquire(lock: &AtomicU64) {
    let me = me();
    let take = || lock.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed);
    locks::wanted(address(lock));
    match take() {
        Ok(_) => {}
        Err(owner) if owner == me => cpu::bugcheck(
            code::SPIN_LOCK_ALREADY_OWNED,
            [lock as *const _ as u64, 0, 0, 0],
            format!("the spin lock at {lock:p} was acquired by the processor that holds it"),
        ),
        Err(_) => spin(|| take().is_ok()),
    }
    locks::acquired(address(lock), Class::Spin);
}

fn release(lock: &AtomicU64) {
    if lock.compare_exchange(me(), 0, Ordering::Release, Ordering::Relaxed).is_err() {
        cpu::bugcheck(
            code::SPIN_LOCK_NOT_OWNED,
            [lock as *const _ as u64, 0, 0, 0],
            format!("the spin lock at {lock:p} was released by a processor that does not hold it"),
        );
    }
    locks::released(address(lock), Class::Spin);
}

/// The routines "at DPC level" do not raise: a caller below would be preempted with the lock held.
fn expect_dispatch(what: &str) {
    if cpu::irql() < Irql::DISPATCH {
        cpu::bugcheck(
            code::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [0x40, u64::from(cpu::irql().0), 0, 0],
            format!("{what} was called at {}; it must be called at DISPATCH_LEVEL", cpu::irql()),
        );
    }
}

/// A lock in driver memory.
///
/// # Safety
/// `lock` points at an aligned word the driver uses as a spin lock. When it does not, the access faults, which stops
/// the machine.
unsafe fn word<'a>(lock: *const AtomicU64) -> &'a AtomicU64 {
    // SAFETY: the caller's promise.
    unsafe { &*lock }
}

/// Acquires a driver's spin lock at the current level.
///
/// # Safety
/// As [`word`].
pub(crate) unsafe fn acquire_at(lock: *const AtomicU64) {
    // SAFETY: the caller's promise.
    acquire(unsafe { word(lock) });
}

/// Releases what [`acquire_at`] acquired.
///
/// # Safety
/// As [`word`].
pub(crate) unsafe fn release_at(lock: *const AtomicU64) {
    // SAFETY: the caller's promise.
    release(unsafe { word(lock) });
}

unsafe extern "win64" fn KeInitializeSpinLock(lock: *const AtomicU64) {
    // SAFETY: the page demands nonpaged memory for a KSPIN_LOCK, an aligned word that nothing uses yet.
    unsafe { word(lock) }.store(0, Ordering::Release);
    let address = lock as u64;
    cpu::with_machine(|machine| machine.lock_order.forget(&(address..address + 8)));
}

unsafe extern "win64" fn KeAcquireSpinLockRaiseToDpc(lock: *const AtomicU64) -> u8 {
    let old = cpu::raise(Irql::DISPATCH);
    // SAFETY: the page demands an initialized KSPIN_LOCK, an aligned word in nonpaged memory that is only accessed
    // atomically; acquiring it twice stops the machine.
    acquire(unsafe { word(lock) });
    old.0
}

unsafe extern "win64" fn KeReleaseSpinLock(lock: *const AtomicU64, old: u8) {
    // SAFETY: the page demands an initialized KSPIN_LOCK, an aligned word in nonpaged memory that is only accessed
    // atomically; releasing it from a processor that does not hold it stops the machine.
    release(unsafe { word(lock) });
    cpu::lower(Irql(old));
}

unsafe extern "win64" fn KeAcquireSpinLockAtDpcLevel(lock: *const AtomicU64) {
    expect_dispatch("KeAcquireSpinLockAtDpcLevel");
    // SAFETY: the page demands an initialized KSPIN_LOCK, an aligned word in nonpaged memory that is only accessed
    // atomically; acquiring it twice stops the machine.
    acquire(unsafe { word(lock) });
}

unsafe extern "win64" fn KeReleaseSpinLockFromDpcLevel(lock: *const AtomicU64) {
    expect_dispatch("KeReleaseSpinLockFromDpcLevel");
    // SAFETY: the page demands an initialized KSPIN_LOCK, an aligned word in nonpaged memory that is only accessed
    // atomically; releasing it from a processor that does not hold it stops the machine.
    release(unsafe { word(lock) });
}

unsafe extern "win64" fn KeTryToAcquireSpinLockAtDpcLevel(lock: *const AtomicU64) -> u8 {
    expect_dispatch("KeTryToAcquireSpinLockAtDpcLevel");
    // SAFETY: the page demands an initialized KSPIN_LOCK, an aligned word in nonpaged memory that is only accessed
    // atomically.
    let lock = unsafe { word(lock) };
    let taken = lock.compare_exchange(0, me(), Ordering::Acquire, Ordering::Relaxed).is_ok();
    if taken {
        locks::acquired(address(lock), Class::Spin);
    }
    u8::from(taken)
}

unsafe extern "win64" fn KeTestSpinLock(lock: *const AtomicU64) -> u8 {
    // SAFETY: the page demands an initialized KSPIN_LOCK, an aligned word in nonpaged memory that is only accessed
    // atomically.
    u8::from(unsafe { word(lock) }.load(Ordering::Acquire) == 0)
}

unsafe extern "win64" fn KeAcquireInStackQueuedSpinLock(lock: *const AtomicU64, handle: *mut LockQueueHandle) {
    let old = cpu::raise(Irql::DISPATCH);
    // SAFETY: the page demands an initialized KSPIN_LOCK, an aligned word in nonpaged memory that is only accessed
    // atomically, and a KLOCK_QUEUE_HANDLE that is the caller's until the release; it is only written.
    unsafe {
        acquire(word(lock));
        handle.write(LockQueueHandle { next: 0, lock, old_irql: old.0 });
    }
}

unsafe extern "win64" fn KeReleaseInStackQueuedSpinLock(handle: *mut LockQueueHandle) {
    // SAFETY: the page demands the KLOCK_QUEUE_HANDLE of the acquisition, whose members ntsim wrote; releasing a lock
    // that this processor does not hold stops the machine.
    let (lock, old) = unsafe { (word((*handle).lock), (*handle).old_irql) };
    release(lock);
    cpu::lower(Irql(old));
}

unsafe extern "win64" fn KeAcquireInStackQueuedSpinLockAtDpcLevel(
    lock: *const AtomicU64,
    handle: *mut LockQueueHandle,
) {
    expect_dispatch("KeAcquireInStackQueuedSpinLockAtDpcLevel");
    // SAFETY: the page demands an initialized KSPIN_LOCK, an aligned word in nonpaged memory that is only accessed
    // atomically, and a KLOCK_QUEUE_HANDLE that is the caller's until the release; it is only written.
    unsafe {
        acquire(word(lock));
        handle.write(LockQueueHandle { next: 0, lock, old_irql: Irql::DISPATCH.0 });
    }
}

unsafe extern "win64" fn KeReleaseInStackQueuedSpinLockFromDpcLevel(handle: *mut LockQueueHandle) {
    expect_dispatch("KeReleaseInStackQueuedSpinLockFromDpcLevel");
    // SAFETY: the page demands the KLOCK_QUEUE_HANDLE of the acquisition, whose members ntsim wrote; releasing a lock
    // that this processor does not hold stops the machine.
    release(unsafe { word((*handle).lock) });
}

/// The bit of an `EX_SPIN_LOCK` that a writer sets; the rest counts readers.
const EXCLUSIVE: i32 = i32::MIN;

/// "Recursive acquisition of a spin lock causes deadlock and is not allowed" (ExAcquireSpinLockShared's page), for
/// readers too: a writer that waits keeps new readers out.
fn expect_not_held(lock: &AtomicI32) {
    if locks::holds(address(lock)) {
        cpu::bugcheck(
            code::SPIN_LOCK_ALREADY_OWNED,
            [address(lock), 0, 0, 0],
            format!("the reader/writer spin lock at {lock:p} was acquired by the processor that holds it"),
        );
    }
}

fn acquire_shared(lock: &AtomicI32) {
    expect_not_held(lock);
    spin(|| {
        let readers = lock.load(Ordering::Relaxed);
        readers >= 0 && lock.compare_exchange(readers, readers + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    });
    locks::acquired(address(lock), Class::SharedSpin);
}

fn release_shared(lock: &AtomicI32) {
    let before = lock.fetch_sub(1, Ordering::Release);
    if before & !EXCLUSIVE == 0 {
        not_owned(lock, "shared");
    }
    locks::released(address(lock), Class::SharedSpin);
}

fn acquire_exclusive(lock: &AtomicI32) {
    expect_not_held(lock);
    locks::wanted(address(lock));
    spin(|| lock.compare_exchange(0, EXCLUSIVE, Ordering::Acquire, Ordering::Relaxed).is_ok());
    locks::acquired(address(lock), Class::Spin);
}

fn release_exclusive(lock: &AtomicI32) {
    if lock.compare_exchange(EXCLUSIVE, 0, Ordering::Release, Ordering::Relaxed).is_err() {
        not_owned(lock, "exclusively");
    }
    locks::released(address(lock), Class::Spin);
}

fn not_owned(lock: &AtomicI32, how: &str) -> ! {
    cpu::bugcheck(
        code::SPIN_LOCK_NOT_OWNED,
        [lock as *const _ as u64, 0, 0, 0],
        format!("the reader/writer spin lock at {lock:p} was released but is not held {how}"),
    )
}

/// As [`word`], for an `EX_SPIN_LOCK`.
///
/// # Safety
/// As [`word`].
unsafe fn long<'a>(lock: *const AtomicI32) -> &'a AtomicI32 {
    // SAFETY: the caller's promise.
    unsafe { &*lock }
}

unsafe extern "win64" fn ExAcquireSpinLockShared(lock: *const AtomicI32) -> u8 {
    let old = cpu::raise(Irql::DISPATCH);
    // SAFETY: the page demands an initialized EX_SPIN_LOCK, an aligned LONG in nonpaged memory that is only accessed
    // atomically; acquiring it twice stops the machine.
    acquire_shared(unsafe { long(lock) });
    old.0
}

unsafe extern "win64" fn ExReleaseSpinLockShared(lock: *const AtomicI32, old: u8) {
    // SAFETY: the page demands an initialized EX_SPIN_LOCK, an aligned LONG in nonpaged memory that is only accessed
    // atomically; releasing one that is not held so stops the machine.
    release_shared(unsafe { long(lock) });
    cpu::lower(Irql(old));
}

unsafe extern "win64" fn ExAcquireSpinLockSharedAtDpcLevel(lock: *const AtomicI32) {
    expect_dispatch("ExAcquireSpinLockSharedAtDpcLevel");
    // SAFETY: the page demands an initialized EX_SPIN_LOCK, an aligned LONG in nonpaged memory that is only accessed
    // atomically; acquiring it twice stops the machine.
    acquire_shared(unsafe { long(lock) });
}

unsafe extern "win64" fn ExReleaseSpinLockSharedFromDpcLevel(lock: *const AtomicI32) {
    expect_dispatch("ExReleaseSpinLockSharedFromDpcLevel");
    // SAFETY: the page demands an initialized EX_SPIN_LOCK, an aligned LONG in nonpaged memory that is only accessed
    // atomically; releasing one that is not held so stops the machine.
    release_shared(unsafe { long(lock) });
}

unsafe extern "win64" fn ExAcquireSpinLockExclusive(lock: *const AtomicI32) -> u8 {
    let old = cpu::raise(Irql::DISPATCH);
    // SAFETY: the page demands an initialized EX_SPIN_LOCK, an aligned LONG in nonpaged memory that is only accessed
    // atomically; acquiring it twice stops the machine.
    acquire_exclusive(unsafe { long(lock) });
    old.0
}

unsafe extern "win64" fn ExReleaseSpinLockExclusive(lock: *const AtomicI32, old: u8) {
    // SAFETY: the page demands an initialized EX_SPIN_LOCK, an aligned LONG in nonpaged memory that is only accessed
    // atomically; releasing one that is not held so stops the machine.
    release_exclusive(unsafe { long(lock) });
    cpu::lower(Irql(old));
}

unsafe extern "win64" fn ExAcquireSpinLockExclusiveAtDpcLevel(lock: *const AtomicI32) {
    expect_dispatch("ExAcquireSpinLockExclusiveAtDpcLevel");
    // SAFETY: the page demands an initialized EX_SPIN_LOCK, an aligned LONG in nonpaged memory that is only accessed
    // atomically; acquiring it twice stops the machine.
    acquire_exclusive(unsafe { long(lock) });
}

unsafe extern "win64" fn ExReleaseSpinLockExclusiveFromDpcLevel(lock: *const AtomicI32) {
    expect_dispatch("ExReleaseSpinLockExclusiveFromDpcLevel");
    // SAFETY: the page demands an initialized EX_SPIN_LOCK, an aligned LONG in nonpaged memory that is only accessed
    // atomically; releasing one that is not held so stops the machine.
    release_exclusive(unsafe { long(lock) });
}

unsafe extern "win64" fn ExTryConvertSharedSpinLockExclusive(lock: *const AtomicI32) -> u32 {
    // SAFETY: the page demands an initialized EX_SPIN_LOCK, an aligned LONG in nonpaged memory that is only accessed
    // atomically.
    let lock = unsafe { long(lock) };
    let converted = lock.compare_exchange(1, EXCLUSIVE, Ordering::Acquire, Ordering::Relaxed).is_ok();
    if converted {
        locks::released(address(lock), Class::SharedSpin);
        locks::acquired(address(lock), Class::Spin);
    }
    u32::from(converted)
}

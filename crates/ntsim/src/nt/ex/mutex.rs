//! Fast mutexes and guarded mutexes.
//!
//! One structure, `FAST_MUTEX` of wdm.h, since Windows 8; `ExInitializeFastMutex` is inline. Acquiring a fast mutex
//! raises to APC_LEVEL, acquiring a guarded one enters a guarded region. Neither may be acquired by its owner.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use crate::nt::ke::apc;
use crate::nt::ke::dispatcher::{self, Header};
use crate::nt::violation;
use crate::verifier::locks::{self, Class};
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use nt_abi::Irql;

exports! {
    "ntoskrnl.exe";
    ExAcquireFastMutex: APC,
    ExReleaseFastMutex: APC,
    ExTryToAcquireFastMutex: APC,
    ExAcquireFastMutexUnsafe: APC,
    ExReleaseFastMutexUnsafe: APC,
    ExEnterCriticalRegionAndAcquireFastMutexUnsafe: APC,
    ExReleaseFastMutexUnsafeAndLeaveCriticalRegion: APC,
    KeInitializeGuardedMutex: APC,
    KeAcquireGuardedMutex: APC,
    KeReleaseGuardedMutex: APC,
    KeTryToAcquireGuardedMutex: APC,
    KeAcquireGuardedMutexUnsafe: APC,
    KeReleaseGuardedMutexUnsafe: APC,
}

/// `FAST_MUTEX`.
#[repr(C)]
struct FastMutex {
    /// 1 when it is free, 0 or less when it is held (FM_LOCK_BIT).
    count: AtomicI32,
    owner: AtomicU64,
    contention: AtomicI32,
    event: Header,
    old_irql: u32,
}

const _: () = assert!(size_of::<FastMutex>() == 0x38);

fn take(mutex: &FastMutex) -> bool {
    mutex.count.compare_exchange(1, 0, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

fn acquire(mutex: &FastMutex) {
    let me = cpu::current_processor().thread();
    if mutex.owner.load(Ordering::Relaxed) == me {
        violation(
            [0x1000, core::ptr::from_ref(mutex) as u64, 0, 0],
            format!("the mutex at {mutex:p} was acquired again by the thread that holds it"),
        );
    }
    locks::wanted(core::ptr::from_ref(mutex) as u64);
    if !take(mutex) {
        mutex.contention.fetch_add(1, Ordering::Relaxed);
        cpu::with_machine(|machine| machine.dispatcher.wait_until(machine, || take(mutex)));
    }
    mutex.owner.store(me, Ordering::Relaxed);
    locks::acquired(core::ptr::from_ref(mutex) as u64, Class::Wait);
}

fn try_acquire(mutex: &FastMutex) -> bool {
    let taken = take(mutex);
    if taken {
        mutex.owner.store(cpu::current_processor().thread(), Ordering::Relaxed);
        locks::acquired(core::ptr::from_ref(mutex) as u64, Class::Wait);
    }
    taken
}

fn release(mutex: &FastMutex) {
    let owner = mutex.owner.load(Ordering::Relaxed);
    if owner != cpu::current_processor().thread() {
        let (parameter, who) = if owner == 0 { (0x1007, "nobody holds") } else { (0x1004, "another thread holds") };
        violation(
            [parameter, core::ptr::from_ref(mutex) as u64, owner, 0],
            format!("the mutex at {mutex:p} was released, which {who}"),
        );
    }
    mutex.owner.store(0, Ordering::Relaxed);
    locks::released(core::ptr::from_ref(mutex) as u64, Class::Wait);
    cpu::with_machine(|machine| machine.dispatcher.change(|| mutex.count.store(1, Ordering::Release)));
}

/// The mutex behind a driver's pointer.
///
/// # Safety
/// `mutex` is an initialised FAST_MUTEX of the driver; a wrong pointer faults, with nothing held.
unsafe fn at<'a>(mutex: *const FastMutex) -> &'a FastMutex {
    // SAFETY: the caller's promise.
    unsafe { &*mutex }
}

/// The "unsafe" forms leave it to the caller to hold off APCs.
fn expect_no_apcs(mutex: *const FastMutex, parameter: u64, verb: &str) {
    if !apc::are_disabled() {
        violation(
            [parameter, u64::from(cpu::irql().0), apc::disable_count(), mutex as u64],
            format!("the mutex at {mutex:p} was {verb} \"unsafe\" outside a critical region and below APC_LEVEL"),
        );
    }
}

unsafe extern "win64" fn ExAcquireFastMutex(mutex: *mut FastMutex) {
    let old = cpu::raise(Irql::APC);
    // SAFETY: the page demands an initialized FAST_MUTEX in nonpaged memory. `old_irql` is written by the holder only,
    // and this thread has just acquired it.
    unsafe {
        acquire(at(mutex));
        (&raw mut (*mutex).old_irql).write(old.0.into());
    }
}

unsafe extern "win64" fn ExTryToAcquireFastMutex(mutex: *mut FastMutex) -> u8 {
    let old = cpu::raise(Irql::APC);
    // SAFETY: the page demands an initialized FAST_MUTEX in nonpaged memory; its count is accessed atomically.
    let taken = unsafe { try_acquire(at(mutex)) };
    if taken {
        // SAFETY: as above; this thread has just acquired the mutex, so `old_irql` is its to write.
        unsafe { (&raw mut (*mutex).old_irql).write(old.0.into()) };
    } else {
        cpu::lower(old);
    }
    u8::from(taken)
}

unsafe extern "win64" fn ExReleaseFastMutex(mutex: *mut FastMutex) {
    let irql = cpu::irql();
    if irql != Irql::APC {
        violation(
            [0x34, u64::from(irql.0), mutex as u64, 0],
            format!("the fast mutex at {mutex:p} was released at {irql}; its holder is at APC_LEVEL"),
        );
    }
    // SAFETY: the page demands an initialized FAST_MUTEX in nonpaged memory. `release` checks that this thread holds
    // it, and stops the machine otherwise; the level is only used afterwards.
    let old = unsafe {
        let old = (&raw const (*mutex).old_irql).read();
        release(at(mutex));
        old
    };
    cpu::lower(Irql(old as u8));
}

unsafe extern "win64" fn ExAcquireFastMutexUnsafe(mutex: *mut FastMutex) {
    expect_no_apcs(mutex, 0x39, "acquired");
    // SAFETY: the page demands an initialized FAST_MUTEX in nonpaged memory; acquiring it twice stops the machine.
    acquire(unsafe { at(mutex) });
}

unsafe extern "win64" fn ExReleaseFastMutexUnsafe(mutex: *mut FastMutex) {
    expect_no_apcs(mutex, 0x3A, "released");
    // SAFETY: the page demands an initialized FAST_MUTEX in nonpaged memory; `release` checks that this thread holds
    // it.
    release(unsafe { at(mutex) });
}

unsafe extern "win64" fn ExEnterCriticalRegionAndAcquireFastMutexUnsafe(mutex: *mut FastMutex) {
    apc::KeEnterCriticalRegion();
    // SAFETY: the page demands an initialized FAST_MUTEX in nonpaged memory; acquiring it twice stops the machine.
    acquire(unsafe { at(mutex) });
}

unsafe extern "win64" fn ExReleaseFastMutexUnsafeAndLeaveCriticalRegion(mutex: *mut FastMutex) {
    // SAFETY: the page demands an initialized FAST_MUTEX in nonpaged memory; `release` checks that this thread holds
    // it.
    release(unsafe { at(mutex) });
    apc::KeLeaveCriticalRegion();
}

unsafe extern "win64" fn KeInitializeGuardedMutex(mutex: *mut FastMutex) {
    // SAFETY: the page demands nonpaged memory of a FAST_MUTEX's size; every member is written, none read.
    unsafe {
        (&raw mut (*mutex).count).write(AtomicI32::new(1));
        (&raw mut (*mutex).owner).write(AtomicU64::new(0));
        (&raw mut (*mutex).contention).write(AtomicI32::new(0));
        dispatcher::initialize(&raw mut (*mutex).event, dispatcher::kind::SYNCHRONIZATION_EVENT, 0);
        (&raw mut (*mutex).old_irql).write(0);
    }
}

unsafe extern "win64" fn KeAcquireGuardedMutex(mutex: *mut FastMutex) {
    apc::KeEnterGuardedRegion();
    // SAFETY: the page demands an initialized FAST_MUTEX in nonpaged memory; acquiring it twice stops the machine.
    acquire(unsafe { at(mutex) });
}

unsafe extern "win64" fn KeReleaseGuardedMutex(mutex: *mut FastMutex) {
    // SAFETY: the page demands an initialized FAST_MUTEX in nonpaged memory; `release` checks that this thread holds
    // it.
    release(unsafe { at(mutex) });
    apc::KeLeaveGuardedRegion();
}

unsafe extern "win64" fn KeTryToAcquireGuardedMutex(mutex: *mut FastMutex) -> u8 {
    apc::KeEnterGuardedRegion();
    // SAFETY: the page demands an initialized FAST_MUTEX in nonpaged memory; its count is accessed atomically.
    let taken = try_acquire(unsafe { at(mutex) });
    if !taken {
        apc::KeLeaveGuardedRegion();
    }
    u8::from(taken)
}

unsafe extern "win64" fn KeAcquireGuardedMutexUnsafe(mutex: *mut FastMutex) {
    expect_no_apcs(mutex, 0x39, "acquired");
    // SAFETY: the page demands an initialized FAST_MUTEX in nonpaged memory; acquiring it twice stops the machine.
    acquire(unsafe { at(mutex) });
}

unsafe extern "win64" fn KeReleaseGuardedMutexUnsafe(mutex: *mut FastMutex) {
    expect_no_apcs(mutex, 0x3A, "released");
    // SAFETY: the page demands an initialized FAST_MUTEX in nonpaged memory; `release` checks that this thread holds
    // it.
    release(unsafe { at(mutex) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use core::mem::MaybeUninit;

    fn mutex() -> FastMutex {
        let mut mutex = MaybeUninit::<FastMutex>::uninit();
        // SAFETY: the routine writes every field.
        unsafe {
            KeInitializeGuardedMutex(mutex.as_mut_ptr());
            mutex.assume_init()
        }
    }

    fn violates(parameter: u64, f: impl FnOnce()) {
        let stopped = cpu::enter(&Machine::new(), Irql::PASSIVE, f).unwrap_err();
        assert_eq!(stopped.parameters[0], parameter, "{stopped}");
    }

    #[test]
    fn a_holder_is_at_apc_level() {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let mut mutex = mutex();
            // SAFETY: ours.
            unsafe {
                ExAcquireFastMutex(&mut mutex);
                assert_eq!(cpu::irql(), Irql::APC);
                assert_eq!(ExTryToAcquireFastMutex(&mut mutex), 0);
                ExReleaseFastMutex(&mut mutex);
                assert_eq!(cpu::irql(), Irql::PASSIVE);
                assert_eq!(ExTryToAcquireFastMutex(&mut mutex), 1);
                ExReleaseFastMutex(&mut mutex);
                KeAcquireGuardedMutex(&mut mutex);
                assert!(apc::are_disabled());
                assert_eq!(KeTryToAcquireGuardedMutex(&mut mutex), 0);
                KeReleaseGuardedMutex(&mut mutex);
                assert!(!apc::are_disabled());
            }
        })
        .unwrap();
    }

    #[test]
    fn one_thread_at_a_time() {
        struct Shared(FastMutex, core::cell::Cell<u32>);
        // SAFETY: the mutex guards the cell.
        unsafe impl Sync for Shared {}
        let machine = Machine::new();
        let shared = Shared(mutex(), core::cell::Cell::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let shared = &shared;
                    let at = (&raw const shared.0).cast_mut();
                    cpu::enter(&machine, Irql::PASSIVE, || {
                        for _ in 0..500 {
                            // SAFETY: ours.
                            unsafe { ExAcquireFastMutex(at) };
                            shared.1.set(shared.1.get() + 1);
                            // SAFETY: ours.
                            unsafe { ExReleaseFastMutex(at) };
                        }
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(shared.1.get(), 1500);
    }

    #[test]
    fn misuse_stops_the_machine() {
        // SAFETY: ours.
        violates(0x1000, || unsafe {
            let mut mutex = mutex();
            ExAcquireFastMutex(&mut mutex);
            ExAcquireFastMutex(&mut mutex);
        });
        // SAFETY: ours.
        violates(0x34, || unsafe { ExReleaseFastMutex(&mut mutex()) });
        // SAFETY: ours.
        violates(0x39, || unsafe { ExAcquireFastMutexUnsafe(&mut mutex()) });
        // SAFETY: ours.
        violates(0x1007, || unsafe {
            apc::KeEnterGuardedRegion();
            KeReleaseGuardedMutex(&mut mutex());
        });
    }
}

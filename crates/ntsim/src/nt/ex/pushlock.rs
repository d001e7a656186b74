//! Push locks: reader/writer locks of one word (`EX_PUSH_LOCK`).
//!
//! The word is opaque to drivers. Here it holds the writer's `KTHREAD` and bit 0, or sixteen times the number of
//! readers. Readers are preferred over a waiting writer, which Windows does not promise either way. A caller must have
//! disabled normal kernel APCs ("ExAcquirePushLockExclusiveEx", and Driver Verifier, parameters 0xEA and 0xEB).

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use crate::nt::ke::apc;
use crate::nt::violation;
use core::sync::atomic::{AtomicU64, Ordering};

exports! {
    "ntoskrnl.exe";
    ExInitializePushLock: HIGH,
    ExAcquirePushLockExclusiveEx: APC,
    ExAcquirePushLockSharedEx: APC,
    ExTryAcquirePushLockExclusiveEx: APC,
    ExTryAcquirePushLockSharedEx: APC,
    ExReleasePushLockExclusiveEx: APC,
    ExReleasePushLockSharedEx: APC,
    ExReleasePushLockEx: APC,
}

const EXCLUSIVE: u64 = 1;
const READER: u64 = 16;

fn me() -> u64 {
    cpu::current_processor().thread() | EXCLUSIVE
}

/// # Safety
/// `lock` is an EX_PUSH_LOCK of the driver; a wrong pointer faults, with nothing held.
unsafe fn at<'a>(lock: *const AtomicU64) -> &'a AtomicU64 {
    // SAFETY: the caller's promise.
    unsafe { &*lock }
}

fn expect_no_apcs(lock: &AtomicU64, parameter: u64, verb: &str) {
    if !apc::are_disabled() {
        violation(
            [parameter, u64::from(cpu::irql().0), apc::disable_count(), core::ptr::from_ref(lock) as u64],
            format!("the push lock at {lock:p} was {verb} with APCs enabled: outside a critical region"),
        );
    }
}

fn take_exclusive(lock: &AtomicU64) -> bool {
    lock.compare_exchange(0, me(), Ordering::Acquire, Ordering::Relaxed).is_ok()
}

fn take_shared(lock: &AtomicU64) -> bool {
    let add = |value: u64| (value & EXCLUSIVE == 0).then_some(value + READER);
    lock.fetch_update(Ordering::Acquire, Ordering::Relaxed, add).is_ok()
}

fn refuse_own(lock: &AtomicU64) {
    if lock.load(Ordering::Relaxed) == me() {
        violation(
            [0x1000, core::ptr::from_ref(lock) as u64, 0, 0],
            format!("the push lock at {lock:p} was acquired again by the thread that holds it exclusively"),
        );
    }
}

fn wait_for(lock: &AtomicU64, take: fn(&AtomicU64) -> bool) {
    expect_no_apcs(lock, 0xEA, "acquired");
    refuse_own(lock);
    if !take(lock) {
        cpu::with_machine(|machine| machine.dispatcher.wait_until(machine, || take(lock)));
    }
}

fn unowned(lock: &AtomicU64, how: &str) -> ! {
    let value = lock.load(Ordering::Relaxed);
    violation(
        [0x1007, core::ptr::from_ref(lock) as u64, value, 0],
        format!("the push lock at {lock:p} was released {how}, but is not held so by this thread"),
    )
}

fn release_exclusive(lock: &AtomicU64) {
    expect_no_apcs(lock, 0xEB, "released");
    let released = cpu::with_machine(|machine| {
        machine.dispatcher.change(|| lock.compare_exchange(me(), 0, Ordering::Release, Ordering::Relaxed).is_ok())
    });
    if !released {
        unowned(lock, "exclusively");
    }
}

fn release_shared(lock: &AtomicU64) {
    expect_no_apcs(lock, 0xEB, "released");
    let take = |value: u64| if value & EXCLUSIVE == 0 { value.checked_sub(READER) } else { None };
    match lock.fetch_update(Ordering::Release, Ordering::Relaxed, take) {
        Ok(READER) => cpu::with_machine(|machine| machine.dispatcher.change(|| ())),
        Ok(_) => {}
        Err(_) => unowned(lock, "shared"),
    }
}

unsafe extern "win64" fn ExInitializePushLock(lock: *const AtomicU64) {
    // SAFETY: the page demands memory for an EX_PUSH_LOCK, an aligned word that nothing else uses yet.
    unsafe { at(lock) }.store(0, Ordering::Release);
}

unsafe extern "win64" fn ExAcquirePushLockExclusiveEx(lock: *const AtomicU64, _flags: u32) {
    // SAFETY: the page demands an initialized EX_PUSH_LOCK, an aligned word that is only accessed atomically;
    // `wait_for` checks that APCs are off.
    wait_for(unsafe { at(lock) }, take_exclusive);
}

unsafe extern "win64" fn ExAcquirePushLockSharedEx(lock: *const AtomicU64, _flags: u32) {
    // SAFETY: the page demands an initialized EX_PUSH_LOCK, an aligned word that is only accessed atomically;
    // `wait_for` checks that APCs are off.
    wait_for(unsafe { at(lock) }, take_shared);
}

unsafe extern "win64" fn ExTryAcquirePushLockExclusiveEx(lock: *const AtomicU64, _flags: u32) -> u8 {
    // SAFETY: the page demands an initialized EX_PUSH_LOCK, an aligned word that is only accessed atomically; that APCs
    // are off is checked next.
    let lock = unsafe { at(lock) };
    expect_no_apcs(lock, 0xEA, "acquired");
    u8::from(take_exclusive(lock))
}

unsafe extern "win64" fn ExTryAcquirePushLockSharedEx(lock: *const AtomicU64, _flags: u32) -> u8 {
    // SAFETY: the page demands an initialized EX_PUSH_LOCK, an aligned word that is only accessed atomically; that APCs
    // are off is checked next.
    let lock = unsafe { at(lock) };
    expect_no_apcs(lock, 0xEA, "acquired");
    u8::from(take_shared(lock))
}

unsafe extern "win64" fn ExReleasePushLockExclusiveEx(lock: *const AtomicU64, _flags: u32) {
    // SAFETY: the page demands an EX_PUSH_LOCK that is held so; its state is checked before it changes.
    release_exclusive(unsafe { at(lock) });
}

unsafe extern "win64" fn ExReleasePushLockSharedEx(lock: *const AtomicU64, _flags: u32) {
    // SAFETY: the page demands an EX_PUSH_LOCK that is held so; its state is checked before it changes.
    release_shared(unsafe { at(lock) });
}

/// Releases a lock however it is held.
unsafe extern "win64" fn ExReleasePushLockEx(lock: *const AtomicU64, _flags: u32) {
    // SAFETY: the page demands an EX_PUSH_LOCK that this thread holds; how it is held is read, and checked on release.
    let lock = unsafe { at(lock) };
    if lock.load(Ordering::Relaxed) & EXCLUSIVE != 0 { release_exclusive(lock) } else { release_shared(lock) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use nt_abi::Irql;

    fn enter<R>(f: impl FnOnce() -> R) -> Result<R, cpu::Bugcheck> {
        cpu::enter(&Machine::new(), Irql::APC, f)
    }

    #[test]
    fn many_readers_or_one_writer() {
        let lock = AtomicU64::new(0);
        // SAFETY: ours.
        enter(|| unsafe {
            ExAcquirePushLockSharedEx(&lock, 0);
            assert_eq!(ExTryAcquirePushLockSharedEx(&lock, 0), 1);
            assert_eq!(ExTryAcquirePushLockExclusiveEx(&lock, 0), 0);
            ExReleasePushLockSharedEx(&lock, 0);
            ExReleasePushLockEx(&lock, 0);
            ExAcquirePushLockExclusiveEx(&lock, 0);
            assert_eq!(ExTryAcquirePushLockSharedEx(&lock, 0), 0);
            ExReleasePushLockEx(&lock, 0);
        })
        .unwrap();
        assert_eq!(lock.into_inner(), 0);
    }

    #[test]
    fn a_writer_waits_for_the_readers() {
        let machine = Machine::new();
        let lock = AtomicU64::new(0);
        let released = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (began, begin) = std::sync::mpsc::channel();
            let (lock, machine, released) = (&lock, &machine, &released);
            scope.spawn(move || {
                cpu::enter(machine, Irql::APC, || {
                    // SAFETY: ours.
                    unsafe { ExAcquirePushLockSharedEx(lock, 0) };
                    began.send(()).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(30));
                    released.store(true, Ordering::Release);
                    // SAFETY: ours.
                    unsafe { ExReleasePushLockSharedEx(lock, 0) };
                })
                .unwrap();
            });
            begin.recv().unwrap();
            // SAFETY: ours.
            cpu::enter(machine, Irql::APC, || unsafe { ExAcquirePushLockExclusiveEx(lock, 0) }).unwrap();
            assert!(released.load(Ordering::Acquire), "the writer came in with a reader inside");
        });
    }

    #[test]
    fn misuse_stops_the_machine() {
        let lock = AtomicU64::new(0);
        // SAFETY: ours.
        let apcs = cpu::enter(&Machine::new(), Irql::PASSIVE, || unsafe { ExAcquirePushLockSharedEx(&lock, 0) });
        assert_eq!(apcs.unwrap_err().parameters[0], 0xEA);
        // SAFETY: ours.
        let twice = enter(|| unsafe {
            ExAcquirePushLockExclusiveEx(&lock, 0);
            ExAcquirePushLockSharedEx(&lock, 0);
        });
        assert_eq!(twice.unwrap_err().parameters[0], 0x1000);
        let lock = AtomicU64::new(0);
        // SAFETY: ours.
        let free = enter(|| unsafe { ExReleasePushLockSharedEx(&lock, 0) });
        assert_eq!(free.unwrap_err().parameters[0], 0x1007);
    }
}

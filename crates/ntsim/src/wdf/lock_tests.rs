use core::ptr;
use core::sync::atomic::AtomicU32;
use std::time::Instant;

use super::super::testing::{Calls, Rig, attributes, queue_config, wdf};
use super::*;
use crate::cpu;

const NO_RIG: Calls = Calls { globals: ptr::null() };

fn wait_lock(rig: &Rig) -> Handle {
    let mut lock = Handle::NULL;
    let status = wdf!(rig, WdfWaitLockCreate(
        ptr::null() => *const ObjectAttributes, &raw mut lock => *mut Handle) -> NtStatus);
    assert_eq!(status, NtStatus::SUCCESS);
    lock
}

fn spin_lock(rig: &Rig) -> Handle {
    let mut lock = Handle::NULL;
    let status = wdf!(rig, WdfSpinLockCreate(
        ptr::null() => *const ObjectAttributes, &raw mut lock => *mut Handle) -> NtStatus);
    assert_eq!(status, NtStatus::SUCCESS);
    lock
}

fn acquire(lock: Handle, timeout: Option<i64>) -> NtStatus {
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    wdf!(NO_RIG, WdfWaitLockAcquire(lock => Handle, timeout => *const i64) -> NtStatus)
}

fn release(lock: Handle) {
    wdf!(NO_RIG, WdfWaitLockRelease(lock => Handle) -> ());
}

#[test]
fn a_wait_lock_is_held_by_one_thread_and_waiting_for_it_can_end() {
    let rig = Rig::new();
    let lock = rig.run(|| wait_lock(&rig)).unwrap();
    rig.run(|| assert_eq!(acquire(lock, None), NtStatus::SUCCESS)).unwrap();
    std::thread::scope(|scope| {
        let rig = &rig;
        scope.spawn(move || {
            rig.run(|| {
                assert_eq!(acquire(lock, Some(0)), NtStatus::TIMEOUT);
                let begun = Instant::now();
                assert_eq!(acquire(lock, Some(-200_000)), NtStatus::TIMEOUT);
                assert!(begun.elapsed() >= Duration::from_millis(20), "{:?}", begun.elapsed());
            })
            .unwrap();
        });
    });
    std::thread::scope(|scope| {
        let rig = &rig;
        let waiter = scope.spawn(move || {
            rig.run(|| {
                assert_eq!(acquire(lock, None), NtStatus::SUCCESS);
                release(lock);
            })
            .unwrap();
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiter.is_finished());
        rig.run(|| release(lock)).unwrap();
    });
    std::thread::scope(|scope| {
        let rig = &rig;
        rig.run(|| acquire(lock, None)).unwrap();
        let waiter = scope.spawn(move || rig.run(|| acquire(lock, Some(-36_000_000_000))).unwrap());
        while !waiter.is_finished() {
            rig.machine.clock.push(Duration::from_secs(3600));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(waiter.join().unwrap(), NtStatus::TIMEOUT, "hours of the machine's clock have passed");
        rig.run(|| release(lock)).unwrap();
    });
    rig.run(|| {
        cpu::at_irql(Irql::DISPATCH, || {
            assert_eq!(acquire(lock, Some(0)), NtStatus::SUCCESS, "a timeout of zero is allowed there");
            release(lock);
        });
    })
    .unwrap();
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn waiting_above_passive_level_is_a_violation() {
    let rig = Rig::new();
    let (_, why) = rig.violation(|| {
        let lock = wait_lock(&rig);
        cpu::at_irql(Irql::DISPATCH, || acquire(lock, None))
    });
    assert!(why.contains("DISPATCH_LEVEL") && why.contains("WdfWaitLockAcquire"), "{why}");
}

#[test]
fn a_spin_lock_raises_to_dispatch_level_and_back() {
    let rig = Rig::new();
    rig.run(|| {
        let lock = spin_lock(&rig);
        for level in [Irql::PASSIVE, Irql::DISPATCH] {
            cpu::at_irql(level, || {
                wdf!(rig, WdfSpinLockAcquire(lock => Handle) -> ());
                assert_eq!(cpu::irql(), Irql::DISPATCH);
                wdf!(rig, WdfSpinLockRelease(lock => Handle) -> ());
                assert_eq!(cpu::irql(), level);
            });
        }
    })
    .unwrap();
}

#[test]
fn a_spin_lock_excludes_other_threads() {
    struct Counter(core::cell::UnsafeCell<u64>);
    // SAFETY: only touched under the lock, which is what the test shows.
    unsafe impl Sync for Counter {}
    static COUNTER: Counter = Counter(core::cell::UnsafeCell::new(0));
    let rig = Rig::new();
    let lock = rig.run(|| spin_lock(&rig)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                rig.run(|| {
                    for _ in 0..2000 {
                        wdf!(NO_RIG, WdfSpinLockAcquire(lock => Handle) -> ());
                        // SAFETY: the lock is held.
                        unsafe { COUNTER.0.get().write_volatile(COUNTER.0.get().read_volatile() + 1) };
                        wdf!(NO_RIG, WdfSpinLockRelease(lock => Handle) -> ());
                    }
                })
                .unwrap();
            });
        }
    });
    // SAFETY: the threads have ended.
    assert_eq!(unsafe { *COUNTER.0.get() }, 8000);
}

#[test]
fn locks_used_against_their_rules_are_violations() {
    type Act = fn(&Rig);
    let cases: [(u64, &str, Act); 7] = [
        (2, "acquires it again", |rig| {
            let lock = wait_lock(rig);
            acquire(lock, None);
            acquire(lock, None);
        }),
        (2, "acquires it again", |rig| {
            let lock = spin_lock(rig);
            wdf!(rig, WdfSpinLockAcquire(lock => Handle) -> ());
            wdf!(rig, WdfSpinLockAcquire(lock => Handle) -> ());
        }),
        (0xB, "does not hold", |rig| release(wait_lock(rig))),
        (0xB, "does not hold", |rig| {
            let lock = spin_lock(rig);
            wdf!(rig, WdfSpinLockRelease(lock => Handle) -> ());
        }),
        (0xB, "deleted while it is held", |rig| {
            let lock = wait_lock(rig);
            acquire(lock, None);
            rig.delete(lock);
        }),
        (0xB, "no synchronization lock", |rig| {
            wdf!(rig, WdfObjectAcquireLock(rig.driver => Handle) -> ());
        }),
        (5, "a WDFSPINLOCK is expected", |rig| {
            wdf!(rig, WdfSpinLockAcquire(wait_lock(rig) => Handle) -> ());
        }),
    ];
    for (code, says, act) in cases {
        let rig = Rig::new();
        let (found, why) = rig.violation(|| act(&rig));
        assert_eq!(found, code, "{why}");
        assert!(why.contains(says), "{why}");
    }
}

#[test]
fn the_lock_of_a_queue_keeps_its_callbacks_waiting() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn read(_: Handle, request: Handle, _: usize) {
        RAN.fetch_add(1, Ordering::SeqCst);
        wdf!(NO_RIG, WdfRequestComplete(request => Handle, NtStatus::SUCCESS => NtStatus) -> ());
    }
    let rig = Rig::new();
    let queue = rig
        .run(|| {
            let device = rig.device(r"\Device\Locked", |_| ());
            let scoped = ObjectAttributes { synchronization_scope: 3, ..attributes() };
            let config = super::super::abi::QueueConfig { default_queue: 1, io_read: Some(read), ..queue_config(2) };
            let (status, queue) = rig.try_queue(device, &config, scoped);
            assert_eq!(status, NtStatus::SUCCESS);
            rig.finish(device);
            queue
        })
        .unwrap();
    let file = rig.machine.io.open(&rig.machine, r"\Device\Locked").unwrap();
    std::thread::scope(|scope| {
        let (rig, file) = (&rig, &file);
        let reader = rig
            .run(|| {
                wdf!(rig, WdfObjectAcquireLock(queue => Handle) -> ());
                assert_eq!(cpu::irql(), Irql::DISPATCH);
                let reader = scope.spawn(move || file.read(1, None).unwrap().0);
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(RAN.load(Ordering::SeqCst), 0);
                wdf!(rig, WdfObjectReleaseLock(queue => Handle) -> ());
                reader
            })
            .unwrap();
        assert_eq!(reader.join().unwrap(), NtStatus::SUCCESS);
    });
    drop(file);
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn a_thread_that_waits_leaves_when_another_stops_the_machine() {
    let rig = Rig::new();
    let lock = rig.run(|| wait_lock(&rig)).unwrap();
    rig.run(|| acquire(lock, None)).unwrap();
    std::thread::scope(|scope| {
        let rig = &rig;
        let waiter = scope.spawn(move || rig.run(|| acquire(lock, None)).unwrap_err());
        std::thread::sleep(Duration::from_millis(20));
        let stopped = rig.run(|| -> u8 { cpu::bugcheck(0xE2, [0; 4], "stop") }).unwrap_err();
        assert_eq!(waiter.join().unwrap().why, stopped.why);
    });
}

use super::dispatcher::{Header, kind};
use crate::cpu::{self, Bugcheck, code};
use crate::machine::Machine;
use crate::pe::gate::import;
use core::ffi::c_void;
use core::sync::atomic::{AtomicU64, Ordering};
use nt_abi::Irql;
use nt_abi::NtStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Lock = AtomicU64;

fn at<R>(m: &Arc<Machine>, irql: Irql, f: impl FnOnce() -> R) -> Result<R, Bugcheck> {
    cpu::enter(m, irql, f)
}

fn event(kind: u8) -> Box<Header> {
    Box::new(Header { kind, bytes: [0; 3], signal_state: 0, wait_list: [0; 2] })
}

fn wait_for(object: *mut Header, timeout: Option<i64>) -> NtStatus {
    let wait: extern "win64" fn(*mut Header, u32, i8, u8, *const i64) -> NtStatus = import("KeWaitForSingleObject");
    wait(object, 0, 0, 0, timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref))
}

fn set(object: *mut Header) -> i32 {
    let set: extern "win64" fn(*mut Header, i32, u8) -> i32 = import("KeSetEvent");
    set(object, 0, 0)
}

fn address(object: &mut Header) -> usize {
    core::ptr::from_mut(object) as usize
}

#[test]
fn spin_locks_exclude_and_count_right_under_contention() {
    struct Shared(core::cell::UnsafeCell<u64>);
    // SAFETY: the cell is only touched with the lock held, which is what is tested.
    unsafe impl Sync for Shared {}
    let m = Machine::new();
    let lock = Lock::new(0);
    let shared = Shared(core::cell::UnsafeCell::new(0));
    let acquire: extern "win64" fn(*const Lock) -> u8 = import("KeAcquireSpinLockRaiseToDpc");
    let release: extern "win64" fn(*const Lock, u8) = import("KeReleaseSpinLock");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (m, lock, shared) = (&m, &lock, &shared);
            scope.spawn(move || {
                at(m, Irql::PASSIVE, || {
                    for _ in 0..2000 {
                        let old = acquire(lock);
                        assert_eq!((old, cpu::irql()), (0, Irql::DISPATCH));
                        // SAFETY: the lock is held.
                        unsafe { *shared.0.get() += 1 };
                        release(lock, old);
                        assert_eq!(cpu::irql(), Irql::PASSIVE);
                    }
                })
                .unwrap();
            });
        }
    });
    assert_eq!(shared.0.into_inner(), 8000);
}

#[test]
fn a_spin_lock_taken_twice_or_released_unowned_stops_the_machine() {
    let acquire: extern "win64" fn(*const Lock) -> u8 = import("KeAcquireSpinLockRaiseToDpc");
    let release: extern "win64" fn(*const Lock, u8) = import("KeReleaseSpinLock");
    let lock = Lock::new(0);
    let twice = at(&Machine::new(), Irql::PASSIVE, || (acquire(&lock), acquire(&lock)));
    assert_eq!(twice.unwrap_err().code, code::SPIN_LOCK_ALREADY_OWNED);
    let lock = Lock::new(0);
    let unowned = at(&Machine::new(), Irql::DISPATCH, || release(&lock, 0));
    assert_eq!(unowned.unwrap_err().code, code::SPIN_LOCK_NOT_OWNED);
}

#[test]
fn a_spin_lock_at_dpc_level_below_it_stops_the_machine() {
    let acquire: extern "win64" fn(*const Lock) = import("KeAcquireSpinLockAtDpcLevel");
    let lock = Lock::new(0);
    let stopped = at(&Machine::new(), Irql::APC, || acquire(&lock)).unwrap_err();
    assert_eq!(stopped.parameters[0], 0x40);
    let release: extern "win64" fn(*const Lock) = import("KeReleaseSpinLockFromDpcLevel");
    at(&Machine::new(), Irql::DISPATCH, || {
        acquire(&lock);
        release(&lock);
    })
    .unwrap();
}

#[test]
fn in_stack_queued_locks_remember_the_irql() {
    let acquire: extern "win64" fn(*const Lock, *mut [u64; 3]) = import("KeAcquireInStackQueuedSpinLock");
    let release: extern "win64" fn(*mut [u64; 3]) = import("KeReleaseInStackQueuedSpinLock");
    let lock = Lock::new(0);
    at(&Machine::new(), Irql::APC, || {
        let mut handle = [0; 3];
        acquire(&lock, &raw mut handle);
        assert_eq!(cpu::irql(), Irql::DISPATCH);
        assert_ne!(lock.load(Ordering::Relaxed), 0);
        release(&raw mut handle);
        assert_eq!(cpu::irql(), Irql::APC);
    })
    .unwrap();
}

#[test]
fn reader_writer_spin_locks_share_and_exclude() {
    use core::sync::atomic::AtomicI32;
    let shared: extern "win64" fn(*const AtomicI32) -> u8 = import("ExAcquireSpinLockShared");
    let release: extern "win64" fn(*const AtomicI32, u8) = import("ExReleaseSpinLockShared");
    let upgrade: extern "win64" fn(*const AtomicI32) -> u32 = import("ExTryConvertSharedSpinLockExclusive");
    let release_exclusive: extern "win64" fn(*const AtomicI32, u8) = import("ExReleaseSpinLockExclusive");
    let lock = AtomicI32::new(0);
    let m = Machine::new();
    at(&m, Irql::PASSIVE, || {
        let old = shared(&lock);
        std::thread::scope(|scope| {
            let reader = || at(&m, Irql::PASSIVE, || (shared(&lock), upgrade(&lock), release(&lock, 0)));
            let (_, upgraded, ()) = scope.spawn(reader).join().unwrap().unwrap();
            assert_eq!(upgraded, 0, "two readers");
        });
        assert_eq!(upgrade(&lock), 1, "one reader");
        release_exclusive(&lock, old);
    })
    .unwrap();
    let stopped = at(&m, Irql::PASSIVE, || [shared(&lock), shared(&lock)]).unwrap_err();
    assert_eq!(stopped.code, code::SPIN_LOCK_ALREADY_OWNED);
    lock.store(0, Ordering::Relaxed);
    let stopped = at(&Machine::new(), Irql::DISPATCH, || release_exclusive(&lock, 2)).unwrap_err();
    assert_eq!(stopped.code, code::SPIN_LOCK_NOT_OWNED);
}

#[test]
fn a_notification_event_stays_set_and_a_synchronization_event_lets_one_through() {
    let m = Machine::new();
    for (kind, second) in
        [(kind::NOTIFICATION_EVENT, NtStatus::SUCCESS), (kind::SYNCHRONIZATION_EVENT, NtStatus::TIMEOUT)]
    {
        let mut event = event(kind);
        let object = core::ptr::from_mut(&mut *event);
        at(&m, Irql::DISPATCH, || {
            assert_eq!(wait_for(object, Some(0)), NtStatus::TIMEOUT);
            assert_eq!(set(object), 0);
            assert_eq!(set(object), 1, "the state before");
            assert_eq!(wait_for(object, Some(0)), NtStatus::SUCCESS);
            assert_eq!(wait_for(object, Some(0)), second);
        })
        .unwrap();
    }
}

#[test]
fn a_waiting_thread_wakes_when_another_sets_the_event() {
    let m = Machine::new();
    let mut event = event(kind::SYNCHRONIZATION_EVENT);
    let object = address(&mut event);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| at(&m, Irql::PASSIVE, || wait_for(object as *mut Header, None)));
        std::thread::sleep(Duration::from_millis(10));
        assert!(!waiter.is_finished());
        at(&m, Irql::DISPATCH, || set(object as *mut Header)).unwrap();
        assert_eq!(waiter.join().unwrap().unwrap(), NtStatus::SUCCESS);
    });
}

#[test]
fn a_waiting_thread_leaves_when_the_machine_stops() {
    let m = Machine::new();
    let mut event = event(kind::NOTIFICATION_EVENT);
    let object = address(&mut event);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| at(&m, Irql::PASSIVE, || wait_for(object as *mut Header, None)));
        std::thread::sleep(Duration::from_millis(10));
        let _ = at(&m, Irql::PASSIVE, || cpu::bugcheck(0xe2, [0; 4], "elsewhere"));
        assert_eq!(waiter.join().unwrap().unwrap_err().why, "elsewhere");
    });
}

#[test]
fn waiting_at_dispatch_level_stops_the_machine() {
    let mut event = event(kind::NOTIFICATION_EVENT);
    let object = core::ptr::from_mut(&mut *event);
    let stopped = at(&Machine::new(), Irql::DISPATCH, || wait_for(object, Some(-10))).unwrap_err();
    assert_eq!(stopped.parameters[0], 0x3b);
}

#[test]
fn relative_timeouts_end_and_time_can_be_pushed() {
    let m = Machine::new();
    let mut event = event(kind::NOTIFICATION_EVENT);
    let object = address(&mut event);
    let began = Instant::now();
    let status = at(&m, Irql::PASSIVE, || wait_for(object as *mut Header, Some(-200_000))).unwrap();
    assert_eq!(status, NtStatus::TIMEOUT);
    assert!(began.elapsed() >= Duration::from_millis(20));
    let hour = -36_000_000_000;
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| at(&m, Irql::PASSIVE, || wait_for(object as *mut Header, Some(hour))));
        // Again and again: on a busy machine the thread may begin to wait only after the first push.
        while !waiter.is_finished() {
            m.clock.push(Duration::from_secs(3601));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(waiter.join().unwrap().unwrap(), NtStatus::TIMEOUT);
    });
}

#[test]
fn wait_any_takes_the_first_and_wait_all_takes_none_alone() {
    type Wait = extern "win64" fn(u32, *const *mut Header, u32, u32, i8, u8, *const i64, *mut c_void) -> NtStatus;
    let wait: Wait = import("KeWaitForMultipleObjects");
    let mut events = [event(kind::SYNCHRONIZATION_EVENT), event(kind::SYNCHRONIZATION_EVENT)];
    let objects: Vec<*mut Header> = events.iter_mut().map(|e| core::ptr::from_mut(&mut **e)).collect();
    let now = 0_i64;
    at(&Machine::new(), Irql::PASSIVE, || {
        let wait = |kind| wait(2, objects.as_ptr(), kind, 0, 0, 0, &now, core::ptr::null_mut());
        set(objects[1]);
        assert_eq!(wait(0), NtStatus::TIMEOUT, "not all");
        assert_eq!(wait(1), NtStatus(1), "the second");
        assert_eq!(wait(1), NtStatus::TIMEOUT, "it was taken");
        set(objects[0]);
        set(objects[1]);
        assert_eq!(wait(0), NtStatus::SUCCESS);
        assert_eq!(wait(1), NtStatus::TIMEOUT, "both were taken");
    })
    .unwrap();
}

#[test]
fn a_mutex_is_recursive_and_belongs_to_its_thread() {
    let initialize: extern "win64" fn(*mut [u64; 7], u32) = import("KeInitializeMutex");
    let release: extern "win64" fn(*mut [u64; 7], u8) -> i32 = import("KeReleaseMutex");
    let m = Machine::new();
    let mut mutex = Box::new([0_u64; 7]);
    let object = core::ptr::from_mut(&mut *mutex) as usize;
    at(&m, Irql::PASSIVE, || {
        initialize(object as *mut _, 0);
        assert_eq!(wait_for(object as *mut Header, None), NtStatus::SUCCESS);
        assert_eq!(wait_for(object as *mut Header, None), NtStatus::SUCCESS);
    })
    .unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| at(&m, Irql::PASSIVE, || wait_for(object as *mut Header, Some(0))).unwrap());
        assert_eq!(other.join().unwrap(), NtStatus::TIMEOUT);
    });
    at(&m, Irql::PASSIVE, || {
        assert_eq!(release(object as *mut _, 0), -1);
        assert_eq!(release(object as *mut _, 0), 0);
    })
    .unwrap();
    let stopped = at(&m, Irql::PASSIVE, || release(object as *mut _, 0)).unwrap_err();
    assert!(stopped.why.contains("does not own it"), "{stopped}");
}

#[test]
fn a_semaphore_counts_and_has_a_limit() {
    let initialize: extern "win64" fn(*mut [u64; 4], i32, i32) = import("KeInitializeSemaphore");
    let release: extern "win64" fn(*mut [u64; 4], i32, i32, u8) -> i32 = import("KeReleaseSemaphore");
    let mut semaphore = Box::new([0_u64; 4]);
    let object = core::ptr::from_mut(&mut *semaphore);
    let stopped = at(&Machine::new(), Irql::PASSIVE, || {
        initialize(object, 1, 2);
        assert_eq!(wait_for(object.cast(), Some(0)), NtStatus::SUCCESS);
        assert_eq!(wait_for(object.cast(), Some(0)), NtStatus::TIMEOUT);
        assert_eq!(release(object, 0, 2, 0), 0);
        release(object, 0, 1, 0)
    });
    assert!(stopped.unwrap_err().why.contains("stands at 2 of 2"));
}

extern "win64" fn count_dpc(dpc: *mut c_void, context: *mut c_void, one: *mut c_void, two: *mut c_void) {
    assert_eq!(cpu::irql(), Irql::DISPATCH);
    assert_eq!((one as usize, two as usize), (1, 2));
    assert!(!dpc.is_null());
    // SAFETY: the context the tests pass.
    unsafe { &*context.cast::<AtomicU64>() }.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_dpc_runs_once_however_often_it_is_queued() {
    type Routine = extern "win64" fn(*mut c_void, *mut c_void, *mut c_void, *mut c_void);
    let initialize: extern "win64" fn(*mut [u64; 8], Routine, *const AtomicU64) = import("KeInitializeDpc");
    let insert: extern "win64" fn(*mut [u64; 8], usize, usize) -> u8 = import("KeInsertQueueDpc");
    let remove: extern "win64" fn(*mut [u64; 8]) -> u8 = import("KeRemoveQueueDpc");
    let ran = AtomicU64::new(0);
    let mut dpc = Box::new([0_u64; 8]);
    let dpc = core::ptr::from_mut(&mut *dpc);
    at(&Machine::new(), Irql::PASSIVE, || {
        initialize(dpc, count_dpc, &ran);
        let old = cpu::raise(Irql::DISPATCH);
        assert_eq!((insert(dpc, 1, 2), insert(dpc, 3, 4)), (1, 0));
        assert_eq!(ran.load(Ordering::Relaxed), 0);
        cpu::lower(old);
        assert_eq!(ran.load(Ordering::Relaxed), 1);
        assert_eq!(insert(dpc, 1, 2), 1);
        assert_eq!(ran.load(Ordering::Relaxed), 2, "below DISPATCH_LEVEL it runs at once");
        let old = cpu::raise(Irql::DISPATCH);
        insert(dpc, 1, 2);
        assert_eq!(remove(dpc), 1);
        cpu::lower(old);
        assert_eq!((ran.load(Ordering::Relaxed), remove(dpc)), (2, 0));
    })
    .unwrap();
}

#[test]
fn a_timer_signals_and_a_periodic_one_repeats_until_cancelled() {
    let initialize: extern "win64" fn(*mut [u64; 8], u32) = import("KeInitializeTimerEx");
    let start: extern "win64" fn(*mut [u64; 8], i64, u32, *mut c_void) -> u8 = import("KeSetTimerEx");
    let cancel: extern "win64" fn(*mut [u64; 8]) -> u8 = import("KeCancelTimer");
    let mut timer = Box::new([0_u64; 8]);
    let timer = core::ptr::from_mut(&mut *timer);
    let m = Machine::new();
    at(&m, Irql::PASSIVE, || {
        initialize(timer, 1);
        assert_eq!(start(timer, -10_000, 2, core::ptr::null_mut()), 0);
        for _ in 0..3 {
            assert_eq!(wait_for(timer.cast(), Some(-50_000_000)), NtStatus::SUCCESS);
        }
        assert_eq!(start(timer, -600_000_000, 0, core::ptr::null_mut()), 1, "it was set");
        assert_eq!(wait_for(timer.cast(), Some(-100_000)), NtStatus::TIMEOUT);
        assert_eq!((cancel(timer), cancel(timer)), (1, 0));
    })
    .unwrap();
    assert!(m.timers.set_within(0..u64::MAX).is_empty());
}

#[test]
fn system_time_is_that_of_1601_and_the_counter_ticks_at_ten_megahertz() {
    let system: extern "win64" fn(*mut u64) = import("KeQuerySystemTimePrecise");
    let counter: extern "win64" fn(*mut u64) -> u64 = import("KeQueryPerformanceCounter");
    at(&Machine::new(), Irql::HIGH, || {
        let mut time = 0;
        system(&raw mut time);
        // 2020-01-01 in 100 ns since 1601.
        assert!(time > 132_223_104_000_000_000, "{time}");
        let mut frequency = 0;
        let first = counter(&raw mut frequency);
        std::thread::sleep(Duration::from_millis(3));
        let passed = counter(core::ptr::null_mut()) - first;
        assert_eq!(frequency, 10_000_000);
        assert!(passed >= 30_000, "{passed}");
    })
    .unwrap();
}

#[test]
fn the_processor_number_is_below_the_count() {
    let current: extern "win64" fn(*mut u32) -> u32 = import("KeGetCurrentProcessorNumberEx");
    let count: extern "win64" fn(u16) -> u32 = import("KeQueryActiveProcessorCountEx");
    let m = Machine::with(crate::machine::Config { processors: 3, ..Default::default() });
    at(&m, Irql::DISPATCH, || {
        let mut number = u32::MAX;
        let index = current(&raw mut number);
        assert!(index < 3);
        assert_eq!(number, index << 16, "group 0");
        assert_eq!((count(0), count(0xffff), count(1)), (3, 3, 0));
    })
    .unwrap();
}

#[test]
fn the_drivers_own_bugcheck_carries_its_parameters() {
    let stop: extern "win64" fn(u32, u64, u64, u64, u64) = import("KeBugCheckEx");
    let stopped = at(&Machine::new(), Irql::HIGH, || stop(0x12345, 1, 2, 3, 4)).unwrap_err();
    assert_eq!((stopped.code, stopped.name, stopped.parameters), (0x12345, "UNKNOWN", [1, 2, 3, 4]));
}

#[test]
fn the_record_of_a_bugcheck_callback_says_that_it_is_registered() {
    type Register = extern "win64" fn(*mut [u64; 6], u64, u32, *const u8) -> u8;
    let register: Register = import("KeRegisterBugCheckReasonCallback");
    let deregister: extern "win64" fn(*mut [u64; 6]) -> u8 = import("KeDeregisterBugCheckReasonCallback");
    let m = Machine::new();
    at(&m, Irql::PASSIVE, || {
        const SECONDARY_DUMP_DATA: u32 = 2;
        let mut record = [0; 6];
        let component = c"Testee".as_ptr().cast();
        assert_eq!(deregister(&raw mut record), 0, "it is not registered");
        assert_eq!(register(&raw mut record, 0x1234, SECONDARY_DUMP_DATA, component), 1);
        assert_eq!(record[2..4], [0x1234, component as u64]);
        assert_eq!(record[5], 1 << 32 | u64::from(SECONDARY_DUMP_DATA), "BufferInserted, and the reason");
        assert_eq!(register(&raw mut record, 0x5678, SECONDARY_DUMP_DATA, component), 0, "it is registered");
        assert_eq!(record[2], 0x1234);
        assert_eq!((deregister(&raw mut record), deregister(&raw mut record)), (1, 0));
    })
    .unwrap();
    let register: extern "win64" fn(*mut [u64; 8], u64, u64, u32, *const u8) -> u8 =
        import("KeRegisterBugCheckCallback");
    at(&m, Irql::PASSIVE, || {
        let mut record = [0; 8];
        assert_eq!(register(&raw mut record, 0x1234, 0x9000, 16, core::ptr::null()), 1);
        assert_eq!((&record[2..5], record[7]), (&[0x1234, 0x9000, 16][..], 1));
        assert_eq!(register(&raw mut record, 0x1234, 0x9000, 16, core::ptr::null()), 0);
    })
    .unwrap();
}

//! DPCs, timers and work items.

use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use super::abi::{DpcConfig, Handle, ObjectAttributes, TimerConfig, WorkItemConfig};
use super::status;
use super::testing::{Calls, Rig, attributes, wdf};
use crate::cpu;
use nt_abi::Irql;
use nt_abi::NtStatus;

const NO_RIG: Calls = Calls { globals: ptr::null() };
type Callback = unsafe extern "win64" fn(Handle);

fn device(rig: &Rig) -> Handle {
    rig.device(r"\Device\Deferred", |_| ())
}

fn child_of(parent: Handle) -> ObjectAttributes {
    ObjectAttributes { parent, ..attributes() }
}

fn dpc(rig: &Rig, callback: Callback, attributes: ObjectAttributes) -> Result<Handle, NtStatus> {
    let config = DpcConfig { size: 24, callback: Some(callback), automatic_serialization: 0 };
    let mut dpc = Handle::NULL;
    let status = wdf!(rig, WdfDpcCreate(
        &raw const config => *const DpcConfig, &raw const attributes => *const ObjectAttributes,
        &raw mut dpc => *mut Handle) -> NtStatus);
    status.ok().map(|()| dpc)
}

fn work_item(rig: &Rig, callback: Callback, attributes: ObjectAttributes) -> Result<Handle, NtStatus> {
    let config = WorkItemConfig { size: 24, callback: Some(callback), automatic_serialization: 0 };
    let mut item = Handle::NULL;
    let status = wdf!(rig, WdfWorkItemCreate(
        &raw const config => *const WorkItemConfig, &raw const attributes => *const ObjectAttributes,
        &raw mut item => *mut Handle) -> NtStatus);
    status.ok().map(|()| item)
}

fn timer(rig: &Rig, callback: Callback, period: u32, attributes: ObjectAttributes) -> Result<Handle, NtStatus> {
    let config = TimerConfig {
        size: 40,
        callback: Some(callback),
        period,
        automatic_serialization: 0,
        tolerable_delay: 0,
        alignment: 0,
        high_resolution: 0,
    };
    let mut timer = Handle::NULL;
    let status = wdf!(rig, WdfTimerCreate(
        &raw const config => *const TimerConfig, &raw const attributes => *const ObjectAttributes,
        &raw mut timer => *mut Handle) -> NtStatus);
    status.ok().map(|()| timer)
}

fn start(timer: Handle, due: i64) -> u8 {
    wdf!(NO_RIG, WdfTimerStart(timer => Handle, due => i64) -> u8)
}

fn stop(timer: Handle, wait: u8) -> u8 {
    wdf!(NO_RIG, WdfTimerStop(timer => Handle, wait => u8) -> u8)
}

extern "win64" fn nothing(_: Handle) {}

#[test]
fn a_dpc_runs_at_dispatch_level_when_the_processor_comes_down() {
    static LEVELS: Mutex<Vec<Irql>> = Mutex::new(Vec::new());
    extern "win64" fn run(_: Handle) {
        LEVELS.lock().push(cpu::irql());
    }
    let rig = Rig::new();
    rig.run(|| {
        let device = device(&rig);
        let dpc = dpc(&rig, run, child_of(device)).unwrap();
        let enqueue = || wdf!(rig, WdfDpcEnqueue(dpc => Handle) -> u8);
        cpu::at_irql(Irql::DISPATCH, || {
            assert_eq!(enqueue(), 1);
            assert_eq!(enqueue(), 0, "queued already");
            assert!(LEVELS.lock().is_empty());
        });
        assert_eq!(*LEVELS.lock(), [Irql::DISPATCH]);
        cpu::at_irql(Irql::DISPATCH, || {
            assert_eq!(enqueue(), 1);
            assert_eq!(wdf!(rig, WdfDpcCancel(dpc => Handle, 0 => u8) -> u8), 1);
            assert_eq!(wdf!(rig, WdfDpcCancel(dpc => Handle, 0 => u8) -> u8), 0);
        });
        assert_eq!(LEVELS.lock().len(), 1, "cancelled");
        assert_eq!(wdf!(rig, WdfDpcGetParentObject(dpc => Handle) -> Handle), device);
    })
    .unwrap();
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn a_dpc_deleted_while_queued_does_not_run() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn run(_: Handle) {
        RAN.fetch_add(1, Ordering::Relaxed);
    }
    let rig = Rig::new();
    rig.run(|| {
        let dpc = dpc(&rig, run, child_of(device(&rig))).unwrap();
        cpu::at_irql(Irql::DISPATCH, || {
            wdf!(rig, WdfDpcEnqueue(dpc => Handle) -> u8);
            wdf!(rig, WdfDpcCancel(dpc => Handle, 0 => u8) -> u8);
            rig.delete(dpc);
        });
    })
    .unwrap();
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
    assert_eq!(RAN.load(Ordering::Relaxed), 0);
}

#[test]
fn deferred_objects_need_a_device_above_them() {
    let rig = Rig::new();
    rig.run(|| {
        for parent in [Handle::NULL, rig.driver, rig.object(attributes())] {
            let expected = match parent {
                Handle::NULL => status::WDF_PARENT_NOT_SPECIFIED,
                _ => NtStatus::INVALID_DEVICE_REQUEST,
            };
            assert_eq!(dpc(&rig, nothing, child_of(parent)), Err(expected));
            assert_eq!(work_item(&rig, nothing, child_of(parent)), Err(expected));
            assert_eq!(timer(&rig, nothing, 0, child_of(parent)), Err(expected));
        }
        let below = rig.object(child_of(device(&rig)));
        assert!(dpc(&rig, nothing, child_of(below)).is_ok(), "a chain of parents that leads to a device");
    })
    .unwrap();
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn a_work_item_runs_at_passive_level_on_another_thread_and_once_per_queueing() {
    static SEEN: Mutex<Vec<(Irql, std::thread::ThreadId)>> = Mutex::new(Vec::new());
    extern "win64" fn run(_: Handle) {
        SEEN.lock().push((cpu::irql(), std::thread::current().id()));
    }
    let rig = Rig::new();
    rig.run(|| {
        let item = work_item(&rig, run, child_of(device(&rig))).unwrap();
        for _ in 0..3 {
            cpu::at_irql(Irql::DISPATCH, || wdf!(rig, WdfWorkItemEnqueue(item => Handle) -> ()));
            wdf!(rig, WdfWorkItemFlush(item => Handle) -> ());
        }
    })
    .unwrap();
    let seen = SEEN.lock().clone();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|(irql, id)| *irql == Irql::PASSIVE && *id != std::thread::current().id()));
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn unload_waits_for_a_work_item_that_runs() {
    static DONE: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn slow(_: Handle) {
        std::thread::sleep(Duration::from_millis(50));
        DONE.store(1, Ordering::Release);
    }
    let rig = Rig::new();
    rig.run(|| {
        let item = work_item(&rig, slow, child_of(device(&rig))).unwrap();
        wdf!(rig, WdfWorkItemEnqueue(item => Handle) -> ());
    })
    .unwrap();
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
    assert_eq!(DONE.load(Ordering::Acquire), 1);
}

#[test]
fn a_work_item_may_delete_itself() {
    extern "win64" fn run(item: Handle) {
        wdf!(NO_RIG, WdfObjectDelete(item => Handle) -> ());
    }
    let rig = Rig::new();
    rig.run(|| {
        let item = work_item(&rig, run, child_of(device(&rig))).unwrap();
        wdf!(rig, WdfWorkItemEnqueue(item => Handle) -> ());
    })
    .unwrap();
    assert_eq!(rig.machine.threads.join_within(Duration::from_secs(5)), 0);
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

fn wait_for(counter: &AtomicU32, least: u32) {
    let begun = Instant::now();
    while counter.load(Ordering::Acquire) < least {
        assert!(begun.elapsed() < Duration::from_secs(5), "{} of {least}", counter.load(Ordering::Acquire));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_timer_fires_once_when_it_is_due() {
    static FIRED: AtomicU32 = AtomicU32::new(0);
    static LEVEL: AtomicU32 = AtomicU32::new(99);
    extern "win64" fn fire(_: Handle) {
        LEVEL.store(u32::from(cpu::irql().0), Ordering::Relaxed);
        FIRED.fetch_add(1, Ordering::Release);
    }
    let rig = Rig::new();
    let (timer, begun) = rig
        .run(|| {
            let timer = timer(&rig, fire, 0, child_of(device(&rig))).unwrap();
            let begun = Instant::now();
            assert_eq!(start(timer, -100_000_000), 0);
            assert_eq!(start(timer, -300_000), 1, "set anew");
            (timer, begun)
        })
        .unwrap();
    wait_for(&FIRED, 1);
    assert!(begun.elapsed() >= Duration::from_millis(30), "{:?}", begun.elapsed());
    assert_eq!(LEVEL.load(Ordering::Relaxed), 2);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(FIRED.load(Ordering::Relaxed), 1);
    assert_eq!(rig.run(|| stop(timer, 1)).unwrap(), 0);
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn a_periodic_timer_fires_until_it_is_stopped_and_not_after() {
    static FIRED: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn fire(_: Handle) {
        FIRED.fetch_add(1, Ordering::Release);
    }
    let rig = Rig::new();
    let timer = rig
        .run(|| {
            let timer = timer(&rig, fire, 2, child_of(device(&rig))).unwrap();
            start(timer, -10_000);
            timer
        })
        .unwrap();
    wait_for(&FIRED, 5);
    assert_eq!(rig.run(|| stop(timer, 1)).unwrap(), 1);
    let fired = FIRED.load(Ordering::Acquire);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(FIRED.load(Ordering::Acquire), fired);
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn a_passive_timer_fires_at_passive_level_and_has_no_period() {
    static LEVEL: AtomicU32 = AtomicU32::new(99);
    static FIRED: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn fire(_: Handle) {
        LEVEL.store(u32::from(cpu::irql().0), Ordering::Relaxed);
        FIRED.fetch_add(1, Ordering::Release);
    }
    let rig = Rig::new();
    rig.run(|| {
        let passive = ObjectAttributes { execution_level: 2, ..child_of(device(&rig)) };
        assert_eq!(timer(&rig, fire, 10, passive), Err(NtStatus::NOT_SUPPORTED));
        start(timer(&rig, fire, 0, passive).unwrap(), -1);
    })
    .unwrap();
    wait_for(&FIRED, 1);
    assert_eq!(LEVEL.load(Ordering::Relaxed), 0);
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn unload_stops_timers() {
    static FIRED: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn fire(_: Handle) {
        FIRED.fetch_add(1, Ordering::Release);
    }
    let rig = Rig::new();
    rig.run(|| start(timer(&rig, fire, 1, child_of(device(&rig))).unwrap(), -1)).unwrap();
    wait_for(&FIRED, 1);
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
    let fired = FIRED.load(Ordering::Acquire);
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(FIRED.load(Ordering::Acquire), fired);
}

#[test]
fn waits_that_can_never_end_are_violations() {
    extern "win64" fn waits_for_itself(timer: Handle) {
        cpu::with_machine(|_| ());
        stop(timer, 1);
    }
    let rig = Rig::new();
    let timer_of = |rig: &Rig| {
        let passive = ObjectAttributes { execution_level: 2, ..child_of(device(rig)) };
        timer(rig, waits_for_itself, 0, passive).unwrap()
    };
    rig.run(|| start(timer_of(&rig), -1)).unwrap();
    let begun = Instant::now();
    while rig.machine.stopped().is_none() && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let why = rig.machine.stopped().expect("the timer thread stops the machine").why;
    assert!(why.contains("WdfTimerStop waits for the callback"), "{why}");

    let rig = Rig::new();
    let (_, why) = rig.violation(|| {
        let timer = timer_of(&rig);
        cpu::at_irql(Irql::DISPATCH, || stop(timer, 1))
    });
    assert!(why.contains("WdfTimerStop") && why.contains("DISPATCH_LEVEL"), "{why}");
}

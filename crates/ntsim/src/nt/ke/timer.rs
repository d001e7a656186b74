//! Kernel timers (`KTIMER`).

#![allow(non_snake_case, reason = "exports have their Windows names")]

use super::dispatcher::{self, Header, kind};
use super::dpc::{self, Dpc};
use crate::cpu;
use crate::export::exports;
use crate::machine::Machine;
use nt_abi::Irql;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

exports! {
    "ntoskrnl.exe";
    KeInitializeTimer: DISPATCH,
    KeInitializeTimerEx: DISPATCH,
    KeSetTimer: DISPATCH,
    KeSetTimerEx: DISPATCH,
    KeSetCoalescableTimer: DISPATCH,
    KeCancelTimer: DISPATCH,
    KeReadStateTimer: DISPATCH,
}

/// `KTIMER` (wdm.h), 64 bytes on x64.
#[repr(C)]
struct Timer {
    header: Header,
    due: u64,
    list: [u64; 2],
    dpc: *mut Dpc,
    processor: u16,
    kind: u16,
    period: u32,
}

const _: () = assert!(size_of::<Timer>() == 0x40);

/// The timers of one machine that are set, and the thread that lets them expire.
#[derive(Debug, Default)]
pub struct Timers {
    set: Mutex<Set>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Set {
    /// Address of the KTIMER to its entry.
    by_address: BTreeMap<usize, Entry>,
    running: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Interrupt time.
    due: u64,
    /// 100 ns units; 0 when it expires once.
    period: u64,
    /// The routine of its DPC, 0 without one.
    routine: u64,
}

/// How often the timer thread looks whether time was pushed.
const LOOK: Duration = Duration::from_millis(1);

impl Timers {
    /// Timers set whose KTIMER is in a range of addresses.
    #[must_use]
    pub fn set_within(&self, range: core::ops::Range<u64>) -> Vec<u64> {
        let set = self.set.lock();
        set.by_address.keys().map(|&a| a as u64).filter(|a| range.contains(a)).collect()
    }

    /// Timers that are set whose KTIMER, or DPC routine, is within `range`, a driver's image.
    #[must_use]
    pub fn left_in(&self, range: &core::ops::Range<u64>) -> Vec<String> {
        let set = self.set.lock();
        let theirs =
            set.by_address.iter().filter(|(at, e)| range.contains(&(**at as u64)) || range.contains(&e.routine));
        let describe = |(&at, entry): (&usize, &Entry)| match entry.routine {
            0 => format!("timer at {}, still set", cpu::frame_of(at as u64)),
            routine => format!("timer at {}, still set, with {}", cpu::frame_of(at as u64), cpu::frame_of(routine)),
        };
        theirs.map(describe).collect()
    }

    fn insert(&self, machine: &Arc<Machine>, timer: usize, entry: Entry) -> bool {
        let mut set = self.set.lock();
        let was_set = set.by_address.insert(timer, entry).is_some();
        if !set.running {
            set.running = true;
            let weak = Arc::downgrade(machine);
            let thread = std::thread::Builder::new().name("ntsim-timer".to_owned()).spawn(move || run(&weak));
            if let Err(error) = thread {
                panic!("cannot start the timer thread: {error}");
            }
        }
        drop(set);
        self.changed.notify_all();
        was_set
    }

    /// Takes out one timer that is due, and puts a periodic one back in.
    fn take_due(&self, now: u64) -> Option<usize> {
        let mut set = self.set.lock();
        let (&timer, &entry) = set.by_address.iter().find(|(_, e)| e.due <= now)?;
        if entry.period == 0 {
            set.by_address.remove(&timer);
        } else {
            set.by_address.insert(timer, Entry { due: entry.due + entry.period, ..entry });
        }
        Some(timer)
    }
}

/// The timer thread: lives as long as the machine has somebody else.
fn run(machine: &Weak<Machine>) {
    loop {
        let Some(machine) = machine.upgrade() else { return };
        if machine.has_stopped() {
            return;
        }
        while let Some(timer) = machine.timers.take_due(machine.clock.interrupt_time()) {
            if cpu::enter(&machine, Irql::DISPATCH, || expire(&machine, timer)).is_err() {
                return;
            }
        }
        let mut set = machine.timers.set.lock();
        // With nothing set there is nothing to look for, but the machine may go away meanwhile.
        let wait = if set.by_address.is_empty() { LOOK * 20 } else { LOOK };
        machine.timers.changed.wait_for(&mut set, wait);
    }
}

fn expire(machine: &Machine, timer: usize) {
    let timer = timer as *mut Timer;
    // SAFETY: the page of KeSetTimer demands that a set timer stays in memory until it expires or is cancelled; a freed
    // one faults, and the fault is reported.
    unsafe {
        dispatcher::set_state(machine, &raw mut (*timer).header, 1);
        let dpc = (*timer).dpc;
        if !dpc.is_null() {
            dpc::insert(dpc, core::ptr::null_mut(), core::ptr::null_mut());
        }
    }
}

unsafe extern "win64" fn KeInitializeTimer(timer: *mut Timer) {
    // SAFETY: the page demands nonpaged memory for a KTIMER; every member is written, none read.
    unsafe { KeInitializeTimerEx(timer, 0) };
}

unsafe extern "win64" fn KeInitializeTimerEx(timer: *mut Timer, synchronization: u32) {
    let kind = if synchronization == 0 { kind::NOTIFICATION_TIMER } else { kind::SYNCHRONIZATION_TIMER };
    // SAFETY: the page demands nonpaged memory for a KTIMER; every member is written, none read.
    unsafe {
        dispatcher::initialize(&raw mut (*timer).header, kind, 0);
        (*timer).due = 0;
        (*timer).list = [0; 2];
        (*timer).dpc = core::ptr::null_mut();
        (*timer).period = 0;
    }
}

unsafe extern "win64" fn KeSetTimer(timer: *mut Timer, due: i64, dpc: *mut Dpc) -> u8 {
    // SAFETY: the page demands what KeSetTimerEx does.
    unsafe { KeSetTimerEx(timer, due, 0, dpc) }
}

unsafe extern "win64" fn KeSetCoalescableTimer(
    timer: *mut Timer,
    due: i64,
    period: u32,
    _delay: u32,
    dpc: *mut Dpc,
) -> u8 {
    // SAFETY: the page demands what KeSetTimerEx does.
    unsafe { KeSetTimerEx(timer, due, period, dpc) }
}

/// `period` is in milliseconds.
unsafe extern "win64" fn KeSetTimerEx(timer: *mut Timer, due: i64, period: u32, dpc: *mut Dpc) -> u8 {
    cpu::with_machine(|machine| {
        let due = machine.clock.due(due);
        // SAFETY: the page demands an initialized KTIMER in nonpaged memory that stays until it expires or is
        // cancelled.
        unsafe {
            (*timer).due = due;
            (*timer).dpc = dpc;
            (*timer).period = period;
            dispatcher::set_state(machine, &raw mut (*timer).header, 0);
        }
        // SAFETY: null is checked; the page demands an initialized KDPC.
        let routine = if dpc.is_null() { 0 } else { unsafe { dpc::routine_of(dpc) } };
        let entry = Entry { due, period: u64::from(period) * 10_000, routine };
        u8::from(machine.timers.insert(machine, timer as usize, entry))
    })
}

unsafe extern "win64" fn KeCancelTimer(timer: *mut Timer) -> u8 {
    let was_set = cpu::with_machine(|machine| machine.timers.set.lock().by_address.remove(&(timer as usize)).is_some());
    u8::from(was_set)
}

unsafe extern "win64" fn KeReadStateTimer(timer: *mut Timer) -> u8 {
    // SAFETY: the page demands an initialized KTIMER; one word of it is read.
    u8::from(unsafe { (&raw const (*timer).header.signal_state).read_volatile() } > 0)
}

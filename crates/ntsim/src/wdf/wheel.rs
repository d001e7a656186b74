//! The thread that lets time pass for the framework's timers.

use core::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::object::Object;
use crate::machine::Machine;

/// An appointment: when, in which order among equals, whose, and under which number the timer knows it.
struct Entry {
    /// Interrupt time.
    due: u64,
    sequence: u64,
    timer: Weak<Object>,
    number: u64,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.sequence) == (other.due, other.sequence)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    entries: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
    started: bool,
    closed: bool,
}

/// The timers of one machine. Its thread starts with the first appointment and ends with the machine.
#[derive(Default)]
pub(crate) struct Wheel {
    shared: Arc<Shared>,
}

impl Wheel {
    /// Makes an appointment: `fire(machine, timer, number)` at `due`, outside `cpu::enter`. Appointments are not
    /// withdrawn; a timer that does not want one any more knows by the number.
    pub(crate) fn at(&self, machine: &Arc<Machine>, due: u64, timer: &Arc<Object>, number: u64, fire: Fire) {
        let start = {
            let mut state = self.shared.state.lock();
            let sequence = state.sequence;
            state.sequence += 1;
            state.entries.push(Reverse(Entry { due, sequence, timer: Arc::downgrade(timer), number }));
            !core::mem::replace(&mut state.started, true)
        };
        self.shared.changed.notify_one();
        if start {
            let (shared, machine) = (Arc::clone(&self.shared), Arc::downgrade(machine));
            let thread = std::thread::Builder::new().name("ntsim-timers".to_owned());
            if let Err(error) = thread.spawn(move || shared.turn(&machine, fire)) {
                panic!("cannot start the timer thread: {error}");
            }
        }
    }
}

/// What happens when an appointment is due.
pub(crate) type Fire = fn(&Arc<Machine>, &Arc<Object>, u64);

/// How often the thread looks whether somebody pushed the clock.
const LOOK: Duration = Duration::from_millis(1);

impl Shared {
    fn turn(&self, machine: &Weak<Machine>, fire: Fire) {
        loop {
            let Some(machine) = machine.upgrade() else { return };
            while let Some(entry) = self.take_due(machine.clock.interrupt_time()) {
                if let Some(timer) = entry.timer.upgrade() {
                    fire(&machine, &timer, entry.number);
                }
            }
            if machine.stopped().is_some() {
                return;
            }
            drop(machine);
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            if state.entries.is_empty() {
                self.changed.wait(&mut state);
            } else {
                self.changed.wait_for(&mut state, LOOK);
            }
        }
    }

    fn take_due(&self, now: u64) -> Option<Entry> {
        let mut state = self.state.lock();
        let due = state.entries.peek().is_some_and(|Reverse(entry)| entry.due <= now);
        if due { state.entries.pop().map(|Reverse(entry)| entry) } else { None }
    }
}

impl Drop for Wheel {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

//! Which threads are inside a callback, and waiting until they are not.

use core::time::Duration;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::kernel;

/// The callbacks of one object that run at this moment.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    runners: Mutex<Vec<u64>>,
    changed: Condvar,
}

impl Activity {
    /// How often a waiter looks whether the machine has halted.
    const GLANCE: Duration = Duration::from_millis(20);

    /// This thread goes into the callback.
    pub(crate) fn begin(&self) {
        self.runners.lock().push(kernel::thread());
    }

    /// This thread came back from it.
    pub(crate) fn end(&self) {
        let me = kernel::thread();
        let mut runners = self.runners.lock();
        if let Some(position) = runners.iter().position(|runner| *runner == me) {
            runners.swap_remove(position);
        }
        drop(runners);
        self.changed.notify_all();
    }

    /// Whether this thread is in it.
    pub(crate) fn is_mine(&self) -> bool {
        self.runners.lock().contains(&kernel::thread())
    }

    /// Waits until no other thread is in it and `quiet` holds.
    pub(crate) fn wait(&self, quiet: impl Fn() -> bool) {
        self.wait_until(None, quiet);
    }

    /// The same for at most so long; whether it came true.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>, quiet: impl Fn() -> bool) -> bool {
        let me = kernel::thread();
        loop {
            {
                let mut runners = self.runners.lock();
                if runners.iter().all(|runner| *runner == me) && quiet() {
                    return true;
                }
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return false;
                }
                let glance = Instant::now() + Self::GLANCE;
                self.changed.wait_until(&mut runners, deadline.map_or(glance, |deadline| deadline.min(glance)));
            }
            kernel::abandon_if_halted();
        }
    }

    /// Wakes those who wait: what `quiet` looks at may have changed.
    pub(crate) fn notify(&self) {
        // Taking the lock orders this after a waiter's test and before its sleep.
        drop(self.runners.lock());
        self.changed.notify_all();
    }
}

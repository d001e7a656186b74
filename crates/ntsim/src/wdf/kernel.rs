//! What the framework asks of the simulated kernel below it.

use core::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::abi::Handle;
use super::violation::Violation;
use crate::cpu;
use crate::machine::Machine;
use nt_abi::Irql;

pub(crate) use crate::nt::pool::Kind as Pool;

pub(crate) use crate::cpu::{irql, leave_if_stopped as abandon_if_halted, lower, raise};

/// The tag of memory that the framework allocates for a driver that gave it none.
pub(crate) const TAG: u32 = u32::from_le_bytes(*b"FxDr");

/// A number for the calling thread that no other living thread has; never 0.
pub(crate) fn thread() -> u64 {
    thread_local!(static KEY: Cell<u8> = const { Cell::new(0) });
    KEY.with(|key| core::ptr::from_ref(key) as u64)
}

/// A call above the IRQL that its arguments allow.
pub(crate) fn irql_violation(what: &str, allowed: Irql) -> Box<Violation> {
    Violation::verifier(Handle::NULL, format!("{what} is called at {}; it is allowed up to {allowed}", irql()))
}

/// Pool memory that goes back when it is dropped. Zeroed when it is made.
#[derive(Debug)]
pub(crate) struct Allocation {
    machine: Weak<Machine>,
    address: usize,
    size: usize,
    tag: u32,
}

impl Allocation {
    /// Allocates nonpaged pool; `None` when there is no memory.
    pub(crate) fn zeroed(machine: &Arc<Machine>, tag: u32, size: usize) -> Option<Self> {
        Self::from_pool(machine, tag, size, Pool::NonPaged)
    }

    /// Allocates from a pool; `None` when there is no memory.
    pub(crate) fn from_pool(machine: &Arc<Machine>, tag: u32, size: usize, pool: Pool) -> Option<Self> {
        let address = machine.pool.allocate(tag, size, pool) as usize;
        (address != 0).then(|| Self { machine: Arc::downgrade(machine), address, size, tag })
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> usize {
        self.address
    }

    /// Its bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // A machine that is torn down takes its pool with it.
        if let Some(machine) = self.machine.upgrade() {
            machine.pool.free(self.address as *mut u8, self.tag);
        }
    }
}

type Job = Box<dyn FnOnce(&Arc<Machine>) -> Result<(), Box<Violation>> + Send>;

/// System worker threads: a job is run by one of a few threads, which end when there is nothing left to do.
#[derive(Default)]
pub(crate) struct Workers {
    state: Mutex<WorkerState>,
}

#[derive(Default)]
struct WorkerState {
    jobs: VecDeque<Job>,
    running: usize,
}

impl Workers {
    /// Enough that jobs which wait for each other do not starve, as long as they are not many.
    const MOST: usize = 16;

    fn push(&self, job: Job) -> bool {
        let mut state = self.state.lock();
        state.jobs.push_back(job);
        let start = state.running < Self::MOST;
        state.running += usize::from(start);
        start
    }

    fn pop(&self) -> Option<Job> {
        let mut state = self.state.lock();
        let job = state.jobs.pop_front();
        state.running -= usize::from(job.is_none());
        job
    }
}

/// Runs a job at PASSIVE_LEVEL on a system worker thread.
pub(crate) fn spawn_passive(
    machine: &Arc<Machine>,
    job: impl FnOnce(&Arc<Machine>) -> Result<(), Box<Violation>> + Send + 'static,
) {
    if !machine.wdf.workers.push(Box::new(job)) {
        return;
    }
    cpu::thread::spawn_system_thread(
        machine,
        Box::new(|| {
            cpu::with_machine(|machine| {
                while let Some(job) = machine.wdf.workers.pop() {
                    if let Err(violation) = job(machine) {
                        violation.bugcheck();
                    }
                }
            });
        }),
    );
}

/// Runs a job as a DPC of this processor: when its IRQL falls below DISPATCH_LEVEL.
pub(crate) fn queue_dpc(job: impl FnOnce(&Arc<Machine>) -> Result<(), Box<Violation>> + Send + 'static) {
    cpu::dpc::queue_dpc(Box::new(|| {
        cpu::with_machine(|machine| {
            if let Err(violation) = job(machine) {
                violation.bugcheck();
            }
        });
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_different_numbers() {
        let here = thread();
        assert_eq!(here, thread());
        assert_ne!(here, 0);
        assert_ne!(std::thread::spawn(thread).join().unwrap(), 0);
    }
}

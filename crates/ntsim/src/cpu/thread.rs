//! System threads.

use crate::machine::Machine;
use nt_abi::Irql;
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The system threads of one machine.
#[derive(Debug, Default)]
pub struct SystemThreads {
    running: Mutex<Vec<JoinHandle<()>>>,
}

/// Starts a thread that runs `f` at PASSIVE_LEVEL. A bugcheck in it stops the machine like any other.
///
/// The machine waits for its system threads when a driver unloads: on Windows it is a crash when code of an unloaded
/// driver still runs.
pub fn spawn_system_thread(machine: &Arc<Machine>, f: Box<dyn FnOnce() + Send>) {
    let inner = Arc::clone(machine);
    let handle = std::thread::Builder::new().name("ntsim-system".to_owned()).spawn(move || {
        // A stopped machine keeps its bugcheck; nothing else needs it.
        let _stopped = super::enter(&inner, Irql::PASSIVE, f);
    });
    match handle {
        Ok(handle) => machine.threads.running.lock().push(handle),
        Err(error) => panic!("cannot start a system thread: {error}"),
    }
}

impl SystemThreads {
    /// Waits until every system thread has ended, at most for `patience`; returns how many still run. Resumes the panic
    /// of a thread that panicked.
    ///
    /// Called outside [`super::enter`].
    pub fn join_within(&self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        while self.reap() != 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.reap()
    }

    /// Removes the threads that have ended; returns how many have not.
    fn reap(&self) -> usize {
        loop {
            let mut running = self.running.lock();
            let Some(ended) = running.iter().position(JoinHandle::is_finished) else { return running.len() };
            let handle = running.swap_remove(ended);
            drop(running);
            if let Err(panic) = handle.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

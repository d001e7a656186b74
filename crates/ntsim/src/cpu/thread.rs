//! System threads.

use crate::irql::Irql;
use crate::machine::Machine;
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::JoinHandle;

/// The system threads of one machine.
#[derive(Debug, Default)]
pub struct SystemThreads {
    running: Mutex<Vec<JoinHandle<()>>>,
}

/// Starts a thread that runs `f` at PASSIVE_LEVEL. A bugcheck in it stops the machine like any other.
///
/// The machine waits for its system threads when a driver unloads: on Windows code of an unloaded driver that still
/// runs is a crash.
pub fn spawn_system_thread(machine: &Arc<Machine>, f: Box<dyn FnOnce() + Send>) {
    let inner = Arc::clone(machine);
    let handle = std::thread::Builder::new().name("ntsim-system".to_owned()).spawn(move || {
        // A stopped machine keeps its bugcheck; there is nobody else to tell.
        let _stopped = super::enter(&inner, Irql::PASSIVE, f);
    });
    match handle {
        Ok(handle) => machine.threads.running.lock().push(handle),
        Err(error) => panic!("cannot start a system thread: {error}"),
    }
}

impl SystemThreads {
    /// Waits until every system thread has ended; one that panicked panics here.
    ///
    /// Called outside [`super::enter`].
    pub fn join(&self) {
        loop {
            let Some(handle) = self.running.lock().pop() else { return };
            if let Err(panic) = handle.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }

    /// How many have not been waited for and still run.
    #[must_use]
    pub fn count(&self) -> usize {
        let mut running = self.running.lock();
        running.retain(|handle| !handle.is_finished());
        running.len()
    }
}

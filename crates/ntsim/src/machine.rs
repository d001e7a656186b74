//! One simulated machine.

use crate::cpu::Bugcheck;
use crate::cpu::processor::Processors;
use crate::cpu::thread::SystemThreads;
use crate::nt::pool::Pool;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// One simulated machine: the sum of its subsystems. Each is internally synchronised.
#[derive(Debug)]
pub struct Machine {
    id: u64,
    /// The Windows Filtering Platform: BFE's objects, the filter engine, flows, net events.
    pub wfp: crate::wfp::Platform,
    /// The Kernel-Mode Driver Framework.
    pub wdf: crate::wdf::Framework,
    /// The I/O manager: devices, symbolic links, open files.
    pub io: crate::nt::io::IoManager,
    /// Pool memory.
    pub pool: Pool,
    /// The processors driver code runs on.
    pub processors: Processors,
    /// The system threads that run.
    pub threads: SystemThreads,
    stopped: OnceLock<Bugcheck>,
}

/// How a machine is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many processors it has.
    pub processors: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { processors: 8 }
    }
}

impl Machine {
    /// A machine with nothing loaded.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with(Config::default())
    }

    /// A machine made to measure.
    #[must_use]
    pub fn with(config: Config) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            wfp: crate::wfp::Platform::new(),
            wdf: crate::wdf::Framework::new(),
            io: crate::nt::io::IoManager::new(),
            pool: Pool::new(),
            processors: Processors::new(config.processors),
            threads: SystemThreads::default(),
            stopped: OnceLock::new(),
        })
    }

    /// A number no other machine of this process has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The bugcheck that stopped this machine.
    #[must_use]
    pub fn stopped(&self) -> Option<Bugcheck> {
        self.stopped.get().cloned()
    }

    /// Refuses to go on once a bugcheck has stopped the machine.
    ///
    /// # Errors
    /// That bugcheck.
    pub fn check_running(&self) -> Result<(), Bugcheck> {
        match self.stopped.get() {
            None => Ok(()),
            Some(bugcheck) => Err(bugcheck.clone()),
        }
    }

    /// Stops the machine with a bugcheck; the first one counts and is returned.
    pub(crate) fn stop(&self, bugcheck: Bugcheck) -> Bugcheck {
        let first = self.stopped.get_or_init(|| bugcheck).clone();
        tracing::error!(%first, "the machine has stopped");
        first
    }

    /// The address that stands for the EPROCESS of the System process.
    pub(crate) fn system_process(&self) -> u64 {
        0
    }
}

//! One simulated machine.

use crate::cpu::Bugcheck;
mod driver;
mod leak;

pub use driver::{DriverInfo, DriverState, UnloadError};
pub use leak::LeakReport;

use crate::cpu::processor::Processors;
use crate::cpu::thread::SystemThreads;
use crate::fwpkclnt::Platform;
use crate::nt::Executive;
use crate::nt::cm::{SERVICES, Value};
use crate::nt::io::disk::Disk;
use crate::nt::pool::Pool;
use filter_engine::layers::WindowsVersion;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// One simulated machine: the sum of its subsystems. Each is internally synchronized.
#[derive(Debug)]
pub struct Machine {
    id: u64,
    /// The Windows Filtering Platform: BFE's objects, the filter engine, flows, net events.
    pub wfp: Platform,
    /// The Kernel-Mode Driver Framework.
    pub wdf: crate::wdf::Framework,
    /// The I/O manager: devices, symbolic links, open files.
    pub io: crate::nt::io::IoManager,
    /// The disk.
    pub disk: Arc<Disk>,
    /// Pool memory.
    pub pool: Pool,
    /// What drivers print.
    pub log: crate::nt::log::DebugLog,
    /// The order in which drivers take locks.
    pub lock_order: crate::verifier::locks::LockOrder,
    /// Failures that are injected.
    pub low_resources: crate::verifier::low_resources::LowResources,
    /// Time.
    pub clock: crate::nt::clock::Clock,
    /// What driver threads wait for.
    pub dispatcher: crate::nt::ke::dispatcher::Dispatcher,
    /// Timers that are set.
    pub timers: crate::nt::ke::timer::Timers,
    /// Objects, processes, the registry and the rest of the executive.
    pub executive: Executive,
    /// The Network Module Registrar.
    pub nmr: crate::netio::Registrar,
    /// The processors driver code runs on.
    pub processors: Processors,
    /// The running system threads.
    pub threads: SystemThreads,
    /// NDIS miniport drivers.
    pub miniports: crate::ndis::miniport::Miniports,
    config: Config,
    /// The hooks at the import boundary.
    pub hooks: crate::trace::Hooks,
    drivers: driver::Drivers,
    stopped: OnceLock<Bugcheck>,
}

/// The configuration of a machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many processors it has.
    pub processors: u32,
    /// Whether every pool block ends at a guard page (Driver Verifier's special pool). Slow; finds an overrun at its
    /// instruction.
    pub special_pool: bool,
    /// The version of Windows, as far as the Filtering Platform's layers and fields differ.
    pub windows: WindowsVersion,
    /// How long an unload waits for the system threads a driver started. It does not wait for a driver that stops them
    /// before its unload routine returns.
    pub unload_patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            processors: 8,
            special_pool: false,
            windows: WindowsVersion::default(),
            unload_patience: Duration::from_secs(10),
        }
    }
}

impl Machine {
    /// A machine with nothing loaded.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with(Config::default())
    }

    /// A machine of this configuration.
    #[must_use]
    pub fn with(config: Config) -> Arc<Self> {
        let wfp = Platform::of(config.windows);
        Self::assemble(config, wfp, Arc::default(), Executive::default())
    }

    fn assemble(config: Config, wfp: Platform, disk: Arc<Disk>, executive: Executive) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            wfp,
            wdf: crate::wdf::Framework::new(),
            io: crate::nt::io::IoManager::new(),
            disk,
            pool: Pool::new(config.special_pool),
            log: crate::nt::log::DebugLog::default(),
            lock_order: crate::verifier::locks::LockOrder::default(),
            low_resources: crate::verifier::low_resources::LowResources::default(),
            clock: crate::nt::clock::Clock::default(),
            dispatcher: crate::nt::ke::dispatcher::Dispatcher::default(),
            timers: crate::nt::ke::timer::Timers::default(),
            executive,
            nmr: crate::netio::Registrar::default(),
            processors: Processors::new(config.processors),
            threads: SystemThreads::default(),
            miniports: crate::ndis::miniport::Miniports::default(),
            config,
            hooks: crate::trace::Hooks::default(),
            drivers: driver::Drivers::default(),
            stopped: OnceLock::new(),
        })
    }

    /// The same machine after it was switched off and on: with its disk, its registry, and what its Base Filtering Engine
    /// keeps, which is not running; without anything else. This one must not be used any more.
    #[must_use]
    pub fn restarted(&self) -> Arc<Self> {
        let executive = Executive { registry: self.executive.registry.copy(), ..Default::default() };
        Self::assemble(self.config.clone(), self.wfp.restarted(), Arc::clone(&self.disk), executive)
    }

    /// Stops or starts the Base Filtering Engine, and tells the drivers that have subscribed to that.
    pub(crate) fn set_engine(self: &Arc<Self>, running: bool) {
        use nt_abi::fwp::consts::{FWPM_SERVICE_RUNNING, FWPM_SERVICE_STOPPED};
        let state = if running {
            self.wfp.engine.start_bfe().expect("an engine that starts has no sessions");
            FWPM_SERVICE_RUNNING
        } else {
            self.wfp.engine.stop_bfe();
            FWPM_SERVICE_STOPPED
        };
        // A driver that stops the machine there has stopped it: whoever uses it next is told.
        let _ = crate::cpu::enter(self, nt_abi::Irql::PASSIVE, || crate::fwpkclnt::fwpm::state_changed(state));
    }

    /// The machine sleeps for so long, and works again. Drivers that have registered for \Callback\PowerState are told
    /// before and after (PO_CB_SYSTEM_STATE_LOCK of wdm.h); the power callbacks of devices belong to plug and play devices,
    /// which there are none of here. Nothing is simulated of what Windows does besides, such as bringing its network down.
    pub fn sleep(self: &Arc<Self>, time: Duration) {
        /// PO_CB_SYSTEM_STATE_LOCK: the second argument is whether the system is in its working state again.
        const SYSTEM_STATE_LOCK: usize = 3;
        const POWER_STATE: &str = r"\Callback\PowerState";
        crate::nt::ex::callback::tell(self, POWER_STATE, SYSTEM_STATE_LOCK, 0);
        self.clock.sleep(time);
        crate::nt::ex::callback::tell(self, POWER_STATE, SYSTEM_STATE_LOCK, 1);
    }

    /// A number that is unique in this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The bugcheck that stopped this machine.
    #[must_use]
    pub fn stopped(&self) -> Option<Bugcheck> {
        self.stopped.get().cloned()
    }

    /// Whether a bugcheck has stopped this machine.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.stopped.get().is_some()
    }

    /// Fails once a bugcheck has stopped the machine.
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
        self.dispatcher.notify();
        tracing::error!(%first, "the machine has stopped");
        first
    }

    /// Sets a value of a service's Parameters key.
    pub fn set_parameter(&self, service: &str, name: &str, value: Value) {
        self.executive.registry.set(&format!(r"{SERVICES}\{service}\Parameters"), name, value);
    }

    /// A value of a service's Parameters key.
    #[must_use]
    pub fn parameter(&self, service: &str, name: &str) -> Option<Value> {
        self.executive.registry.get(&format!(r"{SERVICES}\{service}\Parameters"), name)
    }

    /// A number that is hard to guess, for security cookies and the like.
    pub(crate) fn random(&self) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        std::hash::RandomState::new().build_hasher().finish()
    }

    /// The address of the EPROCESS of the System process.
    pub(crate) fn system_process(&self) -> u64 {
        self.executive.processes.system()
    }
}

#[cfg(test)]
mod tests;

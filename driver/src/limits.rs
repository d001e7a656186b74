//! How much nonpaged pool flows may take: by the size of the machine's memory, or as the service's Parameters key says.

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::{
    memory::{SystemSize, system_size},
    utf16,
    wdf::Driver,
};

/// REG_DWORD: how many flows are tracked at a time.
const MAX_FLOWS: &str = "MaxFlows";
/// REG_DWORD: how many of them one process can have.
const MAX_FLOWS_PER_PROCESS: &str = "MaxFlowsPerProcess";

/// The bounds in force.
pub(crate) struct Limits {
    flows: AtomicU32,
    flows_per_process: AtomicU32,
}

impl Limits {
    /// No flows at all.
    pub(crate) const fn new() -> Self {
        Self { flows: AtomicU32::new(0), flows_per_process: AtomicU32::new(0) }
    }

    /// Sets them for this machine, before the first flow. PASSIVE_LEVEL.
    pub(crate) fn set(&self, driver: &Driver) {
        // A flow takes 128 bytes of pool: 2, 8 or 32 MiB.
        let share = match system_size() {
            SystemSize::Small => 16 << 10,
            SystemSize::Medium => 64 << 10,
            SystemSize::Large => 256 << 10,
        };
        let flows = driver.parameter(utf16!(MAX_FLOWS)).ok().flatten().unwrap_or(share);
        let of_one = driver.parameter(utf16!(MAX_FLOWS_PER_PROCESS)).ok().flatten().unwrap_or(flows / 4);
        self.flows.store(flows, Ordering::Relaxed);
        self.flows_per_process.store(of_one, Ordering::Relaxed);
    }

    /// How many flows are tracked at a time. Any IRQL.
    pub(crate) fn flows(&self) -> u32 {
        self.flows.load(Ordering::Relaxed)
    }

    /// How many names of addresses are remembered, 129 bytes each: at most 65,536. Any IRQL.
    pub(crate) fn learned(&self) -> usize {
        (self.flows() as usize / 4).min(1 << 16)
    }

    /// How many bytes are kept of flows whose content is looked at, all together: a quarter of what flows may take. Any
    /// IRQL.
    pub(crate) fn progress_bytes(&self) -> usize {
        self.flows() as usize * 32
    }

    /// How many of them one process can have. Any IRQL.
    pub(crate) fn flows_per_process(&self) -> u32 {
        self.flows_per_process.load(Ordering::Relaxed)
    }
}

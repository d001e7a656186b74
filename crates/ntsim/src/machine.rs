//! One simulated machine.

use std::sync::Arc;

/// One simulated machine: the sum of its subsystems. Each is internally synchronised.
#[derive(Debug)]
pub struct Machine {
    /// The Windows Filtering Platform: BFE's objects, the filter engine, flows, net events.
    pub wfp: crate::wfp::Platform,
    /// The Kernel-Mode Driver Framework.
    pub wdf: crate::wdf::Framework,
    /// The I/O manager: devices, symbolic links, open files.
    pub io: crate::nt::io::IoManager,
}

impl Machine {
    /// A machine with nothing loaded.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            wfp: crate::wfp::Platform::new(),
            wdf: crate::wdf::Framework::new(),
            io: crate::nt::io::IoManager::new(),
        })
    }
}

//! Switching a machine off and on again.
//!
//! What survives is on its disk: files, the registry, the services, and what the Base Filtering Engine keeps. A test can
//! look at the machine between the stages of its start.

use super::{LocalHost, Service, Services, drivers::Drivers};
use parking_lot::Mutex;
use std::sync::Arc;

/// A stage of a machine's start, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Windows deletes the files that were to be deleted at its next start.
    SessionManager,
    /// The Base Filtering Engine has started: persistent filters replace the boot-time filters.
    FilterEngine,
}

const STAGES: [Stage; 2] = [Stage::SessionManager, Stage::FilterEngine];

/// A machine that is starting. From the beginning it has a network, with the boot-time filters.
#[derive(Debug)]
pub struct Boot {
    host: LocalHost,
    next: usize,
}

impl LocalHost {
    /// Switches the machine off, without any warning to its drivers, and on again. The old machine, with every clone of
    /// this host, must not be used any more.
    #[must_use]
    pub fn power_on(&self) -> Boot {
        let machine = self.machine.restarted();
        let disk = {
            let disk = self.disk.lock();
            let drivers = Drivers::after(&disk.drivers, &machine.disk);
            super::Disk { drivers, system: disk.system.clone(), trust: disk.trust, engine: true }
        };
        let services = {
            let services = self.services.lock();
            // A service that was marked for deletion is gone.
            let stays = services.by_name.iter().filter(|(_, service)| !service.delete_pending);
            let off =
                |service: &Service| Service { image: None, config: service.config.clone(), delete_pending: false };
            stays.map(|(name, service)| (name.clone(), off(service))).collect()
        };
        let services = Services { by_name: services, reports: Vec::new() };
        let host = LocalHost { machine, services: Arc::new(Mutex::new(services)), disk: Arc::new(Mutex::new(disk)) };
        Boot { host, next: 0 }
    }

    /// Switches the machine off and on again, and waits until it has started.
    #[must_use]
    pub fn restart(&self) -> Self {
        self.power_on().finish()
    }
}

impl Boot {
    /// The machine as it is now.
    #[must_use]
    pub fn host(&self) -> &LocalHost {
        &self.host
    }

    /// Goes through the next stage and returns it; `None` when the machine has started.
    pub fn step(&mut self) -> Option<Stage> {
        let stage = *STAGES.get(self.next)?;
        self.next += 1;
        match stage {
            Stage::SessionManager => self.host.disk.lock().drivers.delete_doomed(),
            Stage::FilterEngine => {
                let started = self.host.machine.wfp.engine.start_bfe();
                started.expect("nobody else has a session with an engine that is starting");
            }
        }
        Some(stage)
    }

    /// The machine after its last stage.
    #[must_use]
    pub fn finish(mut self) -> LocalHost {
        while self.step().is_some() {}
        self.host
    }
}

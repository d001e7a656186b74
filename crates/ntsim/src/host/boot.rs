//! Switching a machine off and on again.
//!
//! What survives is on its disk: files, the registry, the services, and what the Base Filtering Engine keeps. A test can
//! look at the machine between the stages of its start. Sources of their order: "Specifying Driver Load Order" and
//! IoRegisterBootDriverReinitialization (WDK), "WFP Operation" (win32 documentation).

use super::{LocalHost, Service, Services, drivers::Drivers};
use crate::cpu;
use nt_abi::Irql;
use parking_lot::Mutex;
use sluice_host::{Host, HostError, StartType};
use std::sync::Arc;

/// A stage of a machine's start, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The drivers of type [`StartType::Boot`] are loaded. No file can be read.
    BootDrivers,
    /// The disk's file system is mounted, and the boot drivers' reinitialization routines are called.
    BootDevices,
    /// The drivers of type [`StartType::System`] are loaded.
    SystemDrivers,
    /// Windows deletes the files that were to be deleted at its next start.
    SessionManager,
    /// The Base Filtering Engine has started: persistent filters replace the boot-time filters.
    FilterEngine,
    /// The drivers of type [`StartType::Auto`] are loaded.
    AutoStart,
}

const STAGES: [Stage; 6] = [
    Stage::BootDrivers,
    Stage::BootDevices,
    Stage::SystemDrivers,
    Stage::SessionManager,
    Stage::FilterEngine,
    Stage::AutoStart,
];

/// A machine that is starting. From the beginning it has a network, with the boot-time filters.
#[derive(Debug)]
pub struct Boot {
    host: LocalHost,
    next: usize,
    /// Drivers that did not load, by their services.
    pub failed: Vec<(String, HostError)>,
}

impl LocalHost {
    /// Switches the machine off, without any warning to its drivers, and on again. The old machine, with every clone of
    /// this host, must not be used any more.
    #[must_use]
    pub fn power_on(&self) -> Boot {
        let machine = self.machine.restarted();
        machine.disk.set_mounted(false);
        let disk = {
            let disk = self.disk.lock();
            let drivers = Drivers::after(&disk.drivers, &machine.disk);
            super::Disk { drivers, system: disk.system.clone(), trust: disk.trust }
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
        Boot { host, next: 0, failed: Vec::new() }
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
        let machine = &self.host.machine;
        match stage {
            Stage::BootDrivers => self.load(StartType::Boot),
            Stage::BootDevices => {
                machine.disk.set_mounted(true);
                // A driver that stops the machine has stopped it: whoever uses it next is told.
                let _ = cpu::enter(machine, Irql::PASSIVE, || machine.executive.boot_routines.run());
            }
            Stage::SystemDrivers => self.load(StartType::System),
            Stage::SessionManager => self.host.disk.lock().drivers.delete_doomed(),
            Stage::FilterEngine => machine.set_engine(true),
            Stage::AutoStart => self.load(StartType::Auto),
        }
        Some(stage)
    }

    /// The machine after its last stage.
    #[must_use]
    pub fn finish(mut self) -> LocalHost {
        while self.step().is_some() {}
        self.host
    }

    fn load(&mut self, start: StartType) {
        let names: Vec<String> = {
            let services = self.host.services.lock();
            let wanted = services.by_name.values().filter(|service| service.config.start == start);
            wanted.map(|service| service.config.name.clone()).collect()
        };
        for name in names {
            if let Err(error) = self.host.start_service(&name) {
                tracing::warn!(name, %error, "a driver did not load at its start type");
                self.failed.push((name, error));
            }
        }
    }
}

//! The machine a command works with: set up, installed and loaded as an administrator would, and taken down again.

use super::{Failure, exit, trace};
use filter_engine::layers::WindowsVersion;
use ntsim::host::LocalHost;
use ntsim::machine::{Config, Machine};
use sluice_host::Host;
use sluice_host::{ServiceConfig, ServiceState, StartType};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The driver to load.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Driver {
    /// The driver: a .sys file
    #[arg(long, value_name = "FILE")]
    driver: PathBuf,
    /// A Sluicegate policy: the driver is installed as Sluicegate's, with its filters, and gets this policy. Without
    /// it the driver is only loaded
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    windows: Windows,
}

/// Which Windows the machine simulates.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Windows {
    /// The version of Windows whose layers, run-time ids and fields the Filtering Platform has: 7, 8.1, 22h2 or 24h2
    #[arg(long = "windows", value_name = "VERSION", default_value = "22h2")]
    pub(super) version: WindowsVersion,
}

/// What is recorded of a run.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Record {
    /// Write what was dropped and allowed, in the XML form of `netsh wfp show netevents`
    #[arg(long, value_name = "FILE")]
    netevents: Option<PathBuf>,
}

impl Record {
    /// Where net events go.
    pub(super) fn netevents(&self) -> Option<&Path> {
        self.netevents.as_deref()
    }
}

/// A machine with the driver running.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) machine: Arc<Machine>,
    pub(super) host: Arc<LocalHost>,
    netevents: Option<PathBuf>,
    /// The service, when it is not Sluicegate's own.
    service: Option<String>,
}

/// Refuses to write what is read.
pub(super) fn keep_apart(read: &[&Path], written: &[Option<&Path>]) -> Result<(), Failure> {
    written
        .iter()
        .flatten()
        .try_for_each(|path| sluice_files::not_over(path, read).map_err(Failure::context(path.display())))
}

impl Rig {
    /// Makes the machine and loads the driver.
    pub(super) fn start(driver: &Driver, record: &Record, traced: Option<&trace::Options>) -> Result<Self, Failure> {
        let mut read = vec![driver.driver.as_path()];
        read.extend(driver.policy.as_deref());
        keep_apart(&read, &[record.netevents(), traced.and_then(trace::Options::output)])?;
        let path = driver.driver.canonicalize().map_err(Failure::context(driver.driver.display()))?;
        let machine = Machine::with(Config { windows: driver.windows.version, ..Config::default() });
        machine.wfp.engine.events.set_collect_allow(true);
        if let Some(options) = traced {
            options.start(&machine)?;
        }
        let host = Arc::new(LocalHost::new(machine.clone()));
        let mut rig = Self { machine, host, netevents: record.netevents.clone(), service: None };
        let loaded = match &driver.policy {
            Some(policy) => rig.install(&path, policy),
            None => rig.load(&path),
        };
        match loaded {
            Ok(()) => Ok(rig),
            // The bugcheck says more than the step that it interrupted.
            Err(failure) => Err(rig.machine.stopped().map_or(failure, |bugcheck| Failure::stopped(&bugcheck))),
        }
    }

    fn install(&self, driver: &Path, policy: &Path) -> Result<(), Failure> {
        sluice_control::install(&*self.host, driver).map_err(Failure::context(driver.display()))?;
        sluice_control::load(&*self.host, policy).map_err(Failure::new)?;
        Ok(())
    }

    fn load(&mut self, driver: &Path) -> Result<(), Failure> {
        let name = driver.file_stem().unwrap_or(driver.as_os_str()).to_string_lossy().into_owned();
        let config = ServiceConfig {
            name: name.clone(),
            display_name: name.clone(),
            driver: driver.to_string_lossy().into_owned(),
            start: StartType::Demand,
        };
        self.host.create_service(&config).map_err(Failure::new)?;
        self.host.start_service(&name).map_err(Failure::new)?;
        self.service = Some(name);
        Ok(())
    }

    /// Unloads the driver, checks that it left nothing behind, and writes the net events.
    pub(super) fn end(self) -> Result<(), Failure> {
        let ended = self.take_down();
        trace::finish(&self.machine)?;
        ended
    }

    fn take_down(&self) -> Result<(), Failure> {
        self.write_net_events()?;
        if let Some(bugcheck) = self.machine.stopped() {
            return Err(Failure::stopped(&bugcheck));
        }
        self.unload()?;
        let left: Vec<String> = self
            .host
            .unload_reports()
            .iter()
            .flat_map(|report| report.lines().into_iter().map(|line| format!("  {}: {line}", report.driver)))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(Failure::with(exit::DRIVER, format!("the driver left something behind:\n{}", left.join("\n"))))
    }

    fn unload(&self) -> Result<(), Failure> {
        let result = match &self.service {
            // The command may have stopped or removed it.
            Some(service) => match self.host.service_state(service) {
                Ok(ServiceState::Running) => self.host.stop_service(service).map_err(Failure::new),
                _ => Ok(()),
            },
            None => sluice_control::uninstall(&*self.host).map(|_| ()).map_err(Failure::new),
        };
        match (result, self.machine.stopped()) {
            (_, Some(bugcheck)) => Err(Failure::stopped(&bugcheck)),
            (result, None) => result,
        }
    }

    fn write_net_events(&self) -> Result<(), Failure> {
        let Some(path) = &self.netevents else { return Ok(()) };
        let write = || filter_engine::xml::net_events(&self.machine.wfp.engine, BufWriter::new(File::create(path)?));
        write().map_err(Failure::context(path.display()))
    }
}

/// A file to write a record to, buffered.
pub(super) fn record(path: &Path) -> Result<Box<dyn std::io::Write + Send>, Failure> {
    let file = File::create(path).map_err(Failure::context(path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}

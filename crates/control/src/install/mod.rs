//! The driver into a machine and out of it again.
//!
//! Installing looks first (`plan`) and then takes the steps it has listed (`run`): the driver is copied to
//! System32\drivers, whose files only administrators can change; the service is made, the driver loaded and given its
//! policy, and the WFP objects are added in one transaction that commits last. Until then no packet is decided
//! differently, and whatever step fails, the ones before it are undone. Uninstalling goes the other way round: first
//! the objects, so that nothing asks the driver any more, then the driver, the service and the file; each step does
//! nothing where there is nothing to do, so it also finishes an installation or removal that was interrupted half way.

mod check;
mod plan;
mod run;
mod uninstall;

pub(crate) use check::Judgement;
pub use check::Obstacle;
pub use plan::{PolicySource, Step};
pub use uninstall::{UninstallReport, uninstall};

use crate::error::ControlError;
use crate::policy::LoadReport;
use plan::Plan;
use serde::Serialize;
use sluice_host::system::{Signature, System};
use sluice_host::{FilterEntry, Host, ServiceState};
use sluice_protocol::SERVICE_NAME;
use std::path::Path;
use std::time::{Duration, Instant};

/// The driver's name in the folder of drivers.
pub const FILE: &str = "sluice.sys";
/// A driver that is not in place yet.
const NEW: &str = "sluice-new.sys";
/// The driver that was in place before.
const OLD: &str = "sluice-old.sys";
/// The service's ImagePath: an NT path, as the kernel that opens it wants one.
///
/// The Service Control Manager keeps a path that begins with `\SystemRoot\` as it is. One with quotes around it would be
/// no path to the kernel but a file whose name begins with a quote; there is no command line in it that quotes could
/// tell apart, and no space in this one.
pub const IMAGE_PATH: &str = r"\SystemRoot\System32\drivers\sluice.sys";

/// How long an unload may take before it is reported as waiting.
const UNLOAD_WAIT: Duration = Duration::from_secs(5);
/// How often the service is asked in that time.
const UNLOAD_POLL: Duration = Duration::from_millis(20);

/// What to install.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The driver's file.
    pub driver: &'a Path,
    /// The policy to put in force before the filters ask for one.
    pub policy: Option<&'a Path>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What [`install_with`] found and did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstallReport {
    /// The driver file of the service.
    pub driver: String,
    /// Nothing was done, only looked.
    pub dry_run: bool,
    /// The machine.
    pub system: System,
    /// The driver's signature.
    pub signature: Signature,
    /// What keeps the driver from loading. Only a dry run reports it; an installation fails with it.
    pub obstacles: Vec<Obstacle>,
    /// What else a person should know.
    pub notes: Vec<String>,
    /// The steps taken, or to be taken. Without any, everything was there.
    pub steps: Vec<Step>,
    /// The policy that was put in force from a file.
    pub policy: Option<LoadReport>,
    /// Our filters with the ids that net events name.
    pub filters: Vec<FilterEntry>,
}

impl InstallReport {
    /// Whether anything was missing.
    #[must_use]
    pub fn changed(&self) -> bool {
        !self.steps.is_empty()
    }
}

/// Installs the driver in `driver` without a policy; see [`install_with`].
///
/// # Errors
/// As there.
pub fn install(host: &dyn Host, driver: &Path) -> Result<InstallReport, ControlError> {
    install_with(host, &Options { driver, policy: None, dry_run: false })
}

/// Installs a driver and loads it, replaces an older one, or adds what an installation lacks.
///
/// # Errors
/// Something stands in the way, or a step failed; what this call had done before is undone, and what could not be is
/// named.
pub fn install_with(host: &dyn Host, options: &Options<'_>) -> Result<InstallReport, ControlError> {
    let plan = Plan::make(host, options)?;
    let outcome = match (options.dry_run, &plan.obstacles[..]) {
        (true, _) => run::Outcome::default(),
        (false, []) => run::run(host, &plan)?,
        (false, _) => return Err(ControlError::Obstacles(plan.obstacles)),
    };
    Ok(InstallReport {
        driver: format!(r"{}\{FILE}", plan.system.drivers),
        dry_run: options.dry_run,
        system: plan.system,
        signature: plan.signature,
        obstacles: plan.obstacles,
        notes: plan.notes.into_iter().chain(outcome.notes).collect(),
        steps: plan.steps,
        policy: outcome.policy,
        filters: outcome.filters.unwrap_or(plan.objects.filters),
    })
}

/// What Windows says to the installed driver; `None` when there is no file of it.
pub(crate) fn judge_file(host: &dyn Host) -> Result<Option<Judgement>, ControlError> {
    let failed = || ControlError::step("looking at the installed driver");
    let Some(content) = host.read_driver(FILE).map_err(failed())? else { return Ok(None) };
    let system = host.system().map_err(failed())?;
    let signature = host.signature(&format!(r"{}\{FILE}", system.drivers)).map_err(failed())?;
    // A file that is no image is one for no machine.
    Ok(Some(check::judge(&system, check::image_machine(&content).unwrap_or(0), &signature)))
}

/// The files that an interrupted installation left.
pub(crate) fn leftovers(host: &dyn Host) -> Result<Vec<&'static str>, ControlError> {
    let mut found = Vec::new();
    for file in [NEW, OLD] {
        if host.read_driver(file).map_err(ControlError::step("looking into the folder of drivers"))?.is_some() {
            found.push(file);
        }
    }
    Ok(found)
}

/// Waits for the driver to go; `false` when it still has not.
fn unloaded(host: &dyn Host) -> Result<bool, ControlError> {
    let start = Instant::now();
    loop {
        let state = host.service_state(SERVICE_NAME).map_err(ControlError::step("waiting for the unload"))?;
        if state != ServiceState::StopPending {
            return Ok(true);
        }
        if start.elapsed() >= UNLOAD_WAIT {
            return Ok(false);
        }
        std::thread::sleep(UNLOAD_POLL);
    }
}

#[cfg(test)]
mod tests;

//! Installs the driver on a machine and removes it.
//!
//! Installing looks first (`plan`) and then takes the listed steps (`run`): the driver is copied to System32\drivers,
//! whose files only administrators can change; the service is created, the driver loaded and given its policy, and the
//! WFP objects are added in one transaction that commits last. Until then no packet is decided differently, and if a
//! step fails, those before it are undone. Uninstalling goes in reverse: first the objects, so that nothing asks the
//! driver any more, then the driver, the service and the file. Each step does nothing if there is nothing to do, so
//! uninstalling also cleans up after an interrupted installation or removal.

mod check;
mod plan;
mod run;
mod uninstall;

pub(crate) use check::Judgement;
pub use check::Obstacle;
pub use plan::{PolicySource, Step, start_text};
pub use uninstall::{UninstallReport, uninstall};

use crate::error::ControlError;
use crate::kept;
use crate::objects::Fail;
use crate::policy::LoadReport;
use plan::Plan;
use serde::{Serialize, Serializer};
use sluice_bundle::PublicKey;
use sluice_host::system::{Signature, System};
use sluice_host::{FilterAction, FilterEntry, Guid, Host, ServiceState, StartType, Weight};
use sluice_protocol::SERVICE_NAME;
use std::path::Path;
use std::time::{Duration, Instant};

/// The driver's name in the drivers folder.
pub const FILE: &str = "sluice.sys";
/// A driver that is not in place yet.
const NEW: &str = "sluice-new.sys";
/// The driver that was in place before.
const OLD: &str = "sluice-old.sys";
/// The service's ImagePath: an NT path, which the kernel opens.
///
/// The Service Control Manager keeps a path that begins with `\SystemRoot\` as it is. It must not be quoted: the kernel
/// would take the quote as part of the file's name. A driver's path has no arguments to separate, and this one has no
/// space.
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
    /// The policy to put in force before the filters are added.
    pub policy: Option<&'a Path>,
    /// When Windows loads the driver; without it as the installation has it, and at system start for a new one.
    pub start: Option<StartType>,
    /// What the machine does without the driver or a policy; without it as the installation declares, and open for a new
    /// one.
    pub fail: Option<&'a Fail>,
    /// The key whose bundles alone the machine is to take from now on; as it is without one.
    pub trust: Option<&'a PublicKey>,
    /// Only report what would be done.
    pub dry_run: bool,
}

impl<'a> Options<'a> {
    /// The driver alone, everything else as it is or by default.
    #[must_use]
    pub const fn of(driver: &'a Path) -> Self {
        Self { driver, policy: None, start: None, fail: None, trust: None, dry_run: false }
    }
}

/// What [`install_with`] found and did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstallReport {
    /// The driver file of the service.
    pub driver: String,
    /// Nothing was done, only checked.
    pub dry_run: bool,
    /// The machine.
    pub system: System,
    /// The driver's signature.
    pub signature: Signature,
    /// What keeps the driver from loading. Only a dry run reports it; an installation fails with it.
    pub obstacles: Vec<Obstacle>,
    /// What else the user should know.
    pub notes: Vec<String>,
    /// The steps taken, or to take. Empty if nothing was missing.
    pub steps: Vec<Step>,
    /// The policy that was put in force from a file.
    pub policy: Option<LoadReport>,
    /// Our filters, with the ids that appear in net events.
    #[serde(serialize_with = "counted")]
    pub filters: Vec<FilterEntry>,
}

/// Filters, of whose conditions a report only says how many there are.
fn counted<S: Serializer>(filters: &[FilterEntry], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Counted<'f> {
        key: Guid,
        id: u64,
        name: &'f str,
        layer: Guid,
        provider: Option<Guid>,
        sublayer: Guid,
        flags: u32,
        weight: Option<Weight>,
        conditions: usize,
        action: Option<FilterAction>,
    }
    serializer.collect_seq(filters.iter().map(|filter| {
        let FilterEntry { key, id, name, layer, provider, sublayer, flags, weight, conditions, action } = filter;
        let (key, id, layer, provider, sublayer) = (*key, *id, *layer, *provider, *sublayer);
        let (flags, weight, conditions, action) = (*flags, *weight, conditions.len(), *action);
        Counted { key, id, name, layer, provider, sublayer, flags, weight, conditions, action }
    }))
}

impl InstallReport {
    /// Whether anything was missing.
    #[must_use]
    pub fn changed(&self) -> bool {
        !self.steps.is_empty()
    }
}

/// Installs the driver file `driver` without a policy; see [`install_with`].
///
/// # Errors
/// As there.
pub fn install(host: &dyn Host, driver: &Path) -> Result<InstallReport, ControlError> {
    install_with(host, &Options::of(driver))
}

/// Installs a driver and loads it, replaces an older one, or adds what an installation lacks.
///
/// # Errors
/// Something prevents it, or a step failed; what this call had done is undone, and what could not be undone is named.
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

/// Whether Windows will load the installed driver; `None` when its file is missing.
pub(crate) fn judge_file(host: &dyn Host) -> Result<Option<Judgement>, ControlError> {
    let failed = || ControlError::step("checking the installed driver");
    let Some(content) = host.read_driver(FILE).map_err(failed())? else { return Ok(None) };
    let system = host.system().map_err(failed())?;
    let signature = host.signature(&format!(r"{}\{FILE}", system.drivers)).map_err(failed())?;
    // A file that is not an image is for no machine.
    Ok(Some(check::judge(&system, check::image_machine(&content).unwrap_or(0), &signature)))
}

/// Files left by an interrupted installation.
pub(crate) fn leftovers(host: &dyn Host) -> Result<Vec<&'static str>, ControlError> {
    let mut found = Vec::new();
    for file in [NEW, OLD, kept::NEW, kept::BUNDLE_NEW] {
        if host.read_driver(file).map_err(ControlError::step("reading the drivers folder"))?.is_some() {
            found.push(file);
        }
    }
    Ok(found)
}

/// Waits for the driver to unload; `false` if it has not by then.
fn unloaded(host: &dyn Host) -> Result<bool, ControlError> {
    stopped(host, SERVICE_NAME)
}

/// Waits for a service to stop; `false` if it has not by then.
pub(crate) fn stopped(host: &dyn Host, service: &str) -> Result<bool, ControlError> {
    let start = Instant::now();
    loop {
        let state =
            host.service_state(service).map_err(ControlError::step(format!("waiting for {service} to stop")))?;
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

//! Removes everything of ours from a machine.

use super::plan::service_image;
use super::run::delete_now_or_later;
use super::{FILE, IMAGE_PATH, NEW, OLD, unloaded};
use crate::error::ControlError;
use crate::kept;
use crate::native;
use crate::objects::{self, Fail};
use crate::service;
use serde::Serialize;
use sluice_host::{Host, HostError, ServiceState, code};
use sluice_protocol::SERVICE_NAME;

/// Our files in the drivers folder. The kept policy goes before the driver, which without it begins with none.
const FILES: [&str; 7] = [kept::NEW, kept::FILE, kept::BUNDLE_NEW, kept::BUNDLE_FILE, NEW, OLD, FILE];

/// What [`uninstall`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UninstallReport {
    /// How many WFP objects were removed.
    pub objects_removed: usize,
    /// The driver was loaded and has been unloaded, or its unload is pending.
    pub driver_unloaded: bool,
    /// The service that keeps the policy up to date existed, and was stopped and deleted.
    pub keeper_removed: bool,
    /// The service existed and was deleted, or marked for deletion.
    pub service_deleted: bool,
    /// The driver's files that were deleted.
    pub files_deleted: Vec<String>,
    /// The driver is still loaded: it unloads when the last program that has its device open closes it.
    pub waiting: bool,
    /// The Base Filtering Engine is stopped: our filters, if there are any, stay and permit until `uninstall` runs again.
    pub engine_stopped: bool,
    /// What is left, as found afterwards, and when it goes away. Empty when nothing of ours is left.
    pub left: Vec<String>,
}

impl UninstallReport {
    /// Whether there was anything to remove.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.keeper_removed
            || self.objects_removed > 0
            || self.driver_unloaded
            || self.service_deleted
            || !self.files_deleted.is_empty()
    }
}

/// Removes everything of ours, however much of it exists, and checks afterwards whether anything is left.
///
/// # Errors
/// A step failed; those before it remain done, and another call continues from there.
pub fn uninstall(host: &dyn Host) -> Result<UninstallReport, ControlError> {
    // It has the driver's device open, and would load the policy again.
    let mut report = UninstallReport { keeper_removed: service::remove(host)?, ..UninstallReport::default() };
    let before = host.service_state(SERVICE_NAME).map_err(ControlError::step("querying the service"))?;
    let image_path = service_image(host)?;
    let fail = Fail::declared(host).map_err(ControlError::step("querying the service"))?;
    match objects::clear(host) {
        Ok(count) => report.objects_removed = count,
        // The filters permit when the driver is gone, so a stopped engine must not prevent its removal; unless they block.
        Err(error) if code::is_engine_stopped(error.code) && fail == Fail::Open => report.engine_stopped = true,
        Err(error) => return Err(ControlError::step("removing the filters")(error)),
    }

    if before == ServiceState::Running {
        host.stop_service(SERVICE_NAME).map_err(ControlError::step("unloading the driver"))?;
        report.driver_unloaded = true;
    }
    if matches!(before, ServiceState::Running | ServiceState::StopPending) {
        report.waiting = !unloaded(host)?;
    }
    if before != ServiceState::Absent {
        match host.delete_service(SERVICE_NAME) {
            // An earlier removal requested it, and the driver is still loaded.
            Err(error) if error.code == code::ERROR_SERVICE_MARKED_FOR_DELETE => {}
            result => result.map_err(ControlError::step("deleting the service"))?,
        }
        report.service_deleted = true;
    }
    for file in FILES {
        delete(host, file, &mut report).map_err(ControlError::step(format!("deleting {file}")))?;
    }
    look(host, image_path.filter(|path| !path.eq_ignore_ascii_case(IMAGE_PATH)), &mut report)?;
    Ok(report)
}

/// Deletes one of our files. The file of a driver that stays loaded is renamed first: a deletion at Windows' next start
/// goes by name, and must not hit a driver installed since.
fn delete(host: &dyn Host, file: &str, report: &mut UninstallReport) -> Result<(), HostError> {
    if matches!(host.read_driver(file), Ok(None)) {
        return Ok(());
    }
    // One that cannot be read is deleted all the same.
    if report.waiting && file == FILE {
        host.rename_driver(FILE, OLD)?;
        host.delete_driver_at_restart(OLD)?;
    } else {
        delete_now_or_later(host, file)?;
    }
    report.files_deleted.push(file.to_owned());
    Ok(())
}

/// What is left now.
fn look(host: &dyn Host, elsewhere: Option<String>, report: &mut UninstallReport) -> Result<(), ControlError> {
    let failed = || ControlError::step("checking what is left");
    if host.service_state(SERVICE_NAME).map_err(failed())? != ServiceState::Absent {
        report
            .left
            .push("the driver and its service, until the last program that has its device open closes it".to_owned());
    }
    for file in FILES {
        if !matches!(host.read_driver(file), Ok(None)) {
            report.left.push(format!("the file {file} in the drivers folder, until Windows starts again"));
        }
    }
    if let Some(path) = elsewhere {
        report.left.push(format!("the file {path}, which the service used and this program did not install"));
    }
    if report.engine_stopped {
        report.left.push(
            "the filters, if any: the Base Filtering Engine is stopped; start it (`sc start BFE`) and run \
             `sluice uninstall` again"
                .to_owned(),
        );
    } else {
        report.left.extend(objects::remains(host).map_err(failed())?);
        let without_driver = host.open_engine().and_then(|mut engine| native::state(&mut *engine));
        if let Some(state) = without_driver.map_err(failed())? {
            report.left.push(format!("{} filters of `load --native`", state.filters));
        }
    }
    Ok(())
}

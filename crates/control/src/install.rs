//! The driver into a machine and out of it again.
//!
//! Installing makes the service, loads the driver, and adds the WFP objects in one transaction, in this order: until
//! the transaction commits, no packet is decided differently, and what came before it can be undone. Whatever step
//! fails, the ones before it are undone. Uninstalling goes the other way round: first the objects, so that nothing
//! asks the driver any more, then the driver, then the service; each step does nothing where there is nothing to do,
//! so it also finishes an installation or removal that was interrupted half way.

use crate::error::{ControlError, Left};
use crate::objects;
use serde::Serialize;
use sluice_host::{Engine, FilterEntry, Host, HostResult, ServiceConfig, ServiceState};
use sluice_protocol::{SERVICE_DISPLAY_NAME, SERVICE_NAME};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an unload may take before it is reported as waiting.
const UNLOAD_WAIT: Duration = Duration::from_secs(5);
/// How often the service is asked in that time.
const UNLOAD_POLL: Duration = Duration::from_millis(20);

/// What [`install`] found and did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstallReport {
    /// The driver file of the service.
    pub driver: String,
    /// The service was not there and was made.
    pub service_created: bool,
    /// The driver was not loaded and was.
    pub driver_loaded: bool,
    /// WFP objects were missing, and all were written anew.
    pub objects_written: bool,
    /// Our filters with the ids that net events name.
    pub filters: Vec<FilterEntry>,
}

impl InstallReport {
    /// Whether anything was missing.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.service_created || self.driver_loaded || self.objects_written
    }
}

/// What [`uninstall`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UninstallReport {
    /// How many WFP objects were removed.
    pub objects_removed: usize,
    /// The driver was loaded and was unloaded, or its unload was asked for.
    pub driver_unloaded: bool,
    /// The service was there and was deleted, or marked for deletion.
    pub service_deleted: bool,
    /// The driver has not gone yet: it does when the last program that has its device open closes it.
    pub waiting: bool,
}

impl UninstallReport {
    /// Whether anything was there.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.objects_removed > 0 || self.driver_unloaded || self.service_deleted
    }
}

/// Installs the driver in `driver` and loads it, or adds what an installation from the same file lacks.
///
/// # Errors
/// A step failed; what this call had done before is undone, and what could not be is named.
pub fn install(host: &dyn Host, driver: &Path) -> Result<InstallReport, ControlError> {
    let driver = driver_path(driver)?;
    let before = host.service_state(SERVICE_NAME).map_err(ControlError::step("looking for the service"))?;
    if before == ServiceState::StopPending {
        return Err(ControlError::Unloading);
    }
    if let Some(installed) =
        host.service_driver(SERVICE_NAME).map_err(ControlError::step("looking for the service's driver"))?
        && !same_file(&installed, &driver)
    {
        return Err(ControlError::OtherDriver { installed, wanted: driver });
    }
    let mut done = Done { host, created: false, loaded: false };
    match done.go(&driver, before) {
        Ok((filters, objects_written)) => Ok(InstallReport {
            driver,
            service_created: done.created,
            driver_loaded: done.loaded,
            objects_written,
            filters,
        }),
        Err(ControlError::Step { doing, source, .. }) => {
            Err(ControlError::Step { doing, source, left: Left(done.undo()) })
        }
        Err(other) => Err(other),
    }
}

/// Removes everything of ours, whatever of it is there.
///
/// # Errors
/// A step failed; those before it stand, and calling again goes on from there.
pub fn uninstall(host: &dyn Host) -> Result<UninstallReport, ControlError> {
    let mut report = UninstallReport::default();
    let before = host.service_state(SERVICE_NAME).map_err(ControlError::step("looking for the service"))?;
    let doing = "removing the filters";
    let mut engine = host.open_engine().map_err(ControlError::step(doing))?;
    let removed = transaction(&mut *engine, |engine| objects::remove(engine, false));
    report.objects_removed = removed.map_err(ControlError::step(doing))?.count;
    drop(engine);

    if before == ServiceState::Running {
        host.stop_service(SERVICE_NAME).map_err(ControlError::step("unloading the driver"))?;
        report.driver_unloaded = true;
    }
    if matches!(before, ServiceState::Running | ServiceState::StopPending) {
        report.waiting = !stopped(host)?;
    }
    if before != ServiceState::Absent {
        host.delete_service(SERVICE_NAME).map_err(ControlError::step("deleting the service"))?;
        report.service_deleted = true;
    }
    Ok(report)
}

/// Waits for the driver to go; `false` when it still has not.
fn stopped(host: &dyn Host) -> Result<bool, ControlError> {
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

/// What an installation has done so far.
struct Done<'a> {
    host: &'a dyn Host,
    created: bool,
    loaded: bool,
}

impl Done<'_> {
    fn go(&mut self, driver: &str, before: ServiceState) -> Result<(Vec<FilterEntry>, bool), ControlError> {
        if before == ServiceState::Absent {
            let config = ServiceConfig {
                name: SERVICE_NAME.to_owned(),
                display_name: SERVICE_DISPLAY_NAME.to_owned(),
                driver: driver.to_owned(),
            };
            self.host.create_service(&config).map_err(ControlError::step("creating the service"))?;
            self.created = true;
        }
        if before != ServiceState::Running {
            self.host.start_service(SERVICE_NAME).map_err(ControlError::step(format!("loading {driver}")))?;
            self.loaded = true;
        }
        write_objects(self.host).map_err(ControlError::step("adding the filters"))
    }

    /// Undoes it, last first, and names what would not go.
    fn undo(&self) -> Vec<String> {
        let mut left = Vec::new();
        if self.loaded
            && let Err(error) = self.host.stop_service(SERVICE_NAME)
        {
            left.push(format!("unloading the driver: {error}"));
        }
        if self.created
            && let Err(error) = self.host.delete_service(SERVICE_NAME)
        {
            left.push(format!("deleting the service: {error}"));
        }
        left
    }
}

/// Our filters, and whether they had to be written.
fn write_objects(host: &dyn Host) -> HostResult<(Vec<FilterEntry>, bool)> {
    let mut engine = host.open_engine()?;
    let filters = engine.filters(Some(objects::PROVIDER))?;
    if objects::complete(&filters) {
        return Ok((filters, false));
    }
    let filters = transaction(&mut *engine, |engine| {
        let removed = objects::remove(engine, true)?;
        objects::add(engine, &removed.kept)
    })?;
    Ok((filters, true))
}

/// Runs `body` in a transaction: committed when it succeeds, aborted when it fails.
fn transaction<T>(engine: &mut dyn Engine, body: impl FnOnce(&mut dyn Engine) -> HostResult<T>) -> HostResult<T> {
    engine.begin()?;
    match body(engine).and_then(|value| engine.commit().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(error) => {
            // If this fails too, closing the engine aborts.
            let _ = engine.abort();
            Err(error)
        }
    }
}

/// The driver file as the machine will find it later, from any folder.
fn driver_path(path: &Path) -> Result<String, ControlError> {
    let failed = |source| ControlError::DriverFile { path: path.to_owned(), source };
    let invalid = |what: &str| failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, what));
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(invalid("not a file"));
    }
    let absolute = std::path::absolute(path).map_err(failed)?;
    match absolute.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(invalid("the path is not Unicode, as service paths are")),
    }
}

/// Whether two paths name one file, as the file system of the machine in question compares them.
fn same_file(a: &str, b: &str) -> bool {
    if cfg!(windows) { a.to_lowercase() == b.to_lowercase() } else { a == b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Memory, Objects};
    use sluice_host::{Filter, FilterAction, Guid, Weight, code};
    use sluice_protocol::object::CALLOUTS;
    use std::path::PathBuf;

    struct Setup {
        folder: tempfile::TempDir,
        driver: PathBuf,
    }

    fn setup() -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let driver = folder.path().join("sluice.sys");
        std::fs::write(&driver, "MZ").unwrap();
        Setup { folder, driver }
    }

    fn installed(setup: &Setup) -> Memory {
        let memory = Memory::new();
        install(&memory, &setup.driver).unwrap();
        memory.calls.borrow_mut().clear();
        memory
    }

    #[test]
    fn an_installation_makes_everything_and_a_removal_leaves_nothing() {
        let setup = setup();
        let memory = Memory::new();
        let report = install(&memory, &setup.driver).unwrap();
        assert!(report.service_created && report.driver_loaded && report.objects_written);
        assert_eq!(report.filters.len(), CALLOUTS.len());
        assert!(report.filters.iter().all(|filter| filter.id > 1000));
        assert_eq!(memory.objects.borrow().callouts.len(), CALLOUTS.len());
        {
            let objects = memory.objects.borrow();
            for filter in &objects.filters {
                let keeps_its_network = match filter.action {
                    FilterAction::CalloutInspection(_) => PERSISTENT, // cannot block, with or without its callout
                    _ => PERSISTENT | PERMIT_IF_CALLOUT_UNREGISTERED,
                };
                assert_eq!(filter.flags, keeps_its_network, "{}", filter.name);
            }
        }
        let (config, state) = memory.service.borrow().clone().unwrap();
        assert_eq!((config.name.as_str(), state), (SERVICE_NAME, ServiceState::Running));
        assert!(Path::new(&config.driver).is_absolute());

        let report = uninstall(&memory).unwrap();
        assert_eq!(report.objects_removed, 2 + 2 * CALLOUTS.len());
        assert!(report.driver_unloaded && report.service_deleted && !report.waiting);
        assert!(memory.is_clean());
    }

    /// FWPM_FILTER_FLAG_PERSISTENT.
    const PERSISTENT: u32 = 0x1;
    /// FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED.
    const PERMIT_IF_CALLOUT_UNREGISTERED: u32 = 0x10;

    #[test]
    fn a_failure_at_any_step_undoes_the_steps_before_it() {
        let setup = setup();
        let whole = {
            let memory = Memory::new();
            install(&memory, &setup.driver).unwrap();
            memory.calls.into_inner()
        };
        assert!(whole.len() > 2 * CALLOUTS.len(), "{whole:?}");
        for (call, name) in whole.iter().enumerate() {
            let memory = Memory::failing_at(call);
            let error = install(&memory, &setup.driver).unwrap_err();
            let ControlError::Step { source, left, .. } = &error else { panic!("{error}") };
            assert_eq!((source.operation.as_str(), source.code), (*name, code::ERROR_NO_SYSTEM_RESOURCES));
            assert!(left.0.is_empty(), "call {call}, {name}: {left}");
            // The driver is on its way out when its service is deleted.
            memory.service_state(SERVICE_NAME).unwrap();
            assert!(memory.is_clean(), "call {call}, {name}: {memory:?}");
        }
    }

    #[test]
    fn a_failed_repair_leaves_what_was_there() {
        let setup = setup();
        let whole = {
            let memory = installed(&setup);
            memory.objects.borrow_mut().filters.pop();
            install(&memory, &setup.driver).unwrap();
            memory.calls.into_inner()
        };
        for (call, name) in whole.iter().enumerate() {
            let memory = installed(&setup);
            memory.objects.borrow_mut().filters.pop();
            let before = memory.objects.borrow().clone();
            memory.fail_at.set(Some(call));
            install(&memory, &setup.driver).unwrap_err();
            assert_eq!(*memory.objects.borrow(), before, "call {call}, {name}");
            assert_eq!(memory.service_state(SERVICE_NAME), Ok(ServiceState::Running));
        }
    }

    #[test]
    fn installing_again_changes_nothing() {
        let setup = setup();
        let memory = installed(&setup);
        let before = memory.objects.borrow().clone();
        let report = install(&memory, &setup.driver).unwrap();
        assert!(!report.changed());
        assert_eq!(report.filters.len(), CALLOUTS.len());
        assert_eq!(*memory.calls.borrow(), ["FwpmEngineOpen0"]);
        assert_eq!(*memory.objects.borrow(), before);
    }

    #[test]
    fn after_a_restart_the_driver_is_loaded_again() {
        let setup = setup();
        let memory = installed(&setup);
        memory.stop_service(SERVICE_NAME).unwrap();
        let report = install(&memory, &setup.driver).unwrap();
        assert!(report.driver_loaded && !report.service_created && !report.objects_written);
    }

    #[test]
    fn another_driver_file_is_refused_and_named() {
        let setup = setup();
        let memory = installed(&setup);
        let other = setup.folder.path().join("other.sys");
        std::fs::write(&other, "MZ").unwrap();
        let error = install(&memory, &other).unwrap_err();
        assert!(matches!(&error, ControlError::OtherDriver { wanted, .. } if wanted.ends_with("other.sys")));
        assert_eq!(error.advice().unwrap(), "run `sluice uninstall` first");
    }

    #[test]
    fn a_missing_driver_file_changes_nothing() {
        let setup = setup();
        let memory = Memory::new();
        let error = install(&memory, &setup.folder.path().join("nothing.sys")).unwrap_err();
        assert!(matches!(error, ControlError::DriverFile { .. }), "{error}");
        let error = install(&memory, setup.folder.path()).unwrap_err();
        assert!(error.to_string().ends_with("not a file"), "{error}");
        assert!(memory.calls.borrow().is_empty());
    }

    #[test]
    fn a_removal_goes_on_where_one_was_interrupted() {
        let setup = setup();
        let whole = {
            let memory = installed(&setup);
            uninstall(&memory).unwrap();
            memory.calls.into_inner()
        };
        for (call, name) in whole.iter().enumerate() {
            let memory = installed(&setup);
            memory.fail_at.set(Some(call));
            uninstall(&memory).unwrap_err();
            assert!(!memory.is_clean(), "call {call}, {name}");
            memory.fail_at.set(None);
            uninstall(&memory).unwrap();
            assert!(memory.is_clean(), "call {call}, {name}: {memory:?}");
        }
    }

    #[test]
    fn removing_from_an_empty_machine_is_no_error() {
        let memory = Memory::new();
        assert!(!uninstall(&memory).unwrap().changed());
    }

    #[test]
    fn filters_of_another_build_go_too() {
        let setup = setup();
        let memory = installed(&setup);
        let mut other = objects::filter(&CALLOUTS[0]);
        other.key = Some(Guid(0x1234));
        memory.objects.borrow_mut().filters.push(other);
        assert_eq!(uninstall(&memory).unwrap().objects_removed, 3 + 2 * CALLOUTS.len());
        assert!(memory.is_clean());
    }

    #[test]
    fn another_products_filter_in_our_sublayer_is_not_destroyed() {
        let setup = setup();
        let foreign = Filter {
            key: Some(Guid(0x99)),
            name: "another product".into(),
            description: String::new(),
            flags: 0,
            provider: None,
            layer: Guid(CALLOUTS[0].layer),
            sublayer: objects::SUBLAYER,
            weight: Weight::Auto,
            conditions: Vec::new(),
            action: FilterAction::Block,
        };
        let memory = installed(&setup);
        memory.objects.borrow_mut().filters.push(foreign.clone());
        let before: Objects = memory.objects.borrow().clone();
        let error = uninstall(&memory).unwrap_err();
        assert!(error.advice().unwrap().contains("another product"), "{error}");
        assert_eq!(*memory.objects.borrow(), before, "the transaction was aborted");
        // A repair keeps the sublayer that the foreign filter is in.
        memory.objects.borrow_mut().filters.remove(0);
        assert!(install(&memory, &setup.driver).unwrap().objects_written);
        assert!(memory.objects.borrow().filters.contains(&foreign));
        assert_eq!(memory.objects.borrow().filters.len(), 1 + CALLOUTS.len());
    }

    #[test]
    fn a_driver_that_takes_its_time_to_unload_is_waited_for() {
        let setup = setup();
        let memory = installed(&setup);
        memory.stop_polls.set(3);
        assert!(!uninstall(&memory).unwrap().waiting);
        assert!(memory.is_clean());
    }

    #[test]
    fn an_installation_over_a_waiting_unload_is_refused() {
        let setup = setup();
        let memory = installed(&setup);
        memory.stop_service(SERVICE_NAME).unwrap();
        memory.stop_polls.set(usize::MAX);
        let error = install(&memory, &setup.driver).unwrap_err();
        assert!(matches!(error, ControlError::Unloading), "{error}");
    }
}

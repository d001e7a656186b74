//! Loading and unloading drivers.

use super::{LeakReport, Machine};
use crate::cpu::{self, Bugcheck};
use crate::nt::driver::DriverObject;
use crate::pe::map::Mapped;
use crate::pe::{Image, Import, LoadError, LoadOptions, Section, import};
use crate::trace::{Argument, Callback};
use crate::verifier::callback::{self, Keeps};
use core::ffi::c_void;
use core::ops::Range;
use nt_abi::Irql;
use nt_abi::NtStatus;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A loaded driver.
#[derive(Clone, Debug, Serialize)]
pub struct DriverInfo {
    /// The service's name.
    pub name: String,
    /// The image's base address.
    pub base: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The entry point's RVA.
    pub entry: u32,
    /// Its sections.
    pub sections: Vec<Section>,
    /// Its imports and what they are bound to.
    pub imports: Vec<Import>,
    /// Oddities of the file that are accepted.
    pub warnings: Vec<String>,
}

/// Why a driver was not unloaded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UnloadError {
    /// No driver has that name.
    #[error("no driver named {0} is loaded")]
    NotLoaded(String),
    /// It has no unload routine, so Windows keeps it until the next start.
    #[error("the driver {0} has no unload routine and stays loaded")]
    NoUnloadRoutine(String),
    /// Files are open on its devices. It unloads when the last is closed, as on Windows.
    #[error("the driver {driver} unloads when the last of {open_files} open files is closed")]
    Pending {
        /// The service's name.
        driver: String,
        /// How many files are open.
        open_files: usize,
    },
    /// The unload routine stopped the machine, or it had stopped before.
    #[error(transparent)]
    Bugcheck(#[from] Bugcheck),
}

/// Whether a driver runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum DriverState {
    /// It is loaded.
    Running,
    /// It unloads when the last file on its devices is closed.
    UnloadPending,
}

/// A driver in memory.
#[derive(Debug)]
struct Loaded {
    info: DriverInfo,
    mapped: Mapped,
    object: DriverObject,
}

/// The drivers of one machine.
#[derive(Debug, Default)]
pub(super) struct Drivers {
    table: Mutex<BTreeMap<String, Slot>>,
    /// Reports of drivers that unloaded when their last file was closed.
    reports: Mutex<Vec<LeakReport>>,
}

#[derive(Debug)]
struct Slot {
    driver: Arc<Loaded>,
    state: DriverState,
}

impl Machine {
    /// Loads a driver: checks and maps `bytes`, binds its imports, and calls its entry point at PASSIVE_LEVEL.
    /// `name` is its service's name.
    ///
    /// # Errors
    /// Why it did not load; the machine is as before, unless the entry point stopped it.
    pub fn load_driver(self: &Arc<Self>, name: &str, bytes: &[u8]) -> Result<DriverInfo, LoadError> {
        self.load_driver_with(name, bytes, LoadOptions::default())
    }

    /// [`Self::load_driver`], less strict if asked.
    ///
    /// # Errors
    /// As there.
    pub fn load_driver_with(
        self: &Arc<Self>,
        name: &str,
        bytes: &[u8],
        options: LoadOptions,
    ) -> Result<DriverInfo, LoadError> {
        self.check_running()?;
        let key = name.to_lowercase();
        if self.drivers.table.lock().contains_key(&key) {
            return Err(LoadError::AlreadyLoaded(name.to_owned()));
        }
        let image = Image::parse(bytes, options.allow_writable_code)?;
        let (slots, imports) = import::bind(self, &image, options.allow_unknown_imports)?;
        let mut info = DriverInfo {
            name: name.to_owned(),
            base: 0,
            size: image.bytes.len() as u64,
            entry: image.entry,
            sections: image.sections.clone(),
            imports,
            warnings: image.warnings.clone(),
        };
        let mapped = Mapped::new(image, &file_name(name), &slots, self.random())?;
        info.base = mapped.range().start;
        let entry = mapped.address(info.entry);
        let object = DriverObject::new(name, &mapped, entry);
        let driver = Arc::new(Loaded { info: info.clone(), mapped, object });
        let slot = Slot { driver: Arc::clone(&driver), state: DriverState::Running };
        self.drivers.table.lock().insert(key.clone(), slot);
        let (object, path) = (driver.object.address(), driver.object.registry_path());
        let status = cpu::enter(self, Irql::PASSIVE, || {
            // SAFETY: the address is the entry point of a driver mapped executable; DRIVER_INITIALIZE is its type. The
            // driver is trusted no further: its faults and bugchecks come back from `enter`.
            let entry: extern "win64" fn(*mut c_void, *mut c_void) -> NtStatus = unsafe { core::mem::transmute(entry) };
            callback::enter(
                &"DriverEntry",
                Keeps::All,
                || Callback::new("DriverEntry", entry as *const () as u64, vec![Argument::new("service", name)]),
                || entry(object, path),
                ToString::to_string,
            )
        })?;
        if !status.is_success() {
            self.drivers.table.lock().remove(&key);
            let leaks = Box::new(self.finish(&driver));
            return Err(LoadError::EntryFailed { status, leaks });
        }
        self.io.entry_returned(driver.object.address() as usize);
        driver.mapped.discard_init();
        tracing::info!(name, base = format_args!("{:#x}", info.base), "driver loaded");
        Ok(info)
    }

    /// Unloads a driver: calls its unload routine at PASSIVE_LEVEL and reports what it left behind.
    ///
    /// With files open on its devices the driver is only marked; it unloads when the last is closed, and
    /// [`Self::unload_reports`] then has the report.
    ///
    /// # Errors
    /// Why it is not unloaded, or not yet.
    pub fn unload_driver(self: &Arc<Self>, name: &str) -> Result<LeakReport, UnloadError> {
        self.check_running()?;
        let key = name.to_lowercase();
        let open_files = self.io.open_files(name);
        let driver = {
            let mut table = self.drivers.table.lock();
            let slot = table.get_mut(&key).ok_or_else(|| UnloadError::NotLoaded(name.to_owned()))?;
            if slot.driver.object.unload_routine() == 0 {
                return Err(UnloadError::NoUnloadRoutine(name.to_owned()));
            }
            slot.state = DriverState::UnloadPending;
            if open_files != 0 {
                return Err(UnloadError::Pending { driver: name.to_owned(), open_files });
            }
            match table.remove(&key) {
                Some(slot) => slot.driver,
                None => return Err(UnloadError::NotLoaded(name.to_owned())),
            }
        };
        let (routine, object) = (driver.object.unload_routine(), driver.object.address());
        cpu::enter(self, Irql::PASSIVE, || {
            // SAFETY: DRIVER_UNLOAD, set by the driver to a routine of its own; a wrong address faults and stops the
            // machine.
            let unload: extern "win64" fn(*mut c_void) = unsafe { core::mem::transmute(routine) };
            callback::enter(
                &"DriverUnload",
                Keeps::All,
                || Callback::new("DriverUnload", routine, Vec::new()),
                || unload(object),
                |()| String::new(),
            );
        })?;
        let report = self.finish(&driver);
        self.check_running()?;
        tracing::info!(name, leaks = %report, "driver unloaded");
        Ok(report)
    }

    /// After the last call into a driver: reports what it left behind, and unmaps its image.
    fn finish(self: &Arc<Self>, driver: &Loaded) -> LeakReport {
        let name = &driver.info.name;
        let range = driver.mapped.range();
        let late = [self.timers.left_in(&range), self.executive.work.left_in(&range)].concat();
        let threads = self.threads.join_within(self.config.unload_patience);
        let devices = self.io.devices().into_iter().filter(|d| d.driver == *name).map(|d| d.name).collect();
        let report = LeakReport {
            driver: name.clone(),
            pool: self.pool.leaks_of(&range),
            devices,
            links: self.io.dangling_links(name),
            requests: self.io.pending(name),
            threads,
            others: [late, self.others_left_by(name, &range)].concat(),
        };
        self.executive.boot_routines.forget(&range);
        self.io.driver_gone(name, driver.object.address() as usize);
        driver.mapped.unload(&file_name(name));
        report
    }

    /// What the other rooms found, as text.
    fn others_left_by(&self, name: &str, image: &Range<u64>) -> Vec<String> {
        let mut others = self.wdf.take_leaks(name);
        others.extend(self.executive.left_by(image));
        others.extend(self.miniports.left_by(image));
        others.extend(self.nmr.left_by(image));
        // The platform counts for the whole machine, so the rest is this driver's only when no other is loaded.
        if self.drivers.table.lock().is_empty() {
            others.extend(self.wfp.leaks().into_iter().map(|(what, count)| format!("{count} {what}")));
        }
        if let Some((address, what)) = self.pool.inspect_freed() {
            others.push(format!("a write after free at {address:#x} in {what}"));
        }
        others
    }

    /// Called when a file on a device of `driver` was closed: completes an unload that waited for it.
    pub(crate) fn file_closed(self: &Arc<Self>, driver: &str) {
        if self.driver_state(driver) != Some(DriverState::UnloadPending) || self.io.open_files(driver) != 0 {
            return;
        }
        if let Ok(report) = self.unload_driver(driver) {
            self.drivers.reports.lock().push(report);
        }
    }

    /// Takes the reports of unloads that waited for an open file.
    pub fn unload_reports(&self) -> Vec<LeakReport> {
        std::mem::take(&mut *self.drivers.reports.lock())
    }

    /// The drivers that are loaded.
    #[must_use]
    pub fn drivers(&self) -> Vec<DriverInfo> {
        self.drivers.table.lock().values().map(|slot| slot.driver.info.clone()).collect()
    }

    /// Whether a driver runs; None when it is not loaded.
    #[must_use]
    pub fn driver_state(&self, name: &str) -> Option<DriverState> {
        self.drivers.table.lock().get(&name.to_lowercase()).map(|slot| slot.state)
    }

    /// The service name of the driver whose DRIVER_OBJECT is at `object`.
    #[must_use]
    pub fn driver_of_object(&self, object: u64) -> Option<String> {
        let table = self.drivers.table.lock();
        let found = table.values().find(|slot| slot.driver.object.address() as u64 == object);
        found.map(|slot| slot.driver.info.name.clone())
    }

    /// The driver whose image contains `address`: its service name and address range.
    #[must_use]
    pub fn driver_at(&self, address: u64) -> Option<(String, Range<u64>)> {
        let table = self.drivers.table.lock();
        let found = table.values().find(|slot| slot.driver.mapped.range().contains(&address));
        found.map(|slot| (slot.driver.info.name.clone(), slot.driver.mapped.range()))
    }
}

/// A driver's name in stack walks.
fn file_name(service: &str) -> String {
    if service.to_lowercase().ends_with(".sys") { service.to_owned() } else { format!("{service}.sys") }
}

//! The simulated machine as an administrator's program sees it: the seam of `sluice-control`, in process.
//!
//! Services are kept here, as the Service Control Manager keeps them apart from the kernel; the Base Filtering Engine
//! is [`crate::fwpkclnt`], and devices are [`crate::nt::io`]. The machine's drive C: is this system's `/`, on
//! `\device\harddiskvolume1`; a driver's path may be written either way.

mod boot;
mod drivers;

pub use boot::{Boot, Stage};

use crate::cpu::Bugcheck;
use crate::fwpkclnt::UserSession;
use crate::machine::{DriverState, LeakReport, Machine, UnloadError};
use crate::nt::cm::{SERVICES, Value, kind};
use crate::nt::io::OpenFile;
use crate::pe::{LoadError, MAX_FILE};
use drivers::Drivers;
use nt_abi::NtStatus;
use parking_lot::Mutex;
use sluice_host::Host;
use sluice_host::system::{Signature, System, Trust};
use sluice_host::{Device, Engine, HostError, HostResult, Parameter, ServiceConfig, ServiceState, StartType, code};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The NT path under which this system's `/` is seen.
const VOLUME: &str = r"\device\harddiskvolume1";

/// The ALE_APP_ID text of a program on this system: `/usr/bin/curl` is `\device\harddiskvolume1\usr\bin\curl`.
///
/// In lower case letter by letter, as policies fold paths, and without the terminating NUL. The path should be
/// absolute and without symbolic links, as `/proc/PID/exe` is.
#[must_use]
pub fn nt_path(path: &Path) -> String {
    let letters = path.to_string_lossy();
    let folded = letters.chars().map(|letter| match letter {
        '/' => '\\',
        letter => {
            let mut folded = letter.to_lowercase();
            match (folded.next(), folded.next()) {
                (Some(one), None) => one,
                _ => letter,
            }
        }
    });
    VOLUME.chars().chain(folded).collect()
}

/// A simulated machine in this process. Clones are the same machine with the same services.
#[derive(Clone, Debug)]
pub struct LocalHost {
    machine: Arc<Machine>,
    services: Arc<Mutex<Services>>,
    disk: Arc<Mutex<Disk>>,
}

/// The machine's drivers folder, and its requirements for drivers.
#[derive(Debug)]
struct Disk {
    drivers: Drivers,
    system: System,
    trust: Trust,
}

#[derive(Debug, Default)]
struct Services {
    /// By name in lower case.
    by_name: BTreeMap<String, Service>,
    /// What drivers left behind when they were unloaded.
    reports: Vec<LeakReport>,
}

#[derive(Debug)]
struct Service {
    config: ServiceConfig,
    /// Deleted while its driver was loaded; removed when the driver unloads.
    delete_pending: bool,
    /// The file in the drivers folder that its driver was loaded from, by its current name.
    image: Option<String>,
}

impl LocalHost {
    /// A host on a machine. The services belong to the host: clone it rather than make a second one.
    #[must_use]
    pub fn new(machine: Arc<Machine>) -> Self {
        // CERT_E_UNTRUSTEDROOT: the machine trusts no signer.
        let disk =
            Disk { drivers: Drivers::on(&machine.disk), system: drivers::system(), trust: Trust::Nobody(0x800b_0109) };
        Self { machine, services: Arc::default(), disk: Arc::new(Mutex::new(disk)) }
    }

    /// Changes the Windows version or its requirements for drivers. By default signatures are not checked.
    pub fn set_system(&self, change: impl FnOnce(&mut System)) {
        change(&mut self.disk.lock().system);
    }

    /// Sets who is trusted to sign drivers on this machine. By default nobody is.
    pub fn set_trust(&self, trust: Trust) {
        self.disk.lock().trust = trust;
    }

    /// Stops or starts the service BFE, and tells the drivers that want to know. While it is stopped, it answers no
    /// calls; its filters stay in force, as on Windows.
    pub fn set_engine(&self, running: bool) {
        self.machine.set_engine(running);
    }

    /// The files in the drivers folder that the machine's next start will delete.
    #[must_use]
    pub fn deleted_at_restart(&self) -> Vec<String> {
        self.disk.lock().drivers.doomed().to_vec()
    }

    /// The files in the drivers folder that loaded drivers came from.
    fn files_in_use(&self) -> Vec<String> {
        let loaded = |(name, service): (&String, &Service)| {
            self.machine.driver_state(name).is_some().then(|| service.image.clone()).flatten()
        };
        self.services.lock().by_name.iter().filter_map(loaded).collect()
    }

    /// The content of a driver's file, from the drivers folder or the disk.
    fn image(&self, operation: &str, path: &str) -> HostResult<Vec<u8>> {
        if let Some(name) = drivers::name(path) {
            let disk = self.disk.lock();
            return disk.drivers.read(name).ok_or_else(|| HostError::new(operation, code::ERROR_FILE_NOT_FOUND));
        }
        let path = local_path(path).map_err(|error| HostError { operation: operation.to_owned(), ..error })?;
        sluice_files::read(&path, MAX_FILE).map_err(|error| file_error(operation, &path, &error))
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// Takes the reports of what drivers left behind when their services were stopped, one for each unload.
    #[must_use]
    pub fn unload_reports(&self) -> Vec<LeakReport> {
        let mut reports = std::mem::take(&mut self.services.lock().reports);
        reports.extend(self.machine.unload_reports());
        reports
    }

    /// The service, unless it was deleted and its driver has unloaded since. No lock is held afterwards.
    fn service(&self, name: &str) -> Option<(ServiceConfig, bool)> {
        let loaded = self.machine.driver_state(name).is_some();
        let mut services = self.services.lock();
        let key = name.to_lowercase();
        let (config, delete_pending) = {
            let service = services.by_name.get(&key)?;
            (service.config.clone(), service.delete_pending)
        };
        if delete_pending && !loaded {
            services.by_name.remove(&key);
            self.machine.executive.registry.remove_all(&key_of(name));
            return None;
        }
        Some((config, delete_pending))
    }

    fn existing(&self, name: &str) -> HostResult<(ServiceConfig, bool)> {
        self.service(name).ok_or_else(|| HostError::new("OpenServiceW", code::ERROR_SERVICE_DOES_NOT_EXIST))
    }
}

impl Host for LocalHost {
    fn service_state(&self, name: &str) -> HostResult<ServiceState> {
        if self.service(name).is_none() {
            return Ok(ServiceState::Absent);
        }
        Ok(match self.machine.driver_state(name) {
            None => ServiceState::Stopped,
            Some(DriverState::Running) => ServiceState::Running,
            Some(DriverState::UnloadPending) => ServiceState::StopPending,
        })
    }

    fn service_driver(&self, name: &str) -> HostResult<Option<String>> {
        Ok(self.service(name).map(|(config, _)| config.driver))
    }

    fn create_service(&self, config: &ServiceConfig) -> HostResult<()> {
        const OPERATION: &str = "CreateServiceW";
        match self.service(&config.name) {
            Some((_, true)) => return Err(HostError::new(OPERATION, code::ERROR_SERVICE_MARKED_FOR_DELETE)),
            Some((_, false)) => return Err(HostError::new(OPERATION, code::ERROR_SERVICE_EXISTS)),
            None => {}
        }
        // As the Service Control Manager: 1 to 256 characters without slashes.
        if config.name.is_empty() || config.name.chars().count() > 256 || config.name.contains(['/', '\\', '\0']) {
            return Err(HostError::new(OPERATION, code::ERROR_INVALID_NAME));
        }
        let service = Service { config: config.clone(), delete_pending: false, image: None };
        let registry = &self.machine.executive.registry;
        registry.set(&key_of(&config.name), "Start", Value::dword(config.start.number()));
        registry.set(&key_of(&config.name), "ImagePath", Value::text(&config.driver));
        self.services.lock().by_name.insert(config.name.to_lowercase(), service);
        Ok(())
    }

    fn start_service(&self, name: &str) -> HostResult<()> {
        const OPERATION: &str = "StartServiceW";
        let (config, delete_pending) = self.existing(name)?;
        if delete_pending {
            return Err(HostError::new(OPERATION, code::ERROR_SERVICE_MARKED_FOR_DELETE));
        }
        let image = self.image(OPERATION, &config.driver)?;
        {
            let disk = self.disk.lock();
            drivers::admit(disk.system.integrity, &drivers::signature(&image, disk.trust))?;
        }
        match self.machine.load_driver(&config.name, &image) {
            Ok(_) => {
                if let Some(service) = self.services.lock().by_name.get_mut(&name.to_lowercase()) {
                    service.image = drivers::name(&config.driver).map(str::to_lowercase);
                }
                Ok(())
            }
            Err(error) => Err(HostError::with_message(OPERATION, load_code(&error), error.to_string())),
        }
    }

    fn stop_service(&self, name: &str) -> HostResult<()> {
        const OPERATION: &str = "ControlService";
        let (config, _) = self.existing(name)?;
        let refused = |code, error: &UnloadError| Err(HostError::with_message(OPERATION, code, error.to_string()));
        match self.machine.unload_driver(&config.name) {
            Ok(report) => {
                self.services.lock().reports.push(report);
                Ok(())
            }
            Err(UnloadError::Bugcheck(bugcheck)) => Err(stopped(OPERATION, &bugcheck)),
            // The service reports that it is stopping, and does so when the last file is closed.
            Err(UnloadError::Pending { .. }) => Ok(()),
            Err(error @ UnloadError::NotLoaded(_)) => refused(code::ERROR_SERVICE_NOT_ACTIVE, &error),
            Err(error @ UnloadError::NoUnloadRoutine(_)) => refused(code::ERROR_INVALID_SERVICE_CONTROL, &error),
        }
    }

    fn delete_service(&self, name: &str) -> HostResult<()> {
        let (config, delete_pending) = self.existing(name)?;
        if delete_pending {
            return Err(HostError::new("DeleteService", code::ERROR_SERVICE_MARKED_FOR_DELETE));
        }
        let loaded = self.machine.driver_state(&config.name).is_some();
        let mut services = self.services.lock();
        let key = name.to_lowercase();
        if loaded {
            if let Some(service) = services.by_name.get_mut(&key) {
                service.delete_pending = true;
            }
        } else {
            services.by_name.remove(&key);
            self.machine.executive.registry.remove_all(&key_of(name));
        }
        Ok(())
    }

    fn set_service_driver(&self, name: &str, driver: &str) -> HostResult<()> {
        let (_, delete_pending) = self.existing(name)?;
        if delete_pending {
            return Err(HostError::new("ChangeServiceConfigW", code::ERROR_SERVICE_MARKED_FOR_DELETE));
        }
        if let Some(service) = self.services.lock().by_name.get_mut(&name.to_lowercase()) {
            driver.clone_into(&mut service.config.driver);
        }
        Ok(())
    }

    fn service_start(&self, name: &str) -> HostResult<Option<StartType>> {
        Ok(self.service(name).map(|(config, _)| config.start))
    }

    fn set_service_start(&self, name: &str, start: StartType) -> HostResult<()> {
        self.existing(name)?;
        if let Some(service) = self.services.lock().by_name.get_mut(&name.to_lowercase()) {
            service.config.start = start;
        }
        self.machine.executive.registry.set(&key_of(name), "Start", Value::dword(start.number()));
        Ok(())
    }

    fn service_parameter(&self, name: &str, value: &str) -> HostResult<Option<Parameter>> {
        let Some(found) = self.machine.executive.registry.get(&parameters_of(name), value) else { return Ok(None) };
        let unknown = || HostError::new("RegGetValueW", code::ERROR_INVALID_DATA);
        match (found.kind, found.data.as_slice()) {
            (kind::REG_DWORD, &[a, b, c, d]) => Ok(Some(Parameter::Number(u32::from_le_bytes([a, b, c, d])))),
            (kind::REG_SZ, data) => {
                let units =
                    data.as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair)).take_while(|unit| *unit != 0);
                let text = String::from_utf16(&units.collect::<Vec<_>>()).map_err(|_| unknown())?;
                Ok(Some(Parameter::Text(text)))
            }
            _ => Err(unknown()),
        }
    }

    fn set_service_parameter(&self, name: &str, value: &str, to: Option<&Parameter>) -> HostResult<()> {
        self.existing(name)?;
        let (registry, key) = (&self.machine.executive.registry, parameters_of(name));
        match to {
            Some(Parameter::Number(number)) => registry.set(&key, value, Value::dword(*number)),
            Some(Parameter::Text(text)) => registry.set(&key, value, Value::text(text)),
            None => drop(registry.remove_value(&key, value)),
        }
        Ok(())
    }

    fn system(&self) -> HostResult<System> {
        Ok(self.disk.lock().system.clone())
    }

    fn environment(&self, name: &str) -> HostResult<Option<String>> {
        Ok(drivers::environment(name).map(str::to_owned))
    }

    fn signature(&self, path: &str) -> HostResult<Signature> {
        let image = self.image("WinVerifyTrust", path)?;
        Ok(drivers::signature(&image, self.disk.lock().trust))
    }

    fn read_driver(&self, file: &str) -> HostResult<Option<Vec<u8>>> {
        Ok(self.disk.lock().drivers.read(file))
    }

    fn write_driver(&self, file: &str, content: &[u8]) -> HostResult<()> {
        self.disk.lock().drivers.write(file, content)
    }

    fn rename_driver(&self, from: &str, to: &str) -> HostResult<()> {
        let in_use = self.files_in_use();
        self.disk.lock().drivers.rename(from, to, &in_use)?;
        for service in self.services.lock().by_name.values_mut() {
            if service.image.as_ref().is_some_and(|image| image.eq_ignore_ascii_case(from)) {
                service.image = Some(to.to_lowercase());
            }
        }
        Ok(())
    }

    fn delete_driver(&self, file: &str) -> HostResult<()> {
        let in_use = self.files_in_use();
        self.disk.lock().drivers.delete(file, &in_use)
    }

    fn delete_driver_at_restart(&self, file: &str) -> HostResult<()> {
        self.disk.lock().drivers.delete_at_restart(file)
    }

    fn open_engine(&self) -> HostResult<Box<dyn Engine + '_>> {
        self.machine.check_running().map_err(|bugcheck| stopped("FwpmEngineOpen0", &bugcheck))?;
        if !self.machine.wfp.engine.bfe.is_running() {
            return Err(HostError::new("FwpmEngineOpen0", code::EPT_S_NOT_REGISTERED));
        }
        Ok(Box::new(UserSession::open(&self.machine, false)))
    }

    fn open_device(&self, path: &str) -> HostResult<Box<dyn Device>> {
        const OPERATION: &str = "CreateFileW";
        self.machine.check_running().map_err(|bugcheck| stopped(OPERATION, &bugcheck))?;
        match self.machine.io.open(&self.machine, path) {
            Ok(file) => Ok(Box::new(LocalDevice(file))),
            Err(status) => {
                // A driver that stops the machine in its create routine is reported as a stopped machine.
                self.machine.check_running().map_err(|bugcheck| stopped(OPERATION, &bugcheck))?;
                Err(failure(OPERATION, status))
            }
        }
    }

    fn app_id(&self, path: &str) -> HostResult<String> {
        const OPERATION: &str = "FwpmGetAppIdFromFileName0";
        let local = local_path(path).map_err(|error| HostError { operation: OPERATION.to_owned(), ..error })?;
        match local.canonicalize() {
            Ok(path) => Ok(nt_path(&path)),
            Err(error) => Err(file_error(OPERATION, &local, &error)),
        }
    }

    fn interface_luid(&self, alias: &str) -> HostResult<u64> {
        // What Windows says of an alias that no interface has, by the documentation.
        let unknown = || HostError::new("ConvertInterfaceAliasToLuid", code::ERROR_INVALID_PARAMETER);
        crate::tcpip::interface::luid(alias).ok_or_else(unknown)
    }
}

/// An open device of the simulated machine.
struct LocalDevice(OpenFile);

impl Device for LocalDevice {
    fn control(&self, code: u32, input: &[u8], output: &mut [u8]) -> HostResult<usize> {
        const OPERATION: &str = "DeviceIoControl";
        let answer = self.0.ioctl(code, input, output.len());
        let (status, bytes) = answer.map_err(|bugcheck| stopped(OPERATION, &bugcheck))?;
        copied(OPERATION, status, &bytes, output)
    }

    fn read(&self, output: &mut [u8], timeout: Duration) -> HostResult<usize> {
        const OPERATION: &str = "ReadFile";
        match self.0.read(output.len(), Some(timeout)) {
            Ok((NtStatus::CANCELLED, _)) => Ok(0),
            Ok((status, bytes)) => copied(OPERATION, status, &bytes, output),
            Err(bugcheck) => Err(stopped(OPERATION, &bugcheck)),
        }
    }
}

/// A service's key in the registry.
fn key_of(service: &str) -> String {
    format!(r"{SERVICES}\{service}")
}

fn parameters_of(service: &str) -> String {
    format!(r"{SERVICES}\{service}\Parameters")
}

/// What a request returned, in the caller's buffer.
fn copied(operation: &str, status: NtStatus, bytes: &[u8], output: &mut [u8]) -> HostResult<usize> {
    if !status.is_success() {
        return Err(failure(operation, status));
    }
    let count = bytes.len().min(output.len());
    for (to, from) in output.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(count)
}

/// A path of the machine on this system: `/usr/bin/curl` or `C:\usr\bin\curl`.
fn local_path(path: &str) -> HostResult<PathBuf> {
    match path.as_bytes() {
        [b'/', ..] => Ok(PathBuf::from(path)),
        [b'c' | b'C', b':', b'\\' | b'/', ..] => Ok(PathBuf::from(path[2..].replace('\\', "/"))),
        [_, b':', ..] => {
            let what = format!("{path}: the simulated machine only has the drive C:, which is this system's /");
            Err(HostError::with_message("CreateFileW", code::ERROR_PATH_NOT_FOUND, what))
        }
        _ => {
            let what = format!("{path}: the path is not absolute, as in /usr/bin/curl");
            Err(HostError::with_message("CreateFileW", code::ERROR_INVALID_NAME, what))
        }
    }
}

fn file_error(operation: &str, path: &Path, error: &std::io::Error) -> HostError {
    let code = match error.kind() {
        ErrorKind::NotFound => code::ERROR_FILE_NOT_FOUND,
        ErrorKind::NotADirectory => code::ERROR_PATH_NOT_FOUND,
        ErrorKind::PermissionDenied => code::ERROR_ACCESS_DENIED,
        _ => code::ERROR_GEN_FAILURE,
    };
    HostError::with_message(operation, code, format!("{}: {error}", path.display()))
}

/// A status of the kernel as user mode sees it, with the status itself in the message.
fn failure(operation: &str, status: NtStatus) -> HostError {
    let code = code::from_ntstatus(status.0);
    HostError::with_message(operation, code, format!("{}, {status}", code::message(code)))
}

/// On Windows no call returns from a machine that a bugcheck stopped; here the caller gets this error.
fn stopped(operation: &str, bugcheck: &Bugcheck) -> HostError {
    HostError::with_message(operation, code::ERROR_IO_DEVICE, format!("the machine has stopped: {bugcheck}"))
}

/// What StartServiceW returns for a driver that does not load.
fn load_code(error: &LoadError) -> u32 {
    match error {
        LoadError::UnknownImports(_) => code::ERROR_PROC_NOT_FOUND,
        LoadError::AlreadyLoaded(_) => code::ERROR_SERVICE_ALREADY_RUNNING,
        LoadError::NoMemory { .. } => code::ERROR_NO_SYSTEM_RESOURCES,
        LoadError::EntryFailed { status, .. } => code::from_ntstatus(status.0),
        LoadError::Bugcheck(_) => code::ERROR_IO_DEVICE,
        _ => code::ERROR_BAD_EXE_FORMAT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> LocalHost {
        LocalHost::new(Machine::new())
    }

    fn config(driver: &str) -> ServiceConfig {
        ServiceConfig {
            name: "Test".into(),
            display_name: "A test".into(),
            driver: driver.into(),
            start: StartType::Demand,
        }
    }

    #[test]
    fn programs_have_nt_paths() {
        assert_eq!(nt_path(Path::new("/usr/bin/Curl")), r"\device\harddiskvolume1\usr\bin\curl");
        // Letters whose lower case is longer, or depends on the word, stay unchanged, as in policies.
        assert_eq!(nt_path(Path::new("/İΣ")), "\\device\\harddiskvolume1\\İσ");
    }

    #[test]
    fn an_app_id_is_that_of_the_file_behind_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (program, link) = (root.join("Program"), root.join("link"));
        std::fs::write(&program, "").unwrap();
        std::os::unix::fs::symlink(&program, &link).unwrap();
        let expected = nt_path(&program);
        assert_eq!(host().app_id(link.to_str().unwrap()), Ok(expected.clone()));
        let dos = format!("C:{}", program.to_str().unwrap().replace('/', "\\"));
        assert_eq!(host().app_id(&dos), Ok(expected));
        let error = host().app_id(&format!("{}/none", root.display())).unwrap_err();
        assert_eq!(error.code, code::ERROR_FILE_NOT_FOUND);
        assert_eq!(host().app_id(r"D:\x").unwrap_err().code, code::ERROR_PATH_NOT_FOUND);
        assert_eq!(host().app_id("curl").unwrap_err().code, code::ERROR_INVALID_NAME);
    }

    #[test]
    fn a_service_is_kept_until_it_is_deleted() {
        let host = host();
        assert_eq!(host.service_state("test"), Ok(ServiceState::Absent));
        host.create_service(&config("/x.sys")).unwrap();
        assert_eq!(host.create_service(&config("/x.sys")).unwrap_err().code, code::ERROR_SERVICE_EXISTS);
        assert_eq!(host.service_state("TEST"), Ok(ServiceState::Stopped));
        assert_eq!(host.clone().service_driver("test"), Ok(Some("/x.sys".to_owned())));
        assert_eq!(host.stop_service("test").unwrap_err().code, code::ERROR_SERVICE_NOT_ACTIVE);
        host.delete_service("test").unwrap();
        assert_eq!(host.delete_service("test").unwrap_err().code, code::ERROR_SERVICE_DOES_NOT_EXIST);
        assert_eq!(host.start_service("test").unwrap_err().code, code::ERROR_SERVICE_DOES_NOT_EXIST);
    }

    #[test]
    fn what_is_no_driver_does_not_start() {
        let host = host();
        host.create_service(&config("/nowhere/x.sys")).unwrap();
        assert_eq!(host.start_service("Test").unwrap_err().code, code::ERROR_FILE_NOT_FOUND);
        host.delete_service("Test").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        host.create_service(&config(file.path().to_str().unwrap())).unwrap();
        assert_eq!(host.start_service("Test").unwrap_err().code, code::ERROR_BAD_EXE_FORMAT);
        assert_eq!(host.service_state("Test"), Ok(ServiceState::Stopped));
    }

    #[test]
    fn names_that_no_service_can_have_are_refused() {
        for name in ["", "a/b", "a\\b", &"x".repeat(257)] {
            let config = ServiceConfig { name: name.to_owned(), ..config("/x") };
            assert_eq!(host().create_service(&config).unwrap_err().code, code::ERROR_INVALID_NAME, "{name:?}");
        }
    }

    #[test]
    fn there_is_no_device_without_a_driver() {
        let error = host().open_device(r"\\.\Sluice").err().unwrap();
        assert_eq!((error.operation.as_str(), error.code), ("CreateFileW", code::ERROR_FILE_NOT_FOUND));
    }
}

//! A host in memory, for tests only: it stores what it is given and fails at the call that a test names.

use sluice_host::listing::{ListedEvent, ListedFilter, Listing};
use sluice_host::system::{CodeIntegrity, MACHINE_X64, Signature, System, is_driver_file};
use sluice_host::{
    Callout, Device, Engine, Filter, FilterEntry, Guid, Host, HostError, HostResult, Parameter, Provider,
    ServiceConfig, ServiceState, StartType, Sublayer, code,
};
use sluice_policy::Image;
use sluice_protocol::status::PolicyReply;
use sluice_protocol::upload::{Part, Wanted};
use sluice_protocol::{DEVICE_PATH, OLDEST_WINDOWS_BUILD, PROTOCOL_VERSION, Status, ioctl};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zerocopy::{FromBytes, IntoBytes};

/// The objects in BFE.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Objects {
    pub(crate) providers: Vec<Provider>,
    pub(crate) sublayers: Vec<Sublayer>,
    pub(crate) callouts: Vec<Callout>,
    pub(crate) filters: Vec<Filter>,
}

/// The driver's answers.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) status: Status,
    pub(crate) reply: PolicyReply,
    /// What was uploaded and not committed yet.
    pub(crate) upload: Vec<u8>,
    pub(crate) policies: Vec<Vec<u8>>,
    pub(crate) reads: VecDeque<Vec<u8>>,
    /// The rule names of one policy that is no longer in force.
    pub(crate) past: Option<(u32, Vec<u8>)>,
}

impl Default for Driver {
    fn default() -> Self {
        let reply = PolicyReply::accepted(1);
        Self {
            status: Status::default(),
            reply,
            upload: Vec::new(),
            policies: Vec::new(),
            reads: VecDeque::new(),
            past: None,
        }
    }
}

/// A driver's file: the parts of a PE image that are read, and a mark to tell two drivers apart.
pub(crate) fn driver_file(folder: &Path, mark: u8) -> std::path::PathBuf {
    let mut image = [0; 0x80];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x40;
    image[0x40..0x46].copy_from_slice(b"PE\0\0\x64\x86");
    image[0x7f] = mark;
    let path = folder.join(format!("driver-{mark}.sys"));
    std::fs::write(&path, image).unwrap();
    path
}

/// Installs a driver.
pub(crate) fn installed() -> Memory {
    let memory = Memory::new();
    let folder = tempfile::tempdir().unwrap();
    crate::install(&memory, &driver_file(folder.path(), 1)).unwrap();
    memory
}

#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) system: System,
    pub(crate) signature: Signature,
    /// The drivers folder.
    pub(crate) files: RefCell<BTreeMap<String, Vec<u8>>>,
    /// Files that Windows deletes at its next start.
    pub(crate) doomed: RefCell<Vec<String>>,
    /// A file that cannot be read, if it is there.
    pub(crate) unreadable: Cell<Option<&'static str>>,
    pub(crate) service: RefCell<Option<(ServiceConfig, ServiceState)>>,
    /// The values of its Parameters key.
    pub(crate) parameters: RefCell<BTreeMap<String, Parameter>>,
    pub(crate) objects: RefCell<Objects>,
    pub(crate) driver: Arc<Mutex<Driver>>,
    /// Every call that changes something, in order.
    pub(crate) calls: RefCell<Vec<&'static str>>,
    /// The number of the call, from 0, that fails.
    pub(crate) fail_at: Cell<Option<usize>>,
    /// The Base Filtering Engine does not answer.
    pub(crate) engine_stopped: Cell<bool>,
    /// How often the service still reports that it is stopping.
    pub(crate) stop_polls: Cell<usize>,
    /// Aliases and LUIDs.
    pub(crate) interfaces: RefCell<Vec<(String, u64)>>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let memory = Self {
            system: System {
                build: OLDEST_WINDOWS_BUILD,
                machine: MACHINE_X64,
                drivers: r"C:\Windows\System32\drivers".to_owned(),
                integrity: CodeIntegrity(0),
                secure_boot: None,
            },
            signature: Signature::None,
            files: RefCell::default(),
            doomed: RefCell::default(),
            unreadable: Cell::new(None),
            service: RefCell::default(),
            parameters: RefCell::default(),
            objects: RefCell::default(),
            driver: Arc::default(),
            calls: RefCell::default(),
            fail_at: Cell::default(),
            engine_stopped: Cell::default(),
            stop_polls: Cell::default(),
            interfaces: RefCell::new(vec![("Ethernet".to_owned(), 6 << 48 | 1)]),
        };
        memory.driver.lock().unwrap().status.protocol_version = PROTOCOL_VERSION;
        memory
    }

    /// Whether nothing of ours is left.
    pub(crate) fn is_clean(&self) -> bool {
        self.service.borrow().is_none()
            && *self.objects.borrow() == Objects::default()
            && self.files.borrow().is_empty()
            && self.parameters.borrow().is_empty()
    }

    /// The driver in memory keeps its file.
    fn in_use(&self, file: &str) -> bool {
        let loaded =
            matches!(self.service.borrow().as_ref(), Some((_, ServiceState::Running | ServiceState::StopPending)));
        loaded && file == crate::install::FILE
    }

    fn call(&self, name: &'static str) -> HostResult<()> {
        let number = self.calls.borrow().len();
        self.calls.borrow_mut().push(name);
        if self.fail_at.get() == Some(number) {
            return Err(HostError::new(name, code::ERROR_NO_SYSTEM_RESOURCES));
        }
        Ok(())
    }
}

impl Host for Memory {
    fn service_state(&self, name: &str) -> HostResult<ServiceState> {
        if name != sluice_protocol::SERVICE_NAME {
            return Ok(ServiceState::Absent);
        }
        let mut service = self.service.borrow_mut();
        let Some((_, state)) = &mut *service else { return Ok(ServiceState::Absent) };
        if *state == ServiceState::StopPending {
            match self.stop_polls.get() {
                0 => *state = ServiceState::Stopped,
                more => self.stop_polls.set(more - 1),
            }
        }
        Ok(*state)
    }

    fn service_driver(&self, _: &str) -> HostResult<Option<String>> {
        Ok(self.service.borrow().as_ref().map(|(config, _)| config.driver.clone()))
    }

    fn service_start(&self, _: &str) -> HostResult<Option<StartType>> {
        Ok(self.service.borrow().as_ref().map(|(config, _)| config.start))
    }

    fn set_service_start(&self, _: &str, start: StartType) -> HostResult<()> {
        self.call("ChangeServiceConfigW")?;
        self.service.borrow_mut().as_mut().expect("a service to change").0.start = start;
        Ok(())
    }

    fn service_parameter(&self, _: &str, value: &str) -> HostResult<Option<Parameter>> {
        Ok(self.parameters.borrow().get(value).cloned())
    }

    fn set_service_parameter(&self, _: &str, value: &str, to: Option<&Parameter>) -> HostResult<()> {
        self.call("RegSetKeyValueW")?;
        assert!(self.service.borrow().is_some(), "a service to change");
        match to {
            Some(to) => drop(self.parameters.borrow_mut().insert(value.to_owned(), to.clone())),
            None => drop(self.parameters.borrow_mut().remove(value)),
        }
        Ok(())
    }

    fn system(&self) -> HostResult<System> {
        Ok(self.system.clone())
    }

    fn environment(&self, name: &str) -> HostResult<Option<String>> {
        Ok(name.eq_ignore_ascii_case("SystemRoot").then(|| r"C:\Windows".to_owned()))
    }

    fn signature(&self, _: &str) -> HostResult<Signature> {
        Ok(self.signature.clone())
    }

    fn read_driver(&self, file: &str) -> HostResult<Option<Vec<u8>>> {
        if self.unreadable.get() == Some(file) && self.files.borrow().contains_key(file) {
            return Err(HostError::with_message("ReadFile", code::ERROR_INVALID_DATA, "too long"));
        }
        Ok(self.files.borrow().get(file).cloned())
    }

    fn write_driver(&self, file: &str, content: &[u8]) -> HostResult<()> {
        self.call("CreateFileW")?;
        assert!(is_driver_file(file), "{file}");
        let old = self.files.borrow_mut().insert(file.to_owned(), content.to_owned());
        assert_eq!(old, None, "a new file");
        Ok(())
    }

    fn rename_driver(&self, from: &str, to: &str) -> HostResult<()> {
        self.call("MoveFileExW")?;
        assert!(!self.in_use(to), "{to} is in use");
        let content = self.files.borrow_mut().remove(from).expect("a file to rename");
        self.files.borrow_mut().insert(to.to_owned(), content);
        Ok(())
    }

    fn delete_driver(&self, file: &str) -> HostResult<()> {
        self.call("DeleteFileW")?;
        assert!(!self.in_use(file), "{file} is in use");
        assert!(self.files.borrow_mut().remove(file).is_some(), "a file to delete");
        Ok(())
    }

    fn delete_driver_at_restart(&self, file: &str) -> HostResult<()> {
        self.call("MoveFileExW at the next start")?;
        self.doomed.borrow_mut().push(file.to_owned());
        Ok(())
    }

    fn set_service_driver(&self, _: &str, driver: &str) -> HostResult<()> {
        self.call("ChangeServiceConfigW")?;
        self.service.borrow_mut().as_mut().expect("a service to change").0.driver = driver.to_owned();
        Ok(())
    }

    fn create_service(&self, config: &ServiceConfig) -> HostResult<()> {
        self.call("CreateServiceW")?;
        let old = self.service.replace(Some((config.clone(), ServiceState::Stopped)));
        assert!(old.is_none(), "a service created twice");
        Ok(())
    }

    fn start_service(&self, _: &str) -> HostResult<()> {
        self.call("StartServiceW")?;
        let mut service = self.service.borrow_mut();
        let (config, state) = service.as_mut().expect("a service to start");
        if config.driver == crate::install::IMAGE_PATH {
            assert!(self.files.borrow().contains_key(crate::install::FILE), "a file to load");
        }
        assert_eq!(std::mem::replace(state, ServiceState::Running), ServiceState::Stopped);
        let mut driver = self.driver.lock().unwrap();
        driver.policies.clear();
        driver.status.policy_bytes = 0;
        Ok(())
    }

    fn stop_service(&self, _: &str) -> HostResult<()> {
        self.call("ControlService")?;
        let mut service = self.service.borrow_mut();
        let (_, state) = service.as_mut().expect("a service to stop");
        assert_eq!(std::mem::replace(state, ServiceState::StopPending), ServiceState::Running);
        // What is in force goes with the driver.
        self.driver.lock().unwrap().policies.clear();
        Ok(())
    }

    fn delete_service(&self, _: &str) -> HostResult<()> {
        self.call("DeleteService")?;
        assert!(self.service.take().is_some(), "a service to delete");
        self.parameters.borrow_mut().clear();
        Ok(())
    }

    fn open_engine(&self) -> HostResult<Box<dyn Engine + '_>> {
        self.call("FwpmEngineOpen0")?;
        if self.engine_stopped.get() {
            return Err(HostError::new("FwpmEngineOpen0", code::EPT_S_NOT_REGISTERED));
        }
        Ok(Box::new(Session { memory: self, transaction: None }))
    }

    fn open_device(&self, path: &str) -> HostResult<Box<dyn Device>> {
        assert_eq!(path, DEVICE_PATH);
        match self.service.borrow().as_ref() {
            Some((_, ServiceState::Running)) => Ok(Box::new(Handle(Arc::clone(&self.driver)))),
            _ => Err(HostError::new("CreateFileW", code::ERROR_FILE_NOT_FOUND)),
        }
    }

    fn app_id(&self, path: &str) -> HostResult<String> {
        match path.strip_prefix("C:") {
            Some(rest) => Ok(format!(r"\device\harddiskvolume1{}", rest.to_lowercase())),
            None => Err(HostError::new("FwpmGetAppIdFromFileName0", code::ERROR_FILE_NOT_FOUND)),
        }
    }

    fn interface_luid(&self, alias: &str) -> HostResult<u64> {
        let known = self.interfaces.borrow().iter().find(|(name, _)| name == alias).map(|(_, luid)| *luid);
        known.ok_or_else(|| HostError::new("ConvertInterfaceAliasToLuid", code::ERROR_INVALID_PARAMETER))
    }
}

struct Session<'a> {
    memory: &'a Memory,
    /// The state to roll back to.
    transaction: Option<Objects>,
}

impl Session<'_> {
    fn add<T: Clone>(
        &self,
        name: &'static str,
        list: fn(&mut Objects) -> &mut Vec<T>,
        key: fn(&T) -> Guid,
        object: &T,
    ) -> HostResult<()> {
        self.memory.call(name)?;
        let mut objects = self.memory.objects.borrow_mut();
        let list = list(&mut objects);
        if list.iter().any(|other| key(other) == key(object)) {
            return Err(HostError::new(name, code::FWP_E_ALREADY_EXISTS));
        }
        list.push(object.clone());
        Ok(())
    }

    fn delete<T>(
        &self,
        name: &'static str,
        list: fn(&mut Objects) -> &mut Vec<T>,
        key_of: fn(&T) -> Guid,
        key: Guid,
        in_use: fn(&Objects, Guid) -> bool,
    ) -> HostResult<()> {
        self.memory.call(name)?;
        let mut objects = self.memory.objects.borrow_mut();
        if list(&mut objects).iter().all(|object| key_of(object) != key) {
            return Err(HostError::new(name, code::FWP_E_NOT_FOUND));
        }
        if in_use(&objects, key) {
            return Err(HostError::new(name, code::FWP_E_IN_USE));
        }
        list(&mut objects).retain(|object| key_of(object) != key);
        Ok(())
    }
}

/// FWPM_FILTER_FLAG_BOOTTIME.
fn is_boot_time(filter: &Filter) -> bool {
    filter.flags & 2 != 0
}

impl Session<'_> {
    fn entries(&self, wanted: impl Fn(&Filter) -> bool) -> Vec<FilterEntry> {
        let objects = self.memory.objects.borrow();
        let entry = |(filter, id): (&Filter, u64)| FilterEntry {
            key: filter.key.expect("our filters have keys"),
            ..FilterEntry::of(filter, id)
        };
        objects.filters.iter().filter(|filter| wanted(filter)).zip(1001..).map(entry).collect()
    }
}

impl Engine for Session<'_> {
    fn begin(&mut self) -> HostResult<()> {
        self.memory.call("FwpmTransactionBegin0")?;
        self.transaction = Some(self.memory.objects.borrow().clone());
        Ok(())
    }

    fn commit(&mut self) -> HostResult<()> {
        self.memory.call("FwpmTransactionCommit0")?;
        self.transaction = None;
        Ok(())
    }

    fn abort(&mut self) -> HostResult<()> {
        self.memory.call("FwpmTransactionAbort0")?;
        if let Some(before) = self.transaction.take() {
            *self.memory.objects.borrow_mut() = before;
        }
        Ok(())
    }

    fn add_provider(&mut self, provider: &Provider) -> HostResult<()> {
        self.add("FwpmProviderAdd0", |objects| &mut objects.providers, |object| object.key, provider)
    }

    fn add_sublayer(&mut self, sublayer: &Sublayer) -> HostResult<()> {
        self.add("FwpmSubLayerAdd0", |objects| &mut objects.sublayers, |object| object.key, sublayer)
    }

    fn add_callout(&mut self, callout: &Callout) -> HostResult<u32> {
        self.add("FwpmCalloutAdd0", |objects| &mut objects.callouts, |object| object.key, callout).map(|()| 1)
    }

    fn add_filter(&mut self, filter: &Filter) -> HostResult<u64> {
        self.memory.call("FwpmFilterAdd0")?;
        let mut objects = self.memory.objects.borrow_mut();
        objects.filters.push(filter.clone());
        Ok(1000 + objects.filters.len() as u64)
    }

    fn delete_provider(&mut self, key: Guid) -> HostResult<()> {
        self.delete(
            "FwpmProviderDeleteByKey0",
            |objects| &mut objects.providers,
            |object| object.key,
            key,
            |objects, key| objects.filters.iter().any(|filter| filter.provider == Some(key)),
        )
    }

    fn delete_sublayer(&mut self, key: Guid) -> HostResult<()> {
        self.delete(
            "FwpmSubLayerDeleteByKey0",
            |objects| &mut objects.sublayers,
            |object| object.key,
            key,
            |objects, key| objects.filters.iter().any(|filter| filter.sublayer == key),
        )
    }

    fn delete_callout(&mut self, key: Guid) -> HostResult<()> {
        self.delete(
            "FwpmCalloutDeleteByKey0",
            |objects| &mut objects.callouts,
            |object| object.key,
            key,
            |objects, key| {
                objects.filters.iter().any(|filter| match filter.action {
                    sluice_host::FilterAction::CalloutTerminating(callout)
                    | sluice_host::FilterAction::CalloutInspection(callout)
                    | sluice_host::FilterAction::CalloutUnknown(callout) => callout == key,
                    _ => false,
                })
            },
        )
    }

    fn delete_filter(&mut self, key: Guid) -> HostResult<()> {
        self.memory.call("FwpmFilterDeleteByKey0")?;
        self.memory.objects.borrow_mut().filters.retain(|filter| filter.key != Some(key));
        Ok(())
    }

    fn provider(&mut self, key: Guid) -> HostResult<Option<Provider>> {
        Ok(self.memory.objects.borrow().providers.iter().find(|object| object.key == key).cloned())
    }

    fn sublayer(&mut self, key: Guid) -> HostResult<Option<Sublayer>> {
        Ok(self.memory.objects.borrow().sublayers.iter().find(|object| object.key == key).cloned())
    }

    fn callout(&mut self, key: Guid) -> HostResult<Option<Callout>> {
        Ok(self.memory.objects.borrow().callouts.iter().find(|object| object.key == key).cloned())
    }

    fn filters(&mut self, provider: Option<Guid>) -> HostResult<Vec<FilterEntry>> {
        Ok(self.entries(|filter| !is_boot_time(filter) && (provider.is_none() || filter.provider == provider)))
    }

    fn boot_filters(&mut self, layer: Guid) -> HostResult<Vec<FilterEntry>> {
        Ok(self.entries(|filter| is_boot_time(filter) && filter.layer == layer))
    }

    fn list(&mut self) -> HostResult<Listing> {
        let filters = self.filters(None)?.into_iter().map(|entry| {
            let (description, effective_weight) = (String::new(), None);
            ListedFilter { entry, description, effective_weight, conditions: Vec::new() }
        });
        let filters = filters.collect();
        let objects = self.memory.objects.borrow();
        let providers = objects.providers.iter().map(|provider| (provider.clone(), 0)).collect();
        Ok(Listing { providers, sublayers: objects.sublayers.clone(), filters, ..Listing::default() })
    }

    fn net_events(&mut self) -> HostResult<Vec<ListedEvent>> {
        Ok(Vec::new())
    }

    fn options(&mut self) -> HostResult<Vec<(u32, u32)>> {
        Ok(Vec::new())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(before) = self.transaction.take() {
            *self.memory.objects.borrow_mut() = before;
        }
    }
}

struct Handle(Arc<Mutex<Driver>>);

impl Device for Handle {
    fn control(&self, code: u32, input: &[u8], output: &mut [u8]) -> HostResult<usize> {
        let mut driver = self.0.lock().unwrap();
        let answer = match code {
            ioctl::GET_STATUS => driver.status.as_bytes().to_vec(),
            ioctl::BEGIN_POLICY => {
                driver.upload.clear();
                Vec::new()
            }
            ioctl::POLICY_PART => {
                driver.upload.extend_from_slice(&input[size_of::<Part>()..]);
                Vec::new()
            }
            ioctl::COMMIT_POLICY => {
                let image = std::mem::take(&mut driver.upload);
                if driver.reply.reason().is_none() {
                    driver.status.policy_bytes = image.len() as u64;
                    let identity = Image::validate(image.as_slice()).map(|image| image.identity());
                    driver.status.policy_identity = identity.unwrap_or_default();
                    driver.policies.push(image);
                }
                driver.reply.as_bytes().to_vec()
            }
            ioctl::READ_POLICY => match driver.policies.last() {
                Some(image) => {
                    let wanted = Wanted::read_from_bytes(input).expect("where to read");
                    let rest = image.iter().skip(usize::try_from(wanted.offset).expect("a place"));
                    rest.take(output.len()).copied().collect()
                }
                None => return Err(HostError::new("DeviceIoControl", code::ERROR_NOT_FOUND)),
            },
            ioctl::FILTER_EVENTS => Vec::new(),
            ioctl::TAKE_EVENTS => driver.reads.pop_front().unwrap_or_default(),
            ioctl::RULE_NAMES => match &driver.past {
                Some((epoch, names)) if epoch.to_le_bytes() == input => names.clone(),
                _ => return Err(HostError::new("DeviceIoControl", code::ERROR_NOT_FOUND)),
            },
            _ => return Err(HostError::new("DeviceIoControl", code::ERROR_INVALID_FUNCTION)),
        };
        let Some(space) = output.get_mut(..answer.len()) else {
            return Err(HostError::new("DeviceIoControl", code::ERROR_INSUFFICIENT_BUFFER));
        };
        space.copy_from_slice(&answer);
        Ok(answer.len())
    }

    fn read(&self, output: &mut [u8], timeout: Duration) -> HostResult<usize> {
        let next = self.0.lock().unwrap().reads.pop_front();
        let Some(bytes) = next else {
            std::thread::sleep(timeout.min(Duration::from_millis(20)));
            return Ok(0);
        };
        output[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

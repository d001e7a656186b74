//! Client and server over a real socket, against a host that records what reaches it.

use super::wire::{self, EngineRequest, HELLO, Hello, Request};
use super::{RemoteHost, Server, serve};
use crate::Host;
use crate::listing::{ListedCondition, ListedEvent, ListedFilter, ListedValue, Listing};
use crate::system::{CodeIntegrity, MACHINE_X64, Signature, System, Trust};
use crate::{
    Callout, Condition, ConditionValue, Device, Engine, Filter, FilterAction, FilterEntry, Guid, HostError, HostResult,
    MatchType, Parameter, Provider, ServiceConfig, ServiceState, StartType, Sublayer, Weight, code,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// What reached the machine.
#[derive(Debug, Default)]
struct Recorder {
    services: Mutex<Vec<ServiceConfig>>,
    filters: Mutex<Vec<Filter>>,
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    parameters: Mutex<BTreeMap<String, Parameter>>,
    open_engines: AtomicUsize,
    open_devices: Arc<AtomicUsize>,
}

impl Host for Recorder {
    fn service_state(&self, name: &str) -> HostResult<ServiceState> {
        let known = self.services.lock().iter().any(|service| service.name == name);
        Ok(if known { ServiceState::Stopped } else { ServiceState::Absent })
    }

    fn service_driver(&self, name: &str) -> HostResult<Option<String>> {
        Ok(self.services.lock().iter().find(|service| service.name == name).map(|service| service.driver.clone()))
    }

    fn create_service(&self, config: &ServiceConfig) -> HostResult<()> {
        self.services.lock().push(config.clone());
        Ok(())
    }

    fn start_service(&self, name: &str) -> HostResult<()> {
        Err(HostError::with_message("StartServiceW", code::ERROR_FILE_NOT_FOUND, format!("no driver for {name}")))
    }

    fn stop_service(&self, _: &str) -> HostResult<()> {
        Err(HostError::new("ControlService", code::ERROR_SERVICE_NOT_ACTIVE))
    }

    fn delete_service(&self, name: &str) -> HostResult<()> {
        self.services.lock().retain(|service| service.name != name);
        Ok(())
    }

    fn set_service_driver(&self, name: &str, driver: &str) -> HostResult<()> {
        let mut services = self.services.lock();
        let service = services.iter_mut().find(|service| service.name == name);
        service.ok_or_else(|| HostError::new("OpenServiceW", code::ERROR_SERVICE_DOES_NOT_EXIST))?.driver =
            driver.into();
        Ok(())
    }

    fn service_start(&self, name: &str) -> HostResult<Option<StartType>> {
        Ok(self.services.lock().iter().find(|service| service.name == name).map(|service| service.start))
    }

    fn set_service_start(&self, name: &str, start: StartType) -> HostResult<()> {
        self.services
            .lock()
            .iter_mut()
            .filter(|service| service.name == name)
            .for_each(|service| service.start = start);
        Ok(())
    }

    fn service_parameter(&self, name: &str, value: &str) -> HostResult<Option<Parameter>> {
        Ok(self.parameters.lock().get(&format!("{name}/{value}")).cloned())
    }

    fn set_service_parameter(&self, name: &str, value: &str, to: Option<&Parameter>) -> HostResult<()> {
        let key = format!("{name}/{value}");
        let mut parameters = self.parameters.lock();
        match to {
            Some(to) => drop(parameters.insert(key, to.clone())),
            None => drop(parameters.remove(&key)),
        }
        Ok(())
    }

    fn system(&self) -> HostResult<System> {
        Ok(system())
    }

    fn environment(&self, name: &str) -> HostResult<Option<String>> {
        Ok((name == "SystemRoot").then(|| r"C:\Windows".to_owned()))
    }

    fn signature(&self, path: &str) -> HostResult<Signature> {
        Ok(Signature::Signed { by: Some(path.to_owned()), trust: Trust::Nobody(0x800b_0109) })
    }

    fn read_driver(&self, file: &str) -> HostResult<Option<Vec<u8>>> {
        Ok(self.files.lock().get(file).cloned())
    }

    fn write_driver(&self, file: &str, content: &[u8]) -> HostResult<()> {
        self.files.lock().insert(file.to_owned(), content.to_owned());
        Ok(())
    }

    fn rename_driver(&self, from: &str, to: &str) -> HostResult<()> {
        let mut files = self.files.lock();
        let content = files.remove(from).ok_or_else(|| HostError::new("MoveFileExW", code::ERROR_FILE_NOT_FOUND))?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn delete_driver(&self, file: &str) -> HostResult<()> {
        self.files.lock().remove(file);
        Ok(())
    }

    fn delete_driver_at_restart(&self, file: &str) -> HostResult<()> {
        self.files.lock().insert(file.to_owned(), b"doomed".to_vec());
        Ok(())
    }

    fn open_engine(&self) -> HostResult<Box<dyn Engine + '_>> {
        self.open_engines.fetch_add(1, SeqCst);
        Ok(Box::new(RecorderEngine(self)))
    }

    fn open_device(&self, path: &str) -> HostResult<Box<dyn Device>> {
        if path != r"\\.\Echo" {
            return Err(HostError::new("CreateFileW", code::ERROR_FILE_NOT_FOUND));
        }
        self.open_devices.fetch_add(1, SeqCst);
        Ok(Box::new(Echo(Arc::clone(&self.open_devices))))
    }

    fn app_id(&self, path: &str) -> HostResult<String> {
        Ok(path.to_lowercase())
    }

    fn interface_luid(&self, alias: &str) -> HostResult<u64> {
        Ok(alias.len() as u64)
    }
}

fn system() -> System {
    System {
        build: 19045,
        machine: MACHINE_X64,
        drivers: r"C:\Windows\System32\drivers".into(),
        integrity: CodeIntegrity(CodeIntegrity::ENABLED),
        secure_boot: Some(true),
    }
}

struct RecorderEngine<'a>(&'a Recorder);

impl Engine for RecorderEngine<'_> {
    fn begin(&mut self) -> HostResult<()> {
        Ok(())
    }
    fn commit(&mut self) -> HostResult<()> {
        Ok(())
    }
    fn abort(&mut self) -> HostResult<()> {
        Err(HostError::new("FwpmTransactionAbort0", code::FWP_E_NO_TXN_IN_PROGRESS))
    }
    fn add_provider(&mut self, _: &Provider) -> HostResult<()> {
        Ok(())
    }
    fn add_sublayer(&mut self, _: &Sublayer) -> HostResult<()> {
        Ok(())
    }
    fn add_callout(&mut self, _: &Callout) -> HostResult<u32> {
        Ok(7)
    }
    fn add_filter(&mut self, filter: &Filter) -> HostResult<u64> {
        self.0.filters.lock().push(filter.clone());
        Ok(u64::MAX)
    }
    fn delete_provider(&mut self, _: Guid) -> HostResult<()> {
        Ok(())
    }
    fn delete_sublayer(&mut self, _: Guid) -> HostResult<()> {
        Ok(())
    }
    fn delete_callout(&mut self, _: Guid) -> HostResult<()> {
        Ok(())
    }
    fn delete_filter(&mut self, _: Guid) -> HostResult<()> {
        Ok(())
    }
    fn provider(&mut self, key: Guid) -> HostResult<Option<Provider>> {
        let (name, description) = ("a provider".into(), String::new());
        Ok((key == Guid(2)).then_some(Provider { key, name, description, persistent: true, service: Some("x".into()) }))
    }
    fn sublayer(&mut self, key: Guid) -> HostResult<Option<Sublayer>> {
        let (name, description, provider) = ("a sublayer".into(), String::new(), Some(Guid(2)));
        Ok(Some(Sublayer { key, name, description, persistent: false, provider, weight: 7 }))
    }
    fn callout(&mut self, key: Guid) -> HostResult<Option<Callout>> {
        let (name, description, provider) = ("a callout".into(), String::new(), None);
        Ok(Some(Callout { key, name, description, persistent: true, provider, layer: Guid(3) }))
    }
    fn filters(&mut self, provider: Option<Guid>) -> HostResult<Vec<FilterEntry>> {
        let filters = self.0.filters.lock();
        let ours = filters.iter().filter(|filter| provider.is_none() || filter.provider == provider);
        Ok(ours.map(|filter| FilterEntry::of(filter, 1)).collect())
    }
    fn boot_filters(&mut self, _: Guid) -> HostResult<Vec<FilterEntry>> {
        Ok(Vec::new())
    }
    fn list(&mut self) -> HostResult<Listing> {
        let value = ConditionValue::Range {
            low: Box::new(ConditionValue::Uint16(1)),
            high: Box::new(ConditionValue::Uint16(9)),
        };
        let conditions = [Some(ListedValue::Plain(value)), Some(ListedValue::Sid(vec![1, 2])), None]
            .map(|value| ListedCondition { field: Guid(9), match_type: 5, data_type: 2, value })
            .into();
        let entries = self.filters(None)?.into_iter();
        let filters = entries.map(|entry| {
            let (description, effective_weight) = ("of a filter".into(), Some(1 << 60));
            ListedFilter { entry, description, effective_weight, conditions: Vec::clone(&conditions) }
        });
        Ok(Listing { filters: filters.collect(), ..Listing::default() })
    }
    fn net_events(&mut self) -> HostResult<Vec<ListedEvent>> {
        Err(HostError::new("FwpmNetEventEnum2", code::ERROR_ACCESS_DENIED))
    }
    fn options(&mut self) -> HostResult<Vec<(u32, u32)>> {
        Ok(vec![(0, 1)])
    }
}

impl Drop for RecorderEngine<'_> {
    fn drop(&mut self) {
        self.0.open_engines.fetch_sub(1, SeqCst);
    }
}

/// Returns its input reversed; a read never returns anything.
struct Echo(Arc<AtomicUsize>);

impl Device for Echo {
    fn control(&self, code: u32, input: &[u8], output: &mut [u8]) -> HostResult<usize> {
        if code != 9 {
            return Err(HostError::new("DeviceIoControl", code::ERROR_INVALID_FUNCTION));
        }
        let count = input.len().min(output.len());
        for (to, from) in output.iter_mut().zip(input.iter().rev()) {
            *to = *from;
        }
        Ok(count)
    }

    fn read(&self, _: &mut [u8], timeout: Duration) -> HostResult<usize> {
        std::thread::sleep(timeout);
        Ok(0)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

struct Bench {
    machine: Arc<Recorder>,
    socket: PathBuf,
    server: Option<Server>,
    _folder: tempfile::TempDir,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("machine");
    let machine = Arc::new(Recorder::default());
    let server = serve(Arc::clone(&machine), &socket).unwrap();
    Bench { machine, socket, server: Some(server), _folder: folder }
}

impl Bench {
    fn client(&self) -> RemoteHost {
        RemoteHost::connect(&self.socket).unwrap()
    }

    /// A connection that has exchanged greetings and sends handmade messages.
    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        wire::send(&stream, &HELLO).unwrap();
        assert_eq!(wire::receive::<Hello>(&stream).unwrap(), HELLO);
        stream
    }
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A frame as it goes over the wire.
fn frame(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

/// Whether the server hangs up on this connection.
fn hangs_up(mut stream: UnixStream) -> bool {
    use std::io::Read;
    match stream.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        // Data that the server had not read when it hung up.
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn filter(value: ConditionValue) -> Filter {
    Filter {
        key: Some(Guid(1)),
        name: "a filter".into(),
        description: String::new(),
        flags: 0x11,
        provider: Some(Guid(2)),
        layer: Guid(3),
        sublayer: Guid(4),
        weight: Weight::Exact(u64::MAX),
        conditions: vec![Condition { field: Guid(5), match_type: MatchType::Range, value }],
        action: FilterAction::CalloutUnknown(Guid(6)),
    }
}

fn range(depth: usize) -> ConditionValue {
    (0..depth).fold(ConditionValue::Uint16(80), |inner, _| ConditionValue::Range {
        low: Box::new(inner),
        high: Box::new(ConditionValue::Uint16(443)),
    })
}

#[test]
fn only_the_owner_may_touch_the_socket() {
    let bench = bench();
    let mode = std::fs::metadata(&bench.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_existing_file_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "precious").unwrap();
    assert!(serve(Arc::new(Recorder::default()), &path).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn calls_and_refusals_arrive_as_they_were() {
    let bench = bench();
    let host = bench.client();
    let config = ServiceConfig {
        name: "Sluice".into(),
        display_name: "A filter".into(),
        driver: "/x.sys".into(),
        start: StartType::System,
    };
    assert_eq!(host.service_state("Sluice"), Ok(ServiceState::Absent));
    host.create_service(&config).unwrap();
    assert_eq!(host.service_state("Sluice"), Ok(ServiceState::Stopped));
    assert_eq!(host.service_driver("Sluice"), Ok(Some("/x.sys".to_owned())));
    assert_eq!(*bench.machine.services.lock(), [config]);
    let refused = host.start_service("Sluice").unwrap_err();
    assert_eq!(refused.operation, "StartServiceW");
    assert_eq!(refused.code, code::ERROR_FILE_NOT_FOUND);
    assert_eq!(refused.message, "no driver for Sluice");
    assert_eq!(host.app_id("/Usr").unwrap(), "/usr");
    assert_eq!(host.interface_luid("Ethernet").unwrap(), 8);
}

#[test]
fn a_drivers_file_goes_over_as_it_is() {
    let bench = bench();
    let host = bench.client();
    assert_eq!(host.system(), Ok(system()));
    assert_eq!(host.environment("SystemRoot").unwrap().as_deref(), Some(r"C:\Windows"));
    assert_eq!(host.environment("TEMP"), Ok(None));
    let signature = Signature::Signed { by: Some("/x.sys".into()), trust: Trust::Nobody(0x800b_0109) };
    assert_eq!(host.signature("/x.sys"), Ok(signature));
    assert_eq!(host.read_driver("a.sys"), Ok(None));
    let content: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    host.write_driver("a.sys", &content).unwrap();
    host.rename_driver("a.sys", "b.sys").unwrap();
    assert_eq!(host.read_driver("b.sys"), Ok(Some(content)));
    assert_eq!(host.rename_driver("a.sys", "b.sys").unwrap_err().code, code::ERROR_FILE_NOT_FOUND);
    host.delete_driver_at_restart("b.sys").unwrap();
    assert_eq!(host.read_driver("b.sys"), Ok(Some(b"doomed".to_vec())));
    host.delete_driver("b.sys").unwrap();
    assert_eq!(host.read_driver("b.sys"), Ok(None));
    assert_eq!(host.set_service_driver("x", "/y").unwrap_err().code, code::ERROR_SERVICE_DOES_NOT_EXIST);
}

#[test]
fn an_engine_has_a_connection_of_its_own_and_ends_with_it() {
    let bench = bench();
    let host = bench.client();
    let mut engine = host.open_engine().unwrap();
    let wanted = filter(range(1));
    assert_eq!(engine.add_filter(&wanted), Ok(u64::MAX));
    assert_eq!(*bench.machine.filters.lock(), [wanted]);
    let [entry] = &engine.filters(Some(Guid(2))).unwrap()[..] else { panic!("one filter") };
    assert_eq!((entry.flags, entry.weight, entry.conditions.len()), (0x11, Some(Weight::Exact(u64::MAX)), 1));
    assert_eq!((entry.sublayer, entry.action), (Guid(4), Some(FilterAction::CalloutUnknown(Guid(6)))));
    let listing = engine.list().unwrap();
    let [listed] = &listing.filters[..] else { panic!("one filter") };
    assert_eq!((&listed.entry, listed.effective_weight), (entry, Some(1 << 60)));
    let values: Vec<_> = listed.conditions.iter().map(|condition| condition.value.clone()).collect();
    let ports =
        ConditionValue::Range { low: Box::new(ConditionValue::Uint16(1)), high: Box::new(ConditionValue::Uint16(9)) };
    assert_eq!(values, [Some(ListedValue::Plain(ports)), Some(ListedValue::Sid(vec![1, 2])), None]);
    assert_eq!(engine.net_events().unwrap_err().code, code::ERROR_ACCESS_DENIED);
    assert_eq!(engine.options(), Ok(vec![(0, 1)]));
    assert_eq!(engine.provider(Guid(9)), Ok(None));
    assert_eq!(engine.provider(Guid(2)).unwrap().unwrap().service.as_deref(), Some("x"));
    assert_eq!(engine.sublayer(Guid(4)).unwrap().unwrap().weight, 7);
    assert_eq!(engine.callout(Guid(6)).unwrap().unwrap().layer, Guid(3));
    assert_eq!(engine.filters(Some(Guid(9))).unwrap().len(), 0);
    assert_eq!(engine.abort().unwrap_err().code, code::FWP_E_NO_TXN_IN_PROGRESS);
    assert_eq!(bench.machine.open_engines.load(SeqCst), 1);
    drop(engine);
    eventually("the engine's close", || bench.machine.open_engines.load(SeqCst) == 0);
}

#[test]
fn a_device_answers_into_the_buffer_it_is_given() {
    let bench = bench();
    let host = bench.client();
    assert_eq!(host.open_device(r"\\.\Nothing").err().unwrap().code, code::ERROR_FILE_NOT_FOUND);
    let device = host.open_device(r"\\.\Echo").unwrap();
    let mut output = [0; 8];
    assert_eq!(device.control(9, b"abc", &mut output), Ok(3));
    assert_eq!(&output[..4], b"cba\0");
    assert_eq!(device.control(1, b"", &mut output).unwrap_err().code, code::ERROR_INVALID_FUNCTION);
    let large = vec![5; 3 << 20];
    let mut back = vec![0; large.len()];
    assert_eq!(device.control(9, &large, &mut back), Ok(large.len()));
    assert_eq!(back, large);
}

#[test]
fn a_read_waits_as_long_as_asked_and_holds_up_nobody() {
    let bench = bench();
    let host = bench.client();
    let device = host.open_device(r"\\.\Echo").unwrap();
    let wait = wire::MAX_READ_WAIT * 2;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let read = device.read(&mut [0; 64], wait);
            (read, start.elapsed())
        });
        std::thread::sleep(Duration::from_millis(20));
        let asked = Instant::now();
        host.service_state("Sluice").unwrap();
        bench.client().service_state("Sluice").unwrap();
        assert!(asked.elapsed() < wire::MAX_READ_WAIT, "a plain call waited for the read");
        let (read, waited) = reader.join().unwrap();
        assert_eq!(read, Ok(0));
        assert!(waited >= wait, "the read came back after {waited:?}");
    });
}

#[test]
fn what_a_dead_client_held_is_closed() {
    let bench = bench();
    let stream = bench.raw();
    wire::send(&stream, &Request::OpenDevice(r"\\.\Echo".into())).unwrap();
    wire::receive::<HostResult<()>>(&stream).unwrap().unwrap();
    assert_eq!(bench.machine.open_devices.load(SeqCst), 1);
    // The client dies in the middle of a long read.
    wire::send(&stream, &wire::DeviceRequest::Read { capacity: 256, wait: Duration::MAX }).unwrap();
    drop(stream);
    eventually("the device's close", || bench.machine.open_devices.load(SeqCst) == 0);
}

#[test]
fn hostile_bytes_end_their_own_connection_only() {
    let bench = bench();
    let nested = postcard::to_stdvec(&EngineRequest::AddFilter(filter(range(2)))).unwrap();
    // A million ranges, each the low end of the one before.
    let mut deep = postcard::to_stdvec(&EngineRequest::AddFilter(filter(range(1)))).unwrap();
    let flat = postcard::to_stdvec(&EngineRequest::AddFilter(filter(range(0)))).unwrap();
    let value = deep.iter().zip(&flat).position(|(a, b)| a != b).unwrap();
    deep.splice(value..=value, std::iter::repeat_n(deep[value], 1 << 20));
    let engine = postcard::to_stdvec(&Request::OpenEngine).unwrap();
    let mut longer = engine.clone();
    longer.push(0);
    for (what, bytes) in [
        ("a frame longer than allowed", (u32::MAX).to_le_bytes().to_vec()),
        ("an unknown request", frame(&[0xff, 0xff, 0x03])),
        ("bytes after a request", frame(&longer)),
        ("an empty frame", frame(&[])),
        ("ranges nested once", [frame(&engine), frame(&nested)].concat()),
        ("ranges nested without end", [frame(&engine), frame(&deep)].concat()),
    ] {
        let mut stream = bench.raw();
        stream.write_all(&bytes).unwrap();
        if what.starts_with("ranges") {
            wire::receive::<HostResult<()>>(&stream).unwrap().unwrap();
        }
        assert!(hangs_up(stream), "{what} was accepted");
        assert_eq!(bench.client().service_state("Sluice"), Ok(ServiceState::Absent), "after {what}");
    }
    assert!(bench.machine.filters.lock().is_empty());
    assert_eq!(bench.machine.open_engines.load(SeqCst), 0);
}

#[test]
fn an_output_buffer_beyond_the_bound_is_refused() {
    let bench = bench();
    let stream = bench.raw();
    wire::send(&stream, &Request::OpenDevice(r"\\.\Echo".into())).unwrap();
    wire::receive::<HostResult<()>>(&stream).unwrap().unwrap();
    wire::send(&stream, &wire::DeviceRequest::Control { code: 9, input: b"x", capacity: u64::MAX }).unwrap();
    let refused = wire::receive::<HostResult<Vec<u8>>>(&stream).unwrap().unwrap_err();
    assert_eq!(refused.code, code::ERROR_INVALID_PARAMETER);
}

#[test]
fn another_version_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("machine");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        wire::receive::<Hello>(&stream).unwrap();
        wire::send(&stream, &Hello { version: 77, ..HELLO }).unwrap();
    });
    let error = RemoteHost::connect(&socket).unwrap_err();
    server.join().unwrap();
    assert!(error.message.contains("speaks version 77"), "{error}");
}

#[test]
fn clients_of_a_stopped_machine_hear_that_it_is_gone() {
    let mut bench = bench();
    let host = bench.client();
    let device = host.open_device(r"\\.\Echo").unwrap();
    drop(bench.server.take());
    assert!(!bench.socket.exists());
    assert_eq!(bench.machine.open_devices.load(SeqCst), 0, "the server waits for its connections");
    assert_eq!(host.service_state("Sluice").unwrap_err().code, code::ERROR_PIPE_NOT_CONNECTED);
    assert_eq!(device.read(&mut [0], Duration::ZERO).unwrap_err().code, code::ERROR_PIPE_NOT_CONNECTED);
    let none = RemoteHost::connect(&bench.socket).unwrap_err();
    assert!(none.message.contains("no simulated machine at"), "{none}");
}

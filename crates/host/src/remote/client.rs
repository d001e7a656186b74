//! The client's side.

use super::wire::{self, DeviceRequest, EngineRequest, HELLO, Hello, MAX_OUTPUT, Request};
use crate::Host;
use crate::listing::{ListedEvent, Listing};
use crate::system::{Signature, System};
use crate::{
    Callout, Device, Engine, Filter, FilterEntry, Guid, HostError, HostResult, Parameter, Provider, ServiceConfig,
    ServiceState, StartType, Sublayer, code,
};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A simulated machine in another process.
#[derive(Debug)]
pub struct RemoteHost {
    socket: PathBuf,
    /// For the plain calls; engines and devices have their own connections.
    connection: Mutex<Connection>,
}

impl RemoteHost {
    /// Connects to the machine that serves at `socket`.
    ///
    /// # Errors
    /// Nobody listens there, the socket belongs to another user, or the server speaks another version.
    pub fn connect(socket: &Path) -> HostResult<Self> {
        Ok(Self { socket: socket.to_owned(), connection: Mutex::new(Connection::open(socket)?) })
    }

    fn call<T: DeserializeOwned>(&self, request: &Request) -> HostResult<T> {
        self.connection.lock().call(request)
    }
}

impl Host for RemoteHost {
    fn service_state(&self, name: &str) -> HostResult<ServiceState> {
        self.call(&Request::ServiceState(name.to_owned()))
    }

    fn service_driver(&self, name: &str) -> HostResult<Option<String>> {
        self.call(&Request::ServiceDriver(name.to_owned()))
    }

    fn create_service(&self, config: &ServiceConfig) -> HostResult<()> {
        self.call(&Request::CreateService(config.clone()))
    }

    fn start_service(&self, name: &str) -> HostResult<()> {
        self.call(&Request::StartService(name.to_owned()))
    }

    fn stop_service(&self, name: &str) -> HostResult<()> {
        self.call(&Request::StopService(name.to_owned()))
    }

    fn delete_service(&self, name: &str) -> HostResult<()> {
        self.call(&Request::DeleteService(name.to_owned()))
    }

    fn set_service_driver(&self, name: &str, driver: &str) -> HostResult<()> {
        self.call(&Request::SetServiceDriver(name.to_owned(), driver.to_owned()))
    }

    fn service_start(&self, name: &str) -> HostResult<Option<StartType>> {
        self.call(&Request::ServiceStart(name.to_owned()))
    }

    fn set_service_start(&self, name: &str, start: StartType) -> HostResult<()> {
        self.call(&Request::SetServiceStart(name.to_owned(), start))
    }

    fn service_parameter(&self, name: &str, value: &str) -> HostResult<Option<Parameter>> {
        self.call(&Request::ServiceParameter(name.to_owned(), value.to_owned()))
    }

    fn set_service_parameter(&self, name: &str, value: &str, to: Option<&Parameter>) -> HostResult<()> {
        self.call(&Request::SetServiceParameter(name.to_owned(), value.to_owned(), to.cloned()))
    }

    fn system(&self) -> HostResult<System> {
        self.call(&Request::System)
    }

    fn environment(&self, name: &str) -> HostResult<Option<String>> {
        self.call(&Request::Environment(name.to_owned()))
    }

    fn signature(&self, path: &str) -> HostResult<Signature> {
        self.call(&Request::Signature(path.to_owned()))
    }

    fn read_driver(&self, file: &str) -> HostResult<Option<Vec<u8>>> {
        self.call(&Request::ReadDriver(file.to_owned()))
    }

    fn write_driver(&self, file: &str, content: &[u8]) -> HostResult<()> {
        self.call(&Request::WriteDriver(file.to_owned(), content.to_owned()))
    }

    fn rename_driver(&self, from: &str, to: &str) -> HostResult<()> {
        self.call(&Request::RenameDriver(from.to_owned(), to.to_owned()))
    }

    fn delete_driver(&self, file: &str) -> HostResult<()> {
        self.call(&Request::DeleteDriver(file.to_owned()))
    }

    fn delete_driver_at_restart(&self, file: &str) -> HostResult<()> {
        self.call(&Request::DeleteDriverAtRestart(file.to_owned()))
    }

    fn open_engine(&self) -> HostResult<Box<dyn Engine + '_>> {
        let mut connection = Connection::open(&self.socket)?;
        connection.call::<()>(&Request::OpenEngine)?;
        Ok(Box::new(RemoteEngine(connection)))
    }

    fn open_device(&self, path: &str) -> HostResult<Box<dyn Device>> {
        let mut connection = Connection::open(&self.socket)?;
        connection.call::<()>(&Request::OpenDevice(path.to_owned()))?;
        Ok(Box::new(RemoteDevice(Mutex::new(connection))))
    }

    fn app_id(&self, path: &str) -> HostResult<String> {
        self.call(&Request::AppId(path.to_owned()))
    }

    fn interface_luid(&self, alias: &str) -> HostResult<u64> {
        self.call(&Request::InterfaceLuid(alias.to_owned()))
    }
}

struct RemoteEngine(Connection);

impl Engine for RemoteEngine {
    fn begin(&mut self) -> HostResult<()> {
        self.0.call(&EngineRequest::Begin)
    }

    fn commit(&mut self) -> HostResult<()> {
        self.0.call(&EngineRequest::Commit)
    }

    fn abort(&mut self) -> HostResult<()> {
        self.0.call(&EngineRequest::Abort)
    }

    fn add_provider(&mut self, provider: &Provider) -> HostResult<()> {
        self.0.call(&EngineRequest::AddProvider(provider.clone()))
    }

    fn add_sublayer(&mut self, sublayer: &Sublayer) -> HostResult<()> {
        self.0.call(&EngineRequest::AddSublayer(sublayer.clone()))
    }

    fn add_callout(&mut self, callout: &Callout) -> HostResult<u32> {
        self.0.call(&EngineRequest::AddCallout(callout.clone()))
    }

    fn add_filter(&mut self, filter: &Filter) -> HostResult<u64> {
        self.0.call(&EngineRequest::AddFilter(filter.clone()))
    }

    fn delete_provider(&mut self, key: Guid) -> HostResult<()> {
        self.0.call(&EngineRequest::DeleteProvider(key))
    }

    fn delete_sublayer(&mut self, key: Guid) -> HostResult<()> {
        self.0.call(&EngineRequest::DeleteSublayer(key))
    }

    fn delete_callout(&mut self, key: Guid) -> HostResult<()> {
        self.0.call(&EngineRequest::DeleteCallout(key))
    }

    fn delete_filter(&mut self, key: Guid) -> HostResult<()> {
        self.0.call(&EngineRequest::DeleteFilter(key))
    }

    fn provider(&mut self, key: Guid) -> HostResult<Option<Provider>> {
        self.0.call(&EngineRequest::Provider(key))
    }

    fn sublayer(&mut self, key: Guid) -> HostResult<Option<Sublayer>> {
        self.0.call(&EngineRequest::Sublayer(key))
    }

    fn callout(&mut self, key: Guid) -> HostResult<Option<Callout>> {
        self.0.call(&EngineRequest::Callout(key))
    }

    fn filters(&mut self, provider: Option<Guid>) -> HostResult<Vec<FilterEntry>> {
        self.0.call(&EngineRequest::Filters(provider))
    }

    fn boot_filters(&mut self, layer: Guid) -> HostResult<Vec<FilterEntry>> {
        self.0.call(&EngineRequest::BootFilters(layer))
    }

    fn list(&mut self) -> HostResult<Listing> {
        self.0.call(&EngineRequest::List)
    }

    fn net_events(&mut self) -> HostResult<Vec<ListedEvent>> {
        self.0.call(&EngineRequest::NetEvents)
    }

    fn options(&mut self) -> HostResult<Vec<(u32, u32)>> {
        self.0.call(&EngineRequest::Options)
    }
}

struct RemoteDevice(Mutex<Connection>);

impl RemoteDevice {
    fn call(&self, operation: &str, request: &DeviceRequest<'_>, output: &mut [u8]) -> HostResult<usize> {
        let bytes: Vec<u8> = self.0.lock().call(request)?;
        let Some(space) = output.get_mut(..bytes.len()) else {
            let what = format!("the machine returned {} bytes for a buffer of {}", bytes.len(), output.len());
            return Err(HostError::with_message(operation, code::ERROR_INVALID_DATA, what));
        };
        space.copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

impl Device for RemoteDevice {
    fn control(&self, code: u32, input: &[u8], output: &mut [u8]) -> HostResult<usize> {
        let capacity = output.len().min(MAX_OUTPUT) as u64;
        self.call("DeviceIoControl", &DeviceRequest::Control { code, input, capacity }, output)
    }

    fn read(&self, output: &mut [u8], timeout: Duration) -> HostResult<usize> {
        let capacity = output.len().min(MAX_OUTPUT) as u64;
        let start = Instant::now();
        loop {
            let wait = timeout.saturating_sub(start.elapsed());
            let read = self.call("ReadFile", &DeviceRequest::Read { capacity, wait }, output)?;
            if read > 0 || start.elapsed() >= timeout {
                return Ok(read);
            }
        }
    }
}

/// One connection after its greeting.
#[derive(Debug)]
struct Connection(UnixStream);

impl Connection {
    fn open(socket: &Path) -> HostResult<Self> {
        let fail = |what: String| HostError::with_message("connect", code::ERROR_PIPE_NOT_CONNECTED, what);
        let shown = socket.display();
        let stream =
            UnixStream::connect(socket).map_err(|error| fail(format!("no simulated machine at {shown}: {error}")))?;
        wire::send(&stream, &HELLO).map_err(|error| fail(format!("{shown}: {error}")))?;
        match wire::receive::<Hello>(&stream) {
            Ok(HELLO) => Ok(Self(stream)),
            Ok(Hello { magic, version }) if magic == HELLO.magic => Err(fail(format!(
                "the simulated machine at {shown} speaks version {version}, this program version {}: \
                 use programs from the same build",
                HELLO.version
            ))),
            Ok(_) | Err(_) => Err(fail(format!("{shown} is not a simulated machine, or it does not serve this user"))),
        }
    }

    fn call<T: DeserializeOwned>(&mut self, request: &impl Serialize) -> HostResult<T> {
        let reply: io::Result<HostResult<T>> =
            wire::send(&self.0, request).and_then(|()| wire::receive::<HostResult<T>>(&self.0));
        reply.unwrap_or_else(|error| {
            let what = format!("the simulated machine is gone: {error}");
            Err(HostError::with_message("call", code::ERROR_PIPE_NOT_CONNECTED, what))
        })
    }
}

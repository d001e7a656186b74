//! The machine's side.

use super::wire::{self, DeviceRequest, EngineRequest, HELLO, Hello, MAX_OUTPUT, MAX_READ_WAIT, Request};
use crate::Host;
use crate::{Device, Engine, HostError, HostResult, code};
use parking_lot::Mutex;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde::Serialize;
use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Clients beyond this many at once are rejected.
const MAX_CONNECTIONS: usize = 256;
/// The backlog of clients to accept.
const BACKLOG: i32 = 16;

/// A machine offered on a socket. Dropping it ends every connection and removes the socket.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    listener: UnixListener,
    connections: Arc<Mutex<Connections>>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    closing: bool,
    /// The stream to shut down and the thread to wait for.
    open: HashMap<u64, (UnixStream, Option<JoinHandle<()>>)>,
}

/// Offers `host` on a new Unix socket at `path`, mode 0600, to this user and root.
///
/// # Errors
/// The socket cannot be made, for example because something already exists at `path`.
pub fn serve<H: Host + Send + Sync + 'static>(host: Arc<H>, path: &Path) -> io::Result<Server> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The file that bind makes takes the mode of the unbound socket: at no moment is it open to others.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let listener = UnixListener::from(socket);
    let connections = Arc::new(Mutex::new(Connections::default()));
    let accepting = {
        let listener = listener.try_clone()?;
        let connections = Arc::clone(&connections);
        thread::Builder::new().name("ntsim-accept".to_owned()).spawn(move || {
            accept(&listener, &host, &connections);
        })?
    };
    Ok(Server { path: path.to_owned(), listener, connections, accepting: Some(accepting) })
}

impl Server {
    /// Where clients connect.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Removed first, so that nobody connects to a server that is shutting down.
        let _ = std::fs::remove_file(&self.path);
        let open: Vec<_> = {
            let mut connections = self.connections.lock();
            connections.closing = true;
            connections.open.drain().map(|(_, connection)| connection).collect()
        };
        // On Linux this wakes a thread blocked in accept.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for (stream, _) in &open {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in open.into_iter().filter_map(|(_, thread)| thread).chain(self.accepting.take()) {
            let _ = thread.join();
        }
    }
}

fn accept<H: Host + Send + Sync + 'static>(
    listener: &UnixListener,
    host: &Arc<H>,
    connections: &Arc<Mutex<Connections>>,
) {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                if connections.lock().closing {
                    return;
                }
                // Out of descriptors, or the client left before it was accepted: neither ends the service.
                tracing::warn!(%error, "accepting a client");
                thread::sleep(MAX_READ_WAIT);
                continue;
            }
        };
        if let Err(error) = admit(stream, host, connections) {
            tracing::warn!(%error, "a client was rejected");
        }
    }
}

fn admit<H: Host + Send + Sync + 'static>(
    stream: UnixStream,
    host: &Arc<H>,
    connections: &Arc<Mutex<Connections>>,
) -> io::Result<()> {
    let peer = sockopt::socket_peercred(&stream)?;
    if peer.uid != rustix::process::geteuid() && !peer.uid.is_root() {
        return Err(io::Error::other(format!("user {} is neither this user nor root", peer.uid.as_raw())));
    }
    let shared = stream.try_clone()?;
    let mut locked = connections.lock();
    if locked.closing {
        return Ok(());
    }
    if locked.open.len() >= MAX_CONNECTIONS {
        return Err(io::Error::other(format!("{MAX_CONNECTIONS} clients are already connected")));
    }
    let id = locked.next;
    locked.next += 1;
    let thread = {
        let host = Arc::clone(host);
        let connections = Arc::clone(connections);
        thread::Builder::new().name("ntsim-client".to_owned()).spawn(move || {
            if let Err(error) = converse(&*host, &stream) {
                tracing::debug!(%error, "a client's connection ended");
            }
            // A server that is closing has taken the entry and waits for this thread.
            connections.lock().open.remove(&id);
        })?
    };
    locked.open.insert(id, (shared, Some(thread)));
    Ok(())
}

/// One connection, from greeting to end.
fn converse(host: &dyn Host, stream: &UnixStream) -> io::Result<()> {
    let hello: Hello = wire::receive(stream)?;
    wire::send(stream, &HELLO)?;
    if hello != HELLO {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the greeting is not ours"));
    }
    let mut frame = Vec::new();
    while wire::receive_frame(stream, &mut frame)? {
        match wire::decode(&frame)? {
            Request::ServiceState(name) => reply(stream, host.service_state(&name))?,
            Request::ServiceDriver(name) => reply(stream, host.service_driver(&name))?,
            Request::CreateService(config) => reply(stream, host.create_service(&config))?,
            Request::StartService(name) => reply(stream, host.start_service(&name))?,
            Request::StopService(name) => reply(stream, host.stop_service(&name))?,
            Request::DeleteService(name) => reply(stream, host.delete_service(&name))?,
            Request::SetServiceDriver(name, driver) => reply(stream, host.set_service_driver(&name, &driver))?,
            Request::ServiceStart(name) => reply(stream, host.service_start(&name))?,
            Request::SetServiceStart(name, start) => reply(stream, host.set_service_start(&name, start))?,
            Request::ServiceParameter(name, value) => reply(stream, host.service_parameter(&name, &value))?,
            Request::SetServiceParameter(name, value, to) => {
                reply(stream, host.set_service_parameter(&name, &value, to.as_ref()))?;
            }
            Request::System => reply(stream, host.system())?,
            Request::Environment(name) => reply(stream, host.environment(&name))?,
            Request::Signature(path) => reply(stream, host.signature(&path))?,
            Request::ReadDriver(file) => reply(stream, host.read_driver(&file))?,
            Request::WriteDriver(file, content) => reply(stream, host.write_driver(&file, &content))?,
            Request::RenameDriver(from, to) => reply(stream, host.rename_driver(&from, &to))?,
            Request::DeleteDriver(file) => reply(stream, host.delete_driver(&file))?,
            Request::DeleteDriverAtRestart(file) => reply(stream, host.delete_driver_at_restart(&file))?,
            Request::AppId(path) => reply(stream, host.app_id(&path))?,
            Request::InterfaceLuid(alias) => reply(stream, host.interface_luid(&alias))?,
            Request::OpenEngine => match host.open_engine() {
                Ok(mut engine) => {
                    reply(stream, Ok(()))?;
                    return serve_engine(&mut *engine, stream);
                }
                Err(error) => reply(stream, HostResult::<()>::Err(error))?,
            },
            Request::OpenDevice(path) => match host.open_device(&path) {
                Ok(device) => {
                    reply(stream, Ok(()))?;
                    return serve_device(&*device, stream);
                }
                Err(error) => reply(stream, HostResult::<()>::Err(error))?,
            },
        }
    }
    Ok(())
}

fn serve_engine(engine: &mut dyn Engine, stream: &UnixStream) -> io::Result<()> {
    let mut frame = Vec::new();
    while wire::receive_frame(stream, &mut frame)? {
        match wire::decode(&frame)? {
            EngineRequest::Begin => reply(stream, engine.begin())?,
            EngineRequest::Commit => reply(stream, engine.commit())?,
            EngineRequest::Abort => reply(stream, engine.abort())?,
            EngineRequest::AddProvider(provider) => reply(stream, engine.add_provider(&provider))?,
            EngineRequest::AddSublayer(sublayer) => reply(stream, engine.add_sublayer(&sublayer))?,
            EngineRequest::AddCallout(callout) => reply(stream, engine.add_callout(&callout))?,
            EngineRequest::AddFilter(filter) => reply(stream, engine.add_filter(&filter))?,
            EngineRequest::DeleteProvider(key) => reply(stream, engine.delete_provider(key))?,
            EngineRequest::DeleteSublayer(key) => reply(stream, engine.delete_sublayer(key))?,
            EngineRequest::DeleteCallout(key) => reply(stream, engine.delete_callout(key))?,
            EngineRequest::DeleteFilter(key) => reply(stream, engine.delete_filter(key))?,
            EngineRequest::Provider(key) => reply(stream, engine.provider(key))?,
            EngineRequest::Sublayer(key) => reply(stream, engine.sublayer(key))?,
            EngineRequest::Callout(key) => reply(stream, engine.callout(key))?,
            EngineRequest::Filters(provider) => reply(stream, engine.filters(provider))?,
            EngineRequest::BootFilters(layer) => reply(stream, engine.boot_filters(layer))?,
            EngineRequest::List => reply(stream, engine.list())?,
            EngineRequest::NetEvents => reply(stream, engine.net_events())?,
            EngineRequest::Options => reply(stream, engine.options())?,
        }
    }
    Ok(())
}

fn serve_device(device: &dyn Device, stream: &UnixStream) -> io::Result<()> {
    let mut frame = Vec::new();
    let mut output = Vec::new();
    while wire::receive_frame(stream, &mut frame)? {
        let result =
            match wire::decode(&frame)? {
                DeviceRequest::Control { code, input, capacity } => room(&mut output, capacity, "DeviceIoControl")
                    .and_then(|()| device.control(code, input, &mut output)),
                DeviceRequest::Read { capacity, wait } => room(&mut output, capacity, "ReadFile")
                    .and_then(|()| device.read(&mut output, wait.min(MAX_READ_WAIT))),
            };
        reply(stream, result.map(|written| output.get(..written).unwrap_or(&output)))?;
    }
    Ok(())
}

/// Resizes `output` to the length of the client's buffer.
fn room(output: &mut Vec<u8>, capacity: u64, operation: &str) -> HostResult<()> {
    match usize::try_from(capacity) {
        Ok(capacity) if capacity <= MAX_OUTPUT => {
            output.clear();
            output.resize(capacity, 0);
            Ok(())
        }
        _ => Err(HostError::with_message(
            operation,
            code::ERROR_INVALID_PARAMETER,
            format!("an output buffer of {capacity} bytes is longer than the {MAX_OUTPUT} allowed"),
        )),
    }
}

fn reply<T: Serialize>(stream: &UnixStream, result: HostResult<T>) -> io::Result<()> {
    wire::send(stream, &result)
}

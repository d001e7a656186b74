//! The seam on Windows: the Service Control Manager, the Base Filtering Engine and the control device, through
//! windows-sys.
//!
//! Every handle is owned by a type that closes it. Each `unsafe` block is one call, whose pointers are to values that
//! live in the same function.

mod convert;
mod device;
mod engine;
mod enumerate;
mod environment;
mod eventlog;
mod events;
mod files;
mod fwpuclnt;
mod interface;
pub mod keeper;
mod library;
mod listing;
mod parameters;
mod path;
mod secret;
mod service;
mod signature;
mod system;
mod token;

pub use eventlog::EventLog;
pub(crate) use secret::new_secret_file;
pub(crate) use token::user_name;

use sluice_host::system::{Signature, System};
use sluice_host::{
    Device, Engine, Host, HostError, HostResult, Parameter, ServiceConfig, ServiceState, StartType, code,
};

/// This machine.
#[derive(Debug)]
pub struct WindowsHost(());

impl WindowsHost {
    /// This machine, for an administrator.
    ///
    /// # Errors
    /// `ERROR_ELEVATION_REQUIRED` when the process is not elevated: checked once, here, instead of at the first of many
    /// calls that would be refused.
    pub fn open() -> HostResult<Self> {
        if token::is_elevated()? {
            Ok(Self(()))
        } else {
            Err(HostError::new("TokenElevation", code::ERROR_ELEVATION_REQUIRED))
        }
    }
}

impl Host for WindowsHost {
    fn service_state(&self, name: &str) -> HostResult<ServiceState> {
        service::state(name)
    }

    fn service_driver(&self, name: &str) -> HostResult<Option<String>> {
        service::driver(name)
    }

    fn create_service(&self, config: &ServiceConfig) -> HostResult<()> {
        service::create(config)
    }

    fn start_service(&self, name: &str) -> HostResult<()> {
        service::start(name)
    }

    fn stop_service(&self, name: &str) -> HostResult<()> {
        service::stop(name)
    }

    fn delete_service(&self, name: &str) -> HostResult<()> {
        service::delete(name)
    }

    fn set_service_driver(&self, name: &str, driver: &str) -> HostResult<()> {
        service::set_driver(name, driver)
    }

    fn service_start(&self, name: &str) -> HostResult<Option<StartType>> {
        service::start_type(name)
    }

    fn set_service_start(&self, name: &str, start: StartType) -> HostResult<()> {
        service::set_start_type(name, start)
    }

    fn service_parameter(&self, name: &str, value: &str) -> HostResult<Option<Parameter>> {
        parameters::get(name, value)
    }

    fn set_service_parameter(&self, name: &str, value: &str, to: Option<&Parameter>) -> HostResult<()> {
        parameters::set(name, value, to)
    }

    fn system(&self) -> HostResult<System> {
        system::system()
    }

    fn environment(&self, name: &str) -> HostResult<Option<String>> {
        environment::variable(name)
    }

    fn signature(&self, path: &str) -> HostResult<Signature> {
        signature::signature(path)
    }

    fn read_driver(&self, file: &str) -> HostResult<Option<Vec<u8>>> {
        files::read(file)
    }

    fn write_driver(&self, file: &str, content: &[u8]) -> HostResult<()> {
        files::write(file, content)
    }

    fn rename_driver(&self, from: &str, to: &str) -> HostResult<()> {
        files::rename(from, to)
    }

    fn delete_driver(&self, file: &str) -> HostResult<()> {
        files::delete(file)
    }

    fn delete_driver_at_restart(&self, file: &str) -> HostResult<()> {
        files::delete_at_restart(file)
    }

    fn open_engine(&self) -> HostResult<Box<dyn Engine + '_>> {
        Ok(Box::new(engine::Session::open()?))
    }

    fn open_device(&self, path: &str) -> HostResult<Box<dyn Device>> {
        Ok(Box::new(device::Handle::open(path)?))
    }

    fn app_id(&self, path: &str) -> HostResult<String> {
        path::app_id(path)
    }

    fn interface_luid(&self, alias: &str) -> HostResult<u64> {
        interface::luid(alias)
    }
}

/// UTF-16 with the terminating NUL.
///
/// # Errors
/// The text contains a NUL: Windows would take what is before it for the whole.
fn wide(operation: &str, text: &str) -> HostResult<Vec<u16>> {
    if text.contains('\0') {
        let what = format!("{text:?} contains a NUL character");
        return Err(HostError::with_message(operation, code::ERROR_INVALID_PARAMETER, what));
    }
    Ok(text.encode_utf16().chain([0]).collect())
}

/// A refusal in this crate's words, or in the system's where it has none.
fn refusal(operation: &str, code: u32) -> HostError {
    match code::name(code) {
        Some(_) => HostError::new(operation, code),
        None => {
            HostError::with_message(operation, code, std::io::Error::from_raw_os_error(code.cast_signed()).to_string())
        }
    }
}

/// The calling thread's last error.
fn last_error(operation: &str) -> HostError {
    let code = std::io::Error::last_os_error().raw_os_error().map_or(0, i32::cast_unsigned);
    refusal(operation, code)
}

/// `Ok` when a call that returns its error returned none.
fn check(operation: &str, result: u32) -> HostResult<()> {
    if result == 0 { Ok(()) } else { Err(refusal(operation, result)) }
}

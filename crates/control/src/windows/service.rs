//! The Service Control Manager.

use super::{last_error, wide};
use sluice_host::{HostError, HostResult, ServiceConfig, ServiceState, StartType, code};
use std::ptr::{null, null_mut};
use windows_sys::Win32::Storage::FileSystem::DELETE;
use windows_sys::Win32::System::Services::{
    ChangeServiceConfigW, CloseServiceHandle, ControlService, CreateServiceW, DeleteService, OpenSCManagerW,
    OpenServiceW, QUERY_SERVICE_CONFIGW, QueryServiceConfigW, QueryServiceStatus, SC_HANDLE, SC_MANAGER_CONNECT,
    SC_MANAGER_CREATE_SERVICE, SERVICE_CHANGE_CONFIG, SERVICE_CONTROL_STOP, SERVICE_ERROR_NORMAL,
    SERVICE_KERNEL_DRIVER, SERVICE_NO_CHANGE, SERVICE_QUERY_CONFIG, SERVICE_QUERY_STATUS, SERVICE_START,
    SERVICE_STATUS, SERVICE_STOP, SERVICE_STOP_PENDING, SERVICE_STOPPED, StartServiceW,
};

/// What the Service Control Manager writes before a driver's path.
const NT_PREFIX: &str = r"\??\";
/// The longest answer of QueryServiceConfigW (its documentation).
const MAX_CONFIG_BYTES: usize = 8192;

/// An open manager or service.
struct ServiceHandle(SC_HANDLE);

impl Drop for ServiceHandle {
    fn drop(&mut self) {
        // SAFETY: the handle came from a successful open and is closed only here.
        unsafe { CloseServiceHandle(self.0) };
    }
}

fn manager(access: u32) -> HostResult<ServiceHandle> {
    // SAFETY: null names mean this machine and the active database.
    let handle = unsafe { OpenSCManagerW(null(), null(), access) };
    if handle.is_null() { Err(last_error("OpenSCManagerW")) } else { Ok(ServiceHandle(handle)) }
}

fn open(name: &str, access: u32) -> HostResult<ServiceHandle> {
    let manager = manager(SC_MANAGER_CONNECT)?;
    let name = wide("OpenServiceW", name)?;
    // SAFETY: the manager is open, and `name` is NUL-terminated and outlives the call.
    let handle = unsafe { OpenServiceW(manager.0, name.as_ptr(), access) };
    if handle.is_null() { Err(last_error("OpenServiceW")) } else { Ok(ServiceHandle(handle)) }
}

/// `None` when there is no such service.
fn open_existing(name: &str, access: u32) -> HostResult<Option<ServiceHandle>> {
    match open(name, access) {
        Ok(service) => Ok(Some(service)),
        Err(error) if error.code == code::ERROR_SERVICE_DOES_NOT_EXIST => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn state(name: &str) -> HostResult<ServiceState> {
    let Some(service) = open_existing(name, SERVICE_QUERY_STATUS)? else { return Ok(ServiceState::Absent) };
    let mut status = SERVICE_STATUS::default();
    // SAFETY: the service is open for this query, and `status` outlives the call.
    if unsafe { QueryServiceStatus(service.0, &raw mut status) } == 0 {
        return Err(last_error("QueryServiceStatus"));
    }
    Ok(match status.dwCurrentState {
        SERVICE_STOPPED => ServiceState::Stopped,
        SERVICE_STOP_PENDING => ServiceState::StopPending,
        // A driver is never paused, and starting means that its DriverEntry runs.
        _ => ServiceState::Running,
    })
}

/// Reads a service's configuration; `None` when there is no such service.
fn configuration<T>(name: &str, read: impl FnOnce(&QUERY_SERVICE_CONFIGW) -> HostResult<T>) -> HostResult<Option<T>> {
    let Some(service) = open_existing(name, SERVICE_QUERY_CONFIG)? else { return Ok(None) };
    let mut buffer = vec![0_u64; MAX_CONFIG_BYTES / size_of::<u64>()];
    let config = buffer.as_mut_ptr().cast::<QUERY_SERVICE_CONFIGW>();
    let mut needed = 0;
    // SAFETY: the service is open for this query; the buffer is as long as said and aligned for the structure, whose
    // strictest member is a pointer.
    if unsafe { QueryServiceConfigW(service.0, config, MAX_CONFIG_BYTES as u32, &raw mut needed) } == 0 {
        return Err(last_error("QueryServiceConfigW"));
    }
    // SAFETY: the call succeeded: the structure is written; it and the strings it points to are in the buffer, which lives
    // until the end of this function.
    read(unsafe { &*config }).map(Some)
}

pub(super) fn driver(name: &str) -> HostResult<Option<String>> {
    configuration(name, |config| {
        // SAFETY: lpBinaryPathName points to a NUL-terminated string that lives as long as the configuration.
        let path = unsafe {
            let start = config.lpBinaryPathName.cast_const();
            let length = (0..MAX_CONFIG_BYTES / 2).take_while(|&at| *start.add(at) != 0).count();
            String::from_utf16(std::slice::from_raw_parts(start, length))
        };
        let path = path.map_err(|_| {
            HostError::with_message("QueryServiceConfigW", code::ERROR_INVALID_DATA, "the path is not Unicode")
        })?;
        Ok(path.strip_prefix(NT_PREFIX).unwrap_or(&path).to_owned())
    })
}

pub(super) fn start_type(name: &str) -> HostResult<Option<StartType>> {
    configuration(name, |config| {
        StartType::from_number(config.dwStartType).ok_or_else(|| {
            let what = format!("the start type is {}", config.dwStartType);
            HostError::with_message("QueryServiceConfigW", code::ERROR_INVALID_DATA, what)
        })
    })
}

pub(super) fn set_driver(name: &str, path: &str) -> HostResult<()> {
    change(name, None, Some(path))
}

pub(super) fn set_start_type(name: &str, start: StartType) -> HostResult<()> {
    change(name, Some(start), None)
}

fn change(name: &str, start: Option<StartType>, path: Option<&str>) -> HostResult<()> {
    const OPERATION: &str = "ChangeServiceConfigW";
    let service = open(name, SERVICE_CHANGE_CONFIG)?;
    let path = path.map(|path| wide(OPERATION, path)).transpose()?;
    // SAFETY: the service is open for this; the path is NUL-terminated and outlives the call; what is null or
    // SERVICE_NO_CHANGE stays as it is.
    let changed = unsafe {
        ChangeServiceConfigW(
            service.0,
            SERVICE_NO_CHANGE,
            start.map_or(SERVICE_NO_CHANGE, StartType::number),
            SERVICE_NO_CHANGE,
            path.as_ref().map_or(null(), |path| path.as_ptr()),
            null(),
            null_mut(),
            null(),
            null(),
            null(),
            null(),
        )
    };
    if changed == 0 { Err(last_error(OPERATION)) } else { Ok(()) }
}

pub(super) fn create(config: &ServiceConfig) -> HostResult<()> {
    const OPERATION: &str = "CreateServiceW";
    let manager = manager(SC_MANAGER_CONNECT | SC_MANAGER_CREATE_SERVICE)?;
    let name = wide(OPERATION, &config.name)?;
    let display_name = wide(OPERATION, &config.display_name)?;
    let path = wide(OPERATION, &config.driver)?;
    // SAFETY: the manager is open; the three strings are NUL-terminated and outlive the call; the others may be null.
    let handle = unsafe {
        CreateServiceW(
            manager.0,
            name.as_ptr(),
            display_name.as_ptr(),
            SERVICE_QUERY_STATUS,
            SERVICE_KERNEL_DRIVER,
            config.start.number(),
            SERVICE_ERROR_NORMAL,
            path.as_ptr(),
            null(),
            null_mut(),
            null(),
            null(),
            null(),
        )
    };
    if handle.is_null() {
        return Err(last_error(OPERATION));
    }
    drop(ServiceHandle(handle));
    Ok(())
}

pub(super) fn start(name: &str) -> HostResult<()> {
    let service = open(name, SERVICE_START)?;
    // SAFETY: the service is open for starting; a driver takes no arguments.
    if unsafe { StartServiceW(service.0, 0, null()) } == 0 { Err(last_error("StartServiceW")) } else { Ok(()) }
}

pub(super) fn stop(name: &str) -> HostResult<()> {
    let service = open(name, SERVICE_STOP)?;
    let mut status = SERVICE_STATUS::default();
    // SAFETY: the service is open for stopping, and `status` outlives the call.
    if unsafe { ControlService(service.0, SERVICE_CONTROL_STOP, &raw mut status) } == 0 {
        return Err(last_error("ControlService"));
    }
    Ok(())
}

pub(super) fn delete(name: &str) -> HostResult<()> {
    let service = open(name, DELETE)?;
    // SAFETY: the service is open for deletion.
    if unsafe { DeleteService(service.0) } == 0 { Err(last_error("DeleteService")) } else { Ok(()) }
}

//! The driver object: creation, unload, and what it answers about itself.

use core::any::Any;
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::Ordering;
use std::sync::Arc;

use super::Client;
use super::abi::{
    DRIVER_INIT_NO_DISPATCH_OVERRIDE, DRIVER_INIT_NON_PNP, DriverConfig, Handle, ObjectAttributes, UnicodeString,
    VersionAvailable,
};
use super::bind;
use super::callback;
use super::ddi::{self, Function, Globals};
use super::handle::Kind;
use super::lock::CallbackLock;
use super::object::{
    Allowed, Attributes, Body, Constraints, LEVEL_PASSIVE, Object, SCOPE_DEVICE, SCOPE_QUEUE, delete_subtree,
};
use super::status;
use super::string;
use super::violation::Violation;
use crate::machine::Machine;
use nt_abi::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::passive("WdfDriverCreate", create as *const ()),
    Function::passive("WdfDriverGetRegistryPath", get_registry_path as *const ()),
    Function::dispatch("WdfDriverWdmGetDriverObject", get_driver_object as *const ()),
    Function::dispatch("WdfWdmDriverGetWdfDriverHandle", get_driver_handle as *const ()),
    Function::passive("WdfDriverRegisterTraceInfo", register_trace_info as *const ()),
    Function::passive("WdfDriverRetrieveVersionString", retrieve_version_string as *const ()),
    Function::passive("WdfDriverIsVersionAvailable", is_version_available as *const ()),
    Function::passive("WdfDriverMiniportUnload", miniport_unload as *const ()),
];

/// Where `DriverUnload` is in a `DRIVER_OBJECT` (x64).
const DRIVER_UNLOAD: usize = 0x68;
/// Where `DriverExtension` is, and `AddDevice` in it.
const DRIVER_EXTENSION: usize = 0x30;
const ADD_DEVICE: usize = 0x08;

/// `WDFDRIVER`.
pub(crate) struct Driver {
    unload: Option<unsafe extern "win64" fn(Handle)>,
    constraints: Constraints,
    /// `WDF_SYNCHRONIZATION_SCOPE` for devices that inherit it.
    pub(crate) scope: u32,
}

impl Body for Driver {
    fn kind(&self) -> Kind {
        Kind::Driver
    }

    fn passive_dispose(&self) -> bool {
        true
    }

    fn deletable(&self) -> bool {
        false
    }

    fn constraints(&self) -> Option<Constraints> {
        Some(self.constraints.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The driver's name: the last part of its registry path.
#[must_use]
pub(crate) fn service_name(registry_path: &[u16]) -> String {
    let path = String::from_utf16_lossy(registry_path);
    path.trim_end_matches('\0').rsplit('\\').next().unwrap_or_default().to_owned()
}

extern "win64" fn create(
    globals: Globals,
    driver_object: *mut c_void,
    registry_path: *const UnicodeString,
    attributes: *const ObjectAttributes,
    config: *const DriverConfig,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(driver_object, "WdfDriverCreate", "DriverObject")?;
        ddi::not_null(registry_path, "WdfDriverCreate", "RegistryPath")?;
        ddi::not_null(config, "WdfDriverCreate", "DriverConfig")?;
        // SAFETY: not null, and of this type.
        let config = unsafe { config.read_unaligned() };
        ddi::size(config.size, &[size_of::<DriverConfig>() as u32])?;
        if config.init_flags & !(DRIVER_INIT_NON_PNP | DRIVER_INIT_NO_DISPATCH_OVERRIDE) != 0 {
            return Err(NtStatus::INVALID_PARAMETER.into());
        }
        // SAFETY: not null, and a UNICODE_STRING.
        let path = unsafe { string::read(registry_path)? }.unwrap_or_default();
        if client.driver().is_some() {
            return Err(status::DRIVER_INTERNAL_ERROR.into());
        }
        if config.init_flags == DRIVER_INIT_NON_PNP && !config.device_add.is_null() {
            return Err(NtStatus::INVALID_PARAMETER.into());
        }
        // SAFETY: NULL or a WDF_OBJECT_ATTRIBUTES.
        let attributes = unsafe { Attributes::read(attributes, Allowed::CONSTRAINTS)? };
        let object = new_driver(machine, &client, &attributes, &config)?;
        client.created(machine, &object, driver_object as usize, path, &config);
        // SAFETY: the machine's loader gives DriverEntry a DRIVER_OBJECT of documented layout; the handle's address is
        // written only when it is not null.
        unsafe {
            install(driver_object.cast(), &config);
            if !out.is_null() {
                out.write(object.handle);
            }
        }
        Ok(())
    })
}

fn new_driver(
    machine: &Arc<Machine>,
    client: &Arc<Client>,
    attributes: &Attributes,
    config: &DriverConfig,
) -> Result<Arc<Object>, NtStatus> {
    let passive = attributes.execution_level == LEVEL_PASSIVE;
    let scope = attributes.synchronization_scope;
    // A scope here is only the default of the devices; the driver's own callbacks are never synchronized.
    let lock = (scope == SCOPE_DEVICE || scope == SCOPE_QUEUE).then(|| Arc::new(CallbackLock::new(passive)));
    let constraints = Constraints { passive, lock };
    let body = Box::new(Driver { unload: config.unload, constraints, scope });
    Object::create(machine, client, None, attributes, body)
}

/// Sets what the I/O manager will call, as FxDriver::Initialize does: nothing for a driver that keeps its dispatch
/// table; else AddDevice, which is NULL without plug and play, and DriverUnload, which is NULL for a driver without
/// plug and play that gave no `EvtDriverUnload`: it cannot be unloaded.
///
/// # Safety
/// `driver_object` points to a `DRIVER_OBJECT`.
unsafe fn install(driver_object: *mut u8, config: &DriverConfig) {
    if config.init_flags & DRIVER_INIT_NO_DISPATCH_OVERRIDE != 0 {
        return;
    }
    let plug_and_play = config.init_flags & DRIVER_INIT_NON_PNP == 0;
    let unloads = plug_and_play || config.unload.is_some();
    let routine = |wanted: bool, routine: *const ()| if wanted { routine } else { ptr::null() };
    // SAFETY: both fields are in the object; the extension is checked for null.
    unsafe {
        let unload = routine(unloads, unload as *const ());
        driver_object.add(DRIVER_UNLOAD).cast::<*const ()>().write_unaligned(unload);
        let extension = driver_object.add(DRIVER_EXTENSION).cast::<*mut u8>().read_unaligned();
        if !extension.is_null() {
            let add_device = routine(plug_and_play, add_device as *const ());
            extension.add(ADD_DEVICE).cast::<*const ()>().write_unaligned(add_device);
        }
    }
}

/// The framework's `DriverUnload`: the driver's callback, then everything below the driver object.
extern "win64" fn unload(driver_object: *mut c_void) {
    ddi::run(|machine| {
        let Some(client) = machine.wdf.client_of_driver_object(driver_object as usize) else {
            let why = "DriverUnload is called for a DRIVER_OBJECT that WdfDriverCreate does not know";
            return Err(Violation::handle_like(driver_object as u64, why));
        };
        finish(machine, &client, true)
    });
}

/// Ends the driver object of a client, if it has one.
///
/// # Errors
/// A violation found on the way.
pub(crate) fn finish(machine: &Arc<Machine>, client: &Arc<Client>, call_unload: bool) -> Result<(), Box<Violation>> {
    let Some(object) = client.driver() else { return Ok(()) };
    let driver = ddi::body::<Driver>(&object)?;
    if let Some(callback) = driver.unload.filter(|_| call_unload) {
        let handle = object.handle;
        // SAFETY: the driver registered the callback.
        callback::unlocked(&"EvtDriverUnload", || unsafe { callback(handle) })?;
    }
    delete_subtree(machine, &object)?;
    // Deletions that had to wait for PASSIVE_LEVEL run callbacks of the driver; its image goes after this.
    client.wait_for_deferred();
    client.forget_driver();
    Ok(())
}

/// There is no plug and play: nothing calls this, and no device would come of it.
extern "win64" fn add_device(_: *mut c_void, _: *mut c_void) -> NtStatus {
    NtStatus::NOT_SUPPORTED
}

extern "win64" fn miniport_unload(globals: Globals, driver: Handle) {
    ddi::run(|machine| {
        let object = ddi::object(machine, driver, Kind::Driver)?;
        let client = ddi::client(machine, globals)?;
        debug_assert!(Arc::ptr_eq(object.client(), &client));
        finish(machine, &client, false)
    });
}

extern "win64" fn get_registry_path(_: Globals, driver: Handle) -> *const u16 {
    ddi::run(|machine| Ok(ddi::object(machine, driver, Kind::Driver)?.client().registry_path()))
}

extern "win64" fn get_driver_object(_: Globals, driver: Handle) -> usize {
    ddi::run(|machine| {
        let driver = ddi::object(machine, driver, Kind::Driver)?;
        Ok(driver.client().driver_object.load(Ordering::Acquire))
    })
}

extern "win64" fn get_driver_handle(_: Globals, driver_object: usize) -> Handle {
    ddi::run(|machine| {
        let client = machine.wdf.client_of_driver_object(driver_object);
        Ok(client.and_then(|client| client.driver()).map_or(Handle::NULL, |driver| driver.handle))
    })
}

/// KMDF itself answers this one so.
extern "win64" fn register_trace_info(_: Globals, _: *mut c_void, _: *const c_void, _: *mut c_void) -> NtStatus {
    NtStatus::NOT_SUPPORTED
}

extern "win64" fn retrieve_version_string(_: Globals, driver: Handle, out: Handle) -> NtStatus {
    ddi::status(|machine| {
        ddi::object(machine, driver, Kind::Driver)?;
        let text = string::of_handle(machine, out)?;
        let version = format!("Kernel Mode Driver Framework (verifier on) version 1.{}.0", bind::NEWEST_MINOR);
        ddi::body::<string::Text>(&text)?.assign(&version);
        Ok(())
    })
}

extern "win64" fn is_version_available(_: Globals, driver: Handle, parameters: *const VersionAvailable) -> u8 {
    ddi::run(|machine| {
        ddi::object(machine, driver, Kind::Driver)?;
        ddi::not_null(parameters, "WdfDriverIsVersionAvailable", "VersionAvailableParams")?;
        // SAFETY: not null.
        let asked = unsafe { parameters.read_unaligned() };
        let sized = asked.size as usize == size_of::<VersionAvailable>();
        Ok(u8::from(sized && asked.major == 1 && asked.minor <= bind::NEWEST_MINOR))
    })
}

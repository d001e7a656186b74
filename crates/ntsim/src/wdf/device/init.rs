//! `WDFDEVICE_INIT`: what a driver says about a device before it exists.

use std::sync::Arc;

use super::super::Client;
use super::super::abi::{
    FILE_CLASS_CANNOT_USE_FS_CONTEXTS, FILE_CLASS_NOT_REQUIRED, FILE_CLASS_OPTIONAL, FileConfig, Handle, IoTypeConfig,
    ObjectAttributes, UnicodeString,
};
use super::super::ddi::{self, Function, Globals};
use super::super::handle::{Invalid, Kind};
use super::super::object::{Allowed, Attributes};
use super::super::string;
use super::super::violation::{Fault, Violation};
use super::{Files, InCallerCallback};
use crate::machine::Machine;
use nt_abi::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::passive("WdfControlDeviceInitAllocate", allocate as *const ()),
    Function::passive("WdfControlDeviceInitSetShutdownNotification", set_shutdown_notification as *const ()),
    Function::dispatch("WdfDeviceInitFree", free as *const ()),
    Function::dispatch("WdfDeviceInitSetDeviceType", set_device_type as *const ()),
    Function::passive("WdfDeviceInitAssignName", assign_name as *const ()),
    Function::passive("WdfDeviceInitAssignSDDLString", assign_sddl as *const ()),
    Function::dispatch("WdfDeviceInitSetDeviceClass", set_device_class as *const ()),
    Function::dispatch("WdfDeviceInitSetIoType", set_io_type as *const ()),
    Function::dispatch("WdfDeviceInitSetIoTypeEx", set_io_type_ex as *const ()),
    Function::dispatch("WdfDeviceInitSetExclusive", set_exclusive as *const ()),
    Function::dispatch("WdfDeviceInitSetCharacteristics", set_characteristics as *const ()),
    Function::dispatch("WdfDeviceInitSetFileObjectConfig", set_file_object_config as *const ()),
    Function::passive("WdfPdoInitAssignRawDevice", assign_raw_device as *const ()),
    Function::dispatch("WdfDeviceInitSetRequestAttributes", set_request_attributes as *const ()),
    Function::dispatch("WdfDeviceInitSetIoInCallerContextCallback", set_in_caller_callback as *const ()),
];

/// What has been said so far.
pub(crate) struct Init {
    pub(super) client: Arc<Client>,
    pub(super) sddl: String,
    pub(super) name: Option<String>,
    pub(super) io_type: u32,
    pub(super) exclusive: bool,
    pub(super) device_type: u32,
    pub(super) characteristics: u32,
    pub(super) files: Files,
    pub(super) request_attributes: Attributes,
    pub(super) in_caller: Option<InCallerCallback>,
}

impl Init {
    /// The driver that allocated it.
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

/// `FILE_DEVICE_UNKNOWN`.
const FILE_DEVICE_UNKNOWN: u32 = 0x22;
/// `FILE_DEVICE_SECURE_OPEN`, which the framework sets.
const FILE_DEVICE_SECURE_OPEN: u32 = 0x100;
/// `WdfDeviceIoNeither` to `WdfDeviceIoBufferedOrDirect`.
const IO_TYPES: core::ops::RangeInclusive<u32> = 1..=4;
const IO_BUFFERED: u32 = 2;

/// Whether a string looks like a security descriptor: parts `O:`, `G:`, `D:`, `S:` with flags and entries in
/// parentheses. Which trustees there are is the kernel's to know.
fn is_sddl(text: &str) -> bool {
    let mut rest = text;
    let mut any = false;
    while !rest.is_empty() {
        let Some((part, after)) = rest.split_once(':') else { return false };
        if !matches!(part, "O" | "G" | "D" | "S") {
            return false;
        }
        any = true;
        let mut depth = 0_i32;
        let mut end = after.len();
        for (i, c) in after.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                ':' if depth == 0 => {
                    // The letter before a colon begins the next part.
                    end = i - after[..i].chars().next_back().map_or(0, char::len_utf8);
                    break;
                }
                _ => {}
            }
            if depth < 0 {
                return false;
            }
        }
        if depth != 0 {
            return false;
        }
        rest = &after[end..];
    }
    any
}

/// Runs `f` on an init that exists.
fn with<R>(machine: &Machine, handle: Handle, f: impl FnOnce(&mut Init) -> R) -> Result<R, Box<Violation>> {
    let mut inits = machine.wdf.inits.lock();
    let Some(init) = inits.get_mut(&handle) else {
        drop(inits);
        let found = machine.wdf.handles.get(handle).err().unwrap_or(Invalid::Unknown);
        return Err(match found {
            Invalid::Stale(Kind::DeviceInit) => {
                let why = format!("WDFDEVICE_INIT {handle:?} was freed, or became a device in WdfDeviceCreate");
                Violation::handle_like(handle.0, why)
            }
            found => Violation::handle(handle, Kind::DeviceInit.name(), found),
        });
    };
    Ok(f(init))
}

fn set(handle: Handle, f: impl FnOnce(&mut Init)) {
    ddi::run(|machine| with(machine, handle, f));
}

/// Takes an init out: it is used up.
///
/// # Errors
/// WDF_VIOLATION 0x5 when there is none.
pub(crate) fn take(machine: &Machine, handle: Handle) -> Result<Init, Box<Violation>> {
    with(machine, handle, |_| ())?;
    let taken = machine.wdf.inits.lock().remove(&handle);
    taken.ok_or_else(|| Violation::handle(handle, Kind::DeviceInit.name(), Invalid::Stale(Kind::DeviceInit)))
}

/// Puts an init back that could not be used.
pub(crate) fn put_back(machine: &Machine, handle: Handle, init: Init) {
    machine.wdf.inits.lock().insert(handle, init);
}

/// NULL when the descriptor is not valid.
extern "win64" fn allocate(globals: Globals, driver: Handle, sddl: *const UnicodeString) -> Handle {
    ddi::run(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::object(machine, driver, Kind::Driver)?;
        ddi::not_null(sddl, "WdfControlDeviceInitAllocate", "SDDLString")?;
        // SAFETY: not null, and a UNICODE_STRING.
        let text = unsafe { string::read_text(sddl) }.unwrap_or_default().unwrap_or_default();
        if machine.low_resources.fails("WdfControlDeviceInitAllocate") {
            return Ok(Handle::NULL);
        }
        if !is_sddl(&text) {
            tracing::warn!("WdfControlDeviceInitAllocate: {text:?} is not a security descriptor string");
            return Ok(Handle::NULL);
        }
        let init = Init {
            client,
            sddl: text,
            name: None,
            io_type: IO_BUFFERED,
            exclusive: false,
            device_type: FILE_DEVICE_UNKNOWN,
            characteristics: FILE_DEVICE_SECURE_OPEN,
            files: Files { config: None, attributes: Attributes::default() },
            request_attributes: Attributes::default(),
            in_caller: None,
        };
        let (handle, _) = machine.wdf.handles.reserve(Kind::DeviceInit);
        put_back(machine, handle, init);
        Ok(handle)
    })
}

/// The simulated machine is never shut down, so the driver is never notified.
extern "win64" fn set_shutdown_notification(_: Globals, init: Handle, _notification: *const (), _flags: u8) {
    set(init, |_| ());
}

extern "win64" fn free(_: Globals, init: Handle) {
    ddi::run(|machine| take(machine, init).map(drop));
}

extern "win64" fn set_device_type(_: Globals, init: Handle, device_type: u32) {
    set(init, |init| init.device_type = device_type);
}

extern "win64" fn assign_name(_: Globals, init: Handle, name: *const UnicodeString) -> NtStatus {
    ddi::status(|machine| {
        if machine.low_resources.fails("WdfDeviceInitAssignName") {
            return Err(NtStatus::INSUFFICIENT_RESOURCES.into());
        }
        // SAFETY: NULL, which takes the name away, or a UNICODE_STRING.
        let name = unsafe { string::read_text(name)? };
        Ok(with(machine, init, |init| init.name = name)?)
    })
}

extern "win64" fn assign_sddl(_: Globals, init: Handle, sddl: *const UnicodeString) -> NtStatus {
    ddi::status(|machine| {
        // SAFETY: NULL, which takes the descriptor away, or a UNICODE_STRING.
        let text = unsafe { string::read_text(sddl)? }.unwrap_or_default();
        if !text.is_empty() && !is_sddl(&text) {
            return Err(Fault::Status(NtStatus::INVALID_PARAMETER));
        }
        Ok(with(machine, init, |init| init.sddl = text)?)
    })
}

/// The class only names registry settings that could override the descriptor; there are none.
extern "win64" fn set_device_class(_: Globals, init: Handle, class: *const [u8; 16]) {
    ddi::run(|machine| {
        ddi::not_null(class, "WdfDeviceInitSetDeviceClass", "DeviceClassGuid")?;
        with(machine, init, |_| ())
    });
}

/// Raw mode is for devices that a bus driver enumerates. Every init here is a control device's, which the framework
/// answers with the one error that the method's page names; a shipped driver (Portmaster's) calls it so and goes on.
extern "win64" fn assign_raw_device(_: Globals, init: Handle, class: *const [u8; 16]) -> NtStatus {
    ddi::status(|machine| {
        ddi::not_null(class, "WdfPdoInitAssignRawDevice", "DeviceClassGuid")?;
        with(machine, init, |_| ())?;
        Err(NtStatus::INVALID_PARAMETER.into())
    })
}

fn io_type(init: Handle, io_type: u32) {
    ddi::run(|machine| {
        if !IO_TYPES.contains(&io_type) {
            let why = format!("WDF_DEVICE_IO_TYPE {io_type} is not valid");
            return Err(Violation::verifier(init, why));
        }
        with(machine, init, |init| init.io_type = io_type)
    });
}

extern "win64" fn set_io_type(_: Globals, init: Handle, value: u32) {
    io_type(init, value);
}

extern "win64" fn set_io_type_ex(_: Globals, init: Handle, config: *const IoTypeConfig) {
    ddi::run(|_| {
        ddi::not_null(config, "WdfDeviceInitSetIoTypeEx", "IoTypeConfig")?;
        // SAFETY: not null.
        let config = unsafe { config.read_unaligned() };
        if config.size as usize != size_of::<IoTypeConfig>() {
            let why = format!("WDF_IO_TYPE_CONFIG.Size is {}, 16 is expected", config.size);
            return Err(Violation::verifier(init, why));
        }
        io_type(init, config.read_write);
        Ok(())
    });
}

extern "win64" fn set_exclusive(_: Globals, init: Handle, exclusive: u8) {
    set(init, |init| init.exclusive = exclusive != 0);
}

extern "win64" fn set_characteristics(_: Globals, init: Handle, characteristics: u32, or_in: u8) {
    set(init, |init| {
        let kept = if or_in == 0 { 0 } else { init.characteristics };
        init.characteristics = kept | characteristics;
    });
}

extern "win64" fn set_file_object_config(
    _: Globals,
    init: Handle,
    config: *const FileConfig,
    attributes: *const ObjectAttributes,
) {
    ddi::run(|machine| {
        ddi::not_null(config, "WdfDeviceInitSetFileObjectConfig", "FileObjectConfig")?;
        // SAFETY: not null, and NULL or a WDF_OBJECT_ATTRIBUTES.
        let (config, attributes) =
            unsafe { (config.read_unaligned(), Attributes::read(attributes, Allowed::CONSTRAINTS)) };
        let class = config.class & !FILE_CLASS_OPTIONAL;
        let sized = config.size as usize == size_of::<FileConfig>();
        if !sized || !(FILE_CLASS_NOT_REQUIRED..=FILE_CLASS_CANNOT_USE_FS_CONTEXTS).contains(&class) {
            let why = format!("WDF_FILEOBJECT_CONFIG has size {} and class {:#x}", config.size, config.class);
            return Err(Violation::verifier(init, why));
        }
        let attributes = attributes.map_err(|status| {
            Violation::verifier(init, format!("WdfDeviceInitSetFileObjectConfig: FileObjectAttributes: {status}"))
        })?;
        with(machine, init, |init| init.files = Files { config: Some(config), attributes })
    });
}

extern "win64" fn set_request_attributes(_: Globals, init: Handle, attributes: *const ObjectAttributes) {
    ddi::run(|machine| {
        ddi::not_null(attributes, "WdfDeviceInitSetRequestAttributes", "RequestAttributes")?;
        // SAFETY: not null, so a WDF_OBJECT_ATTRIBUTES.
        let attributes = unsafe { Attributes::read(attributes, Allowed::NOTHING) }.map_err(|status| {
            Violation::verifier(init, format!("WdfDeviceInitSetRequestAttributes: RequestAttributes: {status}"))
        })?;
        with(machine, init, |init| init.request_attributes = attributes)
    });
}

extern "win64" fn set_in_caller_callback(_: Globals, init: Handle, callback: Option<InCallerCallback>) {
    ddi::run(|machine| {
        let function = "WdfDeviceInitSetIoInCallerContextCallback";
        let callback = callback.ok_or_else(|| Violation::null(function, "EvtIoInCallerContext"))?;
        with(machine, init, |init| init.in_caller = Some(callback))
    });
}

#[cfg(test)]
mod tests {
    use super::is_sddl;

    #[test]
    fn security_descriptors_are_told_from_other_strings() {
        for good in
            ["D:P(A;;GA;;;SY)(A;;GA;;;BA)", "D:P", "O:BAG:SYD:P(A;;GA;;;SY)", "D:P(A;;0x1200a9;;;WD)S:(ML;;NW;;;LW)"]
        {
            assert!(is_sddl(good), "{good}");
        }
        for bad in ["", "D", "X:P", "D:P(A;;GA;;;SY", "D:P)A(", "nonsense", "(A;;GA;;;SY)"] {
            assert!(!is_sddl(bad), "{bad}");
        }
    }
}

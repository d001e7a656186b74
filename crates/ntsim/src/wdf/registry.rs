//! Registry keys as the framework gives them to drivers; the registry is [`crate::nt::cm`].

use core::any::Any;
use core::ptr;
use std::sync::Arc;

use super::abi::{Handle, ObjectAttributes, UnicodeString};
use super::ddi::{self, Function, Globals};
use super::handle::Kind;
use super::kernel::Pool;
use super::memory;
use super::object::{Allowed, Attributes, Body, Object};
use super::string;
use super::violation::Fault;
use crate::machine::Machine;
use crate::nt::cm::kind::{REG_DWORD, REG_EXPAND_SZ, REG_SZ};
use crate::nt::cm::{SERVICES, Value};
use nt_abi::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::passive("WdfDriverOpenParametersRegistryKey", open_parameters as *const ()),
    Function::passive("WdfRegistryOpenKey", open_key as *const ()),
    Function::passive("WdfRegistryCreateKey", create_key as *const ()),
    Function::passive("WdfRegistryClose", close as *const ()),
    Function::passive("WdfRegistryQueryValue", query_value as *const ()),
    Function::passive("WdfRegistryQueryMemory", query_memory as *const ()),
    Function::passive("WdfRegistryQueryUnicodeString", query_unicode_string as *const ()),
    Function::passive("WdfRegistryQueryString", query_string as *const ()),
    Function::passive("WdfRegistryQueryULong", query_ulong as *const ()),
    Function::passive("WdfRegistryAssignValue", assign_value as *const ()),
    Function::passive("WdfRegistryAssignUnicodeString", assign_unicode_string as *const ()),
    Function::passive("WdfRegistryAssignULong", assign_ulong as *const ()),
    Function::passive("WdfRegistryRemoveValue", remove_value as *const ()),
];

/// `WDFKEY`.
struct Key {
    path: String,
}

impl Body for Key {
    fn kind(&self) -> Kind {
        Kind::Key
    }

    fn passive_dispose(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Makes a key object.
///
/// # Safety
/// `attributes` as for [`Attributes::read`], `out` null or writable.
unsafe fn new_key(
    machine: &Arc<Machine>,
    globals: Globals,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
    path: String,
) -> Result<(), Fault> {
    let client = ddi::client(machine, globals)?;
    ddi::not_null(out, "WdfRegistryOpenKey", "Key")?;
    // SAFETY: the caller's promise.
    let attributes = unsafe { Attributes::read(attributes, Allowed::PARENT)? };
    let parent = ddi::parent_or_driver(machine, &client, &attributes)?;
    let object = Object::create(machine, &client, Some(&parent), &attributes, Box::new(Key { path }))?;
    // SAFETY: not null.
    unsafe { out.write(object.handle) };
    Ok(())
}

/// KMDF opens the driver's key and creates `Parameters` below it when it is missing.
extern "win64" fn open_parameters(
    globals: Globals,
    driver: Handle,
    _access: u32,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| {
        let driver = ddi::object(machine, driver, Kind::Driver)?;
        let path = format!("{SERVICES}\\{}\\Parameters", driver.client().name());
        machine.executive.registry.create(&path);
        // SAFETY: the driver passes pointers as the function documents them.
        unsafe { new_key(machine, globals, attributes, out, path) }
    })
}

/// The path of a key below another, or of an absolute one.
///
/// # Safety
/// `name` as for [`string::read`].
unsafe fn resolve(machine: &Machine, parent: Handle, name: *const UnicodeString) -> Result<String, Fault> {
    ddi::not_null(name, "WdfRegistryOpenKey", "KeyName")?;
    // SAFETY: the caller's promise.
    let name = unsafe { string::read_text(name)? }.unwrap_or_default();
    if parent.is_null() {
        return if name.starts_with('\\') { Ok(name) } else { Err(NtStatus::OBJECT_NAME_NOT_FOUND.into()) };
    }
    let parent = ddi::object(machine, parent, Kind::Key)?;
    Ok(format!("{}\\{name}", ddi::body::<Key>(&parent)?.path))
}

extern "win64" fn open_key(
    globals: Globals,
    parent: Handle,
    name: *const UnicodeString,
    _access: u32,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| {
        // SAFETY: the driver passes a UNICODE_STRING.
        let path = unsafe { resolve(machine, parent, name)? };
        if !machine.executive.registry.exists(&path) {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND.into());
        }
        // SAFETY: the driver passes pointers as the function documents them.
        unsafe { new_key(machine, globals, attributes, out, path) }
    })
}

extern "win64" fn create_key(
    globals: Globals,
    parent: Handle,
    name: *const UnicodeString,
    _access: u32,
    _options: u32,
    disposition: *mut u32,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
) -> NtStatus {
    /// `REG_CREATED_NEW_KEY`, `REG_OPENED_EXISTING_KEY`.
    const CREATED: u32 = 1;
    const OPENED: u32 = 2;
    ddi::status(|machine| {
        // SAFETY: the driver passes a UNICODE_STRING.
        let path = unsafe { resolve(machine, parent, name)? };
        let existed = machine.executive.registry.exists(&path);
        machine.executive.registry.create(&path);
        if !disposition.is_null() {
            // SAFETY: not null.
            unsafe { disposition.write(if existed { OPENED } else { CREATED }) };
        }
        // SAFETY: the driver passes pointers as the function documents them.
        unsafe { new_key(machine, globals, attributes, out, path) }
    })
}

extern "win64" fn close(_: Globals, key: Handle) {
    ddi::run(|machine| {
        let object = ddi::object(machine, key, Kind::Key)?;
        super::object::delete(machine, &object)
    });
}

/// The path of a key and the name of a value.
///
/// # Safety
/// `name` as for [`string::read`].
unsafe fn place(machine: &Machine, key: Handle, name: *const UnicodeString) -> Result<(String, String), Fault> {
    let object = ddi::object(machine, key, Kind::Key)?;
    ddi::not_null(name, "WdfRegistry", "ValueName")?;
    // SAFETY: the caller's promise.
    let name = unsafe { string::read_text(name)? }.unwrap_or_default();
    Ok((ddi::body::<Key>(&object)?.path.clone(), name))
}

/// A value that exists.
///
/// # Safety
/// As [`place`].
unsafe fn value(machine: &Machine, key: Handle, name: *const UnicodeString) -> Result<Value, Fault> {
    // SAFETY: the caller's promise.
    let (path, name) = unsafe { place(machine, key, name)? };
    machine.executive.registry.get(&path, &name).ok_or(Fault::Status(NtStatus::OBJECT_NAME_NOT_FOUND))
}

extern "win64" fn query_value(
    _: Globals,
    key: Handle,
    name: *const UnicodeString,
    length: u32,
    buffer: *mut u8,
    queried: *mut u32,
    kind: *mut u32,
) -> NtStatus {
    ddi::status(|machine| {
        // SAFETY: the driver passes a UNICODE_STRING.
        let value = unsafe { value(machine, key, name)? };
        let fits = value.data.len() <= length as usize && !buffer.is_null();
        // SAFETY: each pointer is written only when it is not null; the buffer has `length` bytes.
        unsafe {
            if !queried.is_null() {
                queried.write(value.data.len() as u32);
            }
            if !kind.is_null() {
                kind.write(value.kind);
            }
            if fits {
                ptr::copy_nonoverlapping(value.data.as_ptr(), buffer, value.data.len());
            }
        }
        if fits { Ok(()) } else { Err(NtStatus::BUFFER_OVERFLOW.into()) }
    })
}

extern "win64" fn query_memory(
    globals: Globals,
    key: Handle,
    name: *const UnicodeString,
    pool_type: u32,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
    kind: *mut u32,
) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(out, "WdfRegistryQueryMemory", "Memory")?;
        // SAFETY: the driver passes a UNICODE_STRING, and NULL or a WDF_OBJECT_ATTRIBUTES.
        let (value, attributes) =
            unsafe { (value(machine, key, name)?, Attributes::read(attributes, Allowed::PARENT)?) };
        let pool = if pool_type & 1 != 0 { Pool::Paged } else { Pool::NonPaged };
        let object = memory::allocate(machine, &client, &attributes, value.data.len().max(1), pool, client.tag())?;
        let (address, _) = ddi::body::<memory::Memory>(&object)?.region();
        // SAFETY: the block was made for the value; the pointers are not null where written.
        unsafe {
            ptr::copy_nonoverlapping(value.data.as_ptr(), address as *mut u8, value.data.len());
            out.write(object.handle);
            if !kind.is_null() {
                kind.write(value.kind);
            }
        }
        Ok(())
    })
}

/// The UTF-16 units of a text value, without terminator.
fn text(value: &Value) -> Result<Vec<u16>, NtStatus> {
    if value.kind != REG_SZ && value.kind != REG_EXPAND_SZ {
        return Err(NtStatus::OBJECT_TYPE_MISMATCH);
    }
    let mut units: Vec<u16> = value.data.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
    while units.last() == Some(&0) {
        units.pop();
    }
    Ok(units)
}

/// `byte_length`, when given, is what the whole value needs, its terminator included.
extern "win64" fn query_unicode_string(
    _: Globals,
    key: Handle,
    name: *const UnicodeString,
    byte_length: *mut u16,
    out: *mut UnicodeString,
) -> NtStatus {
    ddi::status(|machine| {
        // SAFETY: the driver passes a UNICODE_STRING.
        let units = text(&unsafe { value(machine, key, name)? })?;
        let bytes = units.len() * 2;
        let whole = u16::try_from(bytes + 2).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        if !byte_length.is_null() {
            // SAFETY: not null.
            unsafe { byte_length.write(whole) };
        }
        if out.is_null() {
            return Ok(());
        }
        // SAFETY: not null; a UNICODE_STRING with a buffer of MaximumLength bytes.
        unsafe {
            let mut string = out.read_unaligned();
            if usize::from(string.maximum_length) < bytes || string.buffer.is_null() {
                return Err(NtStatus::BUFFER_OVERFLOW.into());
            }
            ptr::copy_nonoverlapping(units.as_ptr().cast::<u8>(), string.buffer.cast::<u8>(), bytes);
            if usize::from(string.maximum_length) >= bytes + 2 {
                string.buffer.add(units.len()).write_unaligned(0);
            }
            string.length = bytes as u16;
            out.write_unaligned(string);
        }
        Ok(())
    })
}

extern "win64" fn query_string(_: Globals, key: Handle, name: *const UnicodeString, out: Handle) -> NtStatus {
    ddi::status(|machine| {
        let object = string::of_handle(machine, out)?;
        // SAFETY: the driver passes a UNICODE_STRING.
        let units = text(&unsafe { value(machine, key, name)? })?;
        ddi::body::<string::Text>(&object)?.assign(&String::from_utf16_lossy(&units));
        Ok(())
    })
}

extern "win64" fn query_ulong(_: Globals, key: Handle, name: *const UnicodeString, out: *mut u32) -> NtStatus {
    ddi::status(|machine| {
        ddi::not_null(out, "WdfRegistryQueryULong", "Value")?;
        // SAFETY: the driver passes a UNICODE_STRING.
        let value = unsafe { value(machine, key, name)? };
        let number = match (value.kind, <[u8; 4]>::try_from(value.data.as_slice())) {
            (REG_DWORD, Ok(bytes)) => u32::from_le_bytes(bytes),
            _ => return Err(NtStatus::OBJECT_TYPE_MISMATCH.into()),
        };
        // SAFETY: not null.
        unsafe { out.write(number) };
        Ok(())
    })
}

/// Sets a value.
///
/// # Safety
/// As [`place`].
unsafe fn assign(machine: &Machine, key: Handle, name: *const UnicodeString, value: Value) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    let (path, name) = unsafe { place(machine, key, name)? };
    machine.executive.registry.set(&path, &name, value);
    Ok(())
}

extern "win64" fn assign_value(
    _: Globals,
    key: Handle,
    name: *const UnicodeString,
    kind: u32,
    length: u32,
    data: *const u8,
) -> NtStatus {
    ddi::status(|machine| {
        ddi::not_null(data, "WdfRegistryAssignValue", "Value")?;
        // SAFETY: the driver passes `length` bytes and a UNICODE_STRING.
        unsafe {
            let data = core::slice::from_raw_parts(data, length as usize).to_vec();
            assign(machine, key, name, Value { kind, data })
        }
    })
}

extern "win64" fn assign_unicode_string(
    _: Globals,
    key: Handle,
    name: *const UnicodeString,
    text: *const UnicodeString,
) -> NtStatus {
    ddi::status(|machine| {
        ddi::not_null(text, "WdfRegistryAssignUnicodeString", "Value")?;
        // SAFETY: the driver passes UNICODE_STRINGs.
        unsafe {
            let units = string::read(text)?.unwrap_or_default();
            let data = units.into_iter().chain([0]).flat_map(u16::to_le_bytes).collect();
            assign(machine, key, name, Value { kind: REG_SZ, data })
        }
    })
}

extern "win64" fn assign_ulong(_: Globals, key: Handle, name: *const UnicodeString, number: u32) -> NtStatus {
    // SAFETY: the driver passes a UNICODE_STRING.
    ddi::status(|machine| unsafe { assign(machine, key, name, Value::dword(number)) })
}

extern "win64" fn remove_value(_: Globals, key: Handle, name: *const UnicodeString) -> NtStatus {
    ddi::status(|machine| {
        // SAFETY: the driver passes a UNICODE_STRING.
        let (path, name) = unsafe { place(machine, key, name)? };
        let removed = machine.executive.registry.remove_value(&path, &name);
        if removed { Ok(()) } else { Err(NtStatus::OBJECT_NAME_NOT_FOUND.into()) }
    })
}

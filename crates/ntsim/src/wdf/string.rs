//! String objects, and reading and writing `UNICODE_STRING`s.

use core::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;

use super::abi::{Handle, ObjectAttributes, UnicodeString};
use super::ddi::{self, Function, Globals};
use super::handle::Kind;
use super::object::{Allowed, Attributes, Body, Object};
use super::violation::Violation;
use crate::machine::Machine;
use nt_abi::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::passive("WdfStringCreate", create as *const ()),
    Function::passive("WdfStringGetUnicodeString", get_unicode_string as *const ()),
];

/// Reads a string that a driver passed; NULL is `None`.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` when the lengths are odd, or contradict each other or the buffer.
///
/// # Safety
/// `string` is null or points to a `UNICODE_STRING` whose buffer holds `Length` bytes.
pub(crate) unsafe fn read(string: *const UnicodeString) -> Result<Option<Vec<u16>>, NtStatus> {
    if string.is_null() {
        return Ok(None);
    }
    // SAFETY: not null.
    let string = unsafe { string.read_unaligned() };
    let inconsistent = string.length % 2 != 0
        || string.maximum_length % 2 != 0
        || string.length > string.maximum_length
        || (string.buffer.is_null() && string.length != 0);
    if inconsistent {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let length = usize::from(string.length / 2);
    // SAFETY: the buffer holds `Length` bytes; UTF-16 units in a driver's image or pool may be at odd addresses.
    Ok(Some((0..length).map(|i| unsafe { string.buffer.add(i).read_unaligned() }).collect()))
}

/// The same as text; unpaired surrogates become U+FFFD.
///
/// # Errors
/// As [`read`].
///
/// # Safety
/// As [`read`].
pub(crate) unsafe fn read_text(string: *const UnicodeString) -> Result<Option<String>, NtStatus> {
    // SAFETY: the caller's promise.
    Ok(unsafe { read(string)? }.map(|units| String::from_utf16_lossy(&units)))
}

/// `WDFSTRING`. The buffer given out stays where it is until another string is assigned.
pub(crate) struct Text {
    units: Mutex<Vec<u16>>,
}

impl Text {
    fn new(mut units: Vec<u16>) -> Self {
        units.push(0);
        Self { units: Mutex::new(units) }
    }

    /// Replaces the string.
    pub(crate) fn assign(&self, text: &str) {
        *self.units.lock() = text.encode_utf16().chain([0]).collect();
    }

    fn unicode_string(&self) -> UnicodeString {
        let mut units = self.units.lock();
        let bytes = (units.len() - 1) * 2;
        UnicodeString { length: bytes as u16, maximum_length: bytes as u16 + 2, buffer: units.as_mut_ptr() }
    }
}

impl Body for Text {
    fn kind(&self) -> Kind {
        Kind::String
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The text of a string object.
///
/// # Errors
/// WDF_VIOLATION 0x5 when the handle is no string.
pub(crate) fn of_handle(machine: &Machine, handle: Handle) -> Result<Arc<Object>, Box<Violation>> {
    ddi::object(machine, handle, Kind::String)
}

extern "win64" fn create(
    globals: Globals,
    string: *const UnicodeString,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(out, "WdfStringCreate", "String")?;
        // SAFETY: the driver passes NULL or a UNICODE_STRING, and NULL or a WDF_OBJECT_ATTRIBUTES.
        let (units, attributes) = unsafe { (read(string)?, Attributes::read(attributes, Allowed::PARENT)?) };
        let parent = ddi::parent_or_driver(machine, &client, &attributes)?;
        let text = Box::new(Text::new(units.unwrap_or_default()));
        let object = Object::create(machine, &client, Some(&parent), &attributes, text)?;
        // SAFETY: not null.
        unsafe { out.write(object.handle) };
        Ok(())
    })
}

extern "win64" fn get_unicode_string(_: Globals, string: Handle, out: *mut UnicodeString) {
    ddi::run(|machine| {
        let object = of_handle(machine, string)?;
        ddi::not_null(out, "WdfStringGetUnicodeString", "UnicodeString")?;
        let text = ddi::body::<Text>(&object)?.unicode_string();
        // SAFETY: not null.
        unsafe { out.write(text) };
        Ok(())
    });
}

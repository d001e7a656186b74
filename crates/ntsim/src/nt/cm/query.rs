//! Registry calls by path: `RtlQueryRegistryValues` and its kin.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use super::{Value, kind};
use crate::cpu;
use crate::export::exports;
use crate::verifier::callback::{self, At};
use core::ffi::c_void;
use nt_abi::NtStatus;
use nt_abi::UnicodeString;

exports! {
    "ntoskrnl.exe";
    RtlQueryRegistryValues: PASSIVE,
    RtlQueryRegistryValuesEx: PASSIVE,
    RtlWriteRegistryValue: PASSIVE,
    RtlDeleteRegistryValue: PASSIVE,
    RtlCheckRegistryKey: PASSIVE,
    RtlCreateRegistryKey: PASSIVE,
}

/// `RTL_QUERY_REGISTRY_ROUTINE`: name, type, data, length, context, entry context.
type Routine = extern "win64" fn(*const u16, u32, *const u8, u32, *mut c_void, *mut c_void) -> NtStatus;

/// `RTL_QUERY_REGISTRY_TABLE`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    routine: Option<Routine>,
    flags: u32,
    name: *const u16,
    entry_context: *mut c_void,
    default_type: u32,
    default_data: *const u8,
    default_length: u32,
}

const _: () = assert!(size_of::<Entry>() == 0x38);

/// RTL_QUERY_REGISTRY_*.
mod flag {
    pub(super) const SUBKEY: u32 = 0x1;
    pub(super) const TOPKEY: u32 = 0x2;
    pub(super) const REQUIRED: u32 = 0x4;
    pub(super) const NOVALUE: u32 = 0x8;
    pub(super) const DIRECT: u32 = 0x20;
    pub(super) const DELETE: u32 = 0x40;
    pub(super) const TYPECHECK: u32 = 0x100;
}

/// The position in the default type of the type that RTL_QUERY_REGISTRY_TYPECHECK expects.
const EXPECTED_SHIFT: u32 = 24;
const STATUS_INVALID_PARAMETER: NtStatus = NtStatus::INVALID_PARAMETER;
const STATUS_BUFFER_TOO_SMALL: NtStatus = NtStatus::BUFFER_TOO_SMALL;

/// A terminated string.
///
/// # Safety
/// `at` points to a terminated string.
unsafe fn text(at: *const u16) -> String {
    let mut units = Vec::new();
    if at.is_null() {
        return String::new();
    }
    for i in 0.. {
        // SAFETY: every unit before this one was read and is not the terminator, so the string goes on here.
        let unit = unsafe { at.add(i).read_unaligned() };
        if unit == 0 {
            break;
        }
        units.push(unit);
    }
    String::from_utf16_lossy(&units)
}

/// The key that `RelativeTo` and a path name.
///
/// # Safety
/// `path` is a terminated string, or a handle.
unsafe fn resolve(relative_to: u32, path: *const u16) -> Result<String, NtStatus> {
    const HANDLE: u32 = 0x4000_0000;
    const OPTIONAL: u32 = 0x8000_0000;
    if relative_to & HANDLE != 0 {
        return match cpu::with_machine(|machine| machine.executive.objects.target(path as u64)) {
            Some(crate::nt::ob::Target::Key(path)) => Ok(path),
            _ => Err(NtStatus::INVALID_HANDLE),
        };
    }
    // SAFETY: the caller's promise.
    let path = unsafe { text(path) };
    let below = |root: &str| if path.is_empty() { root.to_owned() } else { format!("{root}\\{path}") };
    match relative_to & !OPTIONAL {
        0 => Ok(path),
        1 => Ok(below(super::SERVICES)),
        2 => Ok(below(r"\Registry\Machine\System\CurrentControlSet\Control")),
        3 => Ok(below(r"\Registry\Machine\Software\Microsoft\Windows NT\CurrentVersion")),
        4 => Ok(below(r"\Registry\Machine\Hardware\DeviceMap")),
        5 => Ok(below(r"\Registry\User\.Default")),
        _ => Err(STATUS_INVALID_PARAMETER),
    }
}

/// Stores a value as RTL_QUERY_REGISTRY_DIRECT asks.
///
/// # Safety
/// `to` has the form that the value's type demands.
unsafe fn store(value: &Value, to: *mut c_void, expected: Option<u32>) -> NtStatus {
    if expected.is_some_and(|expected| expected != value.kind) {
        return NtStatus::OBJECT_TYPE_MISMATCH;
    }
    match value.kind {
        // SAFETY: by the flags' page the entry context of a string value is a UNICODE_STRING.
        kind::REG_SZ | kind::REG_EXPAND_SZ | kind::REG_MULTI_SZ => unsafe { store_text(&value.data, to.cast()) },
        _ if value.data.len() <= size_of::<u32>() => {
            // SAFETY: by the flags' page the entry context of a value of at most four bytes is a buffer of that size.
            unsafe { to.cast::<u8>().copy_from_nonoverlapping(value.data.as_ptr(), value.data.len()) };
            NtStatus::SUCCESS
        }
        _ => {
            // A buffer whose first word says how long it is: as its negative, or followed by the type.
            // SAFETY: by the flags' page a larger value's buffer begins with its size, negated or followed by the type;
            // what is written is bounded by that size.
            unsafe {
                let room = to.cast::<i32>().read_unaligned();
                let length = value.data.len();
                if room < 0 {
                    if (room.unsigned_abs() as usize) < length {
                        return STATUS_BUFFER_TOO_SMALL;
                    }
                    to.cast::<u8>().copy_from_nonoverlapping(value.data.as_ptr(), length);
                } else {
                    if (room as usize) < length + 8 {
                        return STATUS_BUFFER_TOO_SMALL;
                    }
                    to.cast::<u32>().write_unaligned(length as u32);
                    to.cast::<u32>().add(1).write_unaligned(value.kind);
                    to.cast::<u8>().add(8).copy_from_nonoverlapping(value.data.as_ptr(), length);
                }
            }
            NtStatus::SUCCESS
        }
    }
}

/// Stores text in a UNICODE_STRING, whose buffer is allocated when it has none.
///
/// # Safety
/// `to` is a UNICODE_STRING, with MaximumLength writable bytes if it has a buffer.
unsafe fn store_text(data: &[u8], to: *mut UnicodeString) -> NtStatus {
    const TAG: u32 = u32::from_le_bytes(*b"RtlQ");
    // SAFETY: the caller's promise.
    unsafe {
        if (*to).buffer.is_null() {
            let block =
                cpu::with_machine(|machine| machine.pool.allocate(TAG, data.len(), crate::nt::pool::Kind::Paged));
            if block.is_null() {
                return NtStatus::INSUFFICIENT_RESOURCES;
            }
            (*to).buffer = block.cast();
            (*to).maximum_length = data.len() as u16;
        }
        if usize::from((*to).maximum_length) < data.len() {
            return STATUS_BUFFER_TOO_SMALL;
        }
        (*to).buffer.cast::<u8>().copy_from_nonoverlapping(data.as_ptr(), data.len());
        // The length leaves the terminator out.
        (*to).length = (data.len() as u16).saturating_sub(2);
    }
    NtStatus::SUCCESS
}

/// Gives one value to the entry's routine, or stores it.
///
/// # Safety
/// An entry of a driver's table, as its page demands.
unsafe fn deliver(entry: &Entry, name: &str, value: &Value, context: *mut c_void) -> NtStatus {
    if entry.flags & flag::DIRECT != 0 {
        let expected = (entry.flags & flag::TYPECHECK != 0).then_some(entry.default_type >> EXPECTED_SHIFT);
        // SAFETY: the caller's promise.
        return unsafe { store(value, entry.entry_context, expected) };
    }
    let Some(routine) = entry.routine else { return NtStatus::SUCCESS };
    let name: Vec<u16> = name.encode_utf16().chain([0]).collect();
    // Copies that are leaked when the routine stops the machine.
    callback::call(&At("the query routine", routine as usize as u64), "QueryRoutine", || {
        routine(name.as_ptr(), value.kind, value.data.as_ptr(), value.data.len() as u32, context, entry.entry_context)
    })
}

/// The default of an entry, when it has one.
///
/// # Safety
/// An entry of a driver's table, as its page demands.
unsafe fn default_of(entry: &Entry) -> Option<Value> {
    let value_type = entry.default_type & 0xff_ffff;
    if value_type == kind::REG_NONE {
        return None;
    }
    let length = match (entry.default_length, value_type) {
        (0, kind::REG_SZ | kind::REG_EXPAND_SZ) => {
            // SAFETY: the caller's promise: a terminated string.
            (unsafe { text(entry.default_data.cast()) }.encode_utf16().count() + 1) * 2
        }
        (length, _) => length as usize,
    };
    if length == 0 {
        return Some(Value { kind: value_type, data: Vec::new() });
    }
    // SAFETY: the caller's promise: data of that length.
    let data = unsafe { core::slice::from_raw_parts(entry.default_data, length) }.to_vec();
    Some(Value { kind: value_type, data })
}

unsafe extern "win64" fn RtlQueryRegistryValues(
    relative_to: u32,
    path: *const u16,
    table: *const Entry,
    context: *mut c_void,
    _environment: *const c_void,
) -> NtStatus {
    // SAFETY: the page demands a table that ends with an entry without routine and flags, terminated strings, and a
    // path that is a terminated string, or a handle by the flags; all of it is only read.
    let outcome = unsafe { query(relative_to, path, table, context) };
    outcome.err().unwrap_or(NtStatus::SUCCESS)
}

/// # Safety
/// As the export.
unsafe fn query(relative_to: u32, path: *const u16, table: *const Entry, context: *mut c_void) -> Result<(), NtStatus> {
    // SAFETY: the caller's promise.
    let top = unsafe { resolve(relative_to, path)? };
    if !cpu::with_machine(|machine| machine.executive.registry.exists(&top)) {
        return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
    }
    let mut key = top.clone();
    for index in 0.. {
        // SAFETY: every entry before this one was read and is not the table's end.
        let entry = unsafe { table.add(index).read() };
        if entry.routine.is_none() && entry.flags & (flag::SUBKEY | flag::DIRECT) == 0 {
            return Ok(());
        }
        // SAFETY: the page makes `Name` null or a terminated string; null is checked.
        let name = unsafe { text(entry.name) };
        if entry.flags & (flag::TOPKEY | flag::SUBKEY) != 0 {
            key.clone_from(&top);
        }
        if entry.flags & flag::SUBKEY != 0 {
            key = format!("{top}\\{name}");
            let exists = cpu::with_machine(|machine| machine.executive.registry.exists(&key));
            if !exists && entry.flags & flag::REQUIRED != 0 {
                return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
            }
            if entry.routine.is_none() {
                continue;
            }
        }
        // SAFETY: an entry of the table that `query` got, copied.
        unsafe { query_entry(&entry, &key, &name, context)? };
    }
    Ok(())
}

/// # Safety
/// As the export.
unsafe fn query_entry(entry: &Entry, key: &str, name: &str, context: *mut c_void) -> Result<(), NtStatus> {
    if entry.flags & flag::NOVALUE != 0 {
        // SAFETY: the caller's promise.
        let status = unsafe { deliver(entry, "", &Value { kind: kind::REG_NONE, data: Vec::new() }, context) };
        return status.ok();
    }
    if entry.name.is_null() || entry.flags & flag::SUBKEY != 0 {
        let values = cpu::with_machine(|machine| machine.executive.registry.values(key));
        if values.is_empty() && entry.flags & flag::REQUIRED != 0 {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        for (name, value) in &values {
            // SAFETY: the caller's promise.
            unsafe { deliver(entry, name, value, context) }.ok()?;
        }
        return Ok(());
    }
    let found = cpu::with_machine(|machine| machine.executive.registry.get(key, name));
    // SAFETY: the caller's promise.
    let value = match found.or_else(|| unsafe { default_of(entry) }) {
        Some(value) => value,
        None if entry.flags & flag::REQUIRED != 0 => return Err(NtStatus::OBJECT_NAME_NOT_FOUND),
        None => return Ok(()),
    };
    // SAFETY: the caller's promise.
    unsafe { deliver(entry, name, &value, context) }.ok()?;
    if entry.flags & flag::DELETE != 0 {
        cpu::with_machine(|machine| machine.executive.registry.remove_value(key, name));
    }
    Ok(())
}

unsafe extern "win64" fn RtlQueryRegistryValuesEx(
    relative_to: u32,
    path: *const u16,
    table: *const Entry,
    context: *mut c_void,
    environment: *const c_void,
) -> NtStatus {
    // SAFETY: the page demands what RtlQueryRegistryValues does.
    unsafe { RtlQueryRegistryValues(relative_to, path, table, context, environment) }
}

/// Runs an export's body on the key it names.
///
/// # Safety
/// `path` is a terminated string, or a handle.
unsafe fn on(relative_to: u32, path: *const u16, body: impl FnOnce(&super::Registry, &str) -> NtStatus) -> NtStatus {
    // SAFETY: the caller's promise.
    match unsafe { resolve(relative_to, path) } {
        Ok(path) => cpu::with_machine(|machine| body(&machine.executive.registry, &path)),
        Err(status) => status,
    }
}

fn found(found: bool) -> NtStatus {
    if found { NtStatus::SUCCESS } else { NtStatus::OBJECT_NAME_NOT_FOUND }
}

unsafe extern "win64" fn RtlWriteRegistryValue(
    relative_to: u32,
    path: *const u16,
    name: *const u16,
    kind: u32,
    data: *const u8,
    length: u32,
) -> NtStatus {
    // SAFETY: the page demands terminated strings, or a handle by the flags, and `length` bytes of data; all of it is
    // copied before the registry changes.
    unsafe {
        let data = if length == 0 { Vec::new() } else { core::slice::from_raw_parts(data, length as usize).to_vec() };
        let name = text(name);
        on(relative_to, path, |registry, path| {
            registry.set(path, &name, Value { kind, data });
            NtStatus::SUCCESS
        })
    }
}

unsafe extern "win64" fn RtlDeleteRegistryValue(relative_to: u32, path: *const u16, name: *const u16) -> NtStatus {
    // SAFETY: the page demands terminated strings, or a handle by the flags; both are copied.
    unsafe {
        let name = text(name);
        on(relative_to, path, |registry, path| found(registry.remove_value(path, &name)))
    }
}

unsafe extern "win64" fn RtlCheckRegistryKey(relative_to: u32, path: *const u16) -> NtStatus {
    // SAFETY: the page demands a terminated string, or a handle by the flags; it is copied.
    unsafe { on(relative_to, path, |registry, path| found(registry.exists(path))) }
}

unsafe extern "win64" fn RtlCreateRegistryKey(relative_to: u32, path: *const u16) -> NtStatus {
    // SAFETY: the page demands a terminated string, or a handle by the flags; it is copied.
    unsafe {
        on(relative_to, path, |registry, path| {
            registry.create(path);
            NtStatus::SUCCESS
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use core::ptr;
    use nt_abi::Irql;

    fn utf16(text: &str) -> Vec<u16> {
        text.encode_utf16().chain([0]).collect()
    }

    const END: Entry = Entry {
        routine: None,
        flags: 0,
        name: ptr::null(),
        entry_context: ptr::null_mut(),
        default_type: 0,
        default_data: ptr::null(),
        default_length: 0,
    };

    #[test]
    fn direct_entries_store_numbers_and_text_with_defaults() {
        let machine = Machine::new();
        let service = format!("{}\\Sluice", super::super::SERVICES);
        machine.executive.registry.set(&service, "Depth", Value::dword(17));
        machine.executive.registry.set(&service, "Mode", Value::text("soft"));
        let (path, depth, mode, limit) = (utf16("Sluice"), utf16("Depth"), utf16("Mode"), utf16("Limit"));
        cpu::enter(&machine, Irql::PASSIVE, || {
            let (mut number, mut other, default) = (0_u32, 0_u32, 99_u32);
            let mut string = UnicodeString::EMPTY;
            let entry = |name: &Vec<u16>, to: *mut c_void| Entry {
                flags: flag::DIRECT | flag::TYPECHECK,
                name: name.as_ptr(),
                entry_context: to,
                ..END
            };
            let mut table = [
                Entry { default_type: 4 << 24, ..entry(&depth, (&raw mut number).cast()) },
                Entry { default_type: 1 << 24, ..entry(&mode, (&raw mut string).cast()) },
                Entry {
                    default_type: 4 << 24 | 4,
                    default_data: (&raw const default).cast(),
                    default_length: 4,
                    ..entry(&limit, (&raw mut other).cast())
                },
                END,
            ];
            // SAFETY: all ours.
            unsafe {
                let query = |table: &[Entry; 4]| {
                    RtlQueryRegistryValues(1, path.as_ptr(), table.as_ptr(), ptr::null_mut(), ptr::null())
                };
                assert_eq!(query(&table), NtStatus::SUCCESS);
                assert_eq!((number, other), (17, 99));
                assert_eq!(UnicodeString::read(&string), "soft");
                machine.pool.free(string.buffer.cast(), 0);
                table[0].default_type = 1 << 24;
                assert_eq!(query(&table), NtStatus::OBJECT_TYPE_MISMATCH);
                table[0] = Entry { flags: flag::DIRECT | flag::REQUIRED, name: path.as_ptr(), ..table[0] };
                table[0].default_type = 0;
                assert_eq!(query(&table), NtStatus::OBJECT_NAME_NOT_FOUND);
            }
        })
        .unwrap();
    }

    #[test]
    fn routines_hear_of_every_value_of_a_subkey() {
        static HEARD: parking_lot::Mutex<Vec<(String, u32)>> = parking_lot::Mutex::new(Vec::new());
        extern "win64" fn routine(
            name: *const u16,
            kind: u32,
            _data: *const u8,
            length: u32,
            _: *mut c_void,
            _: *mut c_void,
        ) -> NtStatus {
            // SAFETY: a terminated name.
            HEARD.lock().push((unsafe { text(name) }, kind << 8 | length));
            NtStatus::SUCCESS
        }
        let machine = Machine::new();
        let service = format!("{}\\Sluice\\Parameters", super::super::SERVICES);
        machine.executive.registry.set(&service, "A", Value::dword(1));
        machine.executive.registry.set(&service, "B", Value::text("b"));
        let (path, parameters) = (utf16("Sluice"), utf16("Parameters"));
        let table = [Entry { routine: Some(routine), flags: flag::SUBKEY, name: parameters.as_ptr(), ..END }, END];
        // SAFETY: all ours.
        let status = cpu::enter(&machine, Irql::PASSIVE, || unsafe {
            RtlQueryRegistryValues(1, path.as_ptr(), table.as_ptr(), ptr::null_mut(), ptr::null())
        });
        assert_eq!(status.unwrap(), NtStatus::SUCCESS);
        assert_eq!(*HEARD.lock(), [("A".to_owned(), 0x404), ("B".to_owned(), 0x104)]);
    }

    #[test]
    fn values_are_written_and_deleted_by_path() {
        let machine = Machine::new();
        let (path, name) = (utf16("Sluice"), utf16("Start"));
        // SAFETY: all ours.
        cpu::enter(&machine, Irql::PASSIVE, || unsafe {
            assert_eq!(RtlCheckRegistryKey(1, path.as_ptr()), NtStatus::OBJECT_NAME_NOT_FOUND);
            assert_eq!(RtlCreateRegistryKey(1, path.as_ptr()), NtStatus::SUCCESS);
            assert_eq!(RtlCheckRegistryKey(1, path.as_ptr()), NtStatus::SUCCESS);
            let data = [3_u8, 0, 0, 0];
            let written = RtlWriteRegistryValue(1, path.as_ptr(), name.as_ptr(), 4, data.as_ptr(), 4);
            assert_eq!(written, NtStatus::SUCCESS);
            assert_eq!(RtlDeleteRegistryValue(1, path.as_ptr(), name.as_ptr()), NtStatus::SUCCESS);
            assert_eq!(RtlCheckRegistryKey(9, path.as_ptr()), NtStatus::INVALID_PARAMETER);
        })
        .unwrap();
    }
}

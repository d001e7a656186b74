//! Registry calls by handle.
//!
//! Forms of the answers: KEY_VALUE_*_INFORMATION and KEY_*_INFORMATION in the WDK documentation (wdm.h). A buffer that
//! does not hold the fixed part is too small; one that does not hold all of it overflows, and gets what fits.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use super::Value;
use crate::cpu;
use crate::export::exports;
use crate::nt::ob::Target;
use crate::nt::violation;
use nt_abi::NtStatus;
use nt_abi::UnicodeString;

exports! {
    "ntoskrnl.exe";
    ZwOpenKey: PASSIVE,
    ZwOpenKeyEx: PASSIVE,
    ZwCreateKey: PASSIVE,
    ZwDeleteKey: PASSIVE,
    ZwFlushKey: PASSIVE,
    ZwQueryKey: PASSIVE,
    ZwQueryValueKey: PASSIVE,
    ZwSetValueKey: PASSIVE,
    ZwDeleteValueKey: PASSIVE,
    ZwEnumerateKey: PASSIVE,
    ZwEnumerateValueKey: PASSIVE,
}

/// `OBJECT_ATTRIBUTES`.
#[repr(C)]
struct ObjectAttributes {
    length: u32,
    root: u64,
    name: *const UnicodeString,
    attributes: u32,
    security: *const u8,
    quality: *const u8,
}

const _: () = assert!(size_of::<ObjectAttributes>() == 0x30);

const STATUS_CANNOT_DELETE: NtStatus = NtStatus(0xC000_0121_u32 as i32);
const STATUS_OBJECT_PATH_SYNTAX_BAD: NtStatus = NtStatus(0xC000_003B_u32 as i32);
/// REG_CREATED_NEW_KEY and REG_OPENED_EXISTING_KEY.
const CREATED: u32 = 1;
const OPENED: u32 = 2;

/// The path that attributes name.
///
/// # Safety
/// `attributes` points to OBJECT_ATTRIBUTES with a UNICODE_STRING.
unsafe fn path(attributes: *const ObjectAttributes) -> Result<String, NtStatus> {
    // SAFETY: the caller's promise.
    let attributes = unsafe { &*attributes };
    if attributes.length as usize != size_of::<ObjectAttributes>() || attributes.name.is_null() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    // SAFETY: the caller's promise.
    let (header, name) = unsafe { (attributes.name.read(), UnicodeString::read(attributes.name)) };
    if header.length % 2 != 0 || header.length > header.maximum_length {
        drop(name);
        violation(
            [0xE4, cpu::caller(), attributes.name as u64, 0],
            "a registry routine was given a malformed UNICODE_STRING",
        );
    }
    if attributes.root == 0 {
        return if name.starts_with('\\') { Ok(name) } else { Err(STATUS_OBJECT_PATH_SYNTAX_BAD) };
    }
    let root = key(attributes.root)?;
    Ok(if name.is_empty() { root } else { format!("{root}\\{name}") })
}

/// The path a handle stands for.
fn key(handle: u64) -> Result<String, NtStatus> {
    match cpu::with_machine(|machine| machine.executive.objects.target(handle)) {
        Some(Target::Key(path)) => Ok(path),
        _ => Err(NtStatus::INVALID_HANDLE),
    }
}

/// Whether a key exists; that of a loaded driver's service always does.
fn exists(path: &str) -> bool {
    cpu::with_machine(|machine| {
        let registry = &machine.executive.registry;
        let service = super::canonical(path);
        let name = service.strip_prefix(&super::canonical(super::SERVICES)).and_then(|rest| rest.strip_prefix('\\'));
        if name.is_some_and(|name| machine.driver_state(name).is_some()) {
            registry.create(path);
        }
        registry.exists(path)
    })
}

/// # Safety
/// `handle` is writable.
unsafe fn give(handle: *mut u64, path: String, by: u64) {
    let opened = cpu::with_machine(|machine| machine.executive.objects.open(Target::Key(path), by));
    // SAFETY: the caller's promise.
    unsafe { handle.write(opened) };
}

/// Runs an export's body, where an error is a status.
fn status(body: impl FnOnce() -> Result<(), NtStatus>) -> NtStatus {
    body().err().unwrap_or(NtStatus::SUCCESS)
}

unsafe extern "win64" fn ZwOpenKey(handle: *mut u64, _access: u32, attributes: *const ObjectAttributes) -> NtStatus {
    let by = cpu::caller();
    // SAFETY: the page demands OBJECT_ATTRIBUTES, whose length and root `path` checks, and a variable for the handle.
    // The driver closes it with ZwClose.
    status(|| unsafe {
        let path = path(attributes)?;
        if !exists(&path) {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        give(handle, path, by);
        Ok(())
    })
}

unsafe extern "win64" fn ZwOpenKeyEx(
    handle: *mut u64,
    access: u32,
    attributes: *const ObjectAttributes,
    _options: u32,
) -> NtStatus {
    // SAFETY: the page demands what ZwOpenKey does; the options are ignored.
    unsafe { ZwOpenKey(handle, access, attributes) }
}

/// Creates the last part of the path; those before it must exist.
unsafe extern "win64" fn ZwCreateKey(
    handle: *mut u64,
    _access: u32,
    attributes: *const ObjectAttributes,
    _title: u32,
    _class: *const UnicodeString,
    _options: u32,
    disposition: *mut u32,
) -> NtStatus {
    let by = cpu::caller();
    // SAFETY: the page demands OBJECT_ATTRIBUTES, whose length and root `path` checks, a variable for the handle, and
    // one or null for the disposition. The driver closes the handle with ZwClose.
    status(|| unsafe {
        let path = path(attributes)?;
        if let Some((parent, _)) = path.rsplit_once('\\')
            && !parent.is_empty()
            && !exists(parent)
        {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        let existed = exists(&path);
        cpu::with_machine(|machine| machine.executive.registry.create(&path));
        if !disposition.is_null() {
            disposition.write(if existed { OPENED } else { CREATED });
        }
        give(handle, path, by);
        Ok(())
    })
}

extern "win64" fn ZwDeleteKey(handle: u64) -> NtStatus {
    status(|| {
        let path = key(handle)?;
        let removed = cpu::with_machine(|machine| machine.executive.registry.remove(&path));
        if removed { Ok(()) } else { Err(STATUS_CANNOT_DELETE) }
    })
}

extern "win64" fn ZwFlushKey(handle: u64) -> NtStatus {
    status(|| key(handle).map(drop))
}

/// An answer: its bytes, and how many of them are the fixed part.
struct Answer {
    bytes: Vec<u8>,
    fixed: usize,
}

impl Answer {
    fn new(fields: &[u32]) -> Self {
        let bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        Self { fixed: bytes.len(), bytes }
    }

    fn with(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// # Safety
    /// `to` has room for `room` bytes; `needed` is writable.
    unsafe fn give(&self, to: *mut u8, room: u32, needed: *mut u32) -> Result<(), NtStatus> {
        let room = room as usize;
        // SAFETY: the caller's promise.
        unsafe {
            needed.write(self.bytes.len() as u32);
            if room < self.fixed {
                return Err(NtStatus::BUFFER_TOO_SMALL);
            }
            to.copy_from_nonoverlapping(self.bytes.as_ptr(), self.bytes.len().min(room));
        }
        if room < self.bytes.len() { Err(NtStatus::BUFFER_OVERFLOW) } else { Ok(()) }
    }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// KEY_VALUE_INFORMATION_CLASS: basic, full, partial, and the two aligned to 64 bits.
fn value_answer(class: u32, name: &str, value: &Value) -> Result<Answer, NtStatus> {
    let name = utf16(name);
    let (kind, name_length, data_length) = (value.kind, name.len() as u32, value.data.len() as u32);
    Ok(match class {
        0 => Answer::new(&[0, kind, name_length]).with(&name),
        1 | 3 => {
            let offset = (20 + name.len()).next_multiple_of(if class == 3 { 8 } else { 4 });
            let padding = vec![0; offset - 20 - name.len()];
            let answer = Answer::new(&[0, kind, offset as u32, data_length, name_length]);
            answer.with(&name).with(&padding).with(&value.data)
        }
        2 => Answer::new(&[0, kind, data_length]).with(&value.data),
        4 => Answer::new(&[kind, data_length]).with(&value.data),
        _ => return Err(NtStatus::INVALID_PARAMETER),
    })
}

/// KEY_INFORMATION_CLASS: basic, node, full and name. Keys have no class and were written at time 0.
fn key_answer(class: u32, path: &str) -> Result<Answer, NtStatus> {
    let (name, subkeys, values) = cpu::with_machine(|machine| {
        let registry = &machine.executive.registry;
        (registry.name(path).unwrap_or_default(), registry.subkeys(path), registry.values(path))
    });
    let name = utf16(&name);
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0) as u32;
    Ok(match class {
        0 => Answer::new(&[0, 0, 0, name.len() as u32]).with(&name),
        1 => Answer::new(&[0, 0, 0, u32::MAX, 0, name.len() as u32]).with(&name),
        2 => Answer::new(&[
            0,
            0,
            0,
            u32::MAX,
            0,
            subkeys.len() as u32,
            longest(&mut subkeys.iter().map(|name| utf16(name).len())),
            0,
            values.len() as u32,
            longest(&mut values.iter().map(|(name, _)| utf16(name).len())),
            longest(&mut values.iter().map(|(_, value)| value.data.len())),
        ]),
        3 => {
            let path = utf16(path);
            Answer::new(&[path.len() as u32]).with(&path)
        }
        _ => return Err(NtStatus::INVALID_PARAMETER),
    })
}

unsafe extern "win64" fn ZwQueryKey(handle: u64, class: u32, to: *mut u8, room: u32, needed: *mut u32) -> NtStatus {
    // SAFETY: the page demands `room` writable bytes and a variable for the length; `give` writes no more than `room`.
    status(|| unsafe { key_answer(class, &key(handle)?)?.give(to, room, needed) })
}

unsafe extern "win64" fn ZwQueryValueKey(
    handle: u64,
    name: *const UnicodeString,
    class: u32,
    to: *mut u8,
    room: u32,
    needed: *mut u32,
) -> NtStatus {
    // SAFETY: the page demands a UNICODE_STRING, which is copied, `room` writable bytes and a variable for the length;
    // `give` writes no more than `room`.
    status(|| unsafe {
        let (path, name) = (key(handle)?, UnicodeString::read(name));
        let found = cpu::with_machine(|machine| machine.executive.registry.value(&path, &name));
        let (name, value) = found.ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
        value_answer(class, &name, &value)?.give(to, room, needed)
    })
}

unsafe extern "win64" fn ZwSetValueKey(
    handle: u64,
    name: *const UnicodeString,
    _title: u32,
    kind: u32,
    data: *const u8,
    length: u32,
) -> NtStatus {
    // SAFETY: the page demands a UNICODE_STRING and `length` bytes of data, which are copied before the registry
    // changes; without data the pointer is not followed.
    status(|| unsafe {
        let (path, name) = (key(handle)?, UnicodeString::read(name));
        let data = if length == 0 { Vec::new() } else { core::slice::from_raw_parts(data, length as usize).to_vec() };
        cpu::with_machine(|machine| machine.executive.registry.set(&path, &name, Value { kind, data }));
        Ok(())
    })
}

unsafe extern "win64" fn ZwDeleteValueKey(handle: u64, name: *const UnicodeString) -> NtStatus {
    // SAFETY: the page demands a UNICODE_STRING, which is copied.
    status(|| unsafe {
        let (path, name) = (key(handle)?, UnicodeString::read(name));
        let removed = cpu::with_machine(|machine| machine.executive.registry.remove_value(&path, &name));
        if removed { Ok(()) } else { Err(NtStatus::OBJECT_NAME_NOT_FOUND) }
    })
}

unsafe extern "win64" fn ZwEnumerateKey(
    handle: u64,
    index: u32,
    class: u32,
    to: *mut u8,
    room: u32,
    needed: *mut u32,
) -> NtStatus {
    // SAFETY: the page demands `room` writable bytes and a variable for the length; `give` writes no more than `room`.
    status(|| unsafe {
        let path = key(handle)?;
        let subkeys = cpu::with_machine(|machine| machine.executive.registry.subkeys(&path));
        let name = subkeys.get(index as usize).ok_or(NtStatus::NO_MORE_ENTRIES)?;
        key_answer(class, &format!("{path}\\{name}"))?.give(to, room, needed)
    })
}

unsafe extern "win64" fn ZwEnumerateValueKey(
    handle: u64,
    index: u32,
    class: u32,
    to: *mut u8,
    room: u32,
    needed: *mut u32,
) -> NtStatus {
    // SAFETY: the page demands `room` writable bytes and a variable for the length; `give` writes no more than `room`.
    status(|| unsafe {
        let path = key(handle)?;
        let values = cpu::with_machine(|machine| machine.executive.registry.values(&path));
        let (name, value) = values.get(index as usize).ok_or(NtStatus::NO_MORE_ENTRIES)?;
        value_answer(class, name, value)?.give(to, room, needed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use core::ptr;
    use nt_abi::Irql;
    use nt_abi::OwnedUnicodeString;

    const PARAMETERS: &str = r"\Registry\Machine\System\CurrentControlSet\Services\Sluice\Parameters";

    fn open(path: &str) -> (NtStatus, u64) {
        let name = OwnedUnicodeString::new(path);
        let attributes = ObjectAttributes {
            length: 0x30,
            root: 0,
            name: name.as_ptr(),
            attributes: 0x240,
            security: ptr::null(),
            quality: ptr::null(),
        };
        let mut handle = 0;
        // SAFETY: all ours.
        let status = unsafe { ZwOpenKey(&mut handle, 0x20019, &attributes) };
        (status, handle)
    }

    fn query(handle: u64, name: &str, class: u32, room: u32) -> (NtStatus, u32, Vec<u8>) {
        let name = OwnedUnicodeString::new(name);
        let (mut buffer, mut needed) = (vec![0; 64], 0);
        // SAFETY: all ours.
        let status = unsafe { ZwQueryValueKey(handle, name.as_ptr(), class, buffer.as_mut_ptr(), room, &mut needed) };
        buffer.truncate(needed as usize);
        (status, needed, buffer)
    }

    #[test]
    fn values_come_in_the_forms_of_windows() {
        let machine = Machine::new();
        machine.executive.registry.set(PARAMETERS, "Depth", Value::dword(0x0102_0304));
        cpu::enter(&machine, Irql::PASSIVE, || {
            let (status, handle) = open(PARAMETERS);
            assert_eq!(status, NtStatus::SUCCESS);
            let partial = [0, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 3, 2, 1];
            assert_eq!(query(handle, "depth", 2, 64), (NtStatus::SUCCESS, 16, partial.to_vec()));
            let (status, needed, full) = query(handle, "Depth", 1, 64);
            assert_eq!((status, needed), (NtStatus::SUCCESS, 20 + 10 + 2 + 4));
            assert_eq!(full[8..12], [32, 0, 0, 0], "the data's offset");
            assert_eq!(full[32..], [4, 3, 2, 1]);
            let basic = query(handle, "Depth", 0, 64).2;
            assert_eq!((&basic[8..12], &basic[12..]), (&[10, 0, 0, 0][..], &utf16("Depth")[..]));
            assert_eq!(query(handle, "none", 2, 64).0, NtStatus::OBJECT_NAME_NOT_FOUND);
            assert_eq!(query(handle, "Depth", 2, 11).0, NtStatus::BUFFER_TOO_SMALL);
            assert_eq!(query(handle, "Depth", 2, 14).0, NtStatus::BUFFER_OVERFLOW);
        })
        .unwrap();
        assert_eq!(machine.executive.objects.left_by(&(0..u64::MAX)).len(), 1, "the handle is open");
    }

    #[test]
    fn keys_are_created_below_existing_ones_and_enumerated() {
        let machine = Machine::new();
        cpu::enter(&machine, Irql::PASSIVE, || {
            assert_eq!(open(PARAMETERS).0, NtStatus::OBJECT_NAME_NOT_FOUND);
            let (_, services) = open(crate::nt::cm::SERVICES);
            let create = |name: &str| {
                let name = OwnedUnicodeString::new(name);
                let attributes = ObjectAttributes {
                    length: 0x30,
                    root: services,
                    name: name.as_ptr(),
                    attributes: 0,
                    security: ptr::null(),
                    quality: ptr::null(),
                };
                let (mut handle, mut disposition) = (0, 0);
                // SAFETY: all ours.
                let status = unsafe { ZwCreateKey(&mut handle, 0, &attributes, 0, ptr::null(), 0, &mut disposition) };
                (status, handle, disposition)
            };
            let (status, handle, disposition) = create("Sluice");
            assert_eq!((status, disposition), (NtStatus::SUCCESS, CREATED));
            assert_eq!(create("sluice").2, OPENED);
            assert_eq!(create(r"No\Parent").0, NtStatus::OBJECT_NAME_NOT_FOUND);
            let (mut buffer, mut needed) = ([0_u8; 64], 0);
            // SAFETY: all ours.
            unsafe {
                let name = OwnedUnicodeString::new("Start");
                assert_eq!(ZwSetValueKey(handle, name.as_ptr(), 0, 4, [3, 0, 0, 0].as_ptr(), 4), NtStatus::SUCCESS);
                assert_eq!(ZwEnumerateKey(services, 0, 0, buffer.as_mut_ptr(), 64, &mut needed), NtStatus::SUCCESS);
                assert_eq!(&buffer[16..needed as usize], utf16("Sluice"));
                let none = ZwEnumerateKey(services, 1, 0, buffer.as_mut_ptr(), 64, &mut needed);
                assert_eq!(none, NtStatus::NO_MORE_ENTRIES);
                assert_eq!(ZwQueryKey(handle, 2, buffer.as_mut_ptr(), 64, &mut needed), NtStatus::SUCCESS);
                assert_eq!(buffer[32..36], [1, 0, 0, 0], "one value");
                assert_eq!(ZwDeleteValueKey(handle, name.as_ptr()), NtStatus::SUCCESS);
            }
            assert_eq!(ZwDeleteKey(services), STATUS_CANNOT_DELETE);
            assert_eq!(ZwDeleteKey(handle), NtStatus::SUCCESS);
        })
        .unwrap();
    }
}

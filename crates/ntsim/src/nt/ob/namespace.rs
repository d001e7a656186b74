//! Names as drivers look them up: directories, and the symbolic links in them.
//!
//! The directories that hold something here are `\`, `\Device` and `\??` with its other names. Links are those that
//! drivers made, and `C:`, the one drive there is.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use super::{ObjectAttributes, Target};
use crate::cpu;
use crate::export::exports;
use crate::nt::pool::Kind;
use nt_abi::NtStatus;
use nt_abi::UnicodeString;

exports! {
    "ntoskrnl.exe";
    IoQueryFullDriverPath: PASSIVE,
    ZwOpenDirectoryObject: PASSIVE,
    ZwOpenSymbolicLinkObject: PASSIVE,
    ZwQuerySymbolicLinkObject: PASSIVE,
}

const STATUS_OBJECT_PATH_SYNTAX_BAD: NtStatus = NtStatus(0xC000_003B_u32 as i32);

/// Where the DOS device `C:` leads.
const DRIVE: (&str, &str) = (r"\??\C:", r"\Device\HarddiskVolume1");

/// `KLDR_DATA_TABLE_ENTRY.FullDllName` (public symbols of ntoskrnl, x64).
const FULL_DLL_NAME: u64 = 0x48;

/// The full name in attributes.
///
/// # Safety
/// `attributes` points to OBJECT_ATTRIBUTES with a UNICODE_STRING.
unsafe fn full_name(attributes: *const ObjectAttributes) -> Result<String, NtStatus> {
    // SAFETY: the caller's promise.
    let (length, root, name) =
        unsafe { ((*attributes).length, (*attributes).root, UnicodeString::read((*attributes).name)) };
    if length as usize != size_of::<ObjectAttributes>() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if root == 0 {
        return if name.starts_with('\\') { Ok(name) } else { Err(STATUS_OBJECT_PATH_SYNTAX_BAD) };
    }
    match cpu::with_machine(|machine| machine.executive.objects.target(root)) {
        Some(Target::Directory(directory)) => Ok(format!("{}\\{name}", directory.trim_end_matches('\\'))),
        Some(_) => Err(NtStatus::OBJECT_TYPE_MISMATCH),
        None => Err(NtStatus::INVALID_HANDLE),
    }
}

/// Opens what `look_up` finds under the name of the attributes.
///
/// # Safety
/// `attributes` points to OBJECT_ATTRIBUTES with a UNICODE_STRING, and `handle` is writable.
unsafe fn open(
    handle: *mut u64,
    attributes: *const ObjectAttributes,
    look_up: impl FnOnce(String) -> Option<Target>,
) -> NtStatus {
    let by = cpu::caller();
    // SAFETY: the caller's promise.
    let name = match unsafe { full_name(attributes) } {
        Ok(name) => name,
        Err(status) => return status,
    };
    let Some(target) = look_up(name) else { return NtStatus::OBJECT_NAME_NOT_FOUND };
    let opened = cpu::with_machine(|machine| machine.executive.objects.open(target, by));
    // SAFETY: the caller's promise.
    unsafe { handle.write(opened) };
    NtStatus::SUCCESS
}

unsafe extern "win64" fn ZwOpenDirectoryObject(
    handle: *mut u64,
    _access: u32,
    attributes: *const ObjectAttributes,
) -> NtStatus {
    const DIRECTORIES: [&str; 5] = [r"\", r"\Device", r"\??", r"\GLOBAL??", r"\DosDevices"];
    // SAFETY: the page demands OBJECT_ATTRIBUTES, whose length and root `full_name` checks and whose name it copies,
    // and a variable for the handle, which the driver closes with ZwClose.
    unsafe {
        open(handle, attributes, |name| {
            DIRECTORIES.iter().any(|known| known.eq_ignore_ascii_case(&name)).then_some(Target::Directory(name))
        })
    }
}

unsafe extern "win64" fn ZwOpenSymbolicLinkObject(
    handle: *mut u64,
    _access: u32,
    attributes: *const ObjectAttributes,
) -> NtStatus {
    // SAFETY: the page demands OBJECT_ATTRIBUTES, whose length and root `full_name` checks and whose name it copies,
    // and a variable for the handle, which the driver closes with ZwClose.
    unsafe {
        open(handle, attributes, |name| {
            let made = cpu::with_machine(|machine| machine.io.symlink_target(&name));
            let is_drive = crate::nt::io::same_name(&name, DRIVE.0);
            made.or_else(|| is_drive.then(|| DRIVE.1.to_owned())).map(Target::SymbolicLink)
        })
    }
}

/// With `returned`, the text is terminated and its terminator is counted there and must find room; without, not. That
/// the page leaves open; it is how the routine is implemented in ReactOS, and drivers that cut a terminator off agree.
unsafe extern "win64" fn ZwQuerySymbolicLinkObject(
    handle: u64,
    target: *mut UnicodeString,
    returned: *mut u32,
) -> NtStatus {
    let to = match cpu::with_machine(|machine| machine.executive.objects.target(handle)) {
        Some(Target::SymbolicLink(to)) => to,
        Some(_) => return NtStatus::OBJECT_TYPE_MISMATCH,
        None => return NtStatus::INVALID_HANDLE,
    };
    let terminator = (!returned.is_null()).then_some(0);
    let units: Vec<u16> = to.encode_utf16().chain(terminator).collect();
    let bytes = units.len() * 2;
    // SAFETY: the page demands a UNICODE_STRING with MaximumLength writable bytes, which the length is checked against,
    // and null, which is checked, or a variable.
    unsafe {
        if let Some(returned) = returned.as_mut() {
            *returned = bytes as u32;
        }
        if usize::from((*target).maximum_length) < bytes {
            return NtStatus::BUFFER_TOO_SMALL;
        }
        (*target).buffer.copy_from_nonoverlapping(units.as_ptr(), units.len());
        (*target).length = (bytes - terminator.map_or(0, |_| 2)) as u16;
    }
    NtStatus::SUCCESS
}

/// The buffer is paged pool that the caller frees. What is not a driver object is refused.
unsafe extern "win64" fn IoQueryFullDriverPath(driver_object: u64, path: *mut UnicodeString) -> NtStatus {
    if cpu::with_machine(|machine| machine.driver_of_object(driver_object)).is_none() {
        return NtStatus::INVALID_PARAMETER;
    }
    // SAFETY: a DRIVER_OBJECT of the loader, found by its address above; its loader entry lives as long as the object.
    let units = unsafe {
        let entry = ((driver_object as usize + crate::nt::driver::offset::DRIVER_SECTION) as *const u64).read();
        ((entry + FULL_DLL_NAME) as *const UnicodeString).read_unaligned().units()
    };
    let buffer = cpu::with_machine(|machine| {
        if machine.low_resources.fails("IoQueryFullDriverPath") {
            return core::ptr::null_mut();
        }
        machine.pool.allocate(u32::from_le_bytes(*b"Io  "), units.len() * 2 + 2, Kind::Paged)
    });
    if buffer.is_null() {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    let length = units.len() as u16 * 2;
    // SAFETY: the block has room for the text and a terminator; the page demands a UNICODE_STRING to write. The driver
    // frees the buffer with ExFreePool.
    unsafe {
        let text = buffer.cast::<u16>();
        text.copy_from_nonoverlapping(units.as_ptr(), units.len());
        text.add(units.len()).write(0);
        path.write(UnicodeString { length, maximum_length: length + 2, buffer: text });
    }
    NtStatus::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use core::ptr;
    use nt_abi::Irql;
    use nt_abi::OwnedUnicodeString;

    type Open = unsafe extern "win64" fn(*mut u64, u32, *const ObjectAttributes) -> NtStatus;

    fn open(routine: Open, root: u64, name: &str) -> Result<u64, NtStatus> {
        let name = OwnedUnicodeString::new(name);
        let attributes = ObjectAttributes { root, ..ObjectAttributes::of(name.as_ptr()) };
        let mut handle = 0;
        // SAFETY: all are ours.
        unsafe { routine(&mut handle, 1, &attributes) }.ok().map(|()| handle)
    }

    fn target(link: u64) -> String {
        let mut buffer = [0xffff_u16; 64];
        let mut text = UnicodeString { length: 0, maximum_length: 128, buffer: buffer.as_mut_ptr() };
        let mut returned = 0;
        // SAFETY: all are ours.
        unsafe {
            assert_eq!(ZwQuerySymbolicLinkObject(link, &mut text, &mut returned), NtStatus::SUCCESS);
            assert_eq!((returned, buffer[usize::from(text.length / 2)]), (u32::from(text.length) + 2, 0));
            text.maximum_length = text.length + 1;
            let short = ZwQuerySymbolicLinkObject(link, &mut text, &mut returned);
            assert_eq!(short, NtStatus::BUFFER_TOO_SMALL);
            assert_eq!(ZwQuerySymbolicLinkObject(link, &mut text, ptr::null_mut()), NtStatus::SUCCESS);
            UnicodeString::read(&text)
        }
    }

    #[test]
    fn the_drive_and_a_drivers_link_are_found_in_their_directory() {
        let machine = Machine::new();
        assert_eq!(machine.io.create_symlink(r"\Global??\Mine", r"\Device\Mine"), NtStatus::SUCCESS);
        cpu::enter(&machine, Irql::PASSIVE, || {
            let directory = open(ZwOpenDirectoryObject, 0, r"\??").unwrap();
            let drive = open(ZwOpenSymbolicLinkObject, directory, "c:").unwrap();
            assert_eq!(target(drive), r"\Device\HarddiskVolume1");
            let mine = open(ZwOpenSymbolicLinkObject, 0, r"\DosDevices\mine").unwrap();
            assert_eq!(target(mine), r"\Device\Mine");
            assert_eq!(machine.executive.objects.left_by(&(0..u64::MAX)).len(), 3);
        })
        .unwrap();
    }

    #[test]
    fn names_that_lead_nowhere_say_why() {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let not_found = Err(NtStatus::OBJECT_NAME_NOT_FOUND);
            assert_eq!(open(ZwOpenDirectoryObject, 0, r"\Nowhere"), not_found);
            assert_eq!(open(ZwOpenSymbolicLinkObject, 0, r"\??\D:"), not_found);
            assert_eq!(open(ZwOpenSymbolicLinkObject, 0, "C:"), Err(STATUS_OBJECT_PATH_SYNTAX_BAD));
            assert_eq!(open(ZwOpenSymbolicLinkObject, 0x4000, "C:"), Err(NtStatus::INVALID_HANDLE));
            let directory = open(ZwOpenDirectoryObject, 0, r"\").unwrap();
            let mut text = UnicodeString::EMPTY;
            // SAFETY: all are ours.
            let no_link = unsafe { ZwQuerySymbolicLinkObject(directory, &mut text, ptr::null_mut()) };
            assert_eq!(no_link, NtStatus::OBJECT_TYPE_MISMATCH);
            // SAFETY: refused before it is read.
            let no_driver = unsafe { IoQueryFullDriverPath(0x4000, &mut text) };
            assert_eq!(no_driver, NtStatus::INVALID_PARAMETER);
        })
        .unwrap();
    }
}

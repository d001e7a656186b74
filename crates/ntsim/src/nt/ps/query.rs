//! Asking the kernel about processes: ZwQueryInformationProcess, ZwQuerySystemInformation, ZwOpenProcess.
//!
//! Classes and layouts: "ZwQueryInformationProcess" and "NtQuerySystemInformation" of the Windows documentation,
//! winternl.h and ntddk.h. Both routines answer the classes named here and refuse all others with
//! STATUS_INVALID_INFO_CLASS; Windows knows more.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use super::process::{Process, SYSTEM_ID};
use crate::cpu;
use crate::export::exports;
use crate::nt::ob::{self, Target};
use nt_abi::NtStatus;
use nt_abi::UnicodeString;

exports! {
    "ntoskrnl.exe";
    ZwOpenProcess: PASSIVE,
    ZwQueryInformationProcess: PASSIVE,
    ZwQuerySystemInformation: PASSIVE,
}

const STATUS_INVALID_INFO_CLASS: NtStatus = NtStatus(0xC000_0003_u32 as i32);
const STATUS_INVALID_CID: NtStatus = NtStatus(0xC000_000B_u32 as i32);
const STATUS_INVALID_PARAMETER_MIX: NtStatus = NtStatus(0xC000_0030_u32 as i32);

/// `PROCESSINFOCLASS`.
mod class {
    pub(super) const BASIC: u32 = 0;
    pub(super) const SESSION: u32 = 24;
    pub(super) const WOW64: u32 = 26;
    pub(super) const IMAGE_FILE_NAME: u32 = 27;
    pub(super) const IMAGE_FILE_NAME_WIN32: u32 = 43;
}
/// `SystemProcessInformation` of `SYSTEM_INFORMATION_CLASS`.
const SYSTEM_PROCESSES: u32 = 5;

/// The base priority of a process of the normal class.
const NORMAL_PRIORITY: i32 = 8;
const STATUS_PENDING: i32 = 0x103;

/// `CLIENT_ID`.
#[repr(C)]
struct ClientId {
    process: u64,
    thread: u64,
}

/// `PROCESS_BASIC_INFORMATION`.
#[repr(C)]
struct Basic {
    exit_status: i32,
    peb: u64,
    affinity: u64,
    priority: i32,
    id: u64,
    parent: u64,
}

const _: () = assert!(size_of::<Basic>() == 0x30);

/// `SYSTEM_PROCESS_INFORMATION` without the threads that follow it.
#[repr(C)]
struct Entry {
    next: u32,
    threads: u32,
    reserved: [u64; 3],
    created: u64,
    user: u64,
    kernel: u64,
    name: UnicodeString,
    priority: i32,
    id: u64,
    parent: u64,
    handles: u32,
    session: u32,
    counters: [u64; 19],
}

const _: () = assert!(
    size_of::<Entry>() == 0x100
        && core::mem::offset_of!(Entry, name) == 0x38
        && core::mem::offset_of!(Entry, id) == 0x50
        && core::mem::offset_of!(Entry, session) == 0x64
);

/// The process behind a handle.
fn process_of(handle: u64) -> Result<Process, NtStatus> {
    let object = ob::object_of(handle).ok_or(NtStatus::INVALID_HANDLE)?;
    cpu::with_machine(|machine| machine.executive.processes.get(object)).ok_or(NtStatus::OBJECT_TYPE_MISMATCH)
}

/// Writes a structure of fixed size: Windows wants its very length.
///
/// # Safety
/// `buffer` is writable for `length` bytes.
unsafe fn give<T>(buffer: *mut u8, length: u32, value: T) -> (NtStatus, u32) {
    let size = size_of::<T>() as u32;
    if length != size {
        return (NtStatus::INFO_LENGTH_MISMATCH, size);
    }
    // SAFETY: the caller's promise, and the length is right.
    unsafe { buffer.cast::<T>().write_unaligned(value) };
    (NtStatus::SUCCESS, size)
}

/// Writes a `UNICODE_STRING` and its text behind it, terminated.
///
/// # Safety
/// `buffer` is writable for `length` bytes.
unsafe fn give_name(buffer: *mut u8, length: u32, name: &str) -> (NtStatus, u32) {
    let units: Vec<u16> = name.encode_utf16().chain([0]).collect();
    let bytes = units.len() * 2;
    let size = size_of::<UnicodeString>() + bytes;
    if (length as usize) < size {
        return (NtStatus::INFO_LENGTH_MISMATCH, size as u32);
    }
    // SAFETY: the caller's promise, and there is room.
    unsafe {
        let text = buffer.add(size_of::<UnicodeString>()).cast::<u16>();
        text.copy_from_nonoverlapping(units.as_ptr(), units.len());
        let header = UnicodeString { length: bytes as u16 - 2, maximum_length: bytes as u16, buffer: text };
        buffer.cast::<UnicodeString>().write_unaligned(header);
    }
    (NtStatus::SUCCESS, size as u32)
}

/// The path with the letter of the only drive; a path that is not on the drive is unchanged.
fn win32_path(image: &str) -> String {
    const VOLUME: &str = r"\device\harddiskvolume1\";
    match image.get(..VOLUME.len()) {
        Some(start) if start.eq_ignore_ascii_case(VOLUME) => format!(r"C:\{}", &image[VOLUME.len()..]),
        _ => image.to_owned(),
    }
}

/// User-mode code runs outside of ntsim, so no process has a PEB: its address is null, as it is for the System process.
unsafe extern "win64" fn ZwQueryInformationProcess(
    handle: u64,
    class: u32,
    buffer: *mut u8,
    length: u32,
    returned: *mut u32,
) -> NtStatus {
    let process = match process_of(handle) {
        Ok(process) => process,
        Err(status) => return status,
    };
    // SAFETY: the page demands `length` writable bytes; every class checks its size against `length` before it writes.
    let (status, size) = unsafe {
        match class {
            class::BASIC => {
                let affinity = cpu::with_machine(|machine| u64::MAX >> (64 - machine.processors.count().clamp(1, 64)));
                let basic = Basic {
                    exit_status: process.exit_status.unwrap_or(STATUS_PENDING),
                    peb: 0,
                    affinity,
                    priority: NORMAL_PRIORITY,
                    id: process.id,
                    parent: process.parent,
                };
                give(buffer, length, basic)
            }
            class::SESSION => give(buffer, length, 0_u32),
            class::WOW64 => give(buffer, length, 0_u64),
            class::IMAGE_FILE_NAME => give_name(buffer, length, &process.image),
            class::IMAGE_FILE_NAME_WIN32 => give_name(buffer, length, &win32_path(&process.image)),
            _ => {
                tracing::warn!(class, "ZwQueryInformationProcess: a class that ntsim does not answer");
                return STATUS_INVALID_INFO_CLASS;
            }
        }
    };
    // SAFETY: the page makes `ReturnLength` optional: null, which is checked, or a variable.
    if let Some(returned) = unsafe { returned.as_mut() } {
        *returned = size;
    }
    status
}

/// The processes in the order of their numbers, the Idle process first, each without its threads (NumberOfThreads is
/// 0) and without its handles and times, of which nothing is known.
unsafe extern "win64" fn ZwQuerySystemInformation(
    class: u32,
    buffer: *mut u8,
    length: u32,
    returned: *mut u32,
) -> NtStatus {
    if class != SYSTEM_PROCESSES {
        tracing::warn!(class, "ZwQuerySystemInformation: a class that ntsim does not answer");
        return STATUS_INVALID_INFO_CLASS;
    }
    let processes = cpu::with_machine(|machine| machine.executive.processes.running());
    let idle = (0, 0, 0, Vec::new());
    let rows: Vec<(u64, u64, u64, Vec<u16>)> = core::iter::once(idle)
        .chain(processes.into_iter().map(|process| {
            let name = process.image.rsplit('\\').next().unwrap_or_default();
            (process.id, process.parent, process.created, name.encode_utf16().chain([0]).collect())
        }))
        .collect();
    // Each entry begins 8-byte aligned.
    let sizes: Vec<usize> = rows.iter().map(|row| (size_of::<Entry>() + row.3.len() * 2).next_multiple_of(8)).collect();
    let needed = sizes.iter().sum::<usize>();
    // SAFETY: the page makes `ReturnLength` optional: null, which is checked, or a variable.
    if let Some(returned) = unsafe { returned.as_mut() } {
        *returned = needed as u32;
    }
    if (length as usize) < needed {
        return NtStatus::INFO_LENGTH_MISMATCH;
    }
    let (mut at, last) = (buffer, rows.len() - 1);
    for (index, ((id, parent, created, name), size)) in rows.into_iter().zip(sizes).enumerate() {
        // SAFETY: the page demands `length` writable bytes; `needed`, the size of all entries, is checked against it
        // above.
        unsafe {
            let text = at.add(size_of::<Entry>()).cast::<u16>();
            text.copy_from_nonoverlapping(name.as_ptr(), name.len());
            let bytes = name.len() as u16 * 2;
            let name = UnicodeString { length: bytes.saturating_sub(2), maximum_length: bytes, buffer: text };
            at.cast::<Entry>().write_unaligned(Entry {
                next: if index == last { 0 } else { size as u32 },
                threads: 0,
                reserved: [0; 3],
                created,
                user: 0,
                kernel: 0,
                name: if bytes == 0 { UnicodeString::EMPTY } else { name },
                priority: if id == 0 { 0 } else { NORMAL_PRIORITY },
                id,
                parent,
                handles: 0,
                session: 0,
                counters: [0; 19],
            });
            at = at.add(size);
        }
    }
    NtStatus::SUCCESS
}

/// Rights are not checked: a driver's call is made in kernel mode. The caller names the process by its number, and no
/// object by name.
unsafe extern "win64" fn ZwOpenProcess(
    handle: *mut u64,
    _access: u32,
    attributes: *const ob::ObjectAttributes,
    client: *const ClientId,
) -> NtStatus {
    let by = cpu::caller();
    // SAFETY: the page demands OBJECT_ATTRIBUTES, and a CLIENT_ID or null, which is checked.
    let (named, client) = unsafe { (!(*attributes).name.is_null(), client.as_ref()) };
    let Some(client) = client else { return NtStatus::INVALID_PARAMETER };
    if named {
        return STATUS_INVALID_PARAMETER_MIX;
    }
    let opened = cpu::with_machine(|machine| {
        let process = machine.executive.processes.by_id(client.process)?;
        Some(machine.executive.objects.open(Target::Object(process.address), by))
    });
    match opened {
        Some(opened) => {
            // SAFETY: the page demands a variable for the handle, which the driver closes with ZwClose.
            unsafe { handle.write(opened) };
            NtStatus::SUCCESS
        }
        None => STATUS_INVALID_CID,
    }
}

impl super::process::Processes {
    /// The processes that have not ended, in the order of their numbers; the first is System.
    #[must_use]
    pub fn running(&self) -> Vec<Process> {
        let mut running = self.all();
        running.retain(|process| process.exit_status.is_none());
        running.sort_by_key(|process| process.id);
        debug_assert!(running.first().is_some_and(|process| process.id == SYSTEM_ID));
        running
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use core::ptr;
    use nt_abi::Irql;

    const CURL: &str = r"\device\harddiskvolume1\usr\bin\curl";
    const CURRENT: u64 = -1_i64 as u64;

    fn with_curl(f: impl FnOnce(u64)) {
        let machine = Machine::new();
        machine.start_process(1234, 4, CURL, "curl").unwrap();
        cpu::enter(&machine, Irql::PASSIVE, || {
            let client = ClientId { process: 1234, thread: 0 };
            let mut handle = 0;
            let attributes = ob::ObjectAttributes::unnamed();
            // SAFETY: all are ours.
            assert_eq!(unsafe { ZwOpenProcess(&mut handle, 0, &attributes, &client) }, NtStatus::SUCCESS);
            f(handle);
            assert_eq!(machine.executive.objects.left_by(&(0..u64::MAX)).len(), 1, "the handle is counted");
        })
        .unwrap();
    }

    /// Asks for the length, and then for the name with one byte too few and with enough.
    fn name(handle: u64, class: u32) -> String {
        let mut size = 0;
        // SAFETY: a null buffer of no bytes, then buffers of the length given.
        unsafe {
            let status = ZwQueryInformationProcess(handle, class, ptr::null_mut(), 0, &mut size);
            assert_eq!(status, NtStatus::INFO_LENGTH_MISMATCH);
            let mut buffer = vec![0_u64; size as usize / 8 + 1];
            let at = buffer.as_mut_ptr().cast::<u8>();
            let short = ZwQueryInformationProcess(handle, class, at, size - 1, ptr::null_mut());
            assert_eq!(short, NtStatus::INFO_LENGTH_MISMATCH);
            assert_eq!(ZwQueryInformationProcess(handle, class, at, size, ptr::null_mut()), NtStatus::SUCCESS);
            let name = at.cast::<UnicodeString>();
            assert_eq!((*name).maximum_length, (*name).length + 2);
            assert_eq!(*(*name).buffer.add(usize::from((*name).length / 2)), 0);
            UnicodeString::read(name)
        }
    }

    #[test]
    fn a_process_tells_its_name_in_both_spellings() {
        with_curl(|handle| {
            assert_eq!(name(handle, class::IMAGE_FILE_NAME), CURL);
            assert_eq!(name(handle, class::IMAGE_FILE_NAME_WIN32), r"C:\usr\bin\curl");
            assert_eq!(name(CURRENT, class::IMAGE_FILE_NAME), "System");
        });
    }

    #[test]
    fn fixed_structures_want_their_very_length() {
        with_curl(|handle| {
            let mut basic = [0_u64; 6];
            let mut size = 0;
            let at = basic.as_mut_ptr().cast();
            // SAFETY: the buffer is ours.
            unsafe {
                let longer = ZwQueryInformationProcess(handle, class::BASIC, at, 0x38, &mut size);
                assert_eq!((longer, size), (NtStatus::INFO_LENGTH_MISMATCH, 0x30));
                assert_eq!(ZwQueryInformationProcess(handle, class::BASIC, at, 0x30, &mut size), NtStatus::SUCCESS);
            }
            assert_eq!((basic[0] as u32, basic[4], basic[5]), (0x103, 1234, 4));
        });
    }

    #[test]
    fn what_is_no_process_and_no_known_class_is_refused() {
        with_curl(|handle| {
            let mut out = 0_u64;
            let at = (&raw mut out).cast::<u8>();
            let client = ClientId { process: 5, thread: 0 };
            let attributes = ob::ObjectAttributes::unnamed();
            // SAFETY: all are ours.
            unsafe {
                assert_eq!(ZwQueryInformationProcess(handle, 999, at, 8, ptr::null_mut()), STATUS_INVALID_INFO_CLASS);
                assert_eq!(
                    ZwQueryInformationProcess(0x7000, class::WOW64, at, 8, ptr::null_mut()),
                    NtStatus::INVALID_HANDLE
                );
                let thread = -2_i64 as u64;
                assert_eq!(
                    ZwQueryInformationProcess(thread, class::WOW64, at, 8, ptr::null_mut()),
                    NtStatus::OBJECT_TYPE_MISMATCH
                );
                assert_eq!(ZwOpenProcess(&mut out, 0, &attributes, &client), STATUS_INVALID_CID);
                assert_eq!(ZwQuerySystemInformation(11, at, 8, ptr::null_mut()), STATUS_INVALID_INFO_CLASS);
            }
        });
    }

    #[test]
    fn the_list_of_processes_is_a_chain_to_its_end() {
        with_curl(|_| {
            let mut size = 0;
            // SAFETY: no buffer, then one of the length given.
            let seen = unsafe {
                let status = ZwQuerySystemInformation(SYSTEM_PROCESSES, ptr::null_mut(), 0, &mut size);
                assert_eq!(status, NtStatus::INFO_LENGTH_MISMATCH);
                let mut buffer = vec![0_u64; size as usize / 8];
                let mut at = buffer.as_mut_ptr().cast::<u8>();
                assert_eq!(ZwQuerySystemInformation(SYSTEM_PROCESSES, at, size, &mut size), NtStatus::SUCCESS);
                let mut seen = Vec::new();
                loop {
                    let entry = &*at.cast::<Entry>();
                    seen.push((entry.id, entry.parent, UnicodeString::read(&raw const entry.name)));
                    if entry.next == 0 {
                        break seen;
                    }
                    at = at.add(entry.next as usize);
                }
            };
            let expected = [(0, 0, ""), (4, 0, "System"), (1234, 4, "curl")];
            assert_eq!(seen, expected.map(|(id, parent, name)| (id, parent, name.to_owned())));
        });
    }
}

//! The machine's disk, as drivers read it: files by their NT paths, opened and read by handle.
//!
//! What is on it outlives a restart of the machine. Programs write it through the seam (`crate::host`), which has only
//! the drivers folder; a driver may open what is there for reading.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use crate::nt::ob::{ObjectAttributes, Target};
use nt_abi::{NtStatus, UnicodeString};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

exports! {
    "ntoskrnl.exe";
    ZwOpenFile: PASSIVE,
    ZwQueryInformationFile: PASSIVE,
    ZwReadFile: PASSIVE,
}

/// The folder of the system, as the kernel names it.
const SYSTEM_ROOT: &str = r"\systemroot\";
const STATUS_OBJECT_PATH_NOT_FOUND: NtStatus = NtStatus(0xC000_003A_u32 as i32);
const STATUS_INVALID_INFO_CLASS: NtStatus = NtStatus(0xC000_0003_u32 as i32);
const STATUS_END_OF_FILE: NtStatus = NtStatus(0xC000_0011_u32 as i32);
/// FILE_SYNCHRONOUS_IO_ALERT and FILE_SYNCHRONOUS_IO_NONALERT: without one of them a read needs an offset and may pend.
const SYNCHRONOUS: u32 = 0x30;
/// SYNCHRONIZE, which a synchronous file must be opened with.
const SYNCHRONIZE: u32 = 0x0010_0000;
/// FILE_READ_DATA and GENERIC_READ.
const READ: u32 = 0x8000_0001;
/// FILE_STANDARD_INFORMATION's class.
const STANDARD_INFORMATION: u32 = 5;

/// The files of one machine's disk.
#[derive(Default)]
pub struct Disk {
    /// By path in lower case.
    files: Mutex<BTreeMap<String, Arc<[u8]>>>,
    /// No file system has been mounted yet.
    unmounted: AtomicBool,
    /// What reads of files return instead of data.
    broken: Mutex<Option<NtStatus>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("files", &self.files.lock().keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

/// A file that a driver has open; it keeps its content when the file on the disk is replaced.
#[derive(Debug)]
pub struct Opened {
    pub(crate) path: String,
    content: Arc<[u8]>,
    position: AtomicU64,
}

impl PartialEq for Opened {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Opened {}

impl Disk {
    /// The content of a file.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<Arc<[u8]>> {
        self.files.lock().get(&path.to_lowercase()).cloned()
    }

    /// Writes a file, replacing one that is there.
    pub fn write(&self, path: &str, content: impl Into<Arc<[u8]>>) {
        self.files.lock().insert(path.to_lowercase(), content.into());
    }

    /// Deletes a file and returns its content; `None` when it is not there.
    pub fn remove(&self, path: &str) -> Option<Arc<[u8]>> {
        self.files.lock().remove(&path.to_lowercase())
    }

    /// Says whether a file system is mounted: before that no path of a file leads anywhere.
    pub fn set_mounted(&self, mounted: bool) {
        self.unmounted.store(!mounted, Ordering::Release);
    }

    /// Lets every read of a file fail with this status from now on, or no longer.
    pub fn set_broken(&self, status: Option<NtStatus>) {
        *self.broken.lock() = status;
    }

    fn open(&self, path: &str) -> Result<Opened, NtStatus> {
        let path = path.to_lowercase();
        if self.unmounted.load(Ordering::Acquire) || !path.starts_with(SYSTEM_ROOT) {
            return Err(STATUS_OBJECT_PATH_NOT_FOUND);
        }
        let content = self.read(&path).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
        Ok(Opened { path, content, position: AtomicU64::new(0) })
    }
}

impl Opened {
    /// What there is to read at `offset`, at most `length` bytes.
    fn at(&self, offset: u64, length: usize) -> Result<&[u8], NtStatus> {
        let rest = usize::try_from(offset).ok().and_then(|start| self.content.get(start..)).unwrap_or_default();
        match &rest[..rest.len().min(length)] {
            [] if length != 0 => Err(STATUS_END_OF_FILE),
            bytes => Ok(bytes),
        }
    }
}

/// `IO_STATUS_BLOCK`.
#[repr(C)]
struct IoStatusBlock {
    status: NtStatus,
    information: usize,
}

const _: () = assert!(size_of::<IoStatusBlock>() == 16);

/// `FILE_STANDARD_INFORMATION`.
#[repr(C)]
struct StandardInformation {
    allocation_size: i64,
    end_of_file: i64,
    number_of_links: u32,
    delete_pending: u8,
    directory: u8,
}

const _: () = assert!(size_of::<StandardInformation>() == 24);

fn opened(handle: u64) -> Result<Arc<Opened>, NtStatus> {
    match cpu::with_machine(|machine| machine.executive.objects.target(handle)) {
        Some(Target::File(file)) => Ok(file),
        Some(_) => Err(NtStatus::OBJECT_TYPE_MISMATCH),
        None => Err(NtStatus::INVALID_HANDLE),
    }
}

/// Writes the outcome where the caller looks for it, and returns it.
///
/// # Safety
/// `block` is null or writable.
unsafe fn outcome(block: *mut IoStatusBlock, result: Result<usize, NtStatus>) -> NtStatus {
    let (status, information) = match result {
        Ok(information) => (NtStatus::SUCCESS, information),
        Err(status) => (status, 0),
    };
    if !block.is_null() {
        // SAFETY: the caller's promise.
        unsafe { block.write(IoStatusBlock { status, information }) };
    }
    status
}

unsafe extern "win64" fn ZwOpenFile(
    handle: *mut u64,
    access: u32,
    attributes: *const ObjectAttributes,
    block: *mut IoStatusBlock,
    _share: u32,
    options: u32,
) -> NtStatus {
    let by = cpu::caller();
    // SAFETY: the page demands OBJECT_ATTRIBUTES with a name, a variable for the handle, which the driver closes with
    // ZwClose, and an IO_STATUS_BLOCK.
    unsafe {
        let open = || {
            let attributes = &*attributes;
            if attributes.length as usize != size_of::<ObjectAttributes>() || attributes.name.is_null() {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            if attributes.root != 0 || access & READ == 0 || access & !(READ | SYNCHRONIZE | 0x0012_0089) != 0 {
                // Nothing here is relative to a folder, and a driver may only read.
                return Err(NtStatus::NOT_SUPPORTED);
            }
            if options & SYNCHRONOUS == 0 || access & SYNCHRONIZE == 0 {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            if cpu::with_machine(|machine| machine.low_resources.fails("ZwOpenFile")) {
                return Err(NtStatus::INSUFFICIENT_RESOURCES);
            }
            let path = UnicodeString::read(attributes.name);
            let file = cpu::with_machine(|machine| machine.disk.open(&path))?;
            let target = Target::File(Arc::new(file));
            handle.write(cpu::with_machine(|machine| machine.executive.objects.open(target, by)));
            Ok(1) // FILE_OPENED
        };
        outcome(block, open())
    }
}

unsafe extern "win64" fn ZwQueryInformationFile(
    handle: u64,
    block: *mut IoStatusBlock,
    information: *mut u8,
    length: u32,
    class: u32,
) -> NtStatus {
    // SAFETY: the page demands an IO_STATUS_BLOCK and a buffer of the length that is given, which is checked.
    unsafe {
        let query = || {
            let file = opened(handle)?;
            if class != STANDARD_INFORMATION {
                return Err(STATUS_INVALID_INFO_CLASS);
            }
            if (length as usize) < size_of::<StandardInformation>() {
                return Err(NtStatus::INFO_LENGTH_MISMATCH);
            }
            let size = file.content.len() as i64;
            information.cast::<StandardInformation>().write_unaligned(StandardInformation {
                allocation_size: (size + 4095) & !4095,
                end_of_file: size,
                number_of_links: 1,
                delete_pending: 0,
                directory: 0,
            });
            Ok(size_of::<StandardInformation>())
        };
        outcome(block, query())
    }
}

unsafe extern "win64" fn ZwReadFile(
    handle: u64,
    event: u64,
    routine: u64,
    _context: u64,
    block: *mut IoStatusBlock,
    buffer: *mut u8,
    length: u32,
    offset: *const i64,
    _key: *const u32,
) -> NtStatus {
    // SAFETY: the page demands an IO_STATUS_BLOCK, a buffer of the length that is given, and null, which is checked, or
    // an offset.
    unsafe {
        let read = || {
            if event != 0 || routine != 0 {
                return Err(NtStatus::NOT_SUPPORTED);
            }
            let file = opened(handle)?;
            if let Some(status) = cpu::with_machine(|machine| *machine.disk.broken.lock()) {
                return Err(status);
            }
            if cpu::with_machine(|machine| machine.low_resources.fails("ZwReadFile")) {
                return Err(NtStatus::INSUFFICIENT_RESOURCES);
            }
            // A negative offset is FILE_USE_FILE_POINTER_POSITION.
            let at = offset.as_ref().and_then(|offset| u64::try_from(*offset).ok());
            let at = at.unwrap_or_else(|| file.position.load(Ordering::Relaxed));
            let bytes = file.at(at, length as usize)?;
            buffer.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            file.position.store(at + bytes.len() as u64, Ordering::Relaxed);
            Ok(bytes.len())
        };
        outcome(block, read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use core::ptr;
    use nt_abi::{Irql, OwnedUnicodeString};

    const PATH: &str = r"\SystemRoot\System32\drivers\x.policy";

    /// Opens a file for synchronous reading.
    fn open(path: &str) -> Result<u64, NtStatus> {
        let name = OwnedUnicodeString::new(path);
        let attributes = ObjectAttributes::of(name.as_ptr());
        let (mut handle, mut block) = (0, IoStatusBlock { status: NtStatus::PENDING, information: 0 });
        let (access, options) = (0x8000_0000 | SYNCHRONIZE, 0x20);
        // SAFETY: everything pointed to is ours and lives during the call.
        let status = unsafe { ZwOpenFile(&raw mut handle, access, &raw const attributes, &raw mut block, 1, options) };
        assert_eq!(block.status, status);
        if status.is_success() { Ok(handle) } else { Err(status) }
    }

    fn read(handle: u64, length: usize, offset: Option<i64>) -> Result<Vec<u8>, NtStatus> {
        let mut block = IoStatusBlock { status: NtStatus::PENDING, information: 0 };
        let mut buffer = vec![0; length];
        let offset = offset.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: as above.
        let status = unsafe {
            let (block, buffer) = (&raw mut block, buffer.as_mut_ptr());
            ZwReadFile(handle, 0, 0, 0, block, buffer, length as u32, offset, ptr::null())
        };
        buffer.truncate(block.information);
        if status.is_success() { Ok(buffer) } else { Err(status) }
    }

    fn on_machine(test: impl FnOnce(&Machine)) {
        let machine = Machine::new();
        cpu::enter(&machine, Irql::PASSIVE, || test(&machine)).unwrap();
    }

    #[test]
    fn a_file_is_read_from_its_start_to_its_end() {
        on_machine(|machine| {
            machine.disk.write(PATH, *b"abcdef");
            let handle = open(&PATH.to_uppercase()).unwrap();
            let mut information = [0_u64; 3];
            let mut block = IoStatusBlock { status: NtStatus::PENDING, information: 0 };
            // SAFETY: the block and the buffer are ours.
            let status = unsafe {
                ZwQueryInformationFile(
                    handle,
                    &raw mut block,
                    information.as_mut_ptr().cast(),
                    24,
                    STANDARD_INFORMATION,
                )
            };
            assert_eq!((status, information[1]), (NtStatus::SUCCESS, 6));
            assert_eq!(read(handle, 4, None), Ok(b"abcd".to_vec()));
            // What is replaced on the disk stays as it was for those who have it open.
            machine.disk.write(PATH, *b"other");
            assert_eq!(read(handle, 4, None), Ok(b"ef".to_vec()));
            assert_eq!(read(handle, 4, None), Err(STATUS_END_OF_FILE));
            assert_eq!(read(handle, 2, Some(1)), Ok(b"bc".to_vec()));
            machine.disk.set_broken(Some(NtStatus::UNSUCCESSFUL));
            assert_eq!(read(handle, 2, Some(1)), Err(NtStatus::UNSUCCESSFUL));
        });
    }

    #[test]
    fn what_is_not_there_is_not_opened() {
        on_machine(|machine| {
            assert_eq!(open(PATH), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
            machine.disk.write(PATH, *b"a");
            machine.disk.set_mounted(false);
            assert_eq!(open(PATH), Err(STATUS_OBJECT_PATH_NOT_FOUND));
            machine.disk.set_mounted(true);
            assert!(open(PATH).is_ok());
            assert_eq!(open(r"\??\C:\Windows"), Err(STATUS_OBJECT_PATH_NOT_FOUND));
            assert_eq!(read(7, 1, None), Err(NtStatus::INVALID_HANDLE));
        });
    }
}

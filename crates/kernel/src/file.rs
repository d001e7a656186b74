//! Reading a file of the system's own disk.

use alloc::vec::Vec;
use core::ptr::null_mut;

use wdk_sys::{
    _FILE_INFORMATION_CLASS, FILE_STANDARD_INFORMATION, HANDLE, IO_STATUS_BLOCK, OBJECT_ATTRIBUTES,
    ntddk::{ZwClose, ZwOpenFile, ZwQueryInformationFile, ZwReadFile},
};

use crate::{
    memory::try_reserve,
    status::{NtResult, NtStatus},
    text::Utf16,
};

/// GENERIC_READ and SYNCHRONIZE (winnt.h).
const ACCESS: u32 = 0x8000_0000 | 0x0010_0000;
/// FILE_SHARE_READ and FILE_SHARE_DELETE (wdm.h): whoever replaces the file does not wait for us.
const SHARE: u32 = 0x1 | 0x4;
/// FILE_SEQUENTIAL_ONLY, FILE_SYNCHRONOUS_IO_NONALERT and FILE_NON_DIRECTORY_FILE (wdm.h).
const OPTIONS: u32 = 0x4 | 0x20 | 0x40;
/// OBJ_CASE_INSENSITIVE and OBJ_KERNEL_HANDLE (ntdef.h): no process gets the handle.
const ATTRIBUTES: u32 = 0x40 | 0x200;
/// How much one read asks for: a part of a large file, so that the file system needs no buffer of the file's size.
const PART: usize = 1 << 20;

/// An open file. Dropping it closes the handle. IRQL = PASSIVE_LEVEL for all of it, in one process.
#[derive(Debug)]
pub struct File(HANDLE);

impl File {
    /// Opens a file for reading.
    ///
    /// `path` is an NT path, such as `\SystemRoot\System32\drivers\x`: what it begins with leads to the system's own disk
    /// before there are drive letters, as soon as that disk's file system is mounted ("Using Files in a Driver").
    ///
    /// # Errors
    /// STATUS_OBJECT_NAME_NOT_FOUND if there is the folder but no such file in it, any other status of ZwOpenFile.
    pub fn open<const N: usize>(path: &'static Utf16<N>) -> NtResult<Self> {
        let mut name = path.as_unicode_string();
        let mut attributes = OBJECT_ATTRIBUTES {
            Length: size_of::<OBJECT_ATTRIBUTES>() as u32,
            ObjectName: &raw mut name,
            Attributes: ATTRIBUTES,
            ..OBJECT_ATTRIBUTES::default()
        };
        let (mut handle, mut outcome) = (null_mut(), IO_STATUS_BLOCK::default());
        // SAFETY: the structures are complete and outlive the call, as the name does; the handle is written. PASSIVE_LEVEL.
        let status =
            unsafe { ZwOpenFile(&raw mut handle, ACCESS, &raw mut attributes, &raw mut outcome, SHARE, OPTIONS) };
        NtStatus::check(status).map(|()| Self(handle))
    }

    /// Its content in nonpaged pool. Waits for the disk.
    ///
    /// # Errors
    /// The status of reading it; STATUS_FILE_TOO_LARGE if it has more than `most` bytes, STATUS_END_OF_FILE if it has none
    /// or became shorter while it was read; STATUS_INSUFFICIENT_RESOURCES.
    pub fn read(&self, most: usize) -> NtResult<Vec<u8>> {
        match usize::try_from(self.length()?) {
            Ok(0) => Err(NtStatus::END_OF_FILE),
            Ok(length) if length <= most => self.content(length),
            _ => Err(NtStatus::FILE_TOO_LARGE),
        }
    }

    fn length(&self) -> NtResult<i64> {
        let (mut information, mut outcome) = (FILE_STANDARD_INFORMATION::default(), IO_STATUS_BLOCK::default());
        // SAFETY: an open file, and a buffer of the class's structure and of the length said. PASSIVE_LEVEL.
        let status = unsafe {
            ZwQueryInformationFile(
                self.0,
                &raw mut outcome,
                (&raw mut information).cast(),
                size_of::<FILE_STANDARD_INFORMATION>() as u32,
                _FILE_INFORMATION_CLASS::FileStandardInformation,
            )
        };
        NtStatus::check(status)?;
        // SAFETY: every bit pattern is a valid QuadPart.
        Ok(unsafe { information.EndOfFile.QuadPart })
    }

    /// The first `length` bytes, from the file's position, its start.
    fn content(&self, length: usize) -> NtResult<Vec<u8>> {
        let mut content = try_reserve(length)?;
        while content.len() < length {
            let wanted = (length - content.len()).min(PART);
            let room = content.spare_capacity_mut();
            if room.len() < wanted {
                return Err(NtStatus::INSUFFICIENT_RESOURCES); // cannot be: it was reserved
            }
            let mut outcome = IO_STATUS_BLOCK::default();
            // SAFETY: an open, synchronous file: the call returns when the read is done. The buffer is nonpaged memory of
            // ours with room for `wanted` bytes; without an offset the read begins at the file's position. PASSIVE_LEVEL.
            let status = unsafe {
                ZwReadFile(
                    self.0,
                    null_mut(),
                    None,
                    null_mut(),
                    &raw mut outcome,
                    room.as_mut_ptr().cast(),
                    wanted as u32,
                    null_mut(),
                    null_mut(),
                )
            };
            NtStatus::check(status)?;
            let read = outcome.Information as usize;
            if read == 0 || read > wanted {
                return Err(NtStatus::END_OF_FILE);
            }
            // SAFETY: the vector has room for them, as checked, and the call has written that many bytes after its end.
            unsafe { content.set_len(content.len() + read) };
        }
        Ok(content)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: opened in `open`, closed once, in the same process. PASSIVE_LEVEL. It cannot fail for such a handle.
        let _ = unsafe { ZwClose(self.0) };
    }
}

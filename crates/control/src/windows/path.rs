//! Paths in the form of ALE_APP_ID.

use super::engine::free;
use super::fwpuclnt::FwpmGetAppIdFromFileName0;
use super::{check, last_error, refusal, wide};
use sluice_host::{HostError, HostResult, code};
use std::fs::OpenOptions;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::AsRawHandle;
use std::ptr::null_mut;
use windows_sys::Win32::NetworkManagement::WindowsFilteringPlatform::FWP_BYTE_BLOB;
use windows_sys::Win32::Storage::FileSystem::{FILE_FLAG_BACKUP_SEMANTICS, GetFinalPathNameByHandleW, VOLUME_NAME_NT};

/// The object manager's longest path, in UTF-16 units: the most that a UNICODE_STRING can hold.
const MAX_NT_PATH: usize = 0x7fff;

/// The NT path of a program, or of a folder of programs.
pub(super) fn app_id(path: &str) -> HostResult<String> {
    let is_folder = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir());
    if is_folder { folder(path) } else { file(path) }
}

/// `FwpmGetAppIdFromFileName0`.
fn file(path: &str) -> HostResult<String> {
    const OPERATION: &str = "FwpmGetAppIdFromFileName0";
    let name = wide(OPERATION, path)?;
    let mut blob: *mut FWP_BYTE_BLOB = null_mut();
    // SAFETY: `name` is NUL-terminated and, like `blob`, outlives the call.
    check(OPERATION, unsafe { FwpmGetAppIdFromFileName0(name.as_ptr(), &raw mut blob) })?;
    // SAFETY: the call succeeded: `blob` points to a blob whose data are `size` bytes, until it is freed below.
    let bytes = unsafe {
        let blob = &*blob;
        std::slice::from_raw_parts(blob.data, blob.size as usize).to_vec()
    };
    free(&mut blob.cast());
    let units: Vec<u16> = bytes.as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    text(OPERATION, path, units.strip_suffix(&[0]).unwrap_or(&units))
}

/// The same for a folder, which FwpmGetAppIdFromFileName0 is not documented to take.
fn folder(path: &str) -> HostResult<String> {
    const OPERATION: &str = "GetFinalPathNameByHandleW";
    // No access rights: only the name is needed. Folders open only with this flag.
    let folder = OpenOptions::new().access_mode(0).custom_flags(FILE_FLAG_BACKUP_SEMANTICS).open(path);
    let folder = folder.map_err(|error| {
        refusal("CreateFileW", error.raw_os_error().map_or(code::ERROR_INVALID_PARAMETER, i32::cast_unsigned))
    })?;
    let mut buffer = vec![0; MAX_NT_PATH + 1];
    // SAFETY: the folder is open, and the buffer is as long as said and outlives the call.
    let length = unsafe {
        GetFinalPathNameByHandleW(folder.as_raw_handle(), buffer.as_mut_ptr(), buffer.len() as u32, VOLUME_NAME_NT)
    };
    match buffer.get(..length as usize) {
        None | Some([]) => Err(last_error(OPERATION)),
        Some(units) => Ok(text(OPERATION, path, units)?.to_lowercase()),
    }
}

fn text(operation: &str, path: &str, units: &[u16]) -> HostResult<String> {
    String::from_utf16(units).map_err(|_| {
        HostError::with_message(operation, code::ERROR_INVALID_DATA, format!("the NT path of {path} is not Unicode"))
    })
}

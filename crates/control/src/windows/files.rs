//! Files in System32\drivers.

use super::{last_error, refusal, system, wide};
use sluice_host::system::is_driver_file;
use sluice_host::{HostError, HostResult, code};
use sluice_protocol::ioctl::MAX_POLICY_BYTES;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ptr::null;
use windows_sys::Win32::Storage::FileSystem::{
    DeleteFileW, MOVE_FILE_FLAGS, MOVEFILE_DELAY_UNTIL_REBOOT, MOVEFILE_REPLACE_EXISTING, MOVEFILE_WRITE_THROUGH,
    MoveFileExW,
};

/// No driver of ours is larger, nor any policy.
const MAX_BYTES: u64 = MAX_POLICY_BYTES as u64;

pub(super) fn read(name: &str) -> HostResult<Option<Vec<u8>>> {
    let path = path("CreateFileW", name)?;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("CreateFileW", &error)),
    };
    let mut content = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(|error| failed("ReadFile", &error))?;
    if content.len() as u64 > MAX_BYTES {
        let what = format!("{name} is longer than the {MAX_BYTES} bytes of any file of ours");
        return Err(HostError::with_message("ReadFile", code::ERROR_INVALID_DATA, what));
    }
    Ok(Some(content))
}

/// A new file inherits its rights from the folder; one moved here would keep its own.
pub(super) fn write(name: &str, content: &[u8]) -> HostResult<()> {
    let path = path("CreateFileW", name)?;
    let mut file = File::create_new(&path).map_err(|error| failed("CreateFileW", &error))?;
    let written = file
        .write_all(content)
        .map_err(|error| failed("WriteFile", &error))
        .and_then(|()| file.sync_all().map_err(|error| failed("FlushFileBuffers", &error)));
    drop(file);
    if written.is_err() {
        // A partly written file is useless; if it stays, the next installation deletes it.
        let _ = std::fs::remove_file(path);
    }
    written
}

pub(super) fn rename(from: &str, to: &str) -> HostResult<()> {
    move_file(from, Some(to), MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)
}

pub(super) fn delete(name: &str) -> HostResult<()> {
    const OPERATION: &str = "DeleteFileW";
    let path = wide(OPERATION, &path(OPERATION, name)?)?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    if unsafe { DeleteFileW(path.as_ptr()) } == 0 { Err(last_error(OPERATION)) } else { Ok(()) }
}

pub(super) fn delete_at_restart(name: &str) -> HostResult<()> {
    move_file(name, None, MOVEFILE_DELAY_UNTIL_REBOOT)
}

fn move_file(from: &str, to: Option<&str>, flags: MOVE_FILE_FLAGS) -> HostResult<()> {
    const OPERATION: &str = "MoveFileExW";
    let from = wide(OPERATION, &path(OPERATION, from)?)?;
    let to = to.map(|to| wide(OPERATION, &path(OPERATION, to)?)).transpose()?;
    // SAFETY: both paths are NUL-terminated and outlive the call; without a second one the file is deleted, which the
    // flags then say.
    let moved = unsafe { MoveFileExW(from.as_ptr(), to.as_ref().map_or(null(), |to| to.as_ptr()), flags) };
    if moved == 0 { Err(last_error(OPERATION)) } else { Ok(()) }
}

fn path(operation: &str, name: &str) -> HostResult<String> {
    if !is_driver_file(name) {
        return Err(HostError::new(operation, code::ERROR_INVALID_NAME));
    }
    Ok(format!(r"{}\drivers\{name}", system::folder()?))
}

/// What the file system says, as a refusal.
pub(super) fn failed(operation: &str, error: &io::Error) -> HostError {
    match error.raw_os_error() {
        Some(code) => refusal(operation, code.cast_unsigned()),
        None => HostError::with_message(operation, code::ERROR_GEN_FAILURE, error.to_string()),
    }
}

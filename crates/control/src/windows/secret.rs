//! New files with rights of their own, instead of those that their folder gives.

use super::{last_error, wide};
use sluice_host::HostError;
use std::fs::File;
use std::io;
use std::os::windows::io::FromRawHandle;
use std::path::Path;
use std::ptr::null_mut;
use windows_sys::Win32::Foundation::{GENERIC_WRITE, INVALID_HANDLE_VALUE, LocalFree};
use windows_sys::Win32::Security::Authorization::{
    ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
};
use windows_sys::Win32::Security::SECURITY_ATTRIBUTES;
use windows_sys::Win32::Storage::FileSystem::{CREATE_NEW, CreateFileW, FILE_ATTRIBUTE_NORMAL};

/// Protected from what the folder passes on; all access for SYSTEM, administrators and the file's owner.
const OWNERS_ALONE: &str = "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;OW)";

/// Creates a file that only its owner, administrators and SYSTEM can open.
pub(crate) fn new_secret_file(path: &Path) -> io::Result<File> {
    let failed = |error: HostError| io::Error::from_raw_os_error(error.code.cast_signed());
    let name = path.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
    let name = wide("CreateFileW", name).map_err(failed)?;
    let text = wide("CreateFileW", OWNERS_ALONE).map_err(failed)?;
    let mut descriptor = null_mut();
    // SAFETY: the text is NUL-terminated, the result goes to `descriptor`, and its length may be unasked for.
    let converted = unsafe {
        ConvertStringSecurityDescriptorToSecurityDescriptorW(
            text.as_ptr(),
            SDDL_REVISION_1,
            &raw mut descriptor,
            null_mut(),
        )
    };
    if converted == 0 {
        return Err(failed(last_error("ConvertStringSecurityDescriptorToSecurityDescriptorW")));
    }
    let attributes = SECURITY_ATTRIBUTES {
        nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
        lpSecurityDescriptor: descriptor,
        bInheritHandle: 0,
    };
    // SAFETY: the name is NUL-terminated; the attributes and the descriptor in them outlive the call.
    let handle = unsafe {
        CreateFileW(
            name.as_ptr(),
            GENERIC_WRITE,
            0,
            &raw const attributes,
            CREATE_NEW,
            FILE_ATTRIBUTE_NORMAL,
            null_mut(),
        )
    };
    let error = (handle == INVALID_HANDLE_VALUE).then(io::Error::last_os_error);
    // SAFETY: the descriptor was allocated by the conversion and is not used any more.
    unsafe { LocalFree(descriptor) };
    match error {
        Some(error) => Err(error),
        // SAFETY: the call succeeded, so this is an open handle that nobody else closes.
        None => Ok(unsafe { File::from_raw_handle(handle) }),
    }
}

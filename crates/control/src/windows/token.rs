//! Who is calling.

use super::last_error;
use super::library::system_library;
use sluice_host::HostResult;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Security::{GetTokenInformation, TOKEN_ELEVATION, TOKEN_QUERY, TokenElevation};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

/// NameSamCompatible of EXTENDED_NAME_FORMAT (secext.h): `DOMAIN\user`.
const NAME_SAM_COMPATIBLE: i32 = 2;

system_library! { "secur32.dll";
    fn GetUserNameExW(format: i32, name: *mut u16, length: *mut u32) -> u8, or |_| 0;
}

/// The user as whom this thread runs, `DOMAIN\user`.
pub(crate) fn user_name() -> Option<String> {
    // A domain's name has at most 255 characters, a user's 256 (UNLEN).
    let mut name = [0; 513];
    let mut length = name.len() as u32;
    // SAFETY: the buffer has as many characters as `length` says, and both outlive the call.
    let found = unsafe { GetUserNameExW(NAME_SAM_COMPATIBLE, name.as_mut_ptr(), &raw mut length) };
    (found != 0).then(|| String::from_utf16_lossy(name.get(..length as usize).unwrap_or_default()))
}

/// Whether this process has an administrator's full token.
pub(super) fn is_elevated() -> HostResult<bool> {
    let mut token: HANDLE = std::ptr::null_mut();
    // SAFETY: GetCurrentProcess returns a pseudo handle that is always valid; `token` outlives the call.
    if unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token) } == 0 {
        return Err(last_error("OpenProcessToken"));
    }
    // SAFETY: the call succeeded, so `token` is an open handle that nobody else closes.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    let mut elevation = TOKEN_ELEVATION::default();
    let mut length = 0;
    // SAFETY: `token` is open; the buffer is `elevation`, of exactly the size given, and outlives the call.
    let ok = unsafe {
        GetTokenInformation(
            token.as_raw_handle(),
            TokenElevation,
            (&raw mut elevation).cast(),
            size_of::<TOKEN_ELEVATION>() as u32,
            &raw mut length,
        )
    };
    if ok == 0 {
        return Err(last_error("GetTokenInformation"));
    }
    Ok(elevation.TokenIsElevated != 0)
}

//! Windows' version, and what it requires of drivers.

use super::{check, last_error, refusal, wide};
use sluice_host::system::{CodeIntegrity, System};
use sluice_host::{HostError, HostResult, code};
use std::ptr::null_mut;
use windows_sys::Wdk::System::SystemInformation::{NtQuerySystemInformation, SystemCodeIntegrityInformation};
use windows_sys::Wdk::System::SystemServices::RtlGetVersion;
use windows_sys::Win32::Foundation::{ERROR_FILE_NOT_FOUND, RtlNtStatusToDosError};
use windows_sys::Win32::System::Registry::{HKEY_LOCAL_MACHINE, RRF_RT_REG_DWORD, RegGetValueW};
use windows_sys::Win32::System::SystemInformation::{GetSystemDirectoryW, OSVERSIONINFOW};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, IsWow64Process2};
use windows_sys::Win32::System::WindowsProgramming::SYSTEM_CODEINTEGRITY_INFORMATION;

pub(super) fn system() -> HostResult<System> {
    Ok(System {
        build: build()?,
        machine: machine()?,
        drivers: format!(r"{}\drivers", folder()?),
        integrity: integrity()?,
        secure_boot: secure_boot()?,
    })
}

/// System32.
pub(super) fn folder() -> HostResult<String> {
    const OPERATION: &str = "GetSystemDirectoryW";
    let mut buffer = [0; 1024];
    // SAFETY: the buffer is as long as said and outlives the call.
    let length = unsafe { GetSystemDirectoryW(buffer.as_mut_ptr(), buffer.len() as u32) };
    match buffer.get(..length as usize) {
        None | Some([]) => Err(last_error(OPERATION)),
        Some(units) => String::from_utf16(units)
            .map_err(|_| HostError::with_message(OPERATION, code::ERROR_INVALID_DATA, "the path is not Unicode")),
    }
}

/// The kernel's build, whatever the program's manifest declares.
fn build() -> HostResult<u32> {
    let mut version = OSVERSIONINFOW { dwOSVersionInfoSize: size_of::<OSVERSIONINFOW>() as u32, ..Default::default() };
    // SAFETY: the structure says its own size and outlives the call.
    status("RtlGetVersion", unsafe { RtlGetVersion(&raw mut version) })?;
    Ok(version.dwBuildNumber)
}

fn machine() -> HostResult<u16> {
    let (mut process, mut native) = (0, 0);
    // SAFETY: the pseudo handle is always valid, and both results outlive the call.
    if unsafe { IsWow64Process2(GetCurrentProcess(), &raw mut process, &raw mut native) } == 0 {
        return Err(last_error("IsWow64Process2"));
    }
    Ok(native)
}

fn integrity() -> HostResult<CodeIntegrity> {
    const LENGTH: u32 = size_of::<SYSTEM_CODEINTEGRITY_INFORMATION>() as u32;
    let mut answer = SYSTEM_CODEINTEGRITY_INFORMATION { Length: LENGTH, CodeIntegrityOptions: 0 };
    // SAFETY: the buffer is `answer`, of exactly the size given, and outlives the call; the length may be null.
    let result = unsafe {
        NtQuerySystemInformation(SystemCodeIntegrityInformation, (&raw mut answer).cast(), LENGTH, null_mut())
    };
    status("NtQuerySystemInformation", result)?;
    Ok(CodeIntegrity(answer.CodeIntegrityOptions))
}

/// The registry's copy of the firmware variable; only a privileged program may read the variable itself.
fn secure_boot() -> HostResult<Option<bool>> {
    const OPERATION: &str = "RegGetValueW";
    let key = wide(OPERATION, r"SYSTEM\CurrentControlSet\Control\SecureBoot\State")?;
    let value = wide(OPERATION, "UEFISecureBootEnabled")?;
    let (mut enabled, mut length) = (0_u32, size_of::<u32>() as u32);
    // SAFETY: both names are NUL-terminated; the buffer is `enabled`, of the size given; all outlive the call.
    let result = unsafe {
        RegGetValueW(
            HKEY_LOCAL_MACHINE,
            key.as_ptr(),
            value.as_ptr(),
            RRF_RT_REG_DWORD,
            null_mut(),
            (&raw mut enabled).cast(),
            &raw mut length,
        )
    };
    match result {
        // A machine with BIOS firmware has no such key.
        ERROR_FILE_NOT_FOUND => Ok(None),
        result => check(OPERATION, result).map(|()| Some(enabled != 0)),
    }
}

fn status(operation: &str, status: i32) -> HostResult<()> {
    if status >= 0 {
        return Ok(());
    }
    // SAFETY: any status may be converted.
    Err(refusal(operation, unsafe { RtlNtStatusToDosError(status) }))
}

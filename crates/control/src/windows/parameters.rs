//! The values of a service's Parameters key.

use super::{check, refusal, wide};
use sluice_host::{HostError, HostResult, Parameter, code};
use windows_sys::Win32::Foundation::{ERROR_FILE_NOT_FOUND, ERROR_SUCCESS};
use windows_sys::Win32::System::Registry::{
    HKEY_LOCAL_MACHINE, REG_DWORD, REG_SZ, RRF_RT_REG_DWORD, RRF_RT_REG_SZ, RegDeleteKeyValueW, RegGetValueW,
    RegSetKeyValueW,
};

/// The longest text that a value may have, in UTF-16 units.
const MAX_UNITS: usize = 8192;

fn key(operation: &str, service: &str) -> HostResult<Vec<u16>> {
    // A service's name has no slash, or it would name another key.
    if service.contains(['\\', '/']) {
        return Err(HostError::new(operation, code::ERROR_INVALID_NAME));
    }
    wide(operation, &format!(r"SYSTEM\CurrentControlSet\Services\{service}\Parameters"))
}

pub(super) fn get(service: &str, name: &str) -> HostResult<Option<Parameter>> {
    const OPERATION: &str = "RegGetValueW";
    let (key, name) = (key(OPERATION, service)?, wide(OPERATION, name)?);
    let mut buffer = vec![0_u16; MAX_UNITS];
    let (mut kind, mut length) = (0, (buffer.len() * size_of::<u16>()) as u32);
    // SAFETY: both names are NUL-terminated; the buffer is as long as said and aligned for what the flags admit; all outlive
    // the call.
    let result = unsafe {
        RegGetValueW(
            HKEY_LOCAL_MACHINE,
            key.as_ptr(),
            name.as_ptr(),
            RRF_RT_REG_DWORD | RRF_RT_REG_SZ,
            &raw mut kind,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match (result, kind, &buffer[..]) {
        (ERROR_FILE_NOT_FOUND, ..) => Ok(None),
        (ERROR_SUCCESS, REG_DWORD, [low, high, ..]) => {
            Ok(Some(Parameter::Number(u32::from(*low) | u32::from(*high) << 16)))
        }
        (ERROR_SUCCESS, _, units) => {
            let units: Vec<u16> = units.iter().copied().take_while(|unit| *unit != 0).collect();
            String::from_utf16(&units)
                .map(|text| Some(Parameter::Text(text)))
                .map_err(|_| HostError::with_message(OPERATION, code::ERROR_INVALID_DATA, "the value is not Unicode"))
        }
        (result, ..) => Err(refusal(OPERATION, result)),
    }
}

pub(super) fn set(service: &str, name: &str, value: Option<&Parameter>) -> HostResult<()> {
    const OPERATION: &str = "RegSetKeyValueW";
    let (key, name) = (key(OPERATION, service)?, wide(OPERATION, name)?);
    let write = |kind, data: *const core::ffi::c_void, bytes: usize| {
        // SAFETY: both names are NUL-terminated; the data is as long as said; all outlive the call, which makes the key if
        // there is none.
        check(OPERATION, unsafe {
            RegSetKeyValueW(HKEY_LOCAL_MACHINE, key.as_ptr(), name.as_ptr(), kind, data, bytes as u32)
        })
    };
    match value {
        Some(Parameter::Number(number)) => write(REG_DWORD, (&raw const *number).cast(), size_of::<u32>()),
        Some(Parameter::Text(text)) => {
            let text = wide(OPERATION, text)?;
            write(REG_SZ, text.as_ptr().cast(), text.len() * size_of::<u16>())
        }
        None => {
            // SAFETY: both names are NUL-terminated and outlive the call.
            match unsafe { RegDeleteKeyValueW(HKEY_LOCAL_MACHINE, key.as_ptr(), name.as_ptr()) } {
                ERROR_FILE_NOT_FOUND => Ok(()),
                result => check("RegDeleteKeyValueW", result),
            }
        }
    }
}

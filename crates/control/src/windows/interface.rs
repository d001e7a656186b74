//! Interfaces by their aliases. iphlpapi.dll is not a KnownDLL.

use super::library::system_library;
use super::{check, wide};
use sluice_host::HostResult;
use windows_sys::core::PCWSTR;

system_library! { "iphlpapi.dll";
    // NET_LUID is a union around a 64-bit number.
    fn ConvertInterfaceAliasToLuid(alias: PCWSTR, luid: *mut u64) -> u32, or |code| code;
}

/// The LUID of the interface with this alias.
pub(super) fn luid(alias: &str) -> HostResult<u64> {
    const OPERATION: &str = "ConvertInterfaceAliasToLuid";
    let name = wide(OPERATION, alias)?;
    let mut luid = 0;
    // SAFETY: `name` is NUL-terminated and, like `luid`, outlives the call.
    check(OPERATION, unsafe { ConvertInterfaceAliasToLuid(name.as_ptr(), &raw mut luid) })?;
    Ok(luid)
}

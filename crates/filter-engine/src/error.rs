//! The errors of the Base Filtering Engine.

use nt_abi::NtStatus;
use sluice_host::HostError;
use std::fmt;

/// An error: the `NTSTATUS` for a kernel caller, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfeError {
    /// The status that `FwpmXxx` returns in the kernel.
    pub status: NtStatus,
    /// The object or member at fault.
    pub what: String,
}

/// The result of a management call.
pub type BfeResult<T> = Result<T, BfeError>;

impl BfeError {
    /// An error with its reason.
    pub fn new(status: NtStatus, what: impl Into<String>) -> Self {
        Self { status, what: what.into() }
    }

    /// The code that the user-mode call returns: `FWP_E_*`, or a Win32 error.
    #[must_use]
    pub fn win32(&self) -> u32 {
        win32(self.status)
    }

    /// As an administrator's program sees it, for the call named `operation`.
    #[must_use]
    pub fn into_host_error(self, operation: &str) -> HostError {
        HostError { operation: operation.to_owned(), code: self.win32(), message: self.to_string() }
    }
}

impl fmt::Display for BfeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, Status(self.status))
    }
}

impl std::error::Error for BfeError {}

/// A status with the FWP names of [`NtStatus`] and those that only this crate needs.
struct Status(NtStatus);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match EXTRA.iter().find(|(status, _)| *status == self.0) {
            Some((status, name)) => write!(f, "{name} ({:#010x})", status.0 as u32),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

macro_rules! extra {
    ($($name:ident = $value:literal),* $(,)?) => {
        $(#[doc = concat!("`STATUS_", stringify!($name), "`.")]
        pub const $name: NtStatus = NtStatus($value as u32 as i32);)*
        const EXTRA: &[(NtStatus, &str)] = &[$(($name, concat!("STATUS_", stringify!($name)))),*];
    };
}

// ntstatus.h, facility 0x22, beyond those that `NtStatus` names.
extra! {
    FWP_PROVIDER_CONTEXT_NOT_FOUND = 0xC022_0006,
    FWP_NET_EVENTS_DISABLED = 0xC022_0013,
    FWP_INVALID_ENUMERATOR = 0xC022_001D,
    FWP_INVALID_NET_MASK = 0xC022_001F,
    FWP_PROVIDER_CONTEXT_MISMATCH = 0xC022_0034,
    FWP_TCPIP_NOT_READY = 0xC022_0100,
    FWP_INJECT_HANDLE_CLOSING = 0xC022_0101,
    FWP_INJECT_HANDLE_STALE = 0xC022_0102,
}

/// The user-mode code of a kernel status: facility 0x22 of NTSTATUS is facility 0x32 of HRESULT; of the rest, those the
/// engine returns have Win32 twins.
fn win32(status: NtStatus) -> u32 {
    const ERROR_ACCESS_DENIED: u32 = 5;
    const ERROR_INVALID_HANDLE: u32 = 6;
    const ERROR_NOT_ENOUGH_MEMORY: u32 = 8;
    const ERROR_NOT_SUPPORTED: u32 = 50;
    const ERROR_INVALID_PARAMETER: u32 = 87;
    const ERROR_GEN_FAILURE: u32 = 31;
    let bits = status.0 as u32;
    match status {
        NtStatus::SUCCESS => 0,
        _ if bits >> 16 == 0xC022 => 0x8032_0000 | (bits & 0xFFFF),
        NtStatus::ACCESS_DENIED => ERROR_ACCESS_DENIED,
        NtStatus::INVALID_HANDLE => ERROR_INVALID_HANDLE,
        NtStatus::INSUFFICIENT_RESOURCES => ERROR_NOT_ENOUGH_MEMORY,
        NtStatus::NOT_SUPPORTED => ERROR_NOT_SUPPORTED,
        NtStatus::INVALID_PARAMETER => ERROR_INVALID_PARAMETER,
        _ => ERROR_GEN_FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_statuses_become_the_user_mode_codes_of_winerror_h() {
        assert_eq!(win32(NtStatus::FWP_ALREADY_EXISTS), 0x8032_0009);
        assert_eq!(win32(FWP_INVALID_NET_MASK), 0x8032_001F);
        assert_eq!(win32(NtStatus::INVALID_PARAMETER), 87);
        assert_eq!(win32(NtStatus::SUCCESS), 0);
        let error = BfeError::new(FWP_INVALID_NET_MASK, "mask 255.0.255.0");
        assert_eq!(error.to_string(), "mask 255.0.255.0: STATUS_FWP_INVALID_NET_MASK (0xc022001f)");
    }
}

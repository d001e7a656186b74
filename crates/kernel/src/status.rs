//! NTSTATUS, as the error type of this layer.

use wdk_sys::NTSTATUS;

/// A status that reports failure (`NT_SUCCESS` is false), or [`NtStatus::SUCCESS`] where a callback must return one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct NtStatus(NTSTATUS);

impl NtStatus {
    /// STATUS_SUCCESS.
    pub const SUCCESS: Self = Self(wdk_sys::STATUS_SUCCESS);
    /// STATUS_BUFFER_TOO_SMALL.
    pub const BUFFER_TOO_SMALL: Self = Self(wdk_sys::STATUS_BUFFER_TOO_SMALL);
    /// STATUS_INVALID_PARAMETER.
    pub const INVALID_PARAMETER: Self = Self(wdk_sys::STATUS_INVALID_PARAMETER);
    /// STATUS_INVALID_DEVICE_REQUEST.
    pub const INVALID_DEVICE_REQUEST: Self = Self(wdk_sys::STATUS_INVALID_DEVICE_REQUEST);
    /// STATUS_INSUFFICIENT_RESOURCES.
    pub const INSUFFICIENT_RESOURCES: Self = Self(wdk_sys::STATUS_INSUFFICIENT_RESOURCES);
    /// STATUS_NOT_FOUND.
    pub const NOT_FOUND: Self = Self(wdk_sys::STATUS_NOT_FOUND);
    /// STATUS_DEVICE_BUSY.
    pub const DEVICE_BUSY: Self = Self(wdk_sys::STATUS_DEVICE_BUSY);
    /// STATUS_UNSUCCESSFUL.
    pub const UNSUCCESSFUL: Self = Self(wdk_sys::STATUS_UNSUCCESSFUL);
    /// STATUS_OBJECT_NAME_NOT_FOUND (ntstatus.h).
    pub const OBJECT_NAME_NOT_FOUND: Self = Self(0xC000_0034_u32 as NTSTATUS);
    /// STATUS_END_OF_FILE (ntstatus.h).
    pub const END_OF_FILE: Self = Self(0xC000_0011_u32 as NTSTATUS);
    /// STATUS_FILE_TOO_LARGE (ntstatus.h).
    pub const FILE_TOO_LARGE: Self = Self(0xC000_0904_u32 as NTSTATUS);
    /// STATUS_REVISION_MISMATCH (ntstatus.h).
    pub const REVISION_MISMATCH: Self = Self(0xC000_0059_u32 as NTSTATUS);
    /// STATUS_QUOTA_EXCEEDED (ntstatus.h).
    pub const QUOTA_EXCEEDED: Self = Self(0xC000_0044_u32 as NTSTATUS);
    /// STATUS_FWP_CALLOUT_NOT_FOUND (ntstatus.h; absent from wdk-sys).
    pub const FWP_CALLOUT_NOT_FOUND: Self = Self(0xC022_0001_u32 as NTSTATUS);

    /// The NTSTATUS value.
    #[must_use]
    pub const fn raw(self) -> NTSTATUS {
        self.0
    }

    /// Turns what a kernel function returned into a result: `Ok` for success and informational values.
    ///
    /// # Errors
    /// The status, when it is a warning or an error.
    pub const fn check(status: NTSTATUS) -> Result<(), Self> {
        if status >= 0 { Ok(()) } else { Err(Self(status)) }
    }
}

/// The result of a kernel call.
pub type NtResult<T> = Result<T, NtStatus>;

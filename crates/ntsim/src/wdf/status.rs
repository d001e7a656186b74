//! The framework's own status codes (`wdfstatus.h`), and NT ones that only the framework returns.

use nt_abi::NtStatus;

const fn status(value: u32) -> NtStatus {
    NtStatus(value.cast_signed())
}

/// `STATUS_WDF_PAUSED`: the queue is stopped.
pub(crate) const WDF_PAUSED: NtStatus = status(0xC020_0203);
/// `STATUS_WDF_BUSY`: the queue does not accept requests.
pub(crate) const WDF_BUSY: NtStatus = status(0xC020_0204);
/// `STATUS_WDF_NO_CALLBACK`.
pub(crate) const WDF_NO_CALLBACK: NtStatus = status(0xC020_020B);
/// `STATUS_WDF_INCOMPATIBLE_EXECUTION_LEVEL`.
pub(crate) const WDF_INCOMPATIBLE_EXECUTION_LEVEL: NtStatus = status(0xC020_020C);
/// `STATUS_WDF_PARENT_ASSIGNMENT_NOT_ALLOWED`.
pub(crate) const WDF_PARENT_ASSIGNMENT_NOT_ALLOWED: NtStatus = status(0xC020_020F);
/// `STATUS_WDF_SYNCHRONIZATION_SCOPE_INVALID`.
pub(crate) const WDF_SYNCHRONIZATION_SCOPE_INVALID: NtStatus = status(0xC020_0210);
/// `STATUS_WDF_EXECUTION_LEVEL_INVALID`.
pub(crate) const WDF_EXECUTION_LEVEL_INVALID: NtStatus = status(0xC020_0211);
/// `STATUS_WDF_PARENT_NOT_SPECIFIED`.
pub(crate) const WDF_PARENT_NOT_SPECIFIED: NtStatus = status(0xC020_0212);
/// `STATUS_REVISION_MISMATCH`.
pub(crate) const REVISION_MISMATCH: NtStatus = status(0xC000_0059);
/// `STATUS_DRIVER_INTERNAL_ERROR`.
pub(crate) const DRIVER_INTERNAL_ERROR: NtStatus = status(0xC000_0183);
/// `STATUS_INVALID_USER_BUFFER`.
pub(crate) const INVALID_USER_BUFFER: NtStatus = status(0xC000_00E8);

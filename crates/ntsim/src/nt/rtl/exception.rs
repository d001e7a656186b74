//! Raising exceptions, and C's handler for them.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu::seh::{
    self,
    entry::raising,
    record::{Context, NONCONTINUABLE},
    scope::handler as __C_specific_handler,
};
use crate::export::exports;
use nt_abi::NtStatus;

exports! {
    "ntoskrnl.exe";
    __C_specific_handler: HIGH,
    ExRaiseStatus: HIGH,
    ExRaiseAccessViolation: HIGH,
    ExRaiseDatatypeMisalignment: HIGH,
}

raising!(fn ExRaiseStatus(status: NtStatus) => raise_status);
raising!(fn ExRaiseAccessViolation() => raise_access_violation);
raising!(fn ExRaiseDatatypeMisalignment() => raise_misalignment);

unsafe extern "win64" fn raise_status(status: NtStatus, _: u64, _: u64, context: *mut Context) {
    // SAFETY: `raising` passes a context in its own frame, and nothing here must be dropped.
    unsafe { raise(context, status, "ExRaiseStatus") }
}

unsafe extern "win64" fn raise_access_violation(_: u64, _: u64, _: u64, context: *mut Context) {
    // SAFETY: `raising` passes a context in its own frame, and nothing here must be dropped.
    unsafe { raise(context, NtStatus::ACCESS_VIOLATION, "ExRaiseAccessViolation") }
}

unsafe extern "win64" fn raise_misalignment(_: u64, _: u64, _: u64, context: *mut Context) {
    // SAFETY: `raising` passes a context in its own frame, and nothing here must be dropped.
    unsafe { raise(context, NtStatus::DATATYPE_MISALIGNMENT, "ExRaiseDatatypeMisalignment") }
}

/// # Safety
/// As [`seh::raise`].
unsafe fn raise(context: *mut Context, status: NtStatus, by: &str) {
    // SAFETY: by this function's contract.
    unsafe {
        seh::raise(context, status, NONCONTINUABLE, &[], || {
            format!("the driver raised {:#010x} with {by}, and nobody handled it", status.0)
        });
    }
}

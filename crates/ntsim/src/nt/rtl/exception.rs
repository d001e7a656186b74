//! Raising exceptions, and C's handler for them.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu::seh::{
    self,
    entry::raising,
    record::{Context, NONCONTINUABLE},
    scope::handler as __C_specific_handler,
};
use crate::export::exports;

exports! {
    "ntoskrnl.exe";
    __C_specific_handler: HIGH,
    ExRaiseStatus: HIGH,
    ExRaiseAccessViolation: HIGH,
    ExRaiseDatatypeMisalignment: HIGH,
}

const STATUS_ACCESS_VIOLATION: u32 = 0xc000_0005;
const STATUS_DATATYPE_MISALIGNMENT: u32 = 0x8000_0002;

raising!(fn ExRaiseStatus(status: u32) => raise_status);
raising!(fn ExRaiseAccessViolation() => raise_access_violation);
raising!(fn ExRaiseDatatypeMisalignment() => raise_misalignment);

unsafe extern "win64" fn raise_status(status: u32, _: u64, _: u64, context: *mut Context) {
    // SAFETY: called by `raising`.
    unsafe { raise(context, status, "ExRaiseStatus") }
}

unsafe extern "win64" fn raise_access_violation(_: u64, _: u64, _: u64, context: *mut Context) {
    // SAFETY: called by `raising`.
    unsafe { raise(context, STATUS_ACCESS_VIOLATION, "ExRaiseAccessViolation") }
}

unsafe extern "win64" fn raise_misalignment(_: u64, _: u64, _: u64, context: *mut Context) {
    // SAFETY: called by `raising`.
    unsafe { raise(context, STATUS_DATATYPE_MISALIGNMENT, "ExRaiseDatatypeMisalignment") }
}

/// # Safety
/// As [`seh::raise`].
unsafe fn raise(context: *mut Context, status: u32, by: &str) {
    // SAFETY: by this function's contract.
    unsafe {
        seh::raise(context, status, NONCONTINUABLE, &[], || {
            format!("the driver raised {status:#010x} with {by}, and nobody handled it")
        });
    }
}

//! What a driver asks of the framework's verifier, and triage information.

use core::ffi::c_void;

use super::ddi::{Function, Globals};
use crate::cpu;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::any("WdfVerifierDbgBreakPoint", debug_break as *const ()),
    Function::any("WdfVerifierKeBugCheck", bugcheck as *const ()),
    Function::any("WdfCxVerifierKeBugCheck", extension_bugcheck as *const ()),
    Function::any("WdfGetTriageInfo", get_triage_info as *const ()),
];

/// No kernel debugger is attached; the framework then goes on.
extern "win64" fn debug_break(_: Globals) {
    tracing::warn!("WdfVerifierDbgBreakPoint: the driver asks for a debugger");
}

extern "win64" fn bugcheck(_: Globals, code: u32, p1: u64, p2: u64, p3: u64, p4: u64) {
    cpu::bugcheck(code, [p1, p2, p3, p4], "WdfVerifierKeBugCheck: the driver stopped the machine")
}

extern "win64" fn extension_bugcheck(_: Globals, _object: u64, code: u32, p1: u64, p2: u64, p3: u64, p4: u64) {
    cpu::bugcheck(code, [p1, p2, p3, p4], "WdfCxVerifierKeBugCheck: the driver stopped the machine")
}

/// `WDF_TRIAGE_INFO` up to the last field that names a version; the tables of offsets into the framework's private
/// structures that follow describe memory that does not exist here, so they are empty.
#[repr(C)]
struct TriageInfo {
    wdf_major: u32,
    wdf_minor: u32,
    triage_major: u32,
    triage_minor: u32,
    reserved: usize,
    tables: [usize; 16],
}

static TRIAGE_INFO: TriageInfo = TriageInfo {
    wdf_major: 1,
    wdf_minor: super::bind::NEWEST_MINOR,
    triage_major: 1,
    triage_minor: 0,
    reserved: 0,
    tables: [0; 16],
};

extern "win64" fn get_triage_info(_: Globals) -> *const c_void {
    (&raw const TRIAGE_INFO).cast()
}

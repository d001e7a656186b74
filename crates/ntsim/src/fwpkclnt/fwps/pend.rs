//! Pending, classify handles and writable layer data.

use crate::cpu;
use crate::fwpkclnt::pend::Decision;
use core::ffi::c_void;
use nt_abi::NetBufferList;
use nt_abi::NtStatus;
use nt_abi::fwp::{FwpsClassifyOut0, consts};

/// Stops the machine: the driver broke a contract in a way that corrupts the stack on Windows.
fn violation(what: &str, number: u64) -> ! {
    cpu::bugcheck(cpu::code::DRIVER_VERIFIER_DETECTED_VIOLATION, [0x0008_0001, number, 0, 0], what)
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsPendOperation0(handle: *mut c_void, context: *mut *mut c_void) -> NtStatus {
    if handle.is_null() || context.is_null() {
        return NtStatus::FWP_NULL_POINTER;
    }
    if crate::fwpkclnt::scarce("FwpsPendOperation0") {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    let status = cpu::with_machine(|machine| machine.wfp.operations.pend(handle));
    if status.is_success() {
        // SAFETY: checked for null; the page makes `completionContext` the driver's variable for the result.
        unsafe { context.write(handle) };
    }
    status
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) extern "win64" fn FwpsCompleteOperation0(context: *mut c_void, packet: *mut NetBufferList) {
    let token = cpu::with_machine(|machine| machine.wfp.operations.complete(context));
    let Some(token) = token else {
        violation("FwpsCompleteOperation0 of an operation that is not pended", context as u64)
    };
    cpu::with_machine(|machine| machine.wfp.stack.load().complete_operation(token, packet));
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsAcquireClassifyHandle0(
    context: *const c_void,
    flags: u32,
    out: *mut u64,
) -> NtStatus {
    if flags != 0 || out.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    if crate::fwpkclnt::scarce("FwpsAcquireClassifyHandle0") {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    // SAFETY: the page demands the classifyContext of the current classify call, which is a `ClassifyContext` on this
    // thread's stack; `acquire` checks null and the magic number.
    match cpu::with_machine(|machine| unsafe { machine.wfp.classify_handles.acquire(context) }) {
        Ok(handle) => {
            // SAFETY: checked for null; the page makes `classifyHandle` the driver's variable for the result. The
            // driver releases it with FwpsReleaseClassifyHandle0.
            unsafe { out.write(handle) };
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) extern "win64" fn FwpsReleaseClassifyHandle0(handle: u64) {
    if !cpu::with_machine(|machine| machine.wfp.classify_handles.release(handle)) {
        violation("FwpsReleaseClassifyHandle0 of a handle that is not held", handle);
    }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsAcquireWritableLayerDataPointer0(
    handle: u64,
    filter_id: u64,
    _flags: u32,
    data: *mut *mut c_void,
    classify_out: *mut FwpsClassifyOut0,
) -> NtStatus {
    if data.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    if crate::fwpkclnt::scarce("FwpsAcquireWritableLayerDataPointer0") {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    // SAFETY: the page demands the classifyOut of the classify call, which lives until the callout returns, or null,
    // which is checked.
    let classify_out = unsafe { classify_out.as_mut() };
    match cpu::with_machine(|machine| machine.wfp.classify_handles.writable(handle, filter_id, classify_out)) {
        Ok(pointer) => {
            // SAFETY: checked for null; the page makes `writableLayerData` the driver's variable for the result. The
            // request frees the data.
            unsafe { data.write(pointer) };
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) extern "win64" fn FwpsApplyModifiedLayerData0(handle: u64, data: *mut c_void, _flags: u32) {
    if !cpu::with_machine(|machine| machine.wfp.classify_handles.apply(handle, data)) {
        violation("FwpsApplyModifiedLayerData0 of data that was not acquired through this handle", data as u64);
    }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsPendClassify0(
    handle: u64,
    _filter_id: u64,
    _flags: u32,
    classify_out: *mut FwpsClassifyOut0,
) -> NtStatus {
    // SAFETY: the page demands the classifyOut of the current classify call, which lives until the callout returns;
    // null is checked.
    let classify_out = unsafe { classify_out.as_mut() };
    cpu::with_machine(|machine| machine.wfp.classify_handles.pend(handle, classify_out))
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsCompleteClassify0(
    handle: u64,
    _flags: u32,
    classify_out: *const FwpsClassifyOut0,
) {
    let completed = cpu::with_machine(|machine| machine.wfp.classify_handles.complete(handle));
    let Some((token, redirect)) = completed else {
        violation("FwpsCompleteClassify0 of a request that is not pended", handle)
    };
    // SAFETY: the page demands null, which is checked, or the FWPS_CLASSIFY_OUT that the driver kept; it is only read
    // here.
    let decision = unsafe { classify_out.as_ref() }
        .map(|out| Decision { action: out.action_type, soft: out.rights & consts::FWPS_RIGHT_ACTION_WRITE != 0 });
    cpu::with_machine(|machine| machine.wfp.stack.load().complete_classify(token, decision, redirect));
}

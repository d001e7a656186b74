//! Completing IRPs, and sending them on.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use super::super::layout::{Irp, StackLocation};
use super::irp::call_driver;
use crate::cpu::{self, code};
use crate::export::exports;
use crate::status::NtStatus;
use crate::verifier::callback::{self, At};

exports! {
    "ntoskrnl.exe";
    IofCompleteRequest: DISPATCH,
    IoCompleteRequest: DISPATCH,
    IofCallDriver: DISPATCH,
    IoCallDriver: DISPATCH,
}

/// IO_STACK_LOCATION.Control (wdm.h).
const SL_PENDING_RETURNED: u8 = 0x01;
const SL_INVOKE_ON_CANCEL: u8 = 0x20;
const SL_INVOKE_ON_SUCCESS: u8 = 0x40;
const SL_INVOKE_ON_ERROR: u8 = 0x80;
const STATUS_MORE_PROCESSING_REQUIRED: NtStatus = NtStatus(0xC000_0016_u32 as i32);

unsafe extern "win64" fn IofCallDriver(device: usize, irp: usize) -> NtStatus {
    // SAFETY: the driver's device and the IRP it owns; what is neither faults.
    unsafe { call_driver(device, irp) }
}

unsafe extern "win64" fn IoCallDriver(device: usize, irp: usize) -> NtStatus {
    // SAFETY: as above.
    unsafe { call_driver(device, irp) }
}

unsafe extern "win64" fn IoCompleteRequest(irp: usize, _boost: i8) {
    // SAFETY: the IRP the driver owns.
    unsafe { complete(irp) }
}

unsafe extern "win64" fn IofCompleteRequest(irp: usize, _boost: i8) {
    // SAFETY: the IRP the driver owns.
    unsafe { complete(irp) }
}

/// Calls the completion routines up the stack, then ends the IRP.
///
/// # Safety
/// `irp` is an address; what is no IRP in flight stops the machine.
pub(crate) unsafe fn complete(irp: usize) {
    if !cpu::with_machine(|machine| machine.io.wdm.irps.lock().contains_key(&irp)) {
        cpu::bugcheck(
            code::MULTIPLE_IRP_COMPLETE_REQUESTS,
            [irp as u64, 0, 0, 0],
            format!("{irp:#x} was completed, which is no IRP that a driver has: completed twice, or never one"),
        );
    }
    // SAFETY: the IRP is in flight, so its memory is there, and its driver, which is here, owns it.
    let head = unsafe { &mut *(irp as *mut Irp) };
    if head.cancel_routine != 0 {
        cpu::bugcheck(
            code::DRIVER_VERIFIER_IOMANAGER_VIOLATION,
            [7, head.cancel_routine as u64, irp as u64, 0],
            "an IRP was completed with its cancel routine still set",
        );
    }
    if head.status == NtStatus::PENDING.0 || head.status == -1 {
        cpu::bugcheck(
            code::DRIVER_VERIFIER_IOMANAGER_VIOLATION,
            [6, head.status as u32 as u64, irp as u64, 0],
            "an IRP was completed with STATUS_PENDING, or without a status",
        );
    }
    while head.current_location <= head.stack_count {
        let location = head.current_stack_location as *mut StackLocation;
        // SAFETY: a location of this IRP.
        let (control, routine, context) =
            unsafe { ((*location).control, (*location).completion_routine, (*location).context) };
        head.pending_returned = control & SL_PENDING_RETURNED;
        head.current_location += 1;
        head.current_stack_location += size_of::<StackLocation>();
        let above =
            (head.current_location <= head.stack_count).then_some(head.current_stack_location as *mut StackLocation);
        let wanted = if head.cancel != 0 && control & SL_INVOKE_ON_CANCEL != 0 {
            true
        } else if NtStatus(head.status).is_success() {
            control & SL_INVOKE_ON_SUCCESS != 0
        } else {
            control & SL_INVOKE_ON_ERROR != 0
        };
        if wanted && routine != 0 {
            // SAFETY: a location of this IRP, or the top, which has no device.
            let device = above.map_or(0, |location| unsafe { (*location).device_object });
            // SAFETY: IO_COMPLETION_ROUTINE, set by a driver with IoSetCompletionRoutine.
            let call: extern "win64" fn(usize, usize, usize) -> NtStatus = unsafe { core::mem::transmute(routine) };
            let status = callback::call(&At("the completion routine", routine as u64), || call(device, irp, context));
            if status == STATUS_MORE_PROCESSING_REQUIRED {
                return;
            }
        } else if control & SL_PENDING_RETURNED != 0
            && let Some(above) = above
        {
            // SAFETY: a location of this IRP.
            unsafe { (*above).control |= SL_PENDING_RETURNED };
        }
    }
    finish(irp);
}

/// Gives everything back and tells the caller.
fn finish(irp: usize) {
    let Some(in_flight) = cpu::with_machine(|machine| machine.io.wdm.irps.lock().remove(&irp)) else { return };
    // SAFETY: in flight until the line above; the block is still held.
    let (status, information) =
        unsafe { (NtStatus((*(irp as *const Irp)).status), (*(irp as *const Irp)).information) };
    let super::InFlight { irp: block, request, output, mdl, answer, device } = in_flight;
    if let (Some(request), Some((memory, length))) = (&request, &output) {
        // SAFETY: the system buffer is at least as long as the output, and the request is not completed yet.
        unsafe {
            core::ptr::copy_nonoverlapping(memory.address() as *const u8, request.system_buffer(), *length);
        }
    }
    drop((mdl, output, block, device));
    answer.give(status);
    if let Some(request) = request {
        request.complete(status, information);
    }
}

//! Completing IRPs, and sending them on.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use super::super::layout::{Irp, StackLocation};
use super::irp::{call_driver, contract_broken};
use crate::cpu::{self, code};
use crate::export::exports;
use crate::trace::{Argument, Callback};
use crate::verifier::callback::{self, At, Keeps};
use nt_abi::NtStatus;

exports! {
    "ntoskrnl.exe";
    IofCompleteRequest: DISPATCH,
    IoCompleteRequest: DISPATCH,
    IofCallDriver: DISPATCH,
    IoCallDriver: DISPATCH,
}

const STATUS_MORE_PROCESSING_REQUIRED: NtStatus = NtStatus(0xC000_0016_u32 as i32);

unsafe extern "win64" fn IofCallDriver(device: usize, irp: usize) -> NtStatus {
    let (known, in_flight) = cpu::with_machine(|machine| {
        let wdm = &machine.io.wdm;
        (wdm.devices.lock().contains_key(&device), wdm.irps.lock().contains_key(&irp))
    });
    // Parameters of bugcheck 0xC9: 3, not a valid IRP; 4, not a valid device.
    let wrong = if !in_flight {
        Some((3, irp, "an IRP that a driver has"))
    } else if !known {
        Some((4, device, "a device"))
    } else {
        None
    };
    if let Some((parameter, what, name)) = wrong {
        cpu::bugcheck(
            code::DRIVER_VERIFIER_IOMANAGER_VIOLATION,
            [parameter, what as u64, 0, 0],
            format!("IofCallDriver was given {what:#x}, which is not {name}"),
        );
    }
    // SAFETY: the IRP is in flight and the device is known, as checked above.
    unsafe { call_driver(device, irp) }
}

unsafe extern "win64" fn IoCallDriver(device: usize, irp: usize) -> NtStatus {
    // SAFETY: the page demands what IofCallDriver does, which checks both.
    unsafe { IofCallDriver(device, irp) }
}

unsafe extern "win64" fn IoCompleteRequest(irp: usize, _boost: i8) {
    // SAFETY: the page demands an IRP that the driver owns; `complete` stops the machine unless it is in flight.
    unsafe { complete(irp) }
}

unsafe extern "win64" fn IofCompleteRequest(irp: usize, _boost: i8) {
    // SAFETY: the page demands an IRP that the driver owns; `complete` stops the machine unless it is in flight.
    unsafe { complete(irp) }
}

/// Calls the completion routines up the stack, then ends the IRP.
///
/// # Safety
/// `irp` is any address; what is not an IRP in flight stops the machine.
pub(crate) unsafe fn complete(irp: usize) {
    if !cpu::with_machine(|machine| machine.io.wdm.irps.lock().contains_key(&irp)) {
        completed_twice(irp);
    }
    let head = irp as *mut Irp;
    // SAFETY: the IRP is in flight, as checked above, so its memory is live; by the page its driver, which calls this,
    // owns it.
    let (cancel_routine, status) = unsafe { ((*head).cancel_routine, (*head).status) };
    if cancel_routine != 0 {
        cpu::bugcheck(
            code::DRIVER_VERIFIER_IOMANAGER_VIOLATION,
            [7, cancel_routine as u64, irp as u64, 0],
            "an IRP was completed with its cancel routine still set",
        );
    }
    if status == NtStatus::PENDING.0 || status == -1 {
        cpu::bugcheck(
            code::DRIVER_VERIFIER_IOMANAGER_VIOLATION,
            [6, u64::from(status as u32), irp as u64, 0],
            "an IRP was completed with STATUS_PENDING, or without a status",
        );
    }
    // SAFETY: as above; nothing else changes the IRP while it is completed.
    while let Some(step) = unsafe { climb(head) } {
        // SAFETY: a completion routine that does not end the climb leaves the IRP to this function (IoCompleteRequest's
        // page).
        if !unsafe { step.tell(irp) } {
            return;
        }
    }
    finish(irp);
}

/// A stack location that completion passes.
struct Step {
    control: u8,
    /// The completion routine that the driver above set here, and its context; 0 when it is not to be called.
    routine: usize,
    context: usize,
    /// The location above, null at the top.
    above: *mut StackLocation,
}

/// Goes one location up, clearing the one that is left. None at the top.
///
/// # Safety
/// An IRP in flight that the caller owns.
unsafe fn climb(head: *mut Irp) -> Option<Step> {
    // SAFETY: by this function's contract; the locations are behind the IRP.
    unsafe {
        if (*head).current_location > (*head).stack_count {
            return None;
        }
        let location = (*head).current_stack_location as *mut StackLocation;
        let (control, routine, context) = ((*location).control, (*location).completion_routine, (*location).context);
        ((*location).control, (*location).completion_routine, (*location).context) = (0, 0, 0);
        (*head).pending_returned = control & StackLocation::PENDING_RETURNED;
        (*head).current_location += 1;
        (*head).current_stack_location += size_of::<StackLocation>();
        let top = (*head).current_location > (*head).stack_count;
        let above = if top { core::ptr::null_mut() } else { (*head).current_stack_location as *mut StackLocation };
        let wanted = ((*head).cancel != 0 && control & StackLocation::INVOKE_ON_CANCEL != 0)
            || control
                & if NtStatus((*head).status).is_success() {
                    StackLocation::INVOKE_ON_SUCCESS
                } else {
                    StackLocation::INVOKE_ON_ERROR
                }
                != 0;
        Some(Step { control, routine: if wanted { routine } else { 0 }, context, above })
    }
}

impl Step {
    /// Calls the completion routine, or passes the mark of a pended IRP on for it. False when the routine keeps the IRP
    /// (STATUS_MORE_PROCESSING_REQUIRED).
    ///
    /// # Safety
    /// The step of this IRP, which the caller owns.
    unsafe fn tell(self, irp: usize) -> bool {
        if self.routine == 0 {
            if self.control & StackLocation::PENDING_RETURNED != 0 && !self.above.is_null() {
                // SAFETY: a stack location of this IRP, which is live until the climb ends.
                unsafe { (*self.above).control |= StackLocation::PENDING_RETURNED };
            }
            return true;
        }
        // SAFETY: a stack location of this IRP, or the top of the stack, which has no device.
        let device = if self.above.is_null() { 0 } else { unsafe { (*self.above).device_object } };
        // SAFETY: an IO_COMPLETION_ROUTINE, set with IoSetCompletionRoutine; a wrong address faults and stops the
        // machine.
        let call: extern "win64" fn(usize, usize, usize) -> NtStatus = unsafe { core::mem::transmute(self.routine) };
        let at = self.routine as u64;
        let status = callback::enter(
            &At("the completion routine", at),
            Keeps::All,
            || Callback::new("CompletionRoutine", at, vec![Argument::new("Irp", format!("{irp:#x}"))]),
            || call(device, irp, self.context),
            ToString::to_string,
        );
        status != STATUS_MORE_PROCESSING_REQUIRED
    }
}

fn completed_twice(irp: usize) -> ! {
    cpu::bugcheck(
        code::MULTIPLE_IRP_COMPLETE_REQUESTS,
        [irp as u64, 0, 0, 0],
        format!("{irp:#x} was completed, which is not an IRP that a driver has: completed twice, or never one"),
    )
}

/// Frees everything and completes the caller's request.
fn finish(irp: usize) {
    let Some(in_flight) = cpu::with_machine(|machine| machine.io.wdm.irps.lock().remove(&irp)) else {
        completed_twice(irp)
    };
    let head = irp as *const Irp;
    // SAFETY: in flight until the line above; the block is still held.
    let (status, information, marked) =
        unsafe { (NtStatus((*head).status), (*head).information, (*head).pending_returned != 0) };
    let super::InFlight { irp: block, request, output, mdl, answer, device } = in_flight;
    if let (Some(request), Some((memory, length))) = (&request, &output) {
        // SAFETY: the system buffer is at least as long as the output, and the request is not completed yet.
        unsafe {
            core::ptr::copy_nonoverlapping(memory.address() as *const u8, request.system_buffer(), *length);
        }
    }
    drop((mdl, output, block, device));
    let wrong = answer.ended(status, marked);
    drop(answer);
    if let Some(what) = wrong {
        contract_broken(irp, &what);
    }
    if let Some(request) = request {
        request.complete(status, information);
    }
}

//! Cancelling IRPs: the cancel spin lock, and the cancel-safe queues that do without it.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use super::super::IrpId;
use super::super::layout::{Irp, StackLocation};
use super::InFlight;
use crate::cpu;
use crate::export::exports;
use crate::nt::ke::spinlock;
use crate::trace::{Argument, Callback};
use crate::verifier::callback::{self, At, Keeps};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use nt_abi::Irql;
use nt_abi::NtStatus;
use std::collections::HashMap;

exports! {
    "ntoskrnl.exe";
    IoAcquireCancelSpinLock: DISPATCH,
    IoReleaseCancelSpinLock: DISPATCH,
    IoCancelIrp: DISPATCH,
    IoCsqInitialize: DISPATCH,
    IoCsqInitializeEx: DISPATCH,
    IoCsqInsertIrp: DISPATCH,
    IoCsqInsertIrpEx: DISPATCH,
    IoCsqRemoveNextIrp: DISPATCH,
    IoCsqRemoveIrp: DISPATCH,
}

fn lock() -> *const AtomicU64 {
    cpu::with_machine(|machine| &raw const machine.io.wdm.cancel_lock)
}

fn acquire() -> Irql {
    let old = cpu::raise(Irql::DISPATCH);
    // SAFETY: the machine's own lock, which lives as long as code runs on it.
    unsafe { spinlock::acquire_at(lock()) };
    old
}

fn release(irql: Irql) {
    // SAFETY: the machine's own lock, as above; releasing it when it is not held stops the machine.
    unsafe { spinlock::release_at(lock()) };
    cpu::lower(irql);
}

unsafe extern "win64" fn IoAcquireCancelSpinLock(irql: *mut u8) {
    let old = acquire();
    // SAFETY: the page demands a variable for the old IRQL.
    unsafe { irql.write(old.0) };
}

extern "win64" fn IoReleaseCancelSpinLock(irql: u8) {
    release(Irql(irql));
}

unsafe extern "win64" fn IoCancelIrp(irp: usize) -> u8 {
    u8::from(cancel(|irps| irps.contains_key(&irp).then_some(irp)))
}

/// Cancels the request of user mode with this number, if its driver still has it.
pub(super) fn cancel_request(id: IrpId) {
    cancel(|irps| {
        irps.iter().find(|(_, irp)| irp.request.as_ref().is_some_and(|request| request.id() == id)).map(|(at, _)| *at)
    });
}

/// Sets Cancel in the IRP that `find` finds, and calls its cancel routine, which releases the cancel spin lock. Whether
/// there was one.
fn cancel(find: impl FnOnce(&HashMap<usize, InFlight>) -> Option<usize>) -> bool {
    let before = callback::State::now();
    let old = acquire();
    let claimed = cpu::with_machine(|machine| {
        // Under this lock no IRP is completed: its memory is live, and code that completes it without the cancel spin
        // lock, as a cancel-safe queue does, has taken the routine out before.
        let irps = machine.io.wdm.irps.lock();
        let irp = find(&irps)?;
        let head = irp as *mut Irp;
        // SAFETY: an IRP in the table is in flight, so its memory is live while the table is locked; drivers exchange
        // the routine atomically (IoSetCancelRoutine), and so does this.
        let routine = unsafe {
            (&raw mut (*head).cancel).write_volatile(1);
            AtomicUsize::from_ptr(&raw mut (*head).cancel_routine).swap(0, Ordering::AcqRel)
        };
        (routine != 0).then_some((irp, routine))
    });
    let Some((irp, routine)) = claimed else {
        release(old);
        return false;
    };
    let head = irp as *mut Irp;
    // SAFETY: exchanging the routine for null gives this thread the IRP until the routine is called.
    let device = unsafe {
        (*head).cancel_irql = old.0;
        (*((*head).current_stack_location as *const StackLocation)).device_object
    };
    // SAFETY: a DRIVER_CANCEL, set with IoSetCancelRoutine; not null, and a wrong address faults and stops the machine.
    let call: extern "win64" fn(usize, usize) = unsafe { core::mem::transmute(routine) };
    let at = At("the cancel routine", routine as u64);
    callback::enter(
        &at,
        Keeps::Nothing, // it releases the cancel spin lock
        || Callback::new("Cancel", routine as u64, vec![Argument::new("Irp", format!("{irp:#x}"))]),
        || call(device, irp),
        |()| String::new(),
    );
    before.expect_locks(&at);
    if cpu::irql() != old {
        cpu::bugcheck(
            cpu::code::IRQL_NOT_LESS_OR_EQUAL,
            [routine as u64, u64::from(cpu::irql().0), u64::from(old.0), 0],
            format!("{at} returned at {}, and was to release the cancel spin lock to {old}", cpu::irql()),
        );
    }
    true
}

/// `IO_CSQ` (wdm.h).
#[repr(C)]
struct Csq {
    kind: u32,
    insert: usize,
    remove: extern "win64" fn(*mut Csq, usize),
    peek_next: extern "win64" fn(*mut Csq, usize, usize) -> usize,
    acquire: extern "win64" fn(*mut Csq, *mut u8),
    release: extern "win64" fn(*mut Csq, u8),
    complete_cancelled: extern "win64" fn(*mut Csq, usize),
    reserved: usize,
}

const _: () = assert!(size_of::<Csq>() == 64);

/// `IO_CSQ_IRP_CONTEXT` (wdm.h).
#[repr(C)]
struct CsqContext {
    kind: u32,
    irp: usize,
    csq: *mut Csq,
}

/// IO_TYPE_CSQ_IRP_CONTEXT, IO_TYPE_CSQ, IO_TYPE_CSQ_EX.
const TYPE_CONTEXT: u32 = 1;
const TYPE_CSQ: u32 = 2;
const TYPE_CSQ_EX: u32 = 3;

type Acquire = extern "win64" fn(*mut Csq, *mut u8);
type Release = extern "win64" fn(*mut Csq, u8);
type PeekNext = extern "win64" fn(*mut Csq, usize, usize) -> usize;

unsafe extern "win64" fn IoCsqInitialize(
    csq: *mut Csq,
    insert: usize,
    remove: extern "win64" fn(*mut Csq, usize),
    peek_next: PeekNext,
    acquire: Acquire,
    release: Release,
    complete_cancelled: extern "win64" fn(*mut Csq, usize),
) -> NtStatus {
    let filled = Csq { kind: TYPE_CSQ, insert, remove, peek_next, acquire, release, complete_cancelled, reserved: 0 };
    // SAFETY: the page demands memory for an IO_CSQ; every member is written, none read.
    unsafe { csq.write(filled) };
    NtStatus::SUCCESS
}

unsafe extern "win64" fn IoCsqInitializeEx(
    csq: *mut Csq,
    insert: usize,
    remove: extern "win64" fn(*mut Csq, usize),
    peek_next: PeekNext,
    acquire: Acquire,
    release: Release,
    complete_cancelled: extern "win64" fn(*mut Csq, usize),
) -> NtStatus {
    // SAFETY: the page demands memory for an IO_CSQ; every member is written, none read.
    unsafe {
        IoCsqInitialize(csq, insert, remove, peek_next, acquire, release, complete_cancelled);
        (*csq).kind = TYPE_CSQ_EX;
    }
    NtStatus::SUCCESS
}

unsafe extern "win64" fn IoCsqInsertIrp(csq: *mut Csq, irp: usize, context: *mut CsqContext) {
    // SAFETY: the page demands an initialized IO_CSQ, an IRP that the driver owns, and null or an IO_CSQ_IRP_CONTEXT
    // that stays until the IRP is removed.
    unsafe { insert(csq, irp, context, 0) };
}

unsafe extern "win64" fn IoCsqInsertIrpEx(
    csq: *mut Csq,
    irp: usize,
    context: *mut CsqContext,
    insert_context: usize,
) -> NtStatus {
    // SAFETY: the page demands an initialized IO_CSQ, an IRP that the driver owns, and null or an IO_CSQ_IRP_CONTEXT
    // that stays until the IRP is removed.
    unsafe { insert(csq, irp, context, insert_context) }
}

/// Marks the IRP pending, has the driver insert it, and makes it cancelable.
///
/// # Safety
/// `csq` is an initialized IO_CSQ, `irp` an IRP that the driver owns, and `context` null or an IO_CSQ_IRP_CONTEXT.
unsafe fn insert(csq: *mut Csq, irp: usize, context: *mut CsqContext, insert_context: usize) -> NtStatus {
    // SAFETY: by this function's contract.
    unsafe {
        let head = irp as *mut Irp;
        if context.is_null() {
            (*head).driver_context[3] = csq as usize;
        } else {
            context.write(CsqContext { kind: TYPE_CONTEXT, irp, csq });
            (*head).driver_context[3] = context as usize;
        }
        let mut irql = 0;
        ((*csq).acquire)(csq, &mut irql);
        let location = (*head).current_stack_location as *mut StackLocation;
        (*location).control |= StackLocation::PENDING_RETURNED;
        let status = if (*csq).kind == TYPE_CSQ_EX {
            let insert: extern "win64" fn(*mut Csq, usize, usize) -> NtStatus = core::mem::transmute((*csq).insert);
            insert(csq, irp, insert_context)
        } else {
            let insert: extern "win64" fn(*mut Csq, usize) = core::mem::transmute((*csq).insert);
            insert(csq, irp);
            NtStatus::SUCCESS
        };
        if !status.is_success() {
            // The driver keeps the IRP and completes it itself. The documentation is silent on the mark; here it goes.
            (*location).control &= !StackLocation::PENDING_RETURNED;
            (*head).driver_context[3] = 0;
            ((*csq).release)(csq, irql);
            return status;
        }
        let routine = AtomicUsize::from_ptr(&raw mut (*head).cancel_routine);
        routine.store(cancel_queued as *const () as usize, Ordering::Release);
        let cancelled = (&raw const (*head).cancel).read_volatile() != 0;
        if cancelled && routine.swap(0, Ordering::AcqRel) != 0 {
            take(csq, irp);
            ((*csq).release)(csq, irql);
            ((*csq).complete_cancelled)(csq, irp);
        } else {
            ((*csq).release)(csq, irql);
        }
        status
    }
}

/// Has the driver take an IRP out, and forgets its context.
///
/// # Safety
/// The queue, locked, and an IRP in it.
unsafe fn take(csq: *mut Csq, irp: usize) {
    // SAFETY: by this function's contract.
    unsafe {
        ((*csq).remove)(csq, irp);
        let head = irp as *mut Irp;
        let context = (*head).driver_context[3] as *mut CsqContext;
        if context.cast() != csq {
            (*context).irp = 0;
        }
        (*head).driver_context[3] = 0;
    }
}

/// The cancel routine of every IRP in such a queue.
unsafe extern "win64" fn cancel_queued(_device: usize, irp: usize) {
    // SAFETY: `cancel` calls this with an IRP that it owns; the IRP is in a queue, so its context names that queue.
    unsafe {
        let head = irp as *mut Irp;
        release(Irql((*head).cancel_irql));
        let context = (*head).driver_context[3] as *mut CsqContext;
        let csq = if (*context).kind == TYPE_CONTEXT { (*context).csq } else { context.cast() };
        let mut irql = 0;
        ((*csq).acquire)(csq, &mut irql);
        take(csq, irp);
        ((*csq).release)(csq, irql);
        ((*csq).complete_cancelled)(csq, irp);
    }
}

/// The first that the driver's peek routine offers and that is not being cancelled.
unsafe extern "win64" fn IoCsqRemoveNextIrp(csq: *mut Csq, peek_context: usize) -> usize {
    // SAFETY: the page demands an initialized IO_CSQ; its routines, called under its lock, return only IRPs that are
    // queued there, or null, which is checked.
    unsafe {
        let mut irql = 0;
        ((*csq).acquire)(csq, &mut irql);
        let mut irp = ((*csq).peek_next)(csq, 0, peek_context);
        while irp != 0 {
            let routine = AtomicUsize::from_ptr(&raw mut (*(irp as *mut Irp)).cancel_routine);
            if routine.swap(0, Ordering::AcqRel) != 0 {
                take(csq, irp);
                break;
            }
            irp = ((*csq).peek_next)(csq, irp, peek_context);
        }
        ((*csq).release)(csq, irql);
        irp
    }
}

/// The IRP of a context, if it is still in the queue and not being cancelled.
unsafe extern "win64" fn IoCsqRemoveIrp(csq: *mut Csq, context: *mut CsqContext) -> usize {
    // SAFETY: the page demands an initialized IO_CSQ; its routines, called under its lock, return only IRPs that are
    // queued there, or null, which is checked.
    unsafe {
        let mut irql = 0;
        ((*csq).acquire)(csq, &mut irql);
        let mut irp = (*context).irp;
        if irp != 0 {
            let routine = AtomicUsize::from_ptr(&raw mut (*(irp as *mut Irp)).cancel_routine);
            if routine.swap(0, Ordering::AcqRel) != 0 {
                take(csq, irp);
            } else {
                irp = 0;
            }
        }
        ((*csq).release)(csq, irql);
        irp
    }
}

//! Structured exception handling: `__try`, `__except` and `__finally` of drivers work as on Windows.
//!
//! A fault in driver code that Windows raises as an exception, or an export that raises one ([`raising`]), starts a
//! search for a handler down the kernel stack, by the driver's unwind tables. The driver's language handler is called
//! for each frame that has one; for C it is [`scope::handler`] (`__C_specific_handler`), alone or after the check of a
//! security cookie. Execution continues where the handler says, after the frames in between have been unwound. An
//! exception that is not handled stops the machine like any fault.
//!
//! The search ends at ntsim's code: an exception in a driver's callback does not reach a handler around the call that
//! led there. Nor does one raised in a filter or a `__finally` reach a handler beyond the dispatch that it interrupts.

pub(crate) mod entry;
pub(super) mod fault;
mod frame;
pub(crate) mod record;
pub(crate) mod scope;

use frame::{EHANDLER, Frame, UHANDLER};
use record::{Context, DispatcherContext, ExceptionRecord, NONCONTINUABLE, RAX, TARGET_UNWIND, UNWINDING};

use super::{bugcheck, code, context};
use core::ops::Range;
use core::ptr;
use nt_abi::NtStatus;

/// Result of a language handler (EXCEPTION_DISPOSITION): execution continues at the instruction that faulted.
const CONTINUE_EXECUTION: i32 = 0;
/// It does not handle the exception.
const CONTINUE_SEARCH: i32 = 1;

/// RFLAGS.DF: clear whenever a function is entered, and where a handler begins.
const DIRECTION_FLAG: u32 = 0x400;

/// EXCEPTION_ROUTINE.
type Handler = unsafe extern "win64" fn(*mut ExceptionRecord, u64, *mut Context, *mut DispatcherContext) -> i32;

/// Searches for a handler from `context` on. Does not return when one takes the exception; true when execution is to
/// continue at `context`, false when no handler takes it.
///
/// # Safety
/// `context` is the state of driver code on this thread's kernel stack, above everything that is running now, and
/// nothing between the two owns anything: those frames may never be returned to.
unsafe fn dispatch(record: &mut ExceptionRecord, context: &mut Context, stack: &Range<u64>) -> bool {
    let mut walk = *context;
    loop {
        let control_pc = walk.rip;
        let Some(frame) = frame::unwind(&mut walk, stack) else { return false };
        if frame.flags & EHANDLER == 0 {
            continue;
        }
        // SAFETY: the frame's own handler, shown the frame it belongs to.
        let answer = unsafe { call_handler(&frame, record, context, control_pc, 0, &mut walk) };
        match answer {
            Some(CONTINUE_EXECUTION) if record.flags & NONCONTINUABLE != 0 => bugcheck(
                code::KMODE_EXCEPTION_NOT_HANDLED,
                [0xffff_ffff_c000_0025, record.address, u64::from(record.code), 0],
                "a filter wants execution to continue after an exception that cannot be continued \
                 (STATUS_NONCONTINUABLE_EXCEPTION)",
            ),
            Some(CONTINUE_EXECUTION) => return true,
            Some(CONTINUE_SEARCH) | None => {}
            Some(_) => return false,
        }
    }
}

/// Unwinds every frame between the exception and `target`, calling termination handlers, and continues in `target` at
/// `address` with the exception's code in rax.
///
/// # Safety
/// As for [`dispatch`], which called the handler that asks for this with this `record` and `context`.
unsafe fn unwind_to(target: u64, address: u64, record: &mut ExceptionRecord, context: &Context) -> ! {
    let stack = context::stack_range().unwrap_or_default();
    record.flags |= UNWINDING;
    let mut walk = *context;
    loop {
        let mut here = walk;
        let control_pc = here.rip;
        let Some(frame) = frame::unwind(&mut walk, &stack).filter(|frame| frame.establisher <= target) else {
            bugcheck(
                code::KMODE_EXCEPTION_NOT_HANDLED,
                [0xffff_ffff_c000_0028, control_pc, target, 0],
                "a handler took an exception for a frame that is not on the stack (STATUS_BAD_STACK)",
            );
        };
        let last = frame.establisher == target;
        if last {
            record.flags |= TARGET_UNWIND;
        }
        if frame.flags & UHANDLER != 0 {
            // SAFETY: as in `dispatch`.
            unsafe { call_handler(&frame, record, &mut here, control_pc, address, &mut walk) };
        }
        if last {
            here.rip = address;
            here.registers[RAX] = u64::from(record.code);
            here.eflags &= !DIRECTION_FLAG;
            // SAFETY: the target frame's registers, put back by its own unwind tables, at an address its handler names;
            // the frames below own nothing.
            unsafe { entry::resume(&here) }
        }
    }
}

unsafe fn call_handler(
    frame: &Frame,
    record: &mut ExceptionRecord,
    context: &mut Context,
    control_pc: u64,
    target_ip: u64,
    walk: &mut Context,
) -> Option<i32> {
    let (routine, data) = frame.handler?;
    let mut dispatcher = DispatcherContext {
        control_pc,
        image_base: frame.image_base,
        function_entry: frame.function_entry,
        establisher_frame: frame.establisher,
        target_ip,
        context: walk,
        language_handler: routine,
        handler_data: data as *const _,
        history_table: ptr::null_mut(),
        scope_index: 0,
        fill: 0,
    };
    // SAFETY: the unwind tables of the driver name it as the handler of this function.
    let routine: Handler = unsafe { core::mem::transmute(routine as *const ()) };
    // SAFETY: structures of the documented form that live for the call.
    Some(unsafe { routine(record, frame.establisher, context, &mut dispatcher) })
}

/// Raises an exception for the driver that called the export [`raising`] was made for: `context` is its state after the
/// call. An exception that is not handled stops the machine, with `why`.
///
/// # Safety
/// As for [`dispatch`]: the caller and everything that called it since the driver's call own nothing. `why` is called
/// only when it is not handled.
pub(crate) unsafe fn raise(
    context: *mut Context,
    status: NtStatus,
    flags: u32,
    parameters: &[u64],
    why: impl FnOnce() -> String,
) {
    // SAFETY: written by `raising`, lives in its frame.
    let context = unsafe { &mut *context };
    let mut record = ExceptionRecord::new(status.0 as u32, flags, context.rip, parameters);
    let stack = context::stack_range().unwrap_or_default();
    // SAFETY: by this function's contract.
    if unsafe { dispatch(&mut record, context, &stack) } {
        // SAFETY: a filter asked for execution to continue at the context.
        unsafe { entry::resume(context) }
    }
    let first = parameters.first().copied().unwrap_or(0);
    let second = parameters.get(1).copied().unwrap_or(0);
    bugcheck(code::KMODE_EXCEPTION_NOT_HANDLED, [i64::from(status.0) as u64, record.address, first, second], why())
}

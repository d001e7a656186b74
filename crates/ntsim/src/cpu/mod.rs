//! Simulated processors: the state of a thread that runs driver code.
//!
//! [`enter`] is the only way into driver code. It switches to the thread's kernel stack, sets `gs` to the thread's
//! processor control region, raises the IRQL and runs a closure there. Everything that can go wrong inside (a CPU fault
//! in the driver, a violated contract, `KeBugCheckEx`) ends the same way: the kernel stack is abandoned, never unwound
//! and never used again, and `enter` returns the [`Bugcheck`].
//!
//! Because the stack may be abandoned at any call into driver code, no lock may be held and nothing that must be
//! dropped may be live across such a call; what is live is leaked, not corrupted.

pub mod baton;
mod bugcheck;
mod context;
pub mod dpc;
mod emulate;
mod fault;
pub mod kpcr;
mod modules;
pub mod processor;
pub(crate) mod seh;
mod shared_data;
mod stack;
pub mod suspend;
pub(crate) mod switch;
pub mod thread;
mod unwind;

pub use bugcheck::{Bugcheck, Frame, code};
pub(crate) use modules::frame_of;
pub use modules::{CodeModule, register_module, unregister_module};

use crate::machine::Machine;
use crate::verifier::callback::{self, Keeps};
use nt_abi::Irql;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// Runs `f` as code of a simulated processor at `irql`, on this thread's kernel stack.
///
/// Driver code may only be called inside. Calls nest: an inner call runs on the same stack, with the IRQL raised to
/// `irql` for its duration. DPCs queued meanwhile run before the outermost call returns.
///
/// A panic of `f` is carried across the stack switch and resumes in the caller; a panic that would have to cross driver
/// code aborts the process, as every panic out of an `extern "win64"` function does.
///
/// # Errors
/// The bugcheck that stopped the machine: raised inside, or earlier (a machine that has stopped runs nothing).
pub fn enter<R>(machine: &Arc<Machine>, irql: Irql, f: impl FnOnce() -> R) -> Result<R, Bugcheck> {
    struct Job<F, R> {
        f: Option<F>,
        irql: Irql,
        out: Option<Result<R, Box<dyn Any + Send>>>,
    }

    extern "sysv64" fn run<F: FnOnce() -> R, R>(job: *mut core::ffi::c_void) {
        // SAFETY: `enter` passes a pointer to its own `Job<F, R>`, which lives until this call has ended or the stack
        // is abandoned, and touches it from nowhere else meanwhile.
        let job = unsafe { &mut *job.cast::<Job<F, R>>() };
        let Some(f) = job.f.take() else { return };
        let irql = job.irql;
        job.out = Some(catch_unwind(AssertUnwindSafe(|| {
            let value = callback::checked(&"the outermost call into the processor", Keeps::All, f);
            dpc::drain(irql);
            value
        })));
    }

    /// `run` for the closure's type, which cannot be named.
    fn entry_of<F: FnOnce() -> R, R>(_: &Job<F, R>) -> extern "sysv64" fn(*mut core::ffi::c_void) {
        run::<F, R>
    }

    if context::inside() {
        return Ok(nested(machine, irql, f));
    }
    if machine.has_stopped() {
        machine.check_running()?;
    }
    let mut job = Job { f: Some(f), irql, out: None };
    let entry = entry_of(&job);
    let call = context::run(machine, irql, entry, (&raw mut job).cast());
    match call {
        Ok(()) => match job.out {
            Some(Ok(value)) => Ok(value),
            Some(Err(panic)) => resume_unwind(panic),
            None => unreachable!("a call that returned has stored its result"),
        },
        Err(bugcheck) => {
            crate::trace::abandoned(&machine.hooks);
            Err(machine.stop(bugcheck))
        }
    }
}

/// An inner [`enter`]: the same stack, at `irql` for the duration.
fn nested<R>(machine: &Arc<Machine>, irql: Irql, f: impl FnOnce() -> R) -> R {
    assert!(with_machine(|m| Arc::ptr_eq(m, machine)), "a thread inside one machine cannot enter another");
    at_irql(irql, f)
}

/// Calls `f` with the machine that this thread is inside.
///
/// # Panics
/// Outside [`enter`].
pub fn with_machine<R>(f: impl FnOnce(&Arc<Machine>) -> R) -> R {
    f(context::machine())
}

/// The control region of the processor this thread runs as.
///
/// # Panics
/// Outside [`enter`].
#[must_use]
pub fn current_processor() -> &'static kpcr::Kpcr {
    context::kpcr()
}

/// Whether this thread is inside [`enter`].
#[must_use]
pub fn inside() -> bool {
    context::inside()
}

/// The current IRQL of this thread's processor; PASSIVE_LEVEL outside [`enter`].
#[must_use]
pub fn irql() -> Irql {
    if context::inside() { context::kpcr().irql() } else { Irql::PASSIVE }
}

/// Raises the IRQL and returns the old one. A lower `new` is a violation that stops the machine.
pub fn raise(new: Irql) -> Irql {
    let kpcr = context::kpcr();
    let old = kpcr.irql();
    if new < old {
        bugcheck(
            code::IRQL_NOT_GREATER_OR_EQUAL,
            [u64::from(old.0), u64::from(new.0), 0, 0],
            format!("raise to {new} while at {old}"),
        );
    }
    if old < Irql::DISPATCH && new >= Irql::DISPATCH {
        processor::claim(kpcr);
        context::machine().pool.reached_dispatch();
    }
    kpcr.set_irql(new);
    old
}

/// Lowers the IRQL to a value [`raise`] returned. DPCs queued meanwhile run when it falls below DISPATCH_LEVEL.
pub fn lower(old: Irql) {
    let kpcr = context::kpcr();
    let current = kpcr.irql();
    if old > current {
        bugcheck(
            code::IRQL_NOT_LESS_OR_EQUAL,
            [u64::from(current.0), u64::from(old.0), 0, 0],
            format!("lower to {old} while at {current}"),
        );
    }
    if current >= Irql::DISPATCH && old < Irql::DISPATCH {
        kpcr.set_irql(Irql::DISPATCH);
        dpc::drain(Irql::DISPATCH);
        processor::release(kpcr);
    }
    kpcr.set_irql(old);
}

/// Runs `f` at `irql`, at or above the current level, then restores the current level.
pub fn at_irql<R>(irql: Irql, f: impl FnOnce() -> R) -> R {
    let old = raise(irql);
    let value = f();
    expect_irql(irql, "a callback");
    lower(old);
    value
}

/// Stops the machine unless a routine returns at the IRQL at which it was called.
fn expect_irql(called_at: Irql, what: &str) {
    let now = context::kpcr().irql();
    if now != called_at {
        bugcheck(
            code::IRQL_UNEXPECTED_VALUE,
            [u64::from(now.0), u64::from(called_at.0), 0, 0],
            format!("{what} was called at {called_at} and returned at {now}"),
        );
    }
}

/// Stops the machine: abandons this thread's kernel stack, and its outermost [`enter`] returns the bugcheck.
///
/// For violations that ntsim finds and for `KeBugCheckEx`. The caller holds no lock; what its frames own is leaked.
///
/// # Panics
/// Outside [`enter`], where there is no stack to abandon.
pub fn bugcheck(code: u32, parameters: [u64; 4], why: impl Into<String>) -> ! {
    context::abandon(code, parameters, why.into())
}

/// [`bugcheck`] on behalf of code that was called with its return address at `return_slot` and has not yet touched the
/// stack: the reported stack begins at the caller.
pub(crate) fn bugcheck_of_caller(code: u32, parameters: [u64; 4], why: String, return_slot: u64, rbp: u64) -> ! {
    // SAFETY: the address of a return address on the running stack.
    let rip = unsafe { (return_slot as *const u64).read() };
    context::abandon_at(code, parameters, why, unwind::Registers::new(rip, return_slot + 8, rbp))
}

/// The frames of the kernel stack, from here. Slow: for reports, not for every call.
#[must_use]
pub fn stack_here() -> Vec<Frame> {
    let registers = unwind::Registers::here();
    context::stack_range().map(|range| unwind::walk(&registers, &range)).unwrap_or_default()
}

/// The return address of the driver's last call through an import gate, 0 when there was none since [`enter`].
///
/// For an export that needs its caller; to be read before anything else is called.
#[must_use]
pub fn caller() -> u64 {
    let rsp = if context::inside() { context::kpcr().gate_rsp() } else { 0 };
    if rsp == 0 {
        return 0;
    }
    // SAFETY: the gate stored the stack pointer at its entry, where the return address is; kernel stacks are never
    // unmapped while this thread is inside.
    unsafe { (rsp as *const u64).read_volatile() }
}

/// The kernel stack this thread runs on; empty outside [`enter`].
#[must_use]
pub fn stack_range() -> core::ops::Range<u64> {
    context::stack_range().unwrap_or(0..0)
}

/// Abandons this thread's kernel stack if another thread has stopped the machine. Every loop that waits for another
/// thread calls this, so that none waits for a thread that will never run again.
pub fn leave_if_stopped() {
    if context::machine().has_stopped() {
        context::abandon_stopped()
    }
    baton::pause();
}

#[cfg(test)]
mod tests;

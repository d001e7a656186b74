//! What a thread knows about the simulated processor it is running as.

use super::bugcheck::{self, Bugcheck};
use super::dpc::Dpc;
use super::fault::{self, AlternateStack, Fault};
use super::kpcr::Kpcr;
use super::stack::KernelStack;
use super::switch;
use super::unwind::Registers;
use crate::irql::Irql;
use crate::machine::Machine;
use core::cell::{Cell, RefCell, UnsafeCell};
use core::ffi::c_void;
use core::ops::Range;
use core::ptr;
use std::collections::VecDeque;
use std::sync::Arc;

/// Why a kernel stack was abandoned.
pub(super) enum Cause {
    /// By [`super::bugcheck`].
    Raised { code: u32, parameters: [u64; 4], why: String, registers: Registers },
    /// By a CPU fault; the details are in [`State::fault`].
    Fault,
    /// Because another thread stopped the machine.
    Stopped,
}

/// The part that the signal handler reads: plain cells without destructors, so that a look at them is one load.
pub(super) struct State {
    /// Set while inside `enter`.
    kpcr: Cell<Option<&'static Kpcr>>,
    machine: Cell<*const Arc<Machine>>,
    /// Where to go when the stack is abandoned.
    pub(super) host_rsp: UnsafeCell<u64>,
    pub(super) stack: Cell<(u64, u64)>,
    /// Written by the signal handler.
    pub(super) fault: Cell<Option<Fault>>,
}

thread_local! {
    static STATE: State = const {
        State {
            kpcr: Cell::new(None),
            machine: Cell::new(ptr::null()),
            host_rsp: UnsafeCell::new(0),
            stack: Cell::new((0, 0)),
            fault: Cell::new(None),
        }
    };
    static CAUSE: RefCell<Option<Cause>> = const { RefCell::new(None) };
    static DPCS: RefCell<VecDeque<Dpc>> = const { RefCell::new(VecDeque::new()) };
    static OWNED: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// What a thread owns to run driver code, made on its first [`super::enter`].
pub(super) struct Context {
    stack: Option<KernelStack>,
    kpcr: &'static Kpcr,
    /// The machine the processor number was assigned by.
    assigned_by: u64,
    _alternate: AlternateStack,
}

impl Context {
    /// Takes this thread's context out of its slot, for the length of one outermost `enter`.
    pub(super) fn for_this_thread() -> Self {
        if let Some(context) = OWNED.take() {
            return context;
        }
        fault::install();
        Self { stack: None, kpcr: Kpcr::leak_new(), assigned_by: 0, _alternate: AlternateStack::install() }
    }

    /// Calls `entry(argument)` on the kernel stack at `irql`.
    pub(super) fn run(
        mut self,
        machine: &Arc<Machine>,
        irql: Irql,
        entry: extern "sysv64" fn(*mut c_void),
        argument: *mut c_void,
    ) -> Result<(), Bugcheck> {
        let stack = self.stack.take().unwrap_or_else(|| match KernelStack::map() {
            Ok(stack) => stack,
            Err(error) => panic!("cannot map a kernel stack: {error}"),
        });
        let kpcr = self.kpcr;
        if self.assigned_by != machine.id() {
            self.assigned_by = machine.id();
            kpcr.set_number(machine.processors.assign());
            kpcr.set_process(machine.system_process());
        }
        super::kpcr::load(kpcr);
        let ended = STATE.with(|state| {
            state.machine.set(machine);
            state.kpcr.set(Some(kpcr));
            let Range { start, end } = stack.range();
            state.stack.set((start, end));
            kpcr.set_irql(Irql::PASSIVE);
            if irql >= Irql::DISPATCH {
                super::processor::claim(kpcr);
            }
            kpcr.set_irql(irql);
            kpcr.set_gate_rsp(0);
            // SAFETY: the stack is this thread's own and not in use (it was taken out of its slot); `entry` and
            // `argument` belong together by this function's callers; `host_rsp` is this thread's cell.
            let ended = unsafe { switch::call_on(state.host_rsp.get(), stack.top(), entry, argument) };
            state.kpcr.set(None);
            ended
        });
        if kpcr.irql() >= Irql::DISPATCH {
            machine.processors.free(kpcr.number());
        }
        if ended == switch::RETURNED {
            self.stack = Some(stack);
            OWNED.set(Some(self));
            return Ok(());
        }
        let cause = CAUSE.take();
        let fault = STATE.with(|state| state.fault.take());
        let bugcheck = match cause.unwrap_or(Cause::Fault) {
            Cause::Stopped => machine.stopped(),
            Cause::Raised { code, parameters, why, registers } => {
                Some(bugcheck::raised(code, parameters, why, kpcr.irql(), &registers, &stack.range()))
            }
            Cause::Fault => fault.map(|f| f.bugcheck(machine, kpcr.irql(), &stack.range(), &stack.guard())),
        };
        DPCS.take();
        // Driver code, and this machine's waiters, may still point into the stack: it stays mapped for ever.
        core::mem::forget(stack);
        OWNED.set(Some(self));
        match bugcheck {
            Some(bugcheck) => Err(bugcheck),
            None => unreachable!("a stack is abandoned with a cause"),
        }
    }
}

/// Whether this thread is inside `enter`.
pub(super) fn inside() -> bool {
    STATE.with(|state| state.kpcr.get().is_some())
}

/// This thread's control region.
#[inline]
pub(super) fn kpcr() -> &'static Kpcr {
    match STATE.with(|state| state.kpcr.get()) {
        Some(kpcr) => kpcr,
        None => outside(),
    }
}

#[cold]
fn outside() -> ! {
    panic!("only code inside cpu::enter has a processor")
}

/// The machine this thread is inside of. The reference must not outlive the outermost `enter`.
#[inline]
pub(super) fn machine<'a>() -> &'a Arc<Machine> {
    if !inside() {
        outside();
    }
    // SAFETY: while inside, the pointer is the reference that `enter` holds for its whole length.
    unsafe { &*STATE.with(|state| state.machine.get()) }
}

/// The kernel stack this thread runs on.
pub(super) fn stack_range() -> Option<Range<u64>> {
    let (start, end) = if_inside(|state, _| state.stack.get())?;
    Some(start..end)
}

/// The DPC queue of this thread's processor.
pub(super) fn with_dpcs<R>(f: impl FnOnce(&mut VecDeque<Dpc>) -> R) -> R {
    DPCS.with_borrow_mut(f)
}

/// Calls `f` with the state if this thread is inside `enter`. Async-signal-safe.
pub(super) fn if_inside<R>(f: impl FnOnce(&State, &'static Kpcr) -> R) -> Option<R> {
    STATE.try_with(|state| state.kpcr.get().map(|kpcr| f(state, kpcr))).ok().flatten()
}

/// See [`super::bugcheck`].
#[inline(never)]
pub(super) fn abandon(code: u32, parameters: [u64; 4], why: String) -> ! {
    abandon_at(code, parameters, why, Registers::here())
}

/// [`abandon`] with the registers a walk is to begin at.
pub(super) fn abandon_at(code: u32, parameters: [u64; 4], why: String, registers: Registers) -> ! {
    if !inside() {
        panic!("bugcheck {code:#x} outside cpu::enter: {why}");
    }
    leave(Cause::Raised { code, parameters, why, registers })
}

/// See [`super::leave_if_stopped`].
pub(super) fn abandon_stopped() -> ! {
    leave(Cause::Stopped)
}

fn leave(cause: Cause) -> ! {
    CAUSE.set(Some(cause));
    let host_rsp = STATE.with(|state| {
        // SAFETY: this thread's cell; `call_on` wrote it before it called what we are in.
        unsafe { *state.host_rsp.get() }
    });
    // SAFETY: we are inside (the callers checked), so the outermost `call_on` of this thread has not returned.
    unsafe { switch::abandon(host_rsp) }
}

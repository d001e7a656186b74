//! What a thread knows about the simulated processor it is running as.

use super::bugcheck::{self, Bugcheck};
use super::dpc::Dpc;
use super::fault::{self, AlternateStack, Fault};
use super::kpcr::Kpcr;
use super::stack::KernelStack;
use super::switch;
use super::unwind::Registers;
use crate::machine::Machine;
use core::cell::{Cell, RefCell, UnsafeCell};
use core::ffi::c_void;
use core::ops::Range;
use core::ptr;
use nt_abi::Irql;
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

/// A thread's plain cells without destructors: reading one is one load, and the signal handler may read them.
pub(super) struct State {
    /// Set while inside `enter`.
    kpcr: Cell<Option<&'static Kpcr>>,
    machine: Cell<*const Arc<Machine>>,
    /// Where to go when the stack is abandoned.
    pub(super) host_rsp: UnsafeCell<u64>,
    /// The kernel stack's start and end; 0 when the thread has none.
    stack: Cell<(u64, u64)>,
    /// The machine that the control region is set up for, by its number.
    prepared_for: Cell<u64>,
    /// The control region, kept between calls.
    own_kpcr: Cell<Option<&'static Kpcr>>,
    /// Whether a DPC is queued.
    has_dpcs: Cell<bool>,
    /// Written by the signal handler.
    pub(super) fault: Cell<Option<Fault>>,
}

impl State {
    /// The kernel stack; empty when the thread has none. Async-signal-safe.
    pub(super) fn stack_range(&self) -> Range<u64> {
        let (start, end) = self.stack.get();
        start..end
    }
}

thread_local! {
    static STATE: State = const {
        State {
            kpcr: Cell::new(None),
            machine: Cell::new(ptr::null()),
            host_rsp: UnsafeCell::new(0),
            stack: Cell::new((0, 0)),
            prepared_for: Cell::new(0),
            own_kpcr: Cell::new(None),
            has_dpcs: Cell::new(false),
            fault: Cell::new(None),
        }
    };
    static CAUSE: RefCell<Option<Cause>> = const { RefCell::new(None) };
    static DPCS: RefCell<VecDeque<Dpc>> = const { RefCell::new(VecDeque::new()) };
    static OWNED: RefCell<Owned> = const { RefCell::new(Owned { stack: None, alternate: None }) };
}

/// What to release when the thread ends.
struct Owned {
    stack: Option<KernelStack>,
    alternate: Option<AlternateStack>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // A later destructor of this thread that enters must not find the unmapped stack.
        let _gone = STATE.try_with(|state| state.stack.set((0, 0)));
    }
}

/// Calls `entry(argument)` on this thread's kernel stack at `irql`, as code of `machine`. The thread must not be
/// inside.
#[inline]
pub(super) fn run(
    machine: &Arc<Machine>,
    irql: Irql,
    entry: extern "sysv64" fn(*mut c_void),
    argument: *mut c_void,
) -> Result<(), Bugcheck> {
    STATE.with(|state| {
        if state.prepared_for.get() != machine.id() || state.stack.get().1 == 0 {
            prepare(state, machine);
        }
        let Some(kpcr) = state.own_kpcr.get() else { unreachable!("`prepare` made one") };
        let top = state.stack.get().1 as *mut u8;
        state.machine.set(machine);
        state.kpcr.set(Some(kpcr));
        kpcr.set_gate_rsp(0);
        if irql >= Irql::DISPATCH {
            kpcr.set_irql(Irql::PASSIVE);
            super::processor::claim(kpcr);
            machine.pool.reached_dispatch();
        }
        kpcr.set_irql(irql);
        let mark = hazard::mark();
        // SAFETY: the stack is this thread's own and not in use, as the thread was not inside; `entry` and `argument`
        // belong together by this function's callers; `host_rsp` is this thread's cell.
        let ended = unsafe { switch::call_on(state.host_rsp.get(), top, entry, argument) };
        state.kpcr.set(None);
        if kpcr.irql() >= Irql::DISPATCH {
            machine.processors.free(kpcr.number());
        }
        if ended == switch::RETURNED {
            return Ok(());
        }
        // SAFETY: made above on this thread, and the stack that ran since then was abandoned.
        unsafe { hazard::rewind(mark) };
        Err(abandoned(state, machine, kpcr))
    })
}

/// Prepares this thread to run as a processor of `machine`.
#[cold]
fn prepare(state: &State, machine: &Arc<Machine>) {
    let kpcr = state.own_kpcr.get().unwrap_or_else(|| {
        fault::install();
        OWNED.with_borrow_mut(|owned| owned.alternate = Some(AlternateStack::install()));
        let kpcr = Kpcr::leak_new();
        super::kpcr::load(kpcr);
        state.own_kpcr.set(Some(kpcr));
        kpcr
    });
    if state.stack.get().1 == 0 {
        let stack = match KernelStack::map() {
            Ok(stack) => stack,
            Err(error) => panic!("cannot map a kernel stack: {error}"),
        };
        let Range { start, end } = stack.range();
        state.stack.set((start, end));
        OWNED.with_borrow_mut(|owned| owned.stack = Some(stack));
    }
    if state.prepared_for.replace(machine.id()) != machine.id() {
        kpcr.set_number(machine.processors.assign());
        kpcr.set_process(machine.system_process());
    }
}

/// Why the kernel stack was abandoned.
#[cold]
fn abandoned(state: &State, machine: &Machine, kpcr: &Kpcr) -> Bugcheck {
    let Some(stack) = OWNED.with_borrow_mut(|owned| owned.stack.take()) else { unreachable!("it ran on one") };
    state.stack.set((0, 0));
    state.has_dpcs.set(false);
    crate::verifier::locks::abandoned();
    let fault = state.fault.take();
    let bugcheck = match CAUSE.take().unwrap_or(Cause::Fault) {
        Cause::Stopped => machine.stopped(),
        Cause::Raised { code, parameters, why, registers } => {
            Some(bugcheck::raised(code, parameters, why, kpcr.irql(), &registers, &stack.range()))
        }
        Cause::Fault => fault.map(|f| f.bugcheck(machine, kpcr.irql(), &stack.range(), &stack.guard())),
    };
    drop(DPCS.take());
    // Driver code, and this machine's waiters, may still point into the stack: it stays mapped forever.
    core::mem::forget(stack);
    match bugcheck {
        Some(bugcheck) => bugcheck,
        None => unreachable!("a stack is abandoned with a cause"),
    }
}

/// Whether this thread is inside `enter`.
#[inline]
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
    if_inside(|state, _| state.stack_range())
}

/// Puts a DPC into the queue of this thread's processor.
pub(super) fn push_dpc(dpc: Dpc) {
    DPCS.with_borrow_mut(|queue| queue.push_back(dpc));
    STATE.with(|state| state.has_dpcs.set(true));
}

/// Takes the next DPC.
#[inline]
pub(super) fn pop_dpc() -> Option<Dpc> {
    STATE.with(|state| {
        if !state.has_dpcs.get() {
            return None;
        }
        let next = DPCS.with_borrow_mut(|queue| queue.pop_front());
        state.has_dpcs.set(next.is_some());
        next
    })
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

/// [`abandon`] with the registers at which a stack walk begins.
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

/// Abandons the stack for a fault that no handler took.
pub(super) fn abandon_fault(fault: Fault) -> ! {
    STATE.with(|state| state.fault.set(Some(fault)));
    leave(Cause::Fault)
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

//! Suspends a thread inside a driver, at an instruction that the caller chooses.
//!
//! Windows suspends a thread where it is, but not at DISPATCH_LEVEL: a suspension is an APC, which waits until the IRQL
//! falls. It is the same here: the thread runs with the trap flag set, every instruction of a driver below
//! DISPATCH_LEVEL is counted, and at the chosen one the thread stays in the signal handler until it is resumed. What
//! the driver holds there it holds meanwhile, as a hostile program can make it.

use super::{context, modules};
use nt_abi::Irql;
use std::arch::asm;
use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// TF of EFLAGS (Intel SDM volume 1, 3.4.3.3).
const TRAP_FLAG: i64 = 0x100;
const MOMENT: Duration = Duration::from_millis(1);

const RUNS: u32 = 0;
const SUSPENDED: u32 = 1;
const RESUMED: u32 = 2;
const ENDED: u32 = 3;

thread_local! {
    /// The suspension that waits for this thread; a cell without a destructor, because the signal handler reads it.
    static MINE: Cell<*const Suspension> = const { Cell::new(ptr::null()) };
}

/// One suspension of one thread.
#[derive(Debug)]
pub struct Suspension {
    /// How many instructions of drivers below DISPATCH_LEVEL are left before the one at which it stops.
    left: AtomicU64,
    state: AtomicU32,
}

impl Suspension {
    /// Suspends after this many instructions of drivers below DISPATCH_LEVEL.
    #[must_use]
    pub fn at(instruction: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(instruction), state: AtomicU32::new(RUNS) })
    }

    /// Runs `f` on this thread, which is suspended when it reaches the instruction.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        MINE.set(self);
        set_trap_flag();
        let value = f();
        clear_trap_flag();
        MINE.set(ptr::null());
        self.state.store(ENDED, Ordering::Release);
        value
    }

    /// Called by another thread: waits until the thread is suspended; false when it ended without reaching the
    /// instruction.
    #[must_use]
    pub fn wait(&self) -> bool {
        loop {
            match self.state.load(Ordering::Acquire) {
                RUNS => thread::sleep(MOMENT),
                state => return state == SUSPENDED,
            }
        }
    }

    /// Resumes the thread.
    pub fn resume(&self) {
        self.state.store(RESUMED, Ordering::Release);
    }
}

/// Called by the SIGTRAP handler; whether the signal was our single step. Async-signal-safe.
pub(super) fn stepped(registers: &mut [i64; 23]) -> bool {
    let mine = MINE.get();
    // SAFETY: set while `run` of this thread borrows the suspension, and null otherwise.
    let Some(suspension) = (unsafe { mine.as_ref() }) else { return false };
    let rip = registers[libc::REG_RIP as usize] as u64;
    let below = context::if_inside(|_, kpcr| kpcr.irql() < Irql::DISPATCH).unwrap_or(false);
    if !below || !modules::is_driver(rip) {
        return true;
    }
    let left = suspension.left.load(Ordering::Relaxed);
    if left != 0 {
        suspension.left.store(left - 1, Ordering::Relaxed);
        return true;
    }
    suspension.state.store(SUSPENDED, Ordering::Release);
    while suspension.state.load(Ordering::Acquire) != RESUMED {
        let moment = libc::timespec { tv_sec: 0, tv_nsec: MOMENT.subsec_nanos().into() };
        // SAFETY: an async-signal-safe call with a structure that lives for it.
        unsafe { libc::nanosleep(&raw const moment, ptr::null_mut()) };
    }
    registers[libc::REG_EFL as usize] &= !TRAP_FLAG;
    MINE.set(ptr::null());
    true
}

fn set_trap_flag() {
    // SAFETY: changes the trap flag alone, whose signal `stepped` takes while this thread's suspension is set.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
}

fn clear_trap_flag() {
    // SAFETY: changes the trap flag alone, back to what every thread runs with.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
}

//! CPU faults in driver code.
//!
//! SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGTRAP raised while a thread is inside [`super::enter`] are the driver's (or an
//! export's that touched what the driver gave it). The handler records the registers and lets the thread continue on
//! its host stack as if the call had been abandoned; everything else happens there, outside the signal handler. Faults
//! of any other thread go to the handler that was there before.

use super::bugcheck::{self, Bugcheck, code};
use super::context;
use super::seh;
use super::seh::record::ExceptionRecord;
use super::switch;
use super::unwind::Registers;
use crate::machine::Machine;
use crate::nt::rtl::copy;
use core::ops::Range;
use core::ptr;
use nt_abi::Irql;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

const SIGNALS: [libc::c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

/// The previous dispositions, leaked, indexed by signal number.
static PREVIOUS: [AtomicPtr<libc::sigaction>; 32] = [const { AtomicPtr::new(ptr::null_mut()) }; 32];

/// x86 exception vectors (Intel SDM volume 3, table 6-1).
mod vector {
    pub(super) const DIVIDE_ERROR: u64 = 0;
    pub(super) const BREAKPOINT: u64 = 3;
    pub(super) const INVALID_OPCODE: u64 = 6;
    pub(super) const GENERAL_PROTECTION: u64 = 13;
    pub(super) const PAGE_FAULT: u64 = 14;
}

/// A fault as the signal handler saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    vector: u64,
    /// For a page fault: bit 0 present, bit 1 write, bit 4 instruction fetch.
    error: u64,
    address: u64,
    rcx: u64,
    registers: Registers,
    /// The first bytes at `rip`, when it is readable.
    instruction: [u8; 16],
}

/// Installs the handlers, once per process.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        super::shared_data::prepare();
        for signal in SIGNALS {
            // SAFETY: sigaction is given zeroed-then-filled structures that live for the call; the handler is
            // async-signal-safe (see `on_signal`).
            unsafe {
                let mut action: libc::sigaction = core::mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                let previous = Box::leak(Box::new(core::mem::zeroed()));
                if libc::sigaction(signal, &action, previous) == 0 {
                    PREVIOUS[signal as usize].store(previous, Ordering::Release);
                }
            }
        }
    });
}

/// The stack signal handlers of this thread run on, so that an overflow of the kernel stack can be handled at all.
#[derive(Debug)]
pub(super) struct AlternateStack {
    base: *mut libc::c_void,
}

const ALTERNATE_SIZE: usize = 64 * 1024;

impl AlternateStack {
    /// Maps a stack and sets it for this thread.
    pub(super) fn install() -> Self {
        // SAFETY: a fresh anonymous mapping, handed to the kernel as this thread's signal stack.
        unsafe {
            let base = libc::mmap(
                ptr::null_mut(),
                ALTERNATE_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert!(base != libc::MAP_FAILED, "cannot map a signal stack: {}", std::io::Error::last_os_error());
            let stack = libc::stack_t { ss_sp: base, ss_flags: 0, ss_size: ALTERNATE_SIZE };
            let done = libc::sigaltstack(&stack, ptr::null_mut());
            assert!(done == 0, "sigaltstack: {}", std::io::Error::last_os_error());
            Self { base }
        }
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        // SAFETY: runs on the thread that installed it (the owner is thread-local) and not in a signal handler; the
        // kernel forgets the stack before it is unmapped.
        unsafe {
            let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
            libc::sigaltstack(&none, ptr::null_mut());
            libc::munmap(self.base, ALTERNATE_SIZE);
        }
    }
}

/// The handler. Async-signal-safe: it reads thread-local cells without destructors and the frame it was given.
unsafe extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, frame: *mut libc::c_void) {
    if signal == libc::SIGTRAP
        // SAFETY: the kernel passes a valid ucontext, which nobody else touches during the handler.
        && super::suspend::stepped(unsafe { &mut (*frame.cast::<libc::ucontext_t>()).uc_mcontext.gregs })
    {
        return;
    }
    let handled = context::if_inside(|state, kpcr| {
        // SAFETY: the kernel passes a valid ucontext, which nobody else touches during the handler.
        let frame = unsafe { &mut *frame.cast::<libc::ucontext_t>() };
        if super::emulate::privileged(&mut frame.uc_mcontext.gregs, kpcr) {
            return;
        }
        // SAFETY: as above; for these signals si_addr is set.
        let address = unsafe { (*info).si_addr() } as u64;
        let registers = &frame.uc_mcontext.gregs;
        // Not an instruction fetch (bit 4): no pool page is executable.
        let touched = signal == libc::SIGSEGV
            && registers[libc::REG_TRAPNO as usize] as u64 == vector::PAGE_FAULT
            && registers[libc::REG_ERR as usize] & 16 == 0;
        if touched && kpcr.irql() < Irql::DISPATCH && context::machine().pool.bring_back(address) {
            return;
        }
        if touched && super::shared_data::read(&mut frame.uc_mcontext.gregs, address, context::machine()) {
            return;
        }
        let fault = Fault::from_frame(signal, address, &frame.uc_mcontext.gregs);
        if let Some(copy::Left::Touch) = copy::leave(&mut frame.uc_mcontext.gregs) {
            return;
        }
        if seh::fault::redirect(frame, &fault, state) {
            return;
        }
        state.fault.set(Some(fault));
        let registers = &mut frame.uc_mcontext.gregs;
        // SAFETY: this thread's cell, written by the `call_on` we are inside of.
        let host_rsp = unsafe { *state.host_rsp.get() };
        let get = |r: libc::c_int| r as usize;
        registers[get(libc::REG_RIP)] = switch::abandon as *const () as i64;
        registers[get(libc::REG_RDI)] = host_rsp as i64;
        // `abandon` loads rsp from rdi; until then the red zone below it must be memory.
        registers[get(libc::REG_RSP)] = host_rsp as i64;
        // The trap and alignment-check flags would fault again in our code.
        registers[get(libc::REG_EFL)] &= !0x4_0500;
    });
    if handled.is_none() {
        chain(signal, info, frame);
    }
}

/// Passes a signal that is not ours to the previous handler.
fn chain(signal: libc::c_int, info: *mut libc::siginfo_t, frame: *mut libc::c_void) {
    let previous = PREVIOUS[signal as usize].load(Ordering::Acquire);
    // SAFETY: leaked by `install`, never written again.
    let action = unsafe { previous.as_ref() };
    match action {
        Some(action) if action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN => {
            if action.sa_flags & libc::SA_SIGINFO != 0 {
                // SAFETY: a handler with SA_SIGINFO has this type.
                let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    unsafe { core::mem::transmute(action.sa_sigaction) };
                handler(signal, info, frame);
            } else {
                // SAFETY: a handler without SA_SIGINFO has this type.
                let handler: extern "C" fn(libc::c_int) = unsafe { core::mem::transmute(action.sa_sigaction) };
                handler(signal);
            }
        }
        // SAFETY: back to the default; the instruction faults again and ends the process with a core.
        _ => unsafe {
            libc::signal(signal, libc::SIG_DFL);
        },
    }
}

impl Fault {
    fn from_frame(signal: libc::c_int, address: u64, frame: &[i64; 23]) -> Self {
        let get = |r: libc::c_int| frame[r as usize] as u64;
        let registers = Registers {
            rip: get(libc::REG_RIP),
            rsp: get(libc::REG_RSP),
            rbp: get(libc::REG_RBP),
            others: [
                (3, get(libc::REG_RBX)),
                (6, get(libc::REG_RSI)),
                (7, get(libc::REG_RDI)),
                (12, get(libc::REG_R12)),
                (13, get(libc::REG_R13)),
                (14, get(libc::REG_R14)),
                (15, get(libc::REG_R15)),
            ],
        };
        let vector = match signal {
            libc::SIGFPE => vector::DIVIDE_ERROR,
            _ => get(libc::REG_TRAPNO),
        };
        // An instruction that faulted for another reason than its own fetch is readable.
        let fetched = !(vector == vector::PAGE_FAULT && address == registers.rip);
        let instruction = if fetched { super::emulate::bytes_at(registers.rip) } else { [0; 16] };
        Self { vector, error: get(libc::REG_ERR), address, rcx: get(libc::REG_RCX), registers, instruction }
    }

    /// The exception that Windows raises for it. None where Windows stops at once: a page fault at DISPATCH_LEVEL or
    /// above, and one at a kernel address, which here means in the pool, a driver's image, the kernel stack or the
    /// upper half.
    ///
    /// Sources: "Handling Exceptions" (WDK) on what cannot be caught; winnt.h for the codes and parameters.
    pub(super) fn exception(&self, machine: &Machine, irql: Irql, stack: &Range<u64>) -> Option<ExceptionRecord> {
        let record = |code, parameters: &[u64]| Some(ExceptionRecord::new(code, 0, self.registers.rip, parameters));
        match self.vector {
            vector::PAGE_FAULT => {
                let (write, fetch) = (self.error & 2 != 0, self.error & 16 != 0);
                let kernels = self.address >> 47 != 0
                    || stack.contains(&self.address)
                    || super::modules::is_driver(self.address)
                    || machine.pool.explain(self.address).is_some();
                let raised = irql < Irql::DISPATCH && !fetch && !kernels;
                record(0xc000_0005, &[u64::from(write), self.address]).filter(|_| raised)
            }
            vector::GENERAL_PROTECTION if self.instruction.starts_with(&[0xcd, 0x29]) => None,
            vector::GENERAL_PROTECTION => record(0xc000_0005, &[0, u64::MAX]),
            vector::DIVIDE_ERROR => record(0xc000_0094, &[]),
            vector::INVALID_OPCODE => record(0xc000_001d, &[]),
            vector::BREAKPOINT => record(0x8000_0003, &[0]),
            _ => None,
        }
    }

    /// The stop code that Windows would show, with its parameters, for a fault that raises no exception or one that is
    /// not handled.
    ///
    /// Sources: the Bug Check Code Reference for each code.
    pub(super) fn bugcheck(&self, machine: &Machine, irql: Irql, stack: &Range<u64>, guard: &Range<u64>) -> Bugcheck {
        let rip = self.registers.rip;
        let (code, parameters, why) = match self.vector {
            vector::PAGE_FAULT if guard.contains(&self.address) => (
                code::UNEXPECTED_KERNEL_MODE_TRAP,
                [8, self.address, self.registers.rsp, rip],
                "the kernel stack overflowed".to_owned(),
            ),
            vector::PAGE_FAULT => {
                let (code, parameters, mut why) = self.page_fault(irql);
                if let Some(pool) = machine.pool.explain(self.address) {
                    why = format!("{why} ({pool})");
                }
                (code, parameters, why)
            }
            vector::GENERAL_PROTECTION if self.instruction.starts_with(&[0xcd, 0x29]) => (
                code::KERNEL_SECURITY_CHECK_FAILURE,
                [self.rcx, 0, 0, 0],
                format!("the driver called __fastfail({})", self.rcx),
            ),
            vector::GENERAL_PROTECTION => (
                code::KMODE_EXCEPTION_NOT_HANDLED,
                [0xffff_ffff_c000_0005, rip, 0, u64::MAX],
                "a general protection fault: an address that is not canonical, or a privileged instruction".to_owned(),
            ),
            vector::DIVIDE_ERROR => (
                code::KMODE_EXCEPTION_NOT_HANDLED,
                [0xffff_ffff_c000_0094, rip, 0, 0],
                "an integer was divided by zero, or the quotient did not fit".to_owned(),
            ),
            vector::INVALID_OPCODE => (
                code::KMODE_EXCEPTION_NOT_HANDLED,
                [0xffff_ffff_c000_001d, rip, 0, 0],
                "an invalid instruction was executed".to_owned(),
            ),
            vector::BREAKPOINT => (
                code::KMODE_EXCEPTION_NOT_HANDLED,
                [0xffff_ffff_8000_0003, rip, 0, 0],
                "a breakpoint was hit and no debugger is attached".to_owned(),
            ),
            other => (
                code::UNEXPECTED_KERNEL_MODE_TRAP,
                [other, self.error, rip, 0],
                format!("CPU exception {other} with error code {:#x}", self.error),
            ),
        };
        bugcheck::raised(code, parameters, why, irql, &self.registers, stack)
    }

    fn page_fault(&self, irql: Irql) -> (u32, [u64; 4], String) {
        let (address, rip) = (self.address, self.registers.rip);
        let (write, fetch) = (self.error & 2 != 0, self.error & 16 != 0);
        let verb = if fetch {
            "executed"
        } else if write {
            "written"
        } else {
            "read"
        };
        let operation = if fetch { 0x10 } else { u64::from(write) };
        let why = format!("{address:#x} was {verb}");
        if irql >= Irql::DISPATCH {
            let why = format!("{why}, which is not valid memory");
            return (code::DRIVER_IRQL_NOT_LESS_OR_EQUAL, [address, u64::from(irql.0), operation, rip], why);
        }
        let present = self.error & 1 != 0;
        if fetch && present {
            let why = format!("{why}, which is not code");
            return (code::ATTEMPTED_EXECUTE_OF_NOEXECUTE_MEMORY, [address, 0, 0, 0], why);
        }
        if write && present {
            let why = format!("{why}, which is read-only memory");
            return (code::ATTEMPTED_WRITE_TO_READONLY_MEMORY, [address, 0, 0, 0], why);
        }
        let why = format!("{why}, which is not valid memory");
        (code::PAGE_FAULT_IN_NONPAGED_AREA, [address, operation, rip, 0], why)
    }
}

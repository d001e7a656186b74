//! From a CPU fault in driver code to the search for a handler.

use super::dispatch;
use super::entry::resume;
use super::record::{Context, FxSave};
use crate::cpu::context::{self, State};
use crate::cpu::emulate::GENERAL;
use crate::cpu::fault::Fault;
use crate::cpu::modules;

/// What the signal handler puts on the kernel stack, below the driver's frames.
#[repr(C, align(16))]
struct Raised {
    context: Context,
    fault: Fault,
}

/// Stack that the search and the handlers need. A fault closer to the guard than this stops the machine.
const ROOM: u64 = 16 * 1024;
const STATUS_BREAKPOINT: u32 = 0x8000_0003;
/// Below the driver's stack pointer: the return address and two registers pass there when execution continues.
const GAP: u64 = 256;

/// Continues the thread in the search for a handler instead of in the driver, if the fault is in the driver and there
/// is room. Async-signal-safe: on the alternate stack, the kernel stack below the driver's frames is unused.
pub(in crate::cpu) fn redirect(frame: &mut libc::ucontext_t, fault: &Fault, state: &State) -> bool {
    let (rip, rsp) = (frame.uc_mcontext.gregs[libc::REG_RIP as usize], frame.uc_mcontext.gregs[libc::REG_RSP as usize]);
    let stack = state.stack_range();
    if !modules::is_driver(rip as u64) || !stack.contains(&(rsp as u64)) || (rsp as u64) < stack.start + ROOM {
        return false;
    }
    let at = ((rsp as u64 - GAP - size_of::<Raised>() as u64) & !15) as *mut Raised;
    // SAFETY: inside the kernel stack, below everything in use; the kernel's frame has the floating-point state in the
    // form of FXSAVE.
    unsafe { at.write(Raised { context: context_of(frame), fault: *fault }) };
    let registers = &mut frame.uc_mcontext.gregs;
    registers[libc::REG_RIP as usize] = search as *const () as i64;
    registers[libc::REG_RDI as usize] = at as i64;
    // As after a call: the stack is aligned to 16 bytes with the return address on it.
    registers[libc::REG_RSP as usize] = at as i64 - 8;
    // The trap, direction and alignment-check flags would break our code.
    registers[libc::REG_EFL as usize] &= !0x4_0500;
    true
}

fn context_of(frame: &libc::ucontext_t) -> Context {
    let machine = &frame.uc_mcontext;
    let mut context = Context::zeroed();
    for (register, number) in context.registers.iter_mut().zip(GENERAL) {
        *register = machine.gregs[number as usize] as u64;
    }
    context.rip = machine.gregs[libc::REG_RIP as usize] as u64;
    context.eflags = machine.gregs[libc::REG_EFL as usize] as u32;
    if !machine.fpregs.is_null() {
        // SAFETY: the kernel's FXSAVE area of this frame.
        context.fx = unsafe { machine.fpregs.cast::<FxSave>().read_unaligned() };
    }
    context
}

/// Continues where a handler says, or stops the machine, as for any fault.
extern "sysv64" fn search(raised: &mut Raised) -> ! {
    let stack = context::stack_range().unwrap_or_default();
    let irql = context::kpcr().irql();
    if let Some(mut record) = raised.fault.exception(context::machine(), irql, &stack) {
        if record.code == STATUS_BREAKPOINT {
            // The processor is past the instruction; Windows reports its address.
            raised.context.rip -= 1;
        }
        record.address = raised.context.rip;
        // SAFETY: the driver's state when it faulted, on this stack; nothing between it and here owns anything.
        let continues = unsafe { dispatch(&mut record, &mut raised.context, &stack) };
        if continues {
            // SAFETY: as above; a filter asked for it.
            unsafe { resume(&raised.context) }
        }
    }
    context::abandon_fault(raised.fault)
}

//! Walks a kernel stack, through frames of drivers and ntsim.

use super::bugcheck::Frame;
use super::modules;
use core::ops::Range;
use framehop::x86_64::{CacheX86_64, Reg, UnwindRegsX86_64};
use framehop::{FrameAddress, Unwinder};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The most frames a walk reports.
const LIMIT: usize = 64;

/// The registers a walk starts from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Registers {
    pub(super) rip: u64,
    pub(super) rsp: u64,
    pub(super) rbp: u64,
    /// rbx, rsi, rdi, r12 to r15: what a driver's unwind codes may name as frame register.
    pub(super) others: [(u8, u64); 7],
}

impl Registers {
    /// Only the registers that every walk needs.
    pub(super) fn new(rip: u64, rsp: u64, rbp: u64) -> Self {
        Self { rip, rsp, rbp, others: [(0, 0); 7] }
    }

    /// The registers of the function this is inlined into.
    #[inline(always)]
    pub(super) fn here() -> Self {
        let (rip, rsp, rbp): (u64, u64, u64);
        // SAFETY: reads registers.
        unsafe {
            core::arch::asm!(
                "lea {rip}, [rip]",
                "mov {rsp}, rsp",
                "mov {rbp}, rbp",
                rip = out(reg) rip,
                rsp = out(reg) rsp,
                rbp = out(reg) rbp,
                options(nomem, nostack, preserves_flags),
            );
        }
        Self::new(rip, rsp, rbp)
    }

    fn to_framehop(self) -> UnwindRegsX86_64 {
        let mut regs = UnwindRegsX86_64::new(self.rip, self.rsp, self.rbp);
        for (number, value) in self.others {
            let reg = match number {
                3 => Reg::RBX,
                6 => Reg::RSI,
                7 => Reg::RDI,
                12 => Reg::R12,
                13 => Reg::R13,
                14 => Reg::R14,
                15 => Reg::R15,
                _ => continue,
            };
            regs.set(reg, value);
        }
        regs
    }
}

/// The frames from `registers` to the end of the kernel stack `stack`, which no longer runs or is the caller's.
pub(super) fn walk(registers: &Registers, stack: &Range<u64>) -> Vec<Frame> {
    // The unwinder reads the tables of a hostile image; at worst the walk ends early.
    catch_unwind(AssertUnwindSafe(|| walk_unguarded(registers, stack))).unwrap_or_default()
}

fn walk_unguarded(registers: &Registers, stack: &Range<u64>) -> Vec<Frame> {
    let mut read = |address: u64| {
        if address.is_multiple_of(8) && address >= stack.start && address < stack.end {
            // SAFETY: inside the stack, which stays mapped while this thread is here; any bits are a u64.
            Ok(unsafe { (address as *const u64).read_volatile() })
        } else {
            Err(())
        }
    };
    let mut registers = *registers;
    let mut frames = Vec::new();
    modules::with_unwinder(|unwinder, name| {
        if name.frame(registers.rip).module.is_none() {
            // A call through a bad pointer: the return address on the stack is the caller's.
            frames.push(name.frame(registers.rip));
            let Ok(caller) = read(registers.rsp) else { return };
            registers.rip = caller;
            registers.rsp += 8;
        }
        let mut cache = CacheX86_64::<_>::new();
        let mut regs = registers.to_framehop();
        let mut address = FrameAddress::from_instruction_pointer(registers.rip);
        while frames.len() < LIMIT {
            frames.push(name.frame(address.address()));
            match unwinder.unwind_frame(address, &mut regs, &mut cache, &mut read) {
                Ok(Some(caller)) => match FrameAddress::from_return_address(caller) {
                    Some(next) => address = next,
                    None => break,
                },
                Ok(None) | Err(_) => break,
            }
        }
    });
    frames
}

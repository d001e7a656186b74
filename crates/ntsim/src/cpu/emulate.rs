//! Emulates instructions that a driver may execute and a user-mode program may not.
//!
//! x64 headers read and write the IRQL inline (`mov rax, cr8`, `mov cr8, rax`): the instruction faults here, and the
//! fault handler performs it. Encodings: Intel SDM volume 2, "MOV—Move to/from Control Registers".

use super::kpcr::Kpcr;
use nt_abi::Irql;

/// Up to 16 bytes of code at `rip`, cut at the end of its page. `rip` has been fetched from, or is not canonical.
pub(super) fn bytes_at(rip: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    if rip == 0 || rip >> 47 != 0 {
        return bytes;
    }
    let length = (0x1000 - (rip & 0xfff)).min(16) as usize;
    // SAFETY: the processor has fetched an instruction at `rip`, so its page is mapped executable, which on x86 Linux
    // means readable; the copy does not leave that page.
    unsafe { core::ptr::copy_nonoverlapping(rip as *const u8, bytes.as_mut_ptr(), length) };
    bytes
}

/// Emulates the instruction at `rip` when it is a move from or to CR8. Async-signal-safe.
pub(super) fn privileged(registers: &mut [i64; 23], kpcr: &Kpcr) -> bool {
    const GENERAL_PROTECTION: i64 = 13;
    if registers[libc::REG_TRAPNO as usize] != GENERAL_PROTECTION {
        return false;
    }
    let rip = registers[libc::REG_RIP as usize] as u64;
    // REX.R makes control register 0 number 8; REX.B extends the general register; REX.W is ignored.
    let [rex, 0x0f, opcode @ (0x20 | 0x22), modrm, ..] = bytes_at(rip) else { return false };
    if rex & 0xf4 != 0x44 || modrm & 0xf8 != 0xc0 {
        return false;
    }
    let number = (modrm & 7) | (rex & 1) << 3;
    let register = &mut registers[GENERAL[usize::from(number)] as usize];
    if opcode == 0x20 {
        *register = i64::from(kpcr.irql().0);
    } else {
        // Bits above 3 are reserved and fault on hardware too.
        let Ok(level @ 0..=15) = u8::try_from(*register) else { return false };
        kpcr.set_irql(Irql(level));
    }
    registers[libc::REG_RIP as usize] += 4;
    true
}

/// The general registers in the order of their encoding.
pub(super) const GENERAL: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

//! The page the kernel shares with every process, `KUSER_SHARED_DATA` (ntddk.h), where x64 drivers read it: at
//! 0xFFFFF780'00000000, by inlined accessors, and in the stub that fills the security cookie of drivers linked before
//! Windows 8.
//!
//! No Linux process can map that address, so a read faults, and the fault handler performs the instruction on a page
//! built for that moment, with current clocks. Loads, comparisons and tests are supported, which is what compilers emit
//! for such reads; any other instruction faults, as does every write, as on Windows.

use super::emulate::GENERAL;
use crate::machine::Machine;
use crate::nt::clock::PER_SECOND;
use core::ops::Range;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// Its address, and how long it is (Windows 10 22H2 uses 0x738 bytes of the page).
const ADDRESS: Range<u64> = 0xFFFF_F780_0000_0000..0xFFFF_F780_0000_1000;
/// 100 ns units between two ticks.
const TICK: u64 = 156_250;

/// Initializes the decoder: it allocates its tables on first use, which must not be in the signal handler.
pub(super) fn prepare() {
    decode(&[0x90; 16], 0);
}

fn decode(bytes: &[u8; 16], rip: u64) -> Instruction {
    Decoder::with_ip(64, bytes, rip, DecoderOptions::NONE).decode()
}

/// Emulates the instruction at `rip` when it reads the page. Async-signal-safe.
pub(super) fn read(registers: &mut [i64; 23], address: u64, machine: &Machine) -> bool {
    const WRITE: i64 = 2;
    if !ADDRESS.contains(&address) || registers[libc::REG_ERR as usize] & WRITE != 0 {
        return false;
    }
    let rip = registers[libc::REG_RIP as usize] as u64;
    let instruction = decode(&super::emulate::bytes_at(rip), rip);
    let size = instruction.memory_size().size();
    let offset = (address - ADDRESS.start) as usize;
    let page = page(machine);
    let Some(bytes) = page.get(offset..offset + size).filter(|_| size <= 8) else { return false };
    let mut value = [0; 8];
    value[..size].copy_from_slice(bytes);
    let value = u64::from_le_bytes(value);
    if !execute(registers, &instruction, value, size) {
        return false;
    }
    registers[libc::REG_RIP as usize] = instruction.next_ip() as i64;
    true
}

/// Performs `instruction` with `value`, the operand of `size` bytes that it reads from memory.
fn execute(registers: &mut [i64; 23], instruction: &Instruction, value: u64, size: usize) -> bool {
    let bits = 8 * size as u32;
    let extended = ((value << (64 - bits)) as i64 >> (64 - bits)) as u64;
    match instruction.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movzx => set(registers, instruction.op0_register(), value),
        Mnemonic::Movsx | Mnemonic::Movsxd => set(registers, instruction.op0_register(), extended),
        Mnemonic::Cmp | Mnemonic::Test => {
            let operand = |index| match instruction.op_kind(index) {
                OpKind::Memory => Some(value),
                OpKind::Register => get(registers, instruction.op_register(index)),
                _ => instruction.try_immediate(index).ok(),
            };
            let (Some(first), Some(second)) = (operand(0), operand(1)) else { return false };
            let flags = &mut registers[libc::REG_EFL as usize];
            *flags = if instruction.mnemonic() == Mnemonic::Cmp {
                compare(*flags, first, second, bits)
            } else {
                let mask = u64::MAX >> (64 - bits);
                result_flags(*flags, first & second & mask, bits)
            };
            true
        }
        _ => false,
    }
}

const CARRY: i64 = 1;
const PARITY: i64 = 1 << 2;
const ADJUST: i64 = 1 << 4;
const ZERO: i64 = 1 << 6;
const SIGN: i64 = 1 << 7;
const OVERFLOW: i64 = 1 << 11;

/// Flags after an operation with this result that neither carries nor overflows.
fn result_flags(flags: i64, result: u64, bits: u32) -> i64 {
    let set = |condition: bool, flag: i64| if condition { flag } else { 0 };
    flags & !(CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW)
        | set((result as u8).count_ones().is_multiple_of(2), PARITY)
        | set(result == 0, ZERO)
        | set(result >> (bits - 1) & 1 == 1, SIGN)
}

/// Flags after `first - second`.
fn compare(flags: i64, first: u64, second: u64, bits: u32) -> i64 {
    let mask = u64::MAX >> (64 - bits);
    let (first, second) = (first & mask, second & mask);
    let result = first.wrapping_sub(second) & mask;
    let set = |condition: bool, flag: i64| if condition { flag } else { 0 };
    result_flags(flags, result, bits)
        | set(first < second, CARRY)
        | set((first ^ second ^ result) >> 4 & 1 == 1, ADJUST)
        | set(((first ^ second) & (first ^ result)) >> (bits - 1) & 1 == 1, OVERFLOW)
}

/// The place of a general register, and whether it is one of the second bytes (AH, CH, DH, BH).
fn place(register: Register) -> Option<(usize, u32)> {
    if !register.is_gpr() {
        return None;
    }
    let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
    let number = register.full_register().number();
    Some((*GENERAL.get(number)? as usize, if high { 8 } else { 0 }))
}

fn get(registers: &[i64; 23], register: Register) -> Option<u64> {
    let (at, shift) = place(register)?;
    let mask = u64::MAX >> (64 - 8 * register.size() as u32);
    Some((registers[at] as u64) >> shift & mask)
}

/// Writing 32 bits clears the upper half, writing fewer leaves the rest.
fn set(registers: &mut [i64; 23], register: Register, value: u64) -> bool {
    let Some((at, shift)) = place(register) else { return false };
    let slot = &mut registers[at];
    *slot = match register.size() {
        8 => value as i64,
        4 => i64::from(value as u32),
        size => {
            let mask = (u64::MAX >> (64 - 8 * size as u32)) << shift;
            ((*slot as u64) & !mask | value << shift & mask) as i64
        }
    };
    true
}

/// The page's current content. Fields that are not named here are zero.
fn page(machine: &Machine) -> [u8; 0x1000] {
    let mut page = [0; 0x1000];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    // KSYSTEM_TIME: the low half, and the high half twice, so that readers notice a change between their reads.
    let time = |value: u64| {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        bytes[8..].copy_from_slice(&((value >> 32) as u32).to_le_bytes());
        bytes
    };
    let interrupt = machine.clock.interrupt_time();
    put(0x004, &0x0FA0_0000_u32.to_le_bytes()); // TickCountMultiplier: 15.625 ms in 2^-24 ms
    put(0x008, &time(interrupt)); // InterruptTime
    put(0x014, &time(machine.clock.system_time())); // SystemTime; TimeZoneBias stays 0: UTC
    put(0x02C, &[0x64, 0x86, 0x64, 0x86]); // ImageNumberLow, ImageNumberHigh
    for (at, unit) in r"C:\Windows".encode_utf16().enumerate() {
        put(0x030 + 2 * at, &unit.to_le_bytes()); // NtSystemRoot
    }
    put(0x244, &0x20_0000_u32.to_le_bytes()); // LargePageMinimum
    put(0x260, &crate::nt::rtl::runtime::BUILD.to_le_bytes()); // NtBuildNumber
    put(0x264, &[1, 0, 0, 0, 1]); // NtProductType: a workstation; ProductTypeIsValid
    put(0x26A, &9_u16.to_le_bytes()); // NativeProcessorArchitecture: AMD64
    put(0x26C, &10_u32.to_le_bytes()); // NtMajorVersion; NtMinorVersion is 0
    for feature in [2, 3, 6, 8, 9, 10, 12] {
        // ProcessorFeatures that every x64 processor has: CMPXCHG8B, MMX, SSE, RDTSC, PAE, SSE2, NX.
        put(0x274 + feature, &[1]);
    }
    put(0x300, &PER_SECOND.to_le_bytes()); // QpcFrequency
    put(0x320, &time(interrupt / TICK)); // TickCount
    put(0x3C0, &machine.processors.count().to_le_bytes()); // ActiveProcessorCount
    put(0x3C4, &[1]); // ActiveGroupCount
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;
    use nt_abi::Irql;

    /// Runs machine code with rax = `rax` at PASSIVE_LEVEL; what it returns.
    fn run(machine: &std::sync::Arc<Machine>, code: &[u8], rcx: u64) -> Result<u64, cpu::Bugcheck> {
        let code = crate::pe::gate::map(code).unwrap();
        cpu::enter(machine, Irql::PASSIVE, || {
            // SAFETY: code of the test, a function of one argument.
            let function: extern "win64" fn(u64) -> u64 = unsafe { core::mem::transmute(code) };
            function(rcx)
        })
    }

    const BASE: u64 = 0xFFFF_F780_0000_0000;

    #[test]
    fn loads_of_every_size_are_done() {
        let machine = Machine::new();
        let load = |code: &[u8], offset| run(&machine, code, BASE + offset).unwrap();
        assert_eq!(load(&[0x8B, 0x01, 0xC3], 0x260), 19045, "mov eax, [rcx]");
        assert_eq!(load(&[0x8A, 0x01, 0x0F, 0xB6, 0xC0, 0xC3], 0x26C), 10, "mov al, [rcx]; movzx eax, al");
        assert_eq!(load(&[0x0F, 0xB7, 0x01, 0xC3], 0x26A), 9, "movzx eax, word [rcx]");
        assert_eq!(load(&[0x48, 0x63, 0x01, 0xC3], 0x004), 0x0FA0_0000, "movsxd rax, [rcx]");
        assert_eq!(load(&[0x48, 0x8B, 0x41, 0x08, 0xC3], 0x2F8), PER_SECOND, "mov rax, [rcx + 8]");
        // mov rax, [moffs64]
        let mut code = vec![0x48, 0xA1];
        code.extend((BASE + 0x300).to_le_bytes());
        code.push(0xC3);
        assert_eq!(run(&machine, &code, 0).unwrap(), PER_SECOND);
    }

    #[test]
    fn comparisons_set_the_flags() {
        let machine = Machine::new();
        // xor eax, eax; cmp dword [rcx], imm32; setCC al; ret
        let compare = |immediate: u32, condition: u8| {
            let mut code = vec![0x31, 0xC0, 0x81, 0x39];
            code.extend(immediate.to_le_bytes());
            code.extend([0x0F, condition, 0xC0, 0xC3]);
            run(&machine, &code, BASE + 0x260).unwrap() == 1
        };
        const EQUAL: u8 = 0x94;
        const BELOW: u8 = 0x92;
        const LESS: u8 = 0x9C;
        assert!(compare(19045, EQUAL) && !compare(19044, EQUAL));
        assert!(compare(19046, BELOW) && !compare(19045, BELOW) && !compare(7601, BELOW));
        assert!(compare(22000, LESS) && !compare(-1_i32 as u32, LESS) && compare(-1_i32 as u32, BELOW));
        // xor eax, eax; test byte [rcx], 1; setne al; ret
        let test = [0x31, 0xC0, 0xF6, 0x01, 0x01, 0x0F, 0x95, 0xC0, 0xC3];
        assert_eq!(run(&machine, &test, BASE + 0x274 + 10).unwrap(), 1, "SSE2");
        assert_eq!(run(&machine, &test, BASE + 0x274 + 1).unwrap(), 0);
    }

    #[test]
    fn flags_are_those_of_the_processor() {
        use core::arch::asm;
        for (first, second) in [(0_u32, 0_u32), (1, 2), (0x8000_0000, 1), (0x7FFF_FFFF, u32::MAX), (0x10, 1), (5, 5)] {
            let flags: u64;
            // SAFETY: compares two registers and reads the flags.
            unsafe { asm!("cmp {:e}, {:e}", "pushfq", "pop {}", in(reg) first, in(reg) second, lateout(reg) flags) };
            let known = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW;
            assert_eq!(compare(0, first.into(), second.into(), 32), flags as i64 & known, "{first:#x} - {second:#x}");
        }
    }

    #[test]
    fn clocks_run_and_writes_fault() {
        let machine = Machine::new();
        let tick = || run(&machine, &[0x48, 0x8B, 0x01, 0xC3], BASE + 0x320).unwrap();
        let before = tick();
        machine.clock.push(std::time::Duration::from_secs(1));
        assert!((64..70).contains(&(tick() - before)), "64 ticks a second");
        // mov [rcx], eax
        let stopped = run(&machine, &[0x89, 0x01, 0xC3], BASE).unwrap_err();
        assert!(stopped.why.contains("0xfffff78000000000 was written"), "{stopped}");
    }

    #[test]
    fn what_compilers_do_not_make_faults() {
        // xchg would be a write; movups is not a general load.
        let stopped = run(&Machine::new(), &[0x0F, 0x10, 0x01, 0xC3], BASE).unwrap_err();
        assert!(stopped.why.contains("was read"), "{stopped}");
    }
}

//! Copying, filling, comparing and measuring: the routines that drivers touch a caller's memory with inside `__try`.
//!
//! They are written as string instructions, in a section of their own: they touch no vector register, which a call to a
//! System V function would have to save for a win64 caller, and a fault in one is known for the driver's
//! ([`leave`]).

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::export::exports;
use core::arch::naked_asm;

exports! {
    "ntoskrnl.exe";
    memcpy: HIGH,
    memmove: HIGH,
    memset: HIGH,
    RtlCopyMemory: HIGH,
    RtlCopyMemoryNonTemporal: HIGH,
    RtlMoveMemory: HIGH,
    RtlFillMemory: HIGH,
    RtlZeroMemory: HIGH,
    memcmp: HIGH,
    RtlCompareMemory: HIGH,
    strlen: HIGH,
    wcslen: HIGH,
}

unsafe extern "C" {
    /// The linker's names for the two ends of the section.
    static __start_ntsim_copy: u8;
    static __stop_ntsim_copy: u8;
    static __start_ntsim_touch: u8;
    static __stop_ntsim_touch: u8;
}

/// Whose a fault in this room is.
pub(crate) enum Left {
    /// The routine's caller in the driver.
    Driver,
    /// Nobody's: [`touch`] has answered.
    Touch,
}

/// Goes back from a fault at one of the string instructions to the call, with every register put back that a call
/// preserves: the routines keep rdi in r10 and rsi in r11, and leave the stack alone. None for a fault elsewhere.
/// Async-signal-safe.
pub(crate) fn leave(registers: &mut [i64; 23]) -> Option<Left> {
    const DIRECTION_FLAG: i64 = 0x400;
    let copy = &raw const __start_ntsim_copy as u64..&raw const __stop_ntsim_copy as u64;
    let touch = &raw const __start_ntsim_touch as u64..&raw const __stop_ntsim_touch as u64;
    let left = match registers[libc::REG_RIP as usize] as u64 {
        rip if copy.contains(&rip) => Left::Driver,
        rip if touch.contains(&rip) => Left::Touch,
        _ => return None,
    };
    registers[libc::REG_RDI as usize] = registers[libc::REG_R10 as usize];
    registers[libc::REG_RSI as usize] = registers[libc::REG_R11 as usize];
    // SAFETY: the routines push nothing, so the return address is where rsp points.
    registers[libc::REG_RIP as usize] = unsafe { (registers[libc::REG_RSP as usize] as *const i64).read() };
    registers[libc::REG_RSP as usize] += 8;
    registers[libc::REG_EFL as usize] &= !DIRECTION_FLAG;
    Some(left)
}

/// The first byte of `address..address + length` that cannot be read, or written with `write`; a byte of each page is
/// tried, and written back unchanged by one atomic operation, so that no other write is lost. Inside `cpu::enter` only.
pub(crate) fn first_inaccessible(address: usize, length: usize, write: bool) -> Option<usize> {
    const PAGE: usize = 0x1000;
    // SAFETY: the signature of `touch`, which changes nothing whatever the address.
    let touch: extern "win64" fn(usize, u32) -> u32 = unsafe { core::mem::transmute(touch as *const ()) };
    let end = address.saturating_add(length);
    let mut at = address;
    while at < end {
        if touch(at, u32::from(write)) == 0 {
            return Some(at);
        }
        at = (at | (PAGE - 1)).saturating_add(1);
    }
    None
}

/// `touch(address, write)`: 1, or 0 from the fault handler when the address cannot be accessed.
#[unsafe(naked)]
#[unsafe(link_section = "ntsim_touch")]
unsafe extern "win64" fn touch() {
    naked_asm!(
        "mov r10, rdi",
        "mov r11, rsi",
        "xor eax, eax",
        "test edx, edx",
        "jnz 2f",
        "mov dl, [rcx]",
        "mov eax, 1",
        "ret",
        "2:",
        "lock or byte ptr [rcx], 0",
        "mov eax, 1",
        "ret",
    )
}

/// `memcpy(to, from, count)`: forward.
#[unsafe(naked)]
#[unsafe(link_section = "ntsim_copy")]
unsafe extern "win64" fn memcpy() {
    naked_asm!(
        "mov rax, rcx",
        "mov r10, rdi",
        "mov r11, rsi",
        "mov rdi, rcx",
        "mov rsi, rdx",
        "mov rcx, r8",
        "rep movsb",
        "mov rdi, r10",
        "mov rsi, r11",
        "ret",
    )
}

/// `memmove(to, from, count)`: backward when the destination begins inside the source.
#[unsafe(naked)]
#[unsafe(link_section = "ntsim_copy")]
unsafe extern "win64" fn memmove() {
    naked_asm!(
        "mov rax, rcx",
        "sub rax, rdx",
        "cmp rax, r8",
        "jae {forward}",
        "mov rax, rcx",
        "mov r10, rdi",
        "mov r11, rsi",
        "lea rdi, [rcx + r8 - 1]",
        "lea rsi, [rdx + r8 - 1]",
        "mov rcx, r8",
        "std",
        "rep movsb",
        "cld",
        "mov rdi, r10",
        "mov rsi, r11",
        "ret",
        forward = sym memcpy,
    )
}

/// `memset(to, value, count)`.
#[unsafe(naked)]
#[unsafe(link_section = "ntsim_copy")]
unsafe extern "win64" fn memset() {
    naked_asm!(
        "mov r9, rcx",
        "mov r10, rdi",
        "mov r11, rsi",
        "mov rdi, rcx",
        "mov eax, edx",
        "mov rcx, r8",
        "rep stosb",
        "mov rdi, r10",
        "mov rax, r9",
        "ret",
    )
}

/// As [`memcpy`], without its result.
#[unsafe(naked)]
unsafe extern "win64" fn RtlCopyMemory() {
    naked_asm!("jmp {}", sym memcpy)
}

/// As [`memcpy`]: caches are not simulated.
#[unsafe(naked)]
unsafe extern "win64" fn RtlCopyMemoryNonTemporal() {
    naked_asm!("jmp {}", sym memcpy)
}

/// As [`memmove`], without its result.
#[unsafe(naked)]
unsafe extern "win64" fn RtlMoveMemory() {
    naked_asm!("jmp {}", sym memmove)
}

/// `RtlFillMemory(to, count, value)`.
#[unsafe(naked)]
unsafe extern "win64" fn RtlFillMemory() {
    naked_asm!("xchg rdx, r8", "jmp {}", sym memset)
}

/// `RtlZeroMemory(to, count)`.
#[unsafe(naked)]
unsafe extern "win64" fn RtlZeroMemory() {
    naked_asm!("mov r8, rdx", "xor edx, edx", "jmp {}", sym memset)
}

/// `memcmp(a, b, count)`: the difference of the first bytes that differ.
#[unsafe(naked)]
#[unsafe(link_section = "ntsim_copy")]
unsafe extern "win64" fn memcmp() {
    naked_asm!(
        "mov r10, rdi",
        "mov r11, rsi",
        "mov rsi, rcx",
        "mov rdi, rdx",
        "mov rcx, r8",
        "xor eax, eax", // nothing is equal to nothing
        "repe cmpsb",
        "je 2f",
        "movzx eax, byte ptr [rsi - 1]",
        "movzx ecx, byte ptr [rdi - 1]",
        "sub eax, ecx",
        "2:",
        "mov rdi, r10",
        "mov rsi, r11",
        "ret",
    )
}

/// `RtlCompareMemory(a, b, count)`: how many bytes are equal before the first difference.
#[unsafe(naked)]
#[unsafe(link_section = "ntsim_copy")]
unsafe extern "win64" fn RtlCompareMemory() {
    naked_asm!(
        "mov r10, rdi",
        "mov r11, rsi",
        "mov rsi, rcx",
        "mov rdi, rdx",
        "mov rcx, r8",
        "xor eax, eax", // nothing is equal to nothing
        "repe cmpsb",
        "mov rax, r8",
        "je 2f",
        "sub rax, rcx",
        "dec rax",
        "2:",
        "mov rdi, r10",
        "mov rsi, r11",
        "ret",
    )
}

/// `strlen(text)`.
#[unsafe(naked)]
#[unsafe(link_section = "ntsim_copy")]
unsafe extern "win64" fn strlen() {
    naked_asm!(
        "mov r10, rdi",
        "mov r11, rsi",
        "mov rdi, rcx",
        "mov rcx, -1",
        "xor eax, eax",
        "repne scasb",
        "not rcx",
        "lea rax, [rcx - 1]",
        "mov rdi, r10",
        "ret",
    )
}

/// `wcslen(text)`, in characters.
#[unsafe(naked)]
#[unsafe(link_section = "ntsim_copy")]
unsafe extern "win64" fn wcslen() {
    naked_asm!(
        "mov r10, rdi",
        "mov r11, rsi",
        "mov rdi, rcx",
        "mov rcx, -1",
        "xor eax, eax",
        "repne scasw",
        "not rcx",
        "lea rax, [rcx - 1]",
        "mov rdi, r10",
        "ret",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::transmute;

    type Copy = unsafe extern "win64" fn(*mut u8, *const u8, usize) -> *mut u8;

    #[test]
    fn copies_overlap_as_memmove_does() {
        // SAFETY: the signature of the documentation.
        let copy: Copy = unsafe { transmute(memmove as *const ()) };
        for (to, from, count) in [(0, 5, 10), (5, 0, 10), (3, 3, 10), (0, 9, 0), (12, 2, 10), (1, 0, 20)] {
            let mut bytes: Vec<u8> = (0..32).collect();
            let mut expected = bytes.clone();
            expected.copy_within(from..from + count, to);
            let base = bytes.as_mut_ptr();
            // SAFETY: both stretches are in the vector.
            let answer = unsafe { copy(base.add(to), base.add(from), count) };
            assert_eq!((bytes, answer), (expected, base.wrapping_add(to)), "{count} from {from} to {to}");
        }
    }

    #[test]
    fn the_first_byte_that_cannot_be_accessed_is_found() {
        use crate::{cpu, machine::Machine};
        use nt_abi::Irql;
        // SAFETY: a fresh mapping of three pages.
        let base = unsafe {
            let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let base = libc::mmap(core::ptr::null_mut(), 3 * 4096, protection, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(base.add(4096), 4096, libc::PROT_READ), 0);
            assert_eq!(libc::mprotect(base.add(8192), 4096, libc::PROT_NONE), 0);
            base as usize
        };
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            assert_eq!(first_inaccessible(base + 10, 8000, false), None);
            assert_eq!(first_inaccessible(base + 10, 8192, false), Some(base + 8192));
            assert_eq!(first_inaccessible(base + 10, 4000, true), None);
            assert_eq!(first_inaccessible(base + 10, 8192, true), Some(base + 4096));
            assert_eq!(first_inaccessible(8, 8, false), Some(8));
            assert_eq!(first_inaccessible(usize::MAX - 4, 8, false), Some(usize::MAX - 4));
            let constant = c"constant".as_ptr() as usize;
            assert_eq!(first_inaccessible(constant, 8, false), None);
            assert_eq!(first_inaccessible(constant, 8, true), Some(constant), "constants are read-only");
            assert_eq!(first_inaccessible(base + 8192, 0, true), None);
        })
        .unwrap();
        // SAFETY: nobody uses it any more.
        unsafe { libc::munmap(base as *mut _, 3 * 4096) };
    }

    #[test]
    fn memory_is_compared_and_text_measured() {
        // SAFETY: the signatures of the documentation.
        let compare: unsafe extern "win64" fn(*const u8, *const u8, usize) -> i32 =
            unsafe { transmute(memcmp as *const ()) };
        // SAFETY: as above.
        let equal: unsafe extern "win64" fn(*const u8, *const u8, usize) -> usize =
            unsafe { transmute(RtlCompareMemory as *const ()) };
        // SAFETY: as above.
        let narrow: unsafe extern "win64" fn(*const u8) -> usize = unsafe { transmute(strlen as *const ()) };
        // SAFETY: as above.
        let wide: unsafe extern "win64" fn(*const u16) -> usize = unsafe { transmute(wcslen as *const ()) };
        let long = [7; 300];
        let mut other = long;
        other[299] = 200;
        // SAFETY: inside the arrays; the texts are terminated.
        unsafe {
            for (count, sign, same) in [(0, 0, 0), (1, 0, 1), (299, 0, 299), (300, -193, 299)] {
                assert_eq!(compare(long.as_ptr(), other.as_ptr(), count), sign);
                assert_eq!(equal(long.as_ptr(), other.as_ptr(), count), same);
            }
            assert_eq!((compare(other.as_ptr(), long.as_ptr(), 300), equal([1].as_ptr(), [2].as_ptr(), 1)), (193, 0));
            assert_eq!((narrow(c"".as_ptr().cast()), narrow(c"text".as_ptr().cast())), (0, 4));
            assert_eq!((wide([0].as_ptr()), wide([0x100, 1, 0, 2, 0].as_ptr())), (0, 2));
        }
    }

    #[test]
    fn memory_is_filled_and_zeroed() {
        // SAFETY: the signatures of the documentation.
        let fill: unsafe extern "win64" fn(*mut u8, usize, u8) = unsafe { transmute(RtlFillMemory as *const ()) };
        // SAFETY: as above.
        let zero: unsafe extern "win64" fn(*mut u8, usize) = unsafe { transmute(RtlZeroMemory as *const ()) };
        let mut bytes = [1; 8];
        // SAFETY: inside the array.
        unsafe {
            fill(bytes.as_mut_ptr().add(1), 5, 0xab);
            zero(bytes.as_mut_ptr().add(2), 2);
        }
        assert_eq!(bytes, [1, 0xab, 0, 0, 0xab, 0xab, 1, 1]);
    }
}

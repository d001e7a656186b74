//! Switches stacks.

use core::ffi::c_void;

/// Assembler for the start of a function: pushes the registers that the sysv64 ABI preserves, with a frame relative to
/// rbp. The function ends with `.cfi_endproc`.
macro_rules! push_preserved {
    () => {
        concat!(
            ".cfi_startproc\n",
            "push rbp\n",
            ".cfi_def_cfa_offset 16\n",
            ".cfi_offset rbp, -16\n",
            "mov rbp, rsp\n",
            ".cfi_def_cfa_register rbp\n",
            "push rbx\n",
            "push r12\n",
            "push r13\n",
            "push r14\n",
            "push r15",
        )
    };
}
pub(crate) use push_preserved;

/// Assembler that undoes [`push_preserved`] and returns.
macro_rules! pop_preserved {
    () => {
        "pop r15\npop r14\npop r13\npop r12\npop rbx\npop rbp\nret"
    };
}
pub(crate) use pop_preserved;

/// How a call on another stack ended.
pub(super) const RETURNED: u64 = 0;
/// It was abandoned by [`abandon`].
pub(super) const ABANDONED: u64 = 1;

/// Calls `entry(argument)` on the stack that ends at `stack_top` and returns [`RETURNED`], or [`ABANDONED`] when
/// [`abandon`] was given the value stored in `host_rsp`.
///
/// # Safety
/// `stack_top` is 16-byte aligned and the end of a writable mapping big enough for `entry` that nothing else uses;
/// `host_rsp` is valid for writing; `entry` may be called with `argument`.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn call_on(
    host_rsp: *mut u64,
    stack_top: *mut u8,
    entry: extern "sysv64" fn(*mut c_void),
    argument: *mut c_void,
) -> u64 {
    // The frame is relative to rbp, so that a panic's backtrace and a debugger can walk from the new stack to the old.
    core::arch::naked_asm!(
        push_preserved!(),
        "sub rsp, 8",
        "stmxcsr [rsp]",
        "fnstcw [rsp + 4]",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "mov rdi, rcx",
        "call rdx",
        "xor eax, eax",
        "lea rsp, [rbp - 48]",
        "jmp {restore}",
        ".cfi_endproc",
        restore = sym restore,
    )
}

/// Continues after the [`call_on`] whose `host_rsp` this is, as if it had returned [`ABANDONED`].
///
/// # Safety
/// `host_rsp` was stored by a `call_on` that has neither returned nor been abandoned, on this thread.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn abandon(host_rsp: u64) -> ! {
    core::arch::naked_asm!(
        "mov rsp, rdi",
        "mov eax, {abandoned}",
        "jmp {restore}",
        abandoned = const ABANDONED,
        restore = sym restore,
    )
}

/// The common end of `call_on` and `abandon`: `rsp` is the value stored in `host_rsp`, `rax` what to return.
#[unsafe(naked)]
unsafe extern "sysv64" fn restore() {
    core::arch::naked_asm!("cld", "ldmxcsr [rsp]", "fldcw [rsp + 4]", "add rsp, 8", pop_preserved!(),)
}

//! Captures and restores the registers of driver code.

use super::record::Context;

/// What [`raising`] takes from the stack: home space for the call and a context, so that rsp stays 16-byte aligned.
pub(crate) const RAISING_FRAME: usize = 32 + size_of::<Context>() + 8;

/// Defines an export that can raise an exception: `$inner` is called with the export's arguments, at most three, and as
/// fourth the driver's [`Context`] at the return of the call. It has the registers that a call preserves, which are all
/// that a handler continues with.
macro_rules! raising {
    ($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),*) => $inner:path) => {
        $(#[$attribute])*
        #[unsafe(naked)]
        unsafe extern "win64" fn $name($($argument: $type),*) {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "sub rsp, {frame}",
                ".cfi_adjust_cfa_offset {frame}",
                "lea rax, [rsp + 32]",
                "mov dword ptr [rax + 0x30], {full}",
                "mov [rax + 0x90], rbx",
                "lea r10, [rsp + {frame} + 8]",
                "mov [rax + 0x98], r10",
                "mov [rax + 0xa0], rbp",
                "mov [rax + 0xa8], rsi",
                "mov [rax + 0xb0], rdi",
                "mov [rax + 0xd8], r12",
                "mov [rax + 0xe0], r13",
                "mov [rax + 0xe8], r14",
                "mov [rax + 0xf0], r15",
                "mov r10, [rsp + {frame}]",
                "mov [rax + 0xf8], r10",
                "pushfq",
                "pop r10",
                "mov [rax + 0x44], r10d",
                "fxsave64 [rax + 0x100]",
                "mov r9, rax",
                "call {inner}",
                "add rsp, {frame}",
                ".cfi_adjust_cfa_offset -{frame}",
                "ret",
                ".cfi_endproc",
                frame = const $crate::cpu::seh::entry::RAISING_FRAME,
                full = const $crate::cpu::seh::record::CONTEXT_FULL,
                inner = sym $inner,
            )
        }
    };
}
pub(crate) use raising;

/// Continues at `context`. The instruction pointer and two registers pass through the stack below the context's stack
/// pointer.
///
/// # Safety
/// The context is that of code on this thread's kernel stack, above the running frame, and no frame in between is ever
/// returned to.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn resume(context: &Context) -> ! {
    core::arch::naked_asm!(
        "fxrstor64 [rdi + 0x100]",
        "mov eax, [rdi + 0x44]",
        "and eax, 0xcd5", // the arithmetic flags and the direction: traps are not restored
        "push rax",
        "popfq",
        "mov rax, [rdi + 0x98]",
        "mov rcx, [rdi + 0xf8]",
        "mov [rax - 8], rcx",
        "mov rcx, [rdi + 0xb0]",
        "mov [rax - 16], rcx",
        "mov rcx, [rdi + 0x78]",
        "mov [rax - 24], rcx",
        "mov rcx, [rdi + 0x80]",
        "mov rdx, [rdi + 0x88]",
        "mov rbx, [rdi + 0x90]",
        "mov rbp, [rdi + 0xa0]",
        "mov rsi, [rdi + 0xa8]",
        "mov r8, [rdi + 0xb8]",
        "mov r9, [rdi + 0xc0]",
        "mov r10, [rdi + 0xc8]",
        "mov r11, [rdi + 0xd0]",
        "mov r12, [rdi + 0xd8]",
        "mov r13, [rdi + 0xe0]",
        "mov r14, [rdi + 0xe8]",
        "mov r15, [rdi + 0xf0]",
        "lea rsp, [rax - 24]",
        "pop rax",
        "pop rdi",
        "ret",
    )
}

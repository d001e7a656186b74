//! The structures that handlers and filters get: EXCEPTION_RECORD, CONTEXT, EXCEPTION_POINTERS (winnt.h, x64) and
//! DISPATCHER_CONTEXT (winnt.h; "x64 exception handling", the structure definitions for language-specific handlers).

use core::ffi::c_void;
use core::mem::offset_of;

/// EXCEPTION_NONCONTINUABLE.
pub(crate) const NONCONTINUABLE: u32 = 1;
/// EXCEPTION_UNWINDING: handlers are called to clean up.
pub(super) const UNWINDING: u32 = 2;
/// EXCEPTION_TARGET_UNWIND: the frame is the one that execution continues in.
pub(super) const TARGET_UNWIND: u32 = 0x20;

/// EXCEPTION_RECORD.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct ExceptionRecord {
    pub(crate) code: u32,
    pub(crate) flags: u32,
    pub(crate) nested: *mut ExceptionRecord,
    pub(crate) address: u64,
    pub(crate) parameter_count: u32,
    pub(crate) parameters: [u64; 15],
}

impl ExceptionRecord {
    pub(crate) fn new(code: u32, flags: u32, address: u64, parameters: &[u64]) -> Self {
        let mut all = [0; 15];
        all[..parameters.len()].copy_from_slice(parameters);
        let parameter_count = parameters.len() as u32;
        Self { code, flags, nested: core::ptr::null_mut(), address, parameter_count, parameters: all }
    }
}

/// The vector and floating-point state as FXSAVE stores it (XSAVE_FORMAT).
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct FxSave(pub(crate) [u8; 512]);

/// The offset of XMM0.
const XMM0: usize = 160;

impl FxSave {
    pub(super) fn set_xmm(&mut self, number: usize, value: [u8; 16]) {
        let at = XMM0 + number % 16 * 16;
        self.0[at..at + 16].copy_from_slice(&value);
    }
}

/// CONTEXT.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Context {
    homes: [u64; 6],
    pub(crate) flags: u32,
    mx_csr: u32,
    segments: [u16; 6],
    pub(crate) eflags: u32,
    debug: [u64; 6],
    /// rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15: in the order of their encoding.
    pub(crate) registers: [u64; 16],
    pub(crate) rip: u64,
    pub(crate) fx: FxSave,
    vectors: [[u64; 2]; 26],
    last: [u64; 6],
}

/// CONTEXT_AMD64 with CONTEXT_CONTROL, CONTEXT_INTEGER and CONTEXT_FLOATING_POINT.
pub(crate) const CONTEXT_FULL: u32 = 0x10_000B;

/// The numbers of registers in [`Context::registers`].
pub(crate) const RAX: usize = 0;
pub(crate) const RSP: usize = 4;

const _: () = {
    assert!(size_of::<Context>() == 0x4d0);
    assert!(offset_of!(Context, eflags) == 0x44);
    assert!(offset_of!(Context, registers) == 0x78);
    assert!(offset_of!(Context, rip) == 0xf8);
    assert!(offset_of!(Context, fx) == 0x100);
    assert!(size_of::<ExceptionRecord>() == 152);
    assert!(size_of::<DispatcherContext>() == 80);
};

impl Context {
    pub(crate) const fn zeroed() -> Self {
        Self {
            homes: [0; 6],
            flags: CONTEXT_FULL,
            mx_csr: 0,
            segments: [0; 6],
            eflags: 0,
            debug: [0; 6],
            registers: [0; 16],
            rip: 0,
            fx: FxSave([0; 512]),
            vectors: [[0; 2]; 26],
            last: [0; 6],
        }
    }

    pub(crate) const fn rsp(&self) -> u64 {
        self.registers[RSP]
    }
}

/// EXCEPTION_POINTERS: the argument of a filter expression.
#[derive(Debug)]
#[repr(C)]
pub(super) struct ExceptionPointers {
    pub(super) record: *mut ExceptionRecord,
    pub(super) context: *mut Context,
}

/// DISPATCHER_CONTEXT: what a language handler gets about its frame.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct DispatcherContext {
    pub(super) control_pc: u64,
    pub(super) image_base: u64,
    pub(super) function_entry: u64,
    pub(super) establisher_frame: u64,
    pub(super) target_ip: u64,
    pub(super) context: *mut Context,
    pub(super) language_handler: u64,
    pub(super) handler_data: *const c_void,
    pub(super) history_table: *mut c_void,
    pub(super) scope_index: u32,
    pub(super) fill: u32,
}

//! Printing: to the debugger's log, and into buffers.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use super::format::{Arguments, format};
use crate::cpu;
use crate::export::exports;
use core::ffi::c_char;

exports! {
    "ntoskrnl.exe";
    DbgPrint: DEVICE,
    DbgPrintEx: DEVICE,
    vDbgPrintEx: DISPATCH,
    vDbgPrintExWithPrefix: DISPATCH,
    sprintf: HIGH,
    _snprintf: HIGH,
    _vsnprintf: HIGH,
    swprintf: HIGH,
    _snwprintf: HIGH,
    _vsnwprintf: HIGH,
}

/// Makes an export of a variadic function out of `extern "win64" fn(*const u64) -> i32`, which gets its arguments as a
/// row of slots: the four in registers are written to the home space the caller left for them, below the others.
macro_rules! variadic {
    ($($name:ident => $with:ident),* $(,)?) => {$(
        #[unsafe(naked)]
        unsafe extern "win64" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "mov [rsp + 8], rcx",
                "mov [rsp + 16], rdx",
                "mov [rsp + 24], r8",
                "mov [rsp + 32], r9",
                "lea rcx, [rsp + 8]",
                "sub rsp, 40",
                ".cfi_adjust_cfa_offset 40",
                "call {with}",
                "add rsp, 40",
                ".cfi_adjust_cfa_offset -40",
                "ret",
                ".cfi_endproc",
                with = sym $with,
            )
        }
    )*};
}

variadic! {
    DbgPrint => dbg_print,
    DbgPrintEx => dbg_print_ex,
    sprintf => sprintf_with,
    _snprintf => snprintf_with,
    swprintf => swprintf_with,
    _snwprintf => snwprintf_with,
}

/// A driver's NUL-terminated string.
///
/// # Safety
/// `text` is NUL-terminated; a wrong address faults inside `enter`.
unsafe fn narrow(text: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { core::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// As [`narrow`], of UTF-16.
///
/// # Safety
/// As there.
unsafe fn wide(text: *const u16) -> String {
    // SAFETY: the caller's promise.
    let units: Vec<u16> = (0..).map(|i| unsafe { text.add(i).read() }).take_while(|&u| u != 0).collect();
    String::from_utf16_lossy(&units)
}

fn log(text: &str) -> i32 {
    cpu::with_machine(|machine| machine.log.write(text));
    0
}

/// Slot `index` of a row.
///
/// # Safety
/// The row has a slot `index`.
unsafe fn slot(slots: *const u64, index: usize) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { slots.add(index).read() }
}

/// The text of a row of slots whose format is at `index`.
///
/// # Safety
/// The row of a variadic call whose format is at `index`.
unsafe fn text(slots: *const u64, index: usize, is_wide: bool) -> String {
    // SAFETY: the caller's promise.
    unsafe {
        let at = slot(slots, index);
        let template = if is_wide { wide(at as *const u16) } else { narrow(at as *const c_char) };
        format(&template, &mut Arguments::new(slots.add(index + 1)), is_wide)
    }
}

unsafe extern "win64" fn dbg_print(slots: *const u64) -> i32 {
    // SAFETY: `variadic!` passes the slots of DbgPrint(Format, ...); the format names those that are read.
    log(&unsafe { text(slots, 0, false) })
}

unsafe extern "win64" fn dbg_print_ex(slots: *const u64) -> i32 {
    // The component's filter mask is not modelled: everything is printed.
    // SAFETY: `variadic!` passes the slots of DbgPrintEx(ComponentId, Level, Format, ...); the format names those that
    // are read.
    log(&unsafe { text(slots, 2, false) })
}

unsafe extern "win64" fn vDbgPrintEx(_component: u32, _level: u32, template: *const c_char, list: *const u64) -> i32 {
    // SAFETY: the page demands a terminated format and a va_list with the arguments that it names.
    log(&unsafe { format(&narrow(template), &mut Arguments::new(list), false) })
}

unsafe extern "win64" fn vDbgPrintExWithPrefix(
    prefix: *const c_char,
    _component: u32,
    _level: u32,
    template: *const c_char,
    list: *const u64,
) -> i32 {
    // SAFETY: the page demands a terminated prefix and format, and a va_list with the arguments that it names.
    log(&unsafe { narrow(prefix) + &format(&narrow(template), &mut Arguments::new(list), false) })
}

/// Writes bytes as the `_snprintf` family does: no terminator when there is no room for it, and -1 when there is no
/// room for all.
///
/// # Safety
/// `to` has room for `room` units.
unsafe fn put<T: Copy + Default>(to: *mut T, room: usize, what: &[T]) -> i32 {
    let count = what.len().min(room);
    // SAFETY: the caller's promise.
    unsafe {
        core::ptr::copy_nonoverlapping(what.as_ptr(), to, count);
        if count < room {
            to.add(count).write(T::default());
        }
    }
    if what.len() > room { -1 } else { what.len() as i32 }
}

fn utf16(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

unsafe extern "win64" fn sprintf_with(slots: *const u64) -> i32 {
    // SAFETY: C's sprintf demands a buffer for the whole text; there is no length to check.
    unsafe {
        let text = text(slots, 1, false).into_bytes();
        put(slot(slots, 0) as *mut u8, text.len() + 1, &text)
    }
}

unsafe extern "win64" fn snprintf_with(slots: *const u64) -> i32 {
    // SAFETY: C's _snprintf demands `count` writable bytes, which `put` keeps to.
    unsafe {
        let text = text(slots, 2, false).into_bytes();
        put(slot(slots, 0) as *mut u8, slot(slots, 1) as usize, &text)
    }
}

unsafe extern "win64" fn _vsnprintf(to: *mut u8, count: usize, template: *const c_char, list: *const u64) -> i32 {
    // SAFETY: C's _vsnprintf demands `count` writable bytes, which `put` keeps to, a terminated format and a va_list
    // with the arguments that it names.
    unsafe {
        let text = format(&narrow(template), &mut Arguments::new(list), false).into_bytes();
        put(to, count, &text)
    }
}

unsafe extern "win64" fn swprintf_with(slots: *const u64) -> i32 {
    // SAFETY: the kernel's swprintf demands a buffer for the whole text; there is no length to check.
    unsafe {
        let text = utf16(&text(slots, 1, true));
        put(slot(slots, 0) as *mut u16, text.len() + 1, &text)
    }
}

unsafe extern "win64" fn snwprintf_with(slots: *const u64) -> i32 {
    // SAFETY: C's _snwprintf demands `count` writable units, which `put` keeps to.
    unsafe {
        let text = utf16(&text(slots, 2, true));
        put(slot(slots, 0) as *mut u16, slot(slots, 1) as usize, &text)
    }
}

unsafe extern "win64" fn _vsnwprintf(to: *mut u16, count: usize, template: *const u16, list: *const u64) -> i32 {
    // SAFETY: C's _vsnwprintf demands `count` writable units, which `put` keeps to, a terminated format and a va_list
    // with the arguments that it names.
    unsafe {
        let text = utf16(&format(&wide(template), &mut Arguments::new(list), true));
        put(to, count, &text)
    }
}

//! Counted strings.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use crate::nt::pool::Kind;
use core::ptr;
use nt_abi::NtStatus;
use nt_abi::{AnsiString, UnicodeString};
use std::cmp::Ordering;

exports! {
    "ntoskrnl.exe";
    RtlInitUnicodeString: DISPATCH,
    RtlInitUnicodeStringEx: DISPATCH,
    RtlInitAnsiString: DISPATCH,
    RtlInitString: DISPATCH,
    RtlCopyUnicodeString: HIGH,
    RtlAppendUnicodeToString: HIGH,
    RtlAppendUnicodeStringToString: DISPATCH,
    RtlCompareUnicodeString: PASSIVE,
    RtlEqualUnicodeString: PASSIVE,
    RtlPrefixUnicodeString: PASSIVE,
    RtlSuffixUnicodeString: PASSIVE,
    RtlUpcaseUnicodeString: PASSIVE,
    RtlDowncaseUnicodeString: PASSIVE,
    RtlUpcaseUnicodeChar: PASSIVE,
    RtlDowncaseUnicodeChar: PASSIVE,
    RtlDuplicateUnicodeString: PASSIVE,
    RtlCreateUnicodeString: PASSIVE,
    RtlFreeUnicodeString: PASSIVE,
    RtlFreeAnsiString: PASSIVE,
    RtlHashUnicodeString: PASSIVE,
    RtlAnsiStringToUnicodeString: PASSIVE,
    RtlUnicodeStringToAnsiString: PASSIVE,
    RtlUnicodeStringToInteger: PASSIVE,
    RtlIntegerToUnicodeString: PASSIVE,
}

/// The tag of buffers the library allocates for a driver ("Strg" here; Windows has its own).
const TAG: u32 = u32::from_le_bytes(*b"Strg");

/// Simple upper case of one UTF-16 unit: one unit to one unit, as the NLS table has it.
pub(super) fn upcase(unit: u16) -> u16 {
    fold(unit, |c| {
        let mut upper = c.to_uppercase();
        (upper.next(), upper.next())
    })
}

/// Simple lower case of one UTF-16 unit.
pub(super) fn downcase(unit: u16) -> u16 {
    fold(unit, |c| {
        let mut lower = c.to_lowercase();
        (lower.next(), lower.next())
    })
}

fn fold(unit: u16, map: impl Fn(char) -> (Option<char>, Option<char>)) -> u16 {
    let Some(c) = char::from_u32(u32::from(unit)) else { return unit };
    match map(c) {
        (Some(one), None) => u16::try_from(u32::from(one)).unwrap_or(unit),
        _ => unit,
    }
}

/// The units of a driver's string; empty for null.
///
/// # Safety
/// `string` is null or points to a `UNICODE_STRING`; a wrong one faults inside `enter`.
unsafe fn units<'a>(string: *const UnicodeString) -> &'a [u16] {
    // SAFETY: the caller's promise.
    if string.is_null() { &[] } else { unsafe { string.read_unaligned().units() } }
}

/// Appends units as far as they fit; false when they did not all.
///
/// # Safety
/// `to` is a `UNICODE_STRING` with MaximumLength writable bytes.
unsafe fn append(to: *mut UnicodeString, what: &[u16]) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let string = &mut *to;
        let used = usize::from(string.length / 2);
        let room = usize::from(string.maximum_length / 2).saturating_sub(used);
        let count = what.len().min(room);
        ptr::copy(what.as_ptr(), string.buffer.add(used), count);
        string.length += (count * 2) as u16;
        if count < room {
            string.buffer.add(used + count).write(0);
        }
        count == what.len()
    }
}

/// The most bytes a UNICODE_STRING holds, terminator excluded.
const LONGEST: usize = 0xfffc;

unsafe extern "win64" fn RtlInitUnicodeString(to: *mut UnicodeString, source: *const u16) {
    let length = if source.is_null() {
        0
    } else {
        // SAFETY: null is checked; the page demands a NUL-terminated string, of which nothing past the terminator is
        // read.
        unsafe { (0..).find(|&i| source.add(i).read() == 0) }.unwrap_or(0) * 2
    };
    let length = length.min(LONGEST) as u16;
    let maximum_length = if source.is_null() { 0 } else { length + 2 };
    // SAFETY: the page demands a counted string to write; it refers to `source`, which stays the driver's.
    unsafe { to.write(UnicodeString { length, maximum_length, buffer: source.cast_mut() }) };
}

unsafe extern "win64" fn RtlInitUnicodeStringEx(to: *mut UnicodeString, source: *const u16) -> NtStatus {
    // SAFETY: null is checked; the page demands a NUL-terminated string, of which nothing past the terminator is read.
    let length = if source.is_null() { Some(0) } else { unsafe { (0..0x8000).find(|&i| source.add(i).read() == 0) } };
    if length.is_none_or(|n| n * 2 > LONGEST) {
        return NtStatus::NAME_TOO_LONG;
    }
    // SAFETY: a string that ends within the limit, as checked above, and a UNICODE_STRING to write by the page.
    unsafe { RtlInitUnicodeString(to, source) };
    NtStatus::SUCCESS
}

unsafe extern "win64" fn RtlInitAnsiString(to: *mut AnsiString, source: *const u8) {
    let length = if source.is_null() {
        0
    } else {
        // SAFETY: null is checked; the page demands a NUL-terminated string, of which nothing past the terminator is
        // read.
        unsafe { (0..0xffff).find(|&i| source.add(i).read() == 0) }.unwrap_or(0xfffe) as u16
    };
    let maximum_length = if source.is_null() { 0 } else { length + 1 };
    // SAFETY: the page demands a counted string to write; it refers to `source`, which stays the driver's.
    unsafe { to.write(AnsiString { length, maximum_length, buffer: source.cast_mut() }) };
}

unsafe extern "win64" fn RtlInitString(to: *mut AnsiString, source: *const u8) {
    // SAFETY: the page demands what RtlInitAnsiString does.
    unsafe { RtlInitAnsiString(to, source) };
}

unsafe extern "win64" fn RtlCopyUnicodeString(to: *mut UnicodeString, from: *const UnicodeString) {
    // SAFETY: the page demands null, which is checked, or a UNICODE_STRING to read, and one with MaximumLength writable
    // bytes, which `append` keeps to.
    unsafe {
        (*to).length = 0;
        append(to, units(from));
    }
}

unsafe extern "win64" fn RtlAppendUnicodeToString(to: *mut UnicodeString, source: *const u16) -> NtStatus {
    let mut string = UnicodeString::EMPTY;
    // SAFETY: null is checked; the page demands a NUL-terminated string.
    unsafe { RtlInitUnicodeString(&raw mut string, source) };
    // SAFETY: the page demands a UNICODE_STRING with MaximumLength writable bytes; `string` was made above.
    unsafe { RtlAppendUnicodeStringToString(to, &raw const string) }
}

/// All or nothing: STATUS_BUFFER_TOO_SMALL leaves the destination alone.
unsafe extern "win64" fn RtlAppendUnicodeStringToString(
    to: *mut UnicodeString,
    from: *const UnicodeString,
) -> NtStatus {
    // SAFETY: the page demands two UNICODE_STRINGs; the sum of their lengths is checked against MaximumLength.
    unsafe {
        let what = units(from);
        if usize::from((*to).length) + what.len() * 2 > usize::from((*to).maximum_length) {
            return NtStatus::BUFFER_TOO_SMALL;
        }
        append(to, what);
    }
    NtStatus::SUCCESS
}

fn compare(a: &[u16], b: &[u16], ignore_case: bool) -> Ordering {
    if ignore_case { a.iter().map(|&u| upcase(u)).cmp(b.iter().map(|&u| upcase(u))) } else { a.cmp(b) }
}

/// The difference of the first units that differ, or of the lengths.
unsafe extern "win64" fn RtlCompareUnicodeString(
    a: *const UnicodeString,
    b: *const UnicodeString,
    ignore_case: u8,
) -> i32 {
    // SAFETY: the page demands two UNICODE_STRINGs, which are only read.
    let (a, b) = unsafe { (units(a), units(b)) };
    compare(a, b, ignore_case != 0) as i32
}

unsafe extern "win64" fn RtlEqualUnicodeString(
    a: *const UnicodeString,
    b: *const UnicodeString,
    ignore_case: u8,
) -> u8 {
    // SAFETY: the page demands two UNICODE_STRINGs, which are only read.
    u8::from(unsafe { RtlCompareUnicodeString(a, b, ignore_case) } == 0)
}

unsafe extern "win64" fn RtlPrefixUnicodeString(
    prefix: *const UnicodeString,
    of: *const UnicodeString,
    ignore_case: u8,
) -> u8 {
    // SAFETY: the page demands two UNICODE_STRINGs, which are only read.
    let (prefix, of) = unsafe { (units(prefix), units(of)) };
    let head = of.get(..prefix.len());
    u8::from(head.is_some_and(|head| compare(prefix, head, ignore_case != 0).is_eq()))
}

unsafe extern "win64" fn RtlSuffixUnicodeString(
    suffix: *const UnicodeString,
    of: *const UnicodeString,
    ignore_case: u8,
) -> u8 {
    // SAFETY: the page demands two UNICODE_STRINGs, which are only read.
    let (suffix, of) = unsafe { (units(suffix), units(of)) };
    let tail = of.len().checked_sub(suffix.len()).and_then(|start| of.get(start..));
    u8::from(tail.is_some_and(|tail| compare(suffix, tail, ignore_case != 0).is_eq()))
}

/// Allocates a buffer of `bytes` bytes for `to`, in the driver's name.
///
/// # Safety
/// The driver's string.
unsafe fn give_buffer(to: *mut UnicodeString, bytes: usize) -> NtStatus {
    if bytes > 0xfffe {
        return NtStatus::NAME_TOO_LONG;
    }
    let buffer = cpu::with_machine(|machine| {
        if machine.low_resources.fails("RtlAllocateString") {
            return ptr::null_mut();
        }
        machine.pool.allocate(TAG, bytes.max(2), Kind::Paged)
    });
    if buffer.is_null() {
        return NtStatus::NO_MEMORY;
    }
    // SAFETY: the caller's promise.
    unsafe { to.write(UnicodeString { length: 0, maximum_length: bytes as u16, buffer: buffer.cast() }) };
    NtStatus::SUCCESS
}

/// Puts mapped units into `to`, allocating if asked.
///
/// # Safety
/// `from` is a `UNICODE_STRING`; so is `to`, with MaximumLength writable bytes unless `allocate` is set.
unsafe fn map_into(to: *mut UnicodeString, from: *const UnicodeString, allocate: u8, map: fn(u16) -> u16) -> NtStatus {
    // SAFETY: the caller's promise.
    unsafe {
        let mapped: Vec<u16> = units(from).iter().map(|&u| map(u)).collect();
        if allocate != 0 {
            let status = give_buffer(to, mapped.len() * 2);
            if !status.is_success() {
                return status;
            }
        }
        if usize::from((*to).maximum_length) < mapped.len() * 2 {
            return NtStatus::BUFFER_OVERFLOW;
        }
        (*to).length = 0;
        append(to, &mapped);
    }
    NtStatus::SUCCESS
}

unsafe extern "win64" fn RtlUpcaseUnicodeString(
    to: *mut UnicodeString,
    from: *const UnicodeString,
    allocate: u8,
) -> NtStatus {
    // SAFETY: the page demands a UNICODE_STRING to read and one to write, with MaximumLength writable bytes unless the
    // buffer is allocated. The driver frees an allocated buffer with RtlFreeUnicodeString.
    unsafe { map_into(to, from, allocate, upcase) }
}

unsafe extern "win64" fn RtlDowncaseUnicodeString(
    to: *mut UnicodeString,
    from: *const UnicodeString,
    allocate: u8,
) -> NtStatus {
    // SAFETY: the page demands a UNICODE_STRING to read and one to write, with MaximumLength writable bytes unless the
    // buffer is allocated. The driver frees an allocated buffer with RtlFreeUnicodeString.
    unsafe { map_into(to, from, allocate, downcase) }
}

extern "win64" fn RtlUpcaseUnicodeChar(unit: u16) -> u16 {
    upcase(unit)
}

extern "win64" fn RtlDowncaseUnicodeChar(unit: u16) -> u16 {
    downcase(unit)
}

/// Flag 1 adds a terminator; flag 2 allocates for an empty string too.
unsafe extern "win64" fn RtlDuplicateUnicodeString(
    flags: u32,
    from: *const UnicodeString,
    to: *mut UnicodeString,
) -> NtStatus {
    // SAFETY: the page demands a UNICODE_STRING to read and one to write. The driver frees the new buffer with
    // RtlFreeUnicodeString.
    unsafe {
        let what = units(from);
        if what.is_empty() && flags & 2 == 0 {
            to.write(UnicodeString::EMPTY);
            return NtStatus::SUCCESS;
        }
        let terminator = if flags & 1 != 0 { 2 } else { 0 };
        let status = give_buffer(to, what.len() * 2 + terminator);
        if status.is_success() {
            append(to, what);
        }
        status
    }
}

unsafe extern "win64" fn RtlCreateUnicodeString(to: *mut UnicodeString, source: *const u16) -> u8 {
    let mut string = UnicodeString::EMPTY;
    // SAFETY: the page demands a NUL-terminated string and a UNICODE_STRING to write. The driver frees the new buffer
    // with RtlFreeUnicodeString.
    unsafe {
        RtlInitUnicodeString(&raw mut string, source);
        let status = give_buffer(to, usize::from(string.length) + 2);
        if status.is_success() {
            append(to, string.units());
        }
        u8::from(status.is_success())
    }
}

unsafe extern "win64" fn RtlFreeUnicodeString(string: *mut UnicodeString) {
    // SAFETY: the page demands a UNICODE_STRING whose buffer an Rtl routine allocated; the pool checks that it is a
    // block, and frees it.
    let buffer = unsafe { (*string).buffer };
    if !buffer.is_null() {
        cpu::with_machine(|machine| machine.pool.free(buffer.cast(), 0));
        // SAFETY: the same string, whose buffer is freed.
        unsafe { string.write(UnicodeString::EMPTY) };
    }
}

unsafe extern "win64" fn RtlFreeAnsiString(string: *mut AnsiString) {
    // An ANSI_STRING has the shape of a UNICODE_STRING.
    // SAFETY: an ANSI_STRING has the layout of a UNICODE_STRING, and the page demands the same of its buffer.
    unsafe { RtlFreeUnicodeString(string.cast()) };
}

/// HASH_STRING_ALGORITHM_X65599, which is also the default: hash * 65599 + unit.
unsafe extern "win64" fn RtlHashUnicodeString(
    string: *const UnicodeString,
    ignore_case: u8,
    algorithm: u32,
    hash: *mut u32,
) -> NtStatus {
    if algorithm > 1 || string.is_null() || hash.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    // SAFETY: the page demands a UNICODE_STRING, which is only read.
    let units = unsafe { units(string) };
    let value = units.iter().fold(0_u32, |hash, &unit| {
        let unit = if ignore_case != 0 { upcase(unit) } else { unit };
        hash.wrapping_mul(65599).wrapping_add(u32::from(unit))
    });
    // SAFETY: the page demands a ULONG to write.
    unsafe { hash.write(value) };
    NtStatus::SUCCESS
}

unsafe extern "win64" fn RtlAnsiStringToUnicodeString(
    to: *mut UnicodeString,
    from: *const AnsiString,
    allocate: u8,
) -> NtStatus {
    // SAFETY: the page demands an ANSI_STRING to read, and a UNICODE_STRING to write with MaximumLength writable bytes,
    // which is checked, unless the buffer is allocated. The driver frees an allocated buffer with RtlFreeUnicodeString.
    unsafe {
        let bytes = core::slice::from_raw_parts((*from).buffer.cast_const(), usize::from((*from).length));
        let text: Vec<u16> = String::from_utf8_lossy(bytes).encode_utf16().collect();
        if allocate != 0 {
            let status = give_buffer(to, text.len() * 2 + 2);
            if !status.is_success() {
                return status;
            }
        }
        if usize::from((*to).maximum_length) < text.len() * 2 {
            return NtStatus::BUFFER_OVERFLOW;
        }
        (*to).length = 0;
        append(to, &text);
    }
    NtStatus::SUCCESS
}

unsafe extern "win64" fn RtlUnicodeStringToAnsiString(
    to: *mut AnsiString,
    from: *const UnicodeString,
    allocate: u8,
) -> NtStatus {
    // SAFETY: the page demands a UNICODE_STRING to read, and an ANSI_STRING to write, which has the same layout, with
    // MaximumLength writable bytes, which is checked, unless the buffer is allocated. The driver frees an allocated
    // buffer with RtlFreeAnsiString.
    unsafe {
        let text = String::from_utf16_lossy(units(from)).into_bytes();
        if allocate != 0 {
            let status = give_buffer(to.cast(), text.len() + 1);
            if !status.is_success() {
                return status;
            }
        }
        if usize::from((*to).maximum_length) < text.len() + 1 {
            return NtStatus::BUFFER_OVERFLOW;
        }
        ptr::copy_nonoverlapping(text.as_ptr(), (*to).buffer, text.len());
        (*to).buffer.add(text.len()).write(0);
        (*to).length = text.len() as u16;
    }
    NtStatus::SUCCESS
}

/// Base 0 reads 0x, 0o and 0b prefixes.
unsafe extern "win64" fn RtlUnicodeStringToInteger(
    string: *const UnicodeString,
    base: u32,
    value: *mut u32,
) -> NtStatus {
    // SAFETY: the page demands a UNICODE_STRING, which is copied.
    let text = String::from_utf16_lossy(unsafe { units(string) });
    let text = text.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, digits) = match base {
        0 => [("0x", 16), ("0o", 8), ("0b", 2)]
            .into_iter()
            .find_map(|(prefix, base)| Some((base, digits.strip_prefix(prefix)?)))
            .unwrap_or((10, digits)),
        2 | 8 | 10 | 16 => (base, digits),
        _ => return NtStatus::INVALID_PARAMETER,
    };
    let number =
        digits.chars().map_while(|c| c.to_digit(base)).fold(0_u32, |n, d| n.wrapping_mul(base).wrapping_add(d));
    // SAFETY: the page demands a ULONG to write.
    unsafe { value.write(if negative { number.wrapping_neg() } else { number }) };
    NtStatus::SUCCESS
}

unsafe extern "win64" fn RtlIntegerToUnicodeString(value: u32, base: u32, to: *mut UnicodeString) -> NtStatus {
    let text = match base {
        0 | 10 => format!("{value}"),
        2 => format!("{value:b}"),
        8 => format!("{value:o}"),
        16 => format!("{value:X}"),
        _ => return NtStatus::INVALID_PARAMETER,
    };
    let text: Vec<u16> = text.encode_utf16().collect();
    // SAFETY: the page demands a UNICODE_STRING with MaximumLength writable bytes, which the text's length is checked
    // against.
    unsafe {
        if usize::from((*to).maximum_length) < text.len() * 2 {
            return NtStatus::BUFFER_OVERFLOW;
        }
        (*to).length = 0;
        append(to, &text);
    }
    NtStatus::SUCCESS
}

//! Routines that compare memory, and C strings.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::export::exports;
use core::ptr;

exports! {
    "ntoskrnl.exe";
    memchr: HIGH,
    strnlen: HIGH,
    strcmp: HIGH,
    strncmp: HIGH,
    _stricmp: HIGH,
    _strnicmp: HIGH,
    strchr: HIGH,
    strrchr: HIGH,
    strstr: HIGH,
    wcsnlen: HIGH,
    wcscmp: HIGH,
    wcsncmp: HIGH,
    _wcsicmp: APC,
    _wcsnicmp: APC,
    wcschr: HIGH,
    wcsrchr: HIGH,
    wcsstr: HIGH,
    toupper: HIGH,
    tolower: HIGH,
    towupper: HIGH,
    towlower: HIGH,
}

unsafe extern "win64" fn memchr(memory: *const u8, value: i32, count: usize) -> *const u8 {
    // SAFETY: the caller's C contract: the block is readable up to the byte that is found, at most `count` bytes.
    let at = (0..count).find(|&i| unsafe { memory.add(i).read() } == value as u8);
    at.map_or(ptr::null(), |i| memory.wrapping_add(i))
}

/// A character of a C string.
trait Unit: Copy + PartialEq + Into<u32> {
    fn fold(self) -> u32;
}

impl Unit for u8 {
    fn fold(self) -> u32 {
        u32::from(self.to_ascii_lowercase())
    }
}

impl Unit for u16 {
    fn fold(self) -> u32 {
        u32::from(super::string::downcase(self))
    }
}

/// The length, at most `most`.
///
/// # Safety
/// `text` is a NUL-terminated string, or has `most` units; when it is neither, the access faults.
unsafe fn length<T: Unit>(text: *const T, most: usize) -> usize {
    // SAFETY: the caller's promise.
    (0..most).find(|&i| unsafe { text.add(i).read() }.into() == 0).unwrap_or(most)
}

/// Compares at most `most` units.
///
/// # Safety
/// As [`length`].
unsafe fn compare<T: Unit>(a: *const T, b: *const T, most: usize, unit: impl Fn(T) -> u32) -> i32 {
    for i in 0..most {
        // SAFETY: the caller's promise.
        let (x, y) = unsafe { (unit(a.add(i).read()), unit(b.add(i).read())) };
        if x != y {
            return if x < y { -1 } else { 1 };
        }
        if x == 0 {
            break;
        }
    }
    0
}

/// The first or last place of a unit, the terminator included.
///
/// # Safety
/// As [`length`].
unsafe fn find<T: Unit>(text: *const T, unit: u32, last: bool) -> *const T {
    // SAFETY: the caller's promise.
    let mut places = unsafe { 0..=length(text, usize::MAX) };
    // SAFETY: within the string that `length` measured, or its terminator.
    let is = |&i: &usize| unsafe { text.add(i).read() }.into() == unit;
    let at = if last { places.rfind(is) } else { places.find(is) };
    at.map_or(ptr::null(), |i| text.wrapping_add(i))
}

/// The first place of a string in another.
///
/// # Safety
/// As [`length`].
unsafe fn find_in<T: Unit>(text: *const T, what: *const T) -> *const T {
    // SAFETY: the caller's promise.
    unsafe {
        let (n, m) = (length(text, usize::MAX), length(what, usize::MAX));
        let same = |&i: &usize| (0..m).all(|j| text.add(i + j).read() == what.add(j).read());
        (0..=n.saturating_sub(m)).filter(|_| m <= n).find(same).map_or(ptr::null(), |i| text.wrapping_add(i))
    }
}

// What C demands of the strings below cannot be checked; a wrong one faults inside `enter`.
unsafe extern "win64" fn strnlen(text: *const u8, most: usize) -> usize {
    // SAFETY: C demands a string that is terminated or has `most` units.
    unsafe { length(text, most) }
}
unsafe extern "win64" fn strcmp(a: *const u8, b: *const u8) -> i32 {
    // SAFETY: C demands two terminated strings.
    unsafe { compare(a, b, usize::MAX, u32::from) }
}
unsafe extern "win64" fn strncmp(a: *const u8, b: *const u8, most: usize) -> i32 {
    // SAFETY: C demands two strings, each terminated or with `most` units.
    unsafe { compare(a, b, most, u32::from) }
}
unsafe extern "win64" fn _stricmp(a: *const u8, b: *const u8) -> i32 {
    // SAFETY: C demands two terminated strings.
    unsafe { compare(a, b, usize::MAX, Unit::fold) }
}
unsafe extern "win64" fn _strnicmp(a: *const u8, b: *const u8, most: usize) -> i32 {
    // SAFETY: C demands two strings, each terminated or with `most` units.
    unsafe { compare(a, b, most, Unit::fold) }
}
unsafe extern "win64" fn strchr(text: *const u8, unit: i32) -> *const u8 {
    // SAFETY: C demands a terminated string.
    unsafe { find(text, u32::from(unit as u8), false) }
}
unsafe extern "win64" fn strrchr(text: *const u8, unit: i32) -> *const u8 {
    // SAFETY: C demands a terminated string.
    unsafe { find(text, u32::from(unit as u8), true) }
}
unsafe extern "win64" fn strstr(text: *const u8, what: *const u8) -> *const u8 {
    // SAFETY: C demands two terminated strings.
    unsafe { find_in(text, what) }
}
unsafe extern "win64" fn wcsnlen(text: *const u16, most: usize) -> usize {
    // SAFETY: C demands a string that is terminated or has `most` units.
    unsafe { length(text, most) }
}
unsafe extern "win64" fn wcscmp(a: *const u16, b: *const u16) -> i32 {
    // SAFETY: C demands two terminated strings.
    unsafe { compare(a, b, usize::MAX, u32::from) }
}
unsafe extern "win64" fn wcsncmp(a: *const u16, b: *const u16, most: usize) -> i32 {
    // SAFETY: C demands two strings, each terminated or with `most` units.
    unsafe { compare(a, b, most, u32::from) }
}
unsafe extern "win64" fn _wcsicmp(a: *const u16, b: *const u16) -> i32 {
    // SAFETY: C demands two terminated strings.
    unsafe { compare(a, b, usize::MAX, Unit::fold) }
}
unsafe extern "win64" fn _wcsnicmp(a: *const u16, b: *const u16, most: usize) -> i32 {
    // SAFETY: C demands two strings, each terminated or with `most` units.
    unsafe { compare(a, b, most, Unit::fold) }
}
unsafe extern "win64" fn wcschr(text: *const u16, unit: u16) -> *const u16 {
    // SAFETY: C demands a terminated string.
    unsafe { find(text, u32::from(unit), false) }
}
unsafe extern "win64" fn wcsrchr(text: *const u16, unit: u16) -> *const u16 {
    // SAFETY: C demands a terminated string.
    unsafe { find(text, u32::from(unit), true) }
}
unsafe extern "win64" fn wcsstr(text: *const u16, what: *const u16) -> *const u16 {
    // SAFETY: C demands two terminated strings.
    unsafe { find_in(text, what) }
}

extern "win64" fn toupper(unit: i32) -> i32 {
    u8::try_from(unit).map_or(unit, |u| i32::from(u.to_ascii_uppercase()))
}
extern "win64" fn tolower(unit: i32) -> i32 {
    u8::try_from(unit).map_or(unit, |u| i32::from(u.to_ascii_lowercase()))
}
extern "win64" fn towupper(unit: u16) -> u16 {
    super::string::upcase(unit)
}
extern "win64" fn towlower(unit: u16) -> u16 {
    super::string::downcase(unit)
}

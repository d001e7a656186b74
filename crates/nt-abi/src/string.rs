//! Counted strings as they cross the import boundary.

use crate::words::Words;
use core::mem::offset_of;
use core::{ptr, slice};

/// `UNICODE_STRING` (ntdef.h): 16 bytes on x64; the lengths are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct UnicodeString {
    /// Bytes in use.
    pub length: u16,
    /// Bytes of the buffer.
    pub maximum_length: u16,
    /// UTF-16, not necessarily terminated.
    pub buffer: *mut u16,
}

/// `ANSI_STRING` (ntdef.h).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AnsiString {
    /// Bytes in use.
    pub length: u16,
    /// Bytes of the buffer.
    pub maximum_length: u16,
    /// Bytes of the system's code page, read as UTF-8 here.
    pub buffer: *mut u8,
}

const _: () = assert!(size_of::<UnicodeString>() == 16 && size_of::<AnsiString>() == 16);
const _: () = assert!(offset_of!(UnicodeString, maximum_length) == 2 && offset_of!(UnicodeString, buffer) == 8);

impl UnicodeString {
    /// The empty string.
    pub const EMPTY: Self = Self { length: 0, maximum_length: 0, buffer: ptr::null_mut() };

    /// The units of the string.
    ///
    /// # Safety
    /// `buffer` points to `length` readable bytes for as long as the result is used, or `length` is 0. A driver is
    /// trusted with that; a wrong pointer faults and stops the machine.
    #[must_use]
    pub unsafe fn units<'a>(&self) -> &'a [u16] {
        if self.length < 2 || self.buffer.is_null() {
            return &[];
        }
        // SAFETY: the caller's promise.
        unsafe { slice::from_raw_parts(self.buffer, usize::from(self.length / 2)) }
    }

    /// The string at `pointer`, unpaired surrogates replaced; empty for a null pointer.
    ///
    /// # Safety
    /// `pointer` is null or points at a `UNICODE_STRING` for which [`Self::units`] may be called.
    #[must_use]
    pub unsafe fn read(pointer: *const Self) -> String {
        if pointer.is_null() {
            return String::new();
        }
        // SAFETY: the caller's promise.
        String::from_utf16_lossy(unsafe { pointer.read_unaligned().units() })
    }
}

/// A `UNICODE_STRING` with its buffer, NUL-terminated, at addresses that do not change.
#[derive(Debug)]
pub struct OwnedUnicodeString {
    header: Words,
    _buffer: Words,
}

impl OwnedUnicodeString {
    /// A copy of `text`, cut to the 32766 units that fit.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut buffer: Vec<u16> = text.encode_utf16().take(0x7ffe).collect();
        let length = (buffer.len() * 2) as u16;
        buffer.push(0);
        let (header, words) = (Words::for_bytes(size_of::<UnicodeString>()), Words::for_bytes(buffer.len() * 2));
        let at: *mut u16 = words.as_ptr().cast();
        // SAFETY: both are new and large enough, and aligned to eight.
        unsafe {
            at.copy_from_nonoverlapping(buffer.as_ptr(), buffer.len());
            let string = UnicodeString { length, maximum_length: length + 2, buffer: at };
            header.as_ptr().cast::<UnicodeString>().write(string);
        }
        Self { header, _buffer: words }
    }

    /// Its address.
    #[must_use]
    pub fn as_ptr(&self) -> *mut UnicodeString {
        self.header.as_ptr().cast()
    }

    /// A copy of the header, to embed in a structure.
    #[must_use]
    pub fn header(&self) -> UnicodeString {
        // SAFETY: `new` wrote it there; any bytes that a driver wrote since are a header too.
        unsafe { self.as_ptr().read() }
    }
}

//! Counted strings as they cross the import boundary.

use core::{ptr, slice};

/// `UNICODE_STRING` (ntdef.h): 16 bytes on x64; the lengths are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct UnicodeString {
    /// Bytes in use.
    pub length: u16,
    /// Bytes there are.
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
    /// Bytes there are.
    pub maximum_length: u16,
    /// Bytes of the system's code page, taken as UTF-8 here.
    pub buffer: *mut u8,
}

const _: () = assert!(size_of::<UnicodeString>() == 16 && size_of::<AnsiString>() == 16);

impl UnicodeString {
    /// The empty string.
    pub const EMPTY: Self = Self { length: 0, maximum_length: 0, buffer: ptr::null_mut() };

    /// The units of the string.
    ///
    /// # Safety
    /// `buffer` points at `length` readable bytes for as long as the result is used, or `length` is 0. The driver vouches for it; when it
    /// lies, the access faults and stops the machine.
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
    header: Box<UnicodeString>,
    _buffer: Box<[u16]>,
}

// SAFETY: the header points only into the buffer it is kept with; driver code that writes through it is the driver's
// business, as on Windows.
unsafe impl Send for OwnedUnicodeString {}
// SAFETY: as above.
unsafe impl Sync for OwnedUnicodeString {}

impl OwnedUnicodeString {
    /// `text` in memory of its own; cut at the 32766 units that fit.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut buffer: Vec<u16> = text.encode_utf16().take(0x7ffe).collect();
        let length = (buffer.len() * 2) as u16;
        buffer.push(0);
        let mut buffer = buffer.into_boxed_slice();
        let header = UnicodeString { length, maximum_length: length + 2, buffer: buffer.as_mut_ptr() };
        Self { header: Box::new(header), _buffer: buffer }
    }

    /// Its address.
    #[must_use]
    pub fn as_ptr(&self) -> *mut UnicodeString {
        ptr::from_ref::<UnicodeString>(&self.header).cast_mut()
    }

    /// A copy of the header, to embed in a structure.
    #[must_use]
    pub fn header(&self) -> UnicodeString {
        *self.header
    }
}

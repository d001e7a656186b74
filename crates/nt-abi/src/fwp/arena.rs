//! Memory for structures handed to drivers: pieces that are freed together and never move.

use super::{FwpByteBlob, FwpValue0, RawGuid, ValueUnion, consts};
use crate::words::Words;
use sluice_host::Guid;

/// Owns the pieces.
#[derive(Debug, Default)]
pub struct Arena(Vec<Words>);

impl Arena {
    /// Copies one value in. Its alignment must be at most eight.
    pub fn put<T: Copy>(&mut self, value: T) -> *mut T {
        self.put_slice(&[value])
    }

    /// Copies values in, one after the other.
    pub fn put_slice<T: Copy>(&mut self, values: &[T]) -> *mut T {
        const { assert!(align_of::<T>() <= 8) };
        let piece = Words::for_bytes(size_of_val(values).max(1));
        let at: *mut T = piece.as_ptr().cast();
        // SAFETY: the piece is at least as long as the values and aligned to eight; both are distinct memory.
        unsafe { core::ptr::copy_nonoverlapping(values.as_ptr(), at, values.len()) };
        self.0.push(piece);
        at
    }

    /// A NUL-terminated UTF-16 string.
    pub fn wide(&mut self, text: &str) -> *const u16 {
        let units: Vec<u16> = text.encode_utf16().chain([0]).collect();
        self.put_slice(&units)
    }

    /// A GUID behind a pointer, or null.
    pub fn guid(&mut self, guid: Option<Guid>) -> *const RawGuid {
        guid.map_or(core::ptr::null(), |guid| self.put(RawGuid::from(guid)))
    }

    /// A blob with its bytes.
    pub fn blob(&mut self, bytes: &[u8]) -> FwpByteBlob {
        if bytes.is_empty() {
            return FwpByteBlob::default();
        }
        FwpByteBlob { size: bytes.len() as u32, data: self.put_slice(bytes) }
    }

    /// `FWP_UINT64`.
    pub fn uint64(&mut self, value: u64) -> FwpValue0 {
        FwpValue0 { kind: consts::FWP_UINT64, value: ValueUnion { uint64: self.put(value) } }
    }
}

/// A structure that drivers get, with all that it points to.
#[derive(Debug)]
pub struct Rooted<T> {
    root: *mut T,
    _arena: Arena,
}

// SAFETY: `root` points into the arena of this value, which moves with it; reads and writes through `as_ptr` are unsafe
// for the caller to justify.
unsafe impl<T: Copy> Send for Rooted<T> {}
// SAFETY: as above.
unsafe impl<T: Copy> Sync for Rooted<T> {}

impl<T: Copy> Rooted<T> {
    /// `root`, whose pointers point into `arena`.
    #[must_use]
    pub fn new(mut arena: Arena, root: T) -> Self {
        Self { root: arena.put(root), _arena: arena }
    }

    /// Its address, valid as long as this lives.
    #[must_use]
    pub fn as_ptr(&self) -> *mut T {
        self.root
    }
}

//! Memory into which others point.

use core::ptr::NonNull;

/// Zeroed words, aligned to eight bytes, at an address that does not change.
///
/// Owned through a raw pointer: moving a `Box` claims its memory for the box alone, so pointers into it that were made
/// before could not be used any more.
#[derive(Debug)]
pub(crate) struct Words(NonNull<[u64]>);

// SAFETY: the words are plain memory that belongs to this value and to no thread; access goes through raw pointers.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// As many words as `bytes` need.
    pub(crate) fn for_bytes(bytes: usize) -> Self {
        Self(NonNull::from(Box::leak(vec![0u64; bytes.div_ceil(8)].into_boxed_slice())))
    }

    /// The first byte. Valid for reads and writes of all the words as long as this lives.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr().cast()
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: leaked by `for_bytes`, and freed only here.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

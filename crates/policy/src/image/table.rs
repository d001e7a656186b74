//! Reads little-endian records from bytes. Every read is checked and falls back to zero, so that no path here can
//! panic; the fallbacks are never taken after validation.

/// A part of the image: its offset and length in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

impl Section {
    /// The section's bytes; empty when it is not inside `image`.
    #[inline]
    pub(crate) fn of(self, image: &[u8]) -> &[u8] {
        let start = self.offset as usize;
        image.get(start..start.wrapping_add(self.length as usize)).unwrap_or(&[])
    }

    /// How many records of `SIZE` bytes it holds.
    #[inline]
    pub(crate) fn count<const SIZE: usize>(self) -> u32 {
        self.length / SIZE as u32
    }

    /// Record `index` of `SIZE` bytes.
    #[inline]
    pub(crate) fn record<const SIZE: usize>(self, image: &[u8], index: u32) -> Option<&[u8; SIZE]> {
        record(self.of(image), index)
    }
}

/// Record `index` of `SIZE` bytes in `bytes`.
#[inline]
pub(crate) fn record<const SIZE: usize>(bytes: &[u8], index: u32) -> Option<&[u8; SIZE]> {
    let start = (index as usize).checked_mul(SIZE)?;
    bytes.get(start..)?.first_chunk()
}

macro_rules! reader {
    ($name:ident, $type:ty, $doc:literal) => {
        #[doc = $doc]
        #[inline]
        pub(crate) fn $name(bytes: &[u8], offset: usize) -> $type {
            match bytes.get(offset..).and_then(|rest| rest.first_chunk()) {
                Some(chunk) => <$type>::from_le_bytes(*chunk),
                None => 0,
            }
        }
    };
}

reader!(u16_at, u16, "The `u16` at byte `offset`, zero outside.");
reader!(u32_at, u32, "The `u32` at byte `offset`, zero outside.");
reader!(u64_at, u64, "The `u64` at byte `offset`, zero outside.");
reader!(u128_at, u128, "The `u128` at byte `offset`, zero outside.");

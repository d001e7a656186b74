//! Removes from an image when and where it was linked.
//!
//! The linker puts a hash of the symbol file (.pdb) into the image, by which debuggers find it. The symbol file holds the
//! linker's command line, and there rustc names a temporary folder with a new random name each time. So the same
//! sources would give images that differ in that hash, and in the hash over it that replaces the time stamp (/Brepro).
//! Here both become a hash of the rest of the image, in the image and in its symbol file alike.

use object::{
    LittleEndian as LE,
    pe::{self, ImageDebugDirectory},
    read::pe::PeFile64,
};
use sha2::{Digest, Sha256};

use super::{checksum, checksum_offset, debug_directory};

const GUID: usize = 16;
/// `RSDS`, then the GUID.
const SYMBOL_RECORD: &[u8; 4] = b"RSDS";

/// Why an image and its symbol file cannot be given a new identity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The image cannot be read.
    #[error("the image cannot be read: {0}")]
    Image(String),
    /// It names no symbol file, or in an unknown form.
    #[error("the image names no symbol file")]
    NoSymbols,
    /// The symbol file belongs to another image.
    #[error("the symbol file holds the image's identity {0} times instead of once")]
    OtherSymbols(usize),
}

impl From<object::Error> for IdentityError {
    fn from(error: object::Error) -> Self {
        Self::Image(error.to_string())
    }
}

/// Gives an image and its symbol file an identity that depends only on the image's other bytes.
///
/// # Errors
/// When the two do not belong together.
pub fn settle(image: &mut [u8], symbols: &mut [u8]) -> Result<(), IdentityError> {
    let places = Places::of(image)?;
    let old: [u8; GUID] = image[places.guid..].first_chunk().copied().ok_or(IdentityError::NoSymbols)?;
    let found: Vec<_> =
        symbols.windows(GUID).enumerate().filter(|(_, bytes)| *bytes == old).map(|(at, _)| at).collect();
    let [in_symbols] = found[..] else { return Err(IdentityError::OtherSymbols(found.len())) };

    for (at, length) in places.changed() {
        image[at..at + length].fill(0);
    }
    let hash = Sha256::digest(&*image);
    for (at, length) in places.changed() {
        // The same four bytes for every time, sixteen for the symbol file.
        image[at..at + length].copy_from_slice(&hash[..length]);
    }
    symbols[in_symbols..in_symbols + GUID].copy_from_slice(&hash[..GUID]);
    image[places.checksum..places.checksum + 4].fill(0);
    let sum = checksum(image, places.checksum);
    image[places.checksum..places.checksum + 4].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// File offsets of the parts that change.
struct Places {
    guid: usize,
    times: Vec<usize>,
    checksum: usize,
}

impl Places {
    fn of(image: &[u8]) -> Result<Self, IdentityError> {
        let file = PeFile64::parse(image)?;
        let (at, entries) = debug_directory(&file, image)?.ok_or(IdentityError::NoSymbols)?;
        // After the signature, four bytes into the file header; four bytes into each entry of the debug directory.
        let mut times = vec![file.dos_header().nt_headers_offset() as usize + 8];
        times.extend((0..entries.len()).map(|number| at + number * size_of::<ImageDebugDirectory>() + 4));
        let symbols = entries.iter().filter(|entry| entry.typ.get(LE) == pe::IMAGE_DEBUG_TYPE_CODEVIEW);
        let mut guids = symbols.map(|entry| entry.pointer_to_raw_data.get(LE) as usize + SYMBOL_RECORD.len());
        let guid = guids.next().ok_or(IdentityError::NoSymbols)?;
        let record = guid - SYMBOL_RECORD.len()..guid + GUID;
        if !image.get(record).is_some_and(|record| record.starts_with(SYMBOL_RECORD)) {
            return Err(IdentityError::NoSymbols);
        }
        Ok(Self { guid, times, checksum: checksum_offset(&file) })
    }

    /// Offset and length of each part that gets a new value, the checksum last.
    fn changed(&self) -> Vec<(usize, usize)> {
        let times = self.times.iter().map(|at| (*at, 4));
        times.chain([(self.guid, GUID), (self.checksum, 4)]).collect()
    }
}

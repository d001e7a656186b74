//! A bundle: a policy and its lists, the image that they compile to, a version, and a signature, in one file.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | [`MAGIC`] |
//! | 8 | 4 | the format's version, [`FORMAT`] |
//! | 12 | 4 | how many files there are |
//! | 16 | 8 | the bundle's version |
//! | 24 | 8 | the length of the image |
//! | 32 | 32 | the Ed25519 public key of who signed it |
//! | 64 | 8 for each file | how long its name and its content are |
//! | | | the names, the contents, the image |
//! | the last | 64 | the Ed25519 signature (RFC 8032) of [`DOMAIN`] and everything before it |
//!
//! Numbers are little-endian. The first file is the policy, the others are its lists, under the names by which it reads
//! them; no file of a bundle is ever written to a disk. The same content, version and key make the same bytes.
//!
//! A [`Bundle`] exists only of bytes whose signature is right, so whoever holds one knows who signed all of it. Whether
//! that is somebody to be obeyed is for the caller to say, and where he does ([`Bundle::read_trusted`]) nothing is looked
//! into that others have signed.
#![forbid(unsafe_code)]

mod key;
mod read;
mod write;

pub use key::{KeyError, PublicKey, SecretKey};
pub use read::{Bundle, InvalidBundle};
#[cfg(feature = "fuzz")]
pub use write::put_right;
pub use write::{Contents, TooLarge};

/// What every bundle begins with: no text does, and what turns line ends breaks it.
pub const MAGIC: [u8; 8] = *b"\x8eSLB\r\n\x1a\n";
/// The version of the format.
pub const FORMAT: u32 = 1;
/// What is signed before the bundle's own bytes, so that no signature for another purpose is one of a bundle.
pub const DOMAIN: &[u8] = b"sluicegate policy bundle\0";
/// The most bytes of a bundle: those of the largest image, of which no useful bundle comes near.
pub const MAX_BYTES: usize = 256 << 20;
/// The most files of a bundle.
pub const MAX_FILES: usize = 4096;
/// The most bytes of a file's name.
pub const MAX_NAME: usize = 1024;

/// The bytes before the table of files.
const HEADER: usize = 64;
/// The bytes of a row of that table.
const ROW: usize = 8;
/// The bytes of the signature.
const SIGNATURE: usize = 64;
/// Where the parts of the header are.
mod at {
    pub(super) const FORMAT: usize = 8;
    pub(super) const FILES: usize = 12;
    pub(super) const VERSION: usize = 16;
    pub(super) const IMAGE: usize = 24;
    pub(super) const KEY: usize = 32;
}

#[cfg(test)]
mod tests;

//! Reading.

use crate::{DOMAIN, FORMAT, HEADER, MAGIC, MAX_BYTES, MAX_FILES, MAX_NAME, PublicKey, ROW, SIGNATURE, at};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::ops::Range;

/// Why bytes are no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBundle {
    /// They do not begin as one.
    #[error("it is no bundle")]
    Magic,
    /// They are of another format.
    #[error("it is a bundle of format {0}, and this program reads format {FORMAT}")]
    Format(u32),
    /// They are more than any bundle has.
    #[error("it is longer than the {} MiB of the largest bundle", MAX_BYTES >> 20)]
    Length,
    /// They end too early.
    #[error("it is cut short")]
    Short,
    /// Something follows.
    #[error("something follows its end")]
    Long,
    /// The key is none.
    #[error("its key is not valid")]
    Key,
    /// Somebody else has signed it.
    #[error("it is signed by {0}")]
    Signer(Box<PublicKey>),
    /// The signature is of other bytes, or of somebody else.
    #[error("its signature is wrong: it was changed, or cut, after it was signed")]
    Signature,
    /// A file that cannot be one.
    #[error("its file {0} {1}")]
    File(usize, &'static str),
    /// It has no policy, or more files than any bundle.
    #[error("it has {0} files; a bundle has 1 to {MAX_FILES}")]
    Files(u32),
}

/// A file's place.
#[derive(Clone, Debug)]
struct File {
    name: Range<usize>,
    content: Range<usize>,
}

/// A bundle that is whole and signed by who it says.
#[derive(Clone, Debug)]
pub struct Bundle {
    bytes: Vec<u8>,
    signer: PublicKey,
    version: u64,
    files: Vec<File>,
    image: Range<usize>,
}

impl Bundle {
    /// Reads a bundle of whoever signed it.
    ///
    /// # Errors
    /// It is none, was damaged, or its signature is not of the key in it. Bytes of any kind may be passed.
    pub fn read(bytes: Vec<u8>) -> Result<Self, InvalidBundle> {
        Self::checked(bytes, None)
    }

    /// Reads a bundle that `trusted` must have signed.
    ///
    /// # Errors
    /// As [`Bundle::read`]; and somebody else has signed it.
    pub fn read_trusted(bytes: Vec<u8>, trusted: &PublicKey) -> Result<Self, InvalidBundle> {
        Self::checked(bytes, Some(trusted))
    }

    fn checked(bytes: Vec<u8>, trusted: Option<&PublicKey>) -> Result<Self, InvalidBundle> {
        if !is_bundle(&bytes) {
            return Err(InvalidBundle::Magic);
        }
        let format = u32_at(&bytes, at::FORMAT).ok_or(InvalidBundle::Short)?;
        if format != FORMAT {
            return Err(InvalidBundle::Format(format));
        }
        if bytes.len() > MAX_BYTES {
            return Err(InvalidBundle::Length);
        }
        let key = bytes.get(at::KEY..HEADER).and_then(|key| key.first_chunk()).ok_or(InvalidBundle::Short)?;
        let signer = PublicKey::from_bytes(key).map_err(|_| InvalidBundle::Key)?;
        if trusted.is_some_and(|trusted| *trusted != signer) {
            return Err(InvalidBundle::Signer(Box::new(signer)));
        }
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE>().ok_or(InvalidBundle::Short)?;
        if signed.len() < HEADER {
            return Err(InvalidBundle::Short);
        }
        if !signer.has_signed(&[DOMAIN, signed].concat(), signature) {
            return Err(InvalidBundle::Signature);
        }
        let (version, files, image) = parts(signed)?;
        Ok(Self { signer, version, files, image, bytes })
    }

    /// Who has signed it.
    #[must_use]
    pub fn signer(&self) -> &PublicKey {
        &self.signer
    }

    /// Its version: the higher, the newer.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Its files by name, the policy first.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.files.iter().map(|file| (self.name(file), self.slice(&file.content)))
    }

    /// The policy's name and text.
    #[must_use]
    pub fn policy(&self) -> (&str, &[u8]) {
        self.files().next().unwrap_or_default()
    }

    /// The content of a file.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files().find(|(other, _)| *other == name).map(|(_, content)| content)
    }

    /// The image that its policy was compiled to, as its maker says.
    #[must_use]
    pub fn image(&self) -> &[u8] {
        self.slice(&self.image)
    }

    /// All of its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The SHA-256 of all of it, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        Sha256::digest(&self.bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
            // A string takes everything.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    // Both hold what was found in the same bytes when they were read.
    fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    fn name(&self, file: &File) -> &str {
        str::from_utf8(self.slice(&file.name)).unwrap_or_default()
    }
}

/// Whether these bytes begin as a bundle does.
#[must_use]
pub(crate) fn is_bundle(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// What is in front of the signature: version, files, image.
fn parts(bytes: &[u8]) -> Result<(u64, Vec<File>, Range<usize>), InvalidBundle> {
    let count = u32_at(bytes, at::FILES).ok_or(InvalidBundle::Short)?;
    let files = usize::try_from(count).unwrap_or(usize::MAX);
    if !(1..=MAX_FILES).contains(&files) {
        return Err(InvalidBundle::Files(count));
    }
    let version = u64_at(bytes, at::VERSION).ok_or(InvalidBundle::Short)?;
    let image = u64_at(bytes, at::IMAGE).ok_or(InvalidBundle::Short)?;
    let rows = (0..files).map(|file| {
        let row = HEADER + file * ROW;
        Some((length(u32_at(bytes, row)?), length(u32_at(bytes, row + 4)?)))
    });
    let rows: Vec<(usize, usize)> = rows.collect::<Option<_>>().ok_or(InvalidBundle::Short)?;
    let mut end = HEADER + files * ROW;
    let mut next = |length: usize| {
        let start = end;
        end = end.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(InvalidBundle::Short)?;
        Ok(start..end)
    };
    let names = rows.iter().map(|(name, _)| next(*name)).collect::<Result<Vec<_>, _>>()?;
    let contents = rows.iter().map(|(_, content)| next(*content)).collect::<Result<Vec<_>, _>>()?;
    let image = next(usize::try_from(image).unwrap_or(usize::MAX))?;
    if end != bytes.len() {
        return Err(InvalidBundle::Long);
    }
    let mut seen = std::collections::HashSet::new();
    for (number, name) in names.iter().enumerate() {
        let text = bytes.get(name.clone()).and_then(|name| str::from_utf8(name).ok());
        let text = text.ok_or(InvalidBundle::File(number, "has a name that is not UTF-8"))?;
        if text.is_empty() || text.len() > MAX_NAME {
            return Err(InvalidBundle::File(number, "has no name, or one that is too long"));
        }
        if !seen.insert(text) {
            return Err(InvalidBundle::File(number, "has the name of another"));
        }
    }
    let files = names.into_iter().zip(contents).map(|(name, content)| File { name, content });
    Ok((version, files.collect(), image))
}

fn length(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

//! Making.

use crate::{DOMAIN, FORMAT, MAGIC, MAX_BYTES, MAX_FILES, MAX_NAME, SecretKey};

/// It does not fit a bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// All of it together is too long.
    #[error("it would have more than the {} MiB of the largest bundle", MAX_BYTES >> 20)]
    Bytes,
    /// There are too many files.
    #[error("it would have {0} files; a bundle has 1 to {MAX_FILES}")]
    Files(usize),
    /// A file's name cannot be one.
    #[error("{0:?} is no name of a file in a bundle: it is empty, has more than {MAX_NAME} bytes, or is there twice")]
    Name(String),
}

/// What is to be signed.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The higher, the newer.
    pub version: u64,
    /// The policy, then its lists, by the names under which it reads them.
    pub files: Vec<(String, Vec<u8>)>,
    /// The compiled image.
    pub image: Vec<u8>,
}

impl Contents {
    /// The bytes of the bundle.
    ///
    /// # Errors
    /// It would be larger than [`Bundle`](crate::Bundle) reads.
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, TooLarge> {
        let count = u32::try_from(self.files.len()).ok().filter(|count| (1..=MAX_FILES as u32).contains(count));
        let count = count.ok_or(TooLarge::Files(self.files.len()))?;
        for (at, (name, _)) in self.files.iter().enumerate() {
            let twice = self.files.iter().take(at).any(|(other, _)| other == name);
            if name.is_empty() || name.len() > MAX_NAME || twice {
                return Err(TooLarge::Name(name.clone()));
            }
        }
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| TooLarge::Bytes);
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.image.len() as u64).to_le_bytes());
        bytes.extend(key.public().as_bytes());
        for (name, content) in &self.files {
            bytes.extend(length(name.as_bytes())?.to_le_bytes());
            bytes.extend(length(content)?.to_le_bytes());
        }
        bytes.extend(self.files.iter().flat_map(|(name, _)| name.as_bytes()));
        for part in self.files.iter().map(|(_, content)| content).chain([&self.image]) {
            bytes.extend_from_slice(part);
        }
        bytes.extend(key.sign(&[DOMAIN, &bytes].concat()));
        if bytes.len() > MAX_BYTES { Err(TooLarge::Bytes) } else { Ok(bytes) }
    }
}

/// Gives bytes the magic, the format, a key and a signature that are right, so that a fuzzer reaches what they guard.
#[cfg(feature = "fuzz")]
pub fn put_right(bytes: &mut Vec<u8>) {
    use crate::{HEADER, SIGNATURE, at};
    let Ok(key) = SecretKey::from_pem(FUZZ_KEY) else { return };
    bytes.resize(bytes.len().max(HEADER + SIGNATURE), 0);
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[at::FORMAT..at::FILES].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[at::KEY..HEADER].copy_from_slice(key.public().as_bytes());
    let end = bytes.len() - SIGNATURE;
    let signature = key.sign(&[DOMAIN, &bytes[..end]].concat());
    bytes[end..].copy_from_slice(&signature);
}

/// The key of RFC 8032's first test, which is no secret.
#[cfg(feature = "fuzz")]
const FUZZ_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

//! Ed25519 keys: files in the formats that OpenSSL and others read and write.

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// What a public key on one line begins with.
const PREFIX: &str = "ed25519:";

/// A text that is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is no public key in any form that is read.
    #[error("it is no Ed25519 public key: neither PEM (BEGIN PUBLIC KEY) nor `ed25519:` and 64 hexadecimal digits")]
    Public,
    /// It is no secret key in the form that is read.
    #[error("it is no Ed25519 secret key in PEM (PKCS #8, BEGIN PRIVATE KEY, without a password)")]
    Secret,
    /// It is a secret key where a public one is wanted.
    #[error("it is a secret key: keep it where bundles are made, and give the public one")]
    SecretForPublic,
    /// A key for which anybody can make signatures.
    #[error("it is a weak key: anybody can sign for it")]
    Weak,
    /// The system has no random numbers.
    #[error("the system's random number generator failed: {0}")]
    Random(String),
}

/// Who signs, as others know him. It is never a weak key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// The key with these bytes (RFC 8032).
    ///
    /// # Errors
    /// They are no point of the curve, or a weak key.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Public)?;
        if key.is_weak() { Err(KeyError::Weak) } else { Ok(Self(key)) }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// As a file: SubjectPublicKeyInfo in PEM (RFC 8410).
    #[must_use]
    pub fn to_pem(&self) -> String {
        // It has one fixed form, which always fits.
        self.0.to_public_key_pem(LineEnding::LF).unwrap_or_default()
    }

    /// Whether it has signed this, in the strict reading of RFC 8032 that admits one signature only.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    /// Reads PEM, or what [`PublicKey`] prints.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.contains("PRIVATE KEY") {
            return Err(KeyError::SecretForPublic);
        }
        if let Some(digits) = text.strip_prefix(PREFIX) {
            let byte = |at| digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
            let plain = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            let bytes: Option<Vec<u8>> = (0..64).step_by(2).map(byte).collect();
            let bytes = bytes.filter(|_| plain).and_then(|bytes| bytes.try_into().ok()).ok_or(KeyError::Public)?;
            return Self::from_bytes(&bytes);
        }
        let key = VerifyingKey::from_public_key_pem(text).map_err(|_| KeyError::Public)?;
        Self::from_bytes(key.as_bytes())
    }
}

/// What signs. It is overwritten when it is dropped, and not shown.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new key.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|error| KeyError::Random(error.to_string()))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads a file: PKCS #8 in PEM without a password, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        SigningKey::from_pkcs8_pem(text.trim()).map(Self).map_err(|_| KeyError::Secret)
    }

    /// As a file, in the first version of PKCS #8 (RFC 5958): OpenSSL does not read the second, which adds the public key.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let bytes = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        // It has one fixed form, which always fits.
        bytes.to_pkcs8_pem(LineEnding::LF).unwrap_or_default()
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

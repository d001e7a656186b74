//! The keys of a client's Initial packets, which anybody who sees the first one can compute (RFC 9001, 5.2; RFC 9369,
//! 3.3).
//!
//! The crates that compute here were chosen by the registers they use. A driver for x86-64 may use XMM registers, which
//! Windows saves with the others, but neither YMM nor ZMM, which it does not save without
//! KeSaveExtendedProcessorState, nor the AVX form of any instruction: it clears the upper half of the interrupted
//! program's YMM register.
//!
//! | crate | instructions, by run-time detection | |
//! |---|---|---|
//! | `aes` 0.8.4 | AES-NI and SSE2, else bit slices | taken |
//! | `aes` 0.9 | the same, and VAES on YMM and ZMM where the processor has it; only `aes_backend = "soft"` turns it off | refused |
//! | `ghash` 0.5.1 with `polyval` 0.6.2 | PCLMULQDQ and SSE2, else integers | taken |
//! | `ghash` 0.6 with `polyval` 0.7 | PCLMULQDQ in code compiled for AVX | refused |
//! | `sha2` 0.10.9, its SHA-256 alone | SHA, SSSE3 and SSE4.1, else integers | taken |
//! | `hkdf` 0.12, `hmac` 0.12 | none of their own | taken |
//! | `aes-gcm` | as `aes` and `ghash`; it decrypts in place, so it needs a copy of each packet | refused |
//!
//! The linked code is searched for both (`tests/no_panic.rs`). On ARM64 the software forms run unless the build asks for
//! more (`aes_armv8`, `polyval_armv8`).

use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::header::Version;

/// Keys of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) version: Version,
    pub(super) key: [u8; 16],
    pub(super) iv: [u8; 12],
    pub(super) header: [u8; 16],
}

const SALT_V1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f,
    0x0a,
];
const SALT_V2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e,
    0xd9,
];

/// HKDF-Expand-Label without a context (RFC 8446, 7.1).
fn expand<const N: usize>(secret: &Hkdf<Sha256>, label: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    let prefix = b"tls13 ";
    let lengths = [0, N as u8, (prefix.len() + label.len()) as u8];
    // It fails for more than 8,160 bytes only.
    let _ = secret.expand_multi_info(&[&lengths, prefix, label, &[0]], &mut out);
    out
}

impl Keys {
    /// The keys of a client whose first packet is to `destination`.
    pub(super) fn client(version: Version, destination: &[u8]) -> Option<Self> {
        let (salt, labels): (_, [&[u8]; 3]) = match version {
            Version::V1 => (&SALT_V1, [b"quic key", b"quic iv", b"quic hp"]),
            Version::V2 => (&SALT_V2, [b"quicv2 key", b"quicv2 iv", b"quicv2 hp"]),
        };
        // HKDF-Extract. Hkdf::extract is the same, and can panic for all that the compiler for ARM64 sees.
        let mut initial = Hmac::<Sha256>::new_from_slice(salt).ok()?;
        initial.update(destination);
        let initial = Hkdf::<Sha256>::from_prk(&initial.finalize().into_bytes()).ok()?;
        let secret = Hkdf::<Sha256>::from_prk(&expand::<32>(&initial, b"client in")).ok()?;
        let [key, iv, header] = labels;
        Some(Self { version, key: expand(&secret, key), iv: expand(&secret, iv), header: expand(&secret, header) })
    }
}

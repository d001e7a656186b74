//! Security identifiers as text and as bytes.

use std::fmt;

/// A security identifier: revision 1, a 48-bit authority and up to 15 sub-authorities ([MS-DTYP] 2.4.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SidBuf {
    bytes: Vec<u8>,
}

impl SidBuf {
    /// Reads `S-1-5-21-...`; the well-known names of [`WELL_KNOWN`] are understood too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let known = WELL_KNOWN.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let text = known.map_or(text, |(_, sid)| sid);
        let mut parts = text.strip_prefix("S-1-").or_else(|| text.strip_prefix("s-1-"))?.split('-');
        let authority = number(parts.next()?)?;
        if authority >= 1 << 48 {
            return None;
        }
        let mut bytes = vec![1, 0];
        bytes.extend_from_slice(&authority.to_be_bytes()[2..]);
        for part in parts {
            bytes[1] += 1;
            if bytes[1] > 15 {
                return None;
            }
            bytes.extend_from_slice(&u32::try_from(number(part)?).ok()?.to_le_bytes());
        }
        (bytes[1] > 0).then_some(Self { bytes })
    }

    /// The binary form.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Accounts every Windows has.
pub const WELL_KNOWN: [(&str, &str); 5] = [
    ("SYSTEM", "S-1-5-18"),
    ("LOCAL SERVICE", "S-1-5-19"),
    ("NETWORK SERVICE", "S-1-5-20"),
    ("ANONYMOUS", "S-1-5-7"),
    ("Everyone", "S-1-1-0"),
];

/// Decimal, or hexadecimal with `0x` as large authorities are written.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten(),
    }
}

impl fmt::Display for SidBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.bytes[2..8].iter().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        write!(f, "S-1-{authority}")?;
        for part in self.bytes[8..].chunks_exact(4) {
            write!(f, "-{}", u32::from_le_bytes([part[0], part[1], part[2], part[3]]))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_agree() {
        let sid = SidBuf::parse("S-1-5-21-1-2-4294967295-1001").unwrap();
        assert_eq!(sid.bytes()[..12], [1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0]);
        assert_eq!(sid.to_string(), "S-1-5-21-1-2-4294967295-1001");
        assert_eq!(SidBuf::parse("system").unwrap().to_string(), "S-1-5-18");
        for wrong in ["", "S-1", "S-1-", "S-1-5", "S-1-5-x", "S-1-5-4294967296", "S-2-5-1", "S-1-5-+1"] {
            assert_eq!(SidBuf::parse(wrong), None, "{wrong}");
        }
    }
}

//! Security identifiers as text and as bytes.

use sha1::Sha1;
use sha2::{Digest, Sha256};
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

    /// Reads the binary form.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [1, count @ 1..=15, ..] = *bytes else { return None };
        (bytes.len() == 8 + 4 * usize::from(count)).then(|| Self { bytes: bytes.to_vec() })
    }

    /// The SID in a service's token: `S-1-5-80` and the SHA-1 of the name in upper case, as UTF-16LE.
    #[must_use]
    pub fn of_service(name: &str) -> Option<Self> {
        let fits = (1..=256).contains(&name.chars().count()) && !name.contains(['/', '\\', '*', '@']);
        if !fits || name.chars().any(char::is_control) {
            return None;
        }
        let hash = Sha1::digest(utf16(name, char::to_uppercase));
        Some(Self::new(5, &[80], &hash))
    }

    /// The SID of a package's app container: `S-1-15-2` and the first 28 bytes of the SHA-256 of the family name in
    /// lower case, as UTF-16LE. `S-1-15-2-...` is taken as it is.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn of_package(name: &str) -> Result<Self, &'static str> {
        if name.get(..9).is_some_and(|head| head.eq_ignore_ascii_case("S-1-15-2-")) {
            return Self::parse(name).ok_or("a SID as in `S-1-15-2-1609473798-...`");
        }
        let letters = |letter: char| letter.is_alphanumeric() || matches!(letter, '.' | '-' | '_');
        if !(1..=128).contains(&name.len()) || !name.chars().all(letters) {
            return Err("a family name as in `Microsoft.WindowsStore_8wekyb3d8bbwe`, or a SID `S-1-15-2-...`");
        }
        if name.matches('_').count() > 1 {
            return Err("the family name (the name and the publisher, without version and processor), as \
                        `Get-AppxPackage` shows it as PackageFamilyName");
        }
        let hash = Sha256::digest(utf16(name, char::to_lowercase));
        Ok(Self::new(15, &[2], &hash[..28]))
    }

    fn new(authority: u8, first: &[u32], rest: &[u8]) -> Self {
        let mut bytes = vec![1, (first.len() + rest.len() / 4) as u8, 0, 0, 0, 0, 0, authority];
        bytes.extend(first.iter().flat_map(|part| part.to_le_bytes()));
        bytes.extend_from_slice(rest);
        Self { bytes }
    }

    /// The binary form.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Letters in upper or lower case, one by one, as UTF-16LE.
fn utf16<I: Iterator<Item = char>>(text: &str, case: fn(char) -> I) -> Vec<u8> {
    let one = |letter: char| {
        let mut other = case(letter);
        match (other.next(), other.next()) {
            (Some(one), None) => one,
            _ => letter,
        }
    };
    text.chars().map(one).collect::<String>().encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Accounts and groups of every Windows, and the abbreviations of security descriptors.
pub const WELL_KNOWN: [(&str, &str); 36] = [
    ("SYSTEM", "S-1-5-18"),
    ("LOCAL SERVICE", "S-1-5-19"),
    ("NETWORK SERVICE", "S-1-5-20"),
    ("ANONYMOUS", "S-1-5-7"),
    ("Everyone", "S-1-1-0"),
    ("Authenticated Users", "S-1-5-11"),
    ("Interactive", "S-1-5-4"),
    ("Network", "S-1-5-2"),
    ("Batch", "S-1-5-3"),
    ("Service", "S-1-5-6"),
    ("Local", "S-1-2-0"),
    ("Local account", "S-1-5-113"),
    ("All Services", "S-1-5-80-0"),
    ("All Application Packages", "S-1-15-2-1"),
    ("Administrators", "S-1-5-32-544"),
    ("Users", "S-1-5-32-545"),
    ("Guests", "S-1-5-32-546"),
    ("Power Users", "S-1-5-32-547"),
    ("Backup Operators", "S-1-5-32-551"),
    ("Remote Desktop Users", "S-1-5-32-555"),
    ("Network Configuration Operators", "S-1-5-32-556"),
    ("Remote Management Users", "S-1-5-32-580"),
    ("SY", "S-1-5-18"),
    ("LS", "S-1-5-19"),
    ("NS", "S-1-5-20"),
    ("AN", "S-1-5-7"),
    ("WD", "S-1-1-0"),
    ("AU", "S-1-5-11"),
    ("IU", "S-1-5-4"),
    ("NU", "S-1-5-2"),
    ("SU", "S-1-5-6"),
    ("AC", "S-1-15-2-1"),
    ("BA", "S-1-5-32-544"),
    ("BU", "S-1-5-32-545"),
    ("BG", "S-1-5-32-546"),
    ("RD", "S-1-5-32-555"),
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
        assert_eq!(SidBuf::from_bytes(sid.bytes()), Some(sid.clone()));
        for wrong in [&sid.bytes()[..11], &[], &[2, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 5]] {
            assert_eq!(SidBuf::from_bytes(wrong), None);
        }
        assert_eq!(SidBuf::parse("system").unwrap().to_string(), "S-1-5-18");
        assert_eq!(SidBuf::parse("administrators").unwrap().to_string(), "S-1-5-32-544");
        for wrong in ["", "S-1", "S-1-", "S-1-5", "S-1-5-x", "S-1-5-4294967296", "S-2-5-1", "S-1-5-+1"] {
            assert_eq!(SidBuf::parse(wrong), None, "{wrong}");
        }
    }
    /// Widely published pairs, as shown by Windows (`sc showsid`).
    #[test]
    fn names_of_services_make_sids() {
        for (name, sid) in [
            ("TrustedInstaller", "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"),
            ("trustedINSTALLER", "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"),
            ("Dnscache", "S-1-5-80-859482183-879914841-863379149-1145462774-2388618682"),
        ] {
            assert_eq!(SidBuf::of_service(name).unwrap().to_string(), sid, "{name}");
        }
        for wrong in ["", "a\\b", "a/b", "*"] {
            assert_eq!(SidBuf::of_service(wrong), None, "{wrong}");
        }
    }

    /// Pairs listed by `CheckNetIsolation`.
    #[test]
    fn names_of_packages_make_sids() {
        for (name, sid) in [
            (
                "Microsoft.WindowsStore_8wekyb3d8bbwe",
                "S-1-15-2-1609473798-1231923017-684268153-4268514328-882773646-2760585773-1760938157",
            ),
            (
                "microsoft.microsoftedge_8wekyb3d8bbwe",
                "S-1-15-2-3624051433-2125758914-1423191267-1740899205-1073925389-3782572162-737981194",
            ),
            ("S-1-15-2-1-2-3-4-5-6-7", "S-1-15-2-1-2-3-4-5-6-7"),
        ] {
            assert_eq!(SidBuf::of_package(name).unwrap().to_string(), sid, "{name}");
        }
        for wrong in ["", "Microsoft.WindowsStore_12011.1001.1.0_x64__8wekyb3d8bbwe", "a b", "S-1-15-2-x"] {
            assert!(SidBuf::of_package(wrong).is_err(), "{wrong}");
        }
    }
}

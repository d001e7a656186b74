//! SIDs and security descriptors, as far as matching a filter on a user needs them.
//!
//! A condition on ALE_USER_ID holds a security descriptor; it matches when its DACL grants the token
//! `FWP_ACTRL_MATCH_FILTER` (filtering-condition-identifiers, win32 documentation).

use crate::token::TokenView;
use std::fmt::Write as _;

/// The one access right a filter's descriptor can grant.
const FWP_ACTRL_MATCH_FILTER: u32 = 1;
/// `GENERIC_ALL` and `GENERIC_READ` include it; Microsoft's samples use both spellings (`CC` and `GA`).
const GENERIC_ALL: u32 = 0x1000_0000;

/// A security identifier in binary form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sid(Box<[u8]>);

impl Sid {
    /// `S-1-authority-sub-sub...`.
    ///
    /// # Panics
    /// With more than fifteen sub-authorities, which no SID has.
    #[must_use]
    pub fn new(authority: u64, sub_authorities: &[u32]) -> Self {
        assert!(sub_authorities.len() <= 15, "a SID has at most fifteen sub-authorities");
        let mut bytes = vec![1, sub_authorities.len() as u8];
        bytes.extend_from_slice(&authority.to_be_bytes()[2..]);
        for sub in sub_authorities {
            bytes.extend_from_slice(&sub.to_le_bytes());
        }
        Self(bytes.into())
    }

    /// LocalSystem, S-1-5-18.
    #[must_use]
    pub fn local_system() -> Self {
        Self::new(5, &[18])
    }

    /// Nobody, S-1-0-0: the package of a process that is not an AppContainer.
    #[must_use]
    pub fn null() -> Self {
        Self::new(0, &[0])
    }

    /// The SID at the front of `bytes`.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let len = 8 + 4 * usize::from(*bytes.get(1)?);
        (bytes[0] == 1 && bytes[1] <= 15).then_some(())?;
        Some(Self(bytes.get(..len)?.into()))
    }

    /// Reads `S-1-authority-sub-sub...`, or the two letters of a well-known SID.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let text = SHORT.iter().find(|(_, short)| *short == text).map_or(text, |(long, _)| long);
        let mut parts = text.strip_prefix("S-1-")?.split('-');
        let authority = parts.next()?;
        let authority = match authority.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok()?,
            None => authority.parse().ok()?,
        };
        let subs = parts.map(str::parse).collect::<Result<Vec<u32>, _>>().ok()?;
        (authority < 1 << 48 && subs.len() <= 15).then(|| Self::new(authority, &subs))
    }

    /// The binary form.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for Sid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", sid_text(&self.0))
    }
}

/// A binary SID in its `S-1-...` form; empty when it is not valid.
#[must_use]
pub fn sid_text(bytes: &[u8]) -> String {
    let Some(Sid(bytes)) = Sid::parse(bytes) else { return String::new() };
    let authority = bytes[2..8].iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let mut text = format!("S-1-{authority}");
    for sub in bytes[8..].chunks_exact(4) {
        let sub = u32::from_le_bytes(sub.try_into().expect("chunks of four"));
        let _ = write!(text, "-{sub}"); // writing to a String cannot fail
    }
    text
}

/// A self-relative security descriptor's owner, group and DACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityDescriptor {
    owner: Option<Sid>,
    group: Option<Sid>,
    /// `None`: no DACL, which grants everything.
    dacl: Option<Vec<Ace>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ace {
    allow: bool,
    mask: u32,
    sid: Sid,
}

impl SecurityDescriptor {
    /// Reads a self-relative descriptor; ACEs other than allow and deny are ignored.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        const SE_DACL_PRESENT: u16 = 0x0004;
        const SE_SELF_RELATIVE: u16 = 0x8000;
        const ACCESS_ALLOWED_ACE_TYPE: u8 = 0;
        const ACCESS_DENIED_ACE_TYPE: u8 = 1;
        let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let control = u16_at(2)?;
        let dacl = u32_at(16)? as usize;
        if bytes[0] != 1 || control & SE_SELF_RELATIVE == 0 {
            return None;
        }
        let sid_at = |at: usize| match u32_at(at)? as usize {
            0 => Some(None),
            offset => Sid::parse(bytes.get(offset..)?).map(Some),
        };
        let (owner, group) = (sid_at(4)?, sid_at(8)?);
        if control & SE_DACL_PRESENT == 0 || dacl == 0 {
            return Some(Self { owner, group, dacl: None });
        }
        let (size, count) = (usize::from(u16_at(dacl + 2)?), u16_at(dacl + 4)?);
        let mut at = dacl + 8;
        let mut aces = Vec::new();
        for _ in 0..count {
            let (kind, len) = (*bytes.get(at)?, usize::from(u16_at(at + 2)?));
            if len < 8 || at + len > dacl + size {
                return None;
            }
            if matches!(kind, ACCESS_ALLOWED_ACE_TYPE | ACCESS_DENIED_ACE_TYPE) {
                let sid = Sid::parse(bytes.get(at + 8..at + len)?)?;
                aces.push(Ace { allow: kind == ACCESS_ALLOWED_ACE_TYPE, mask: u32_at(at + 4)?, sid });
            }
            at += len;
        }
        Some(Self { owner, group, dacl: Some(aces) })
    }

    /// Whether the DACL grants `FWP_ACTRL_MATCH_FILTER`: the first ACE with that right for one of the token's SIDs
    /// decides; without one it does not.
    pub(crate) fn grants_match(&self, token: &TokenView<'_>) -> bool {
        let Some(aces) = &self.dacl else { return true };
        let speaks = |ace: &&Ace| ace.mask & (FWP_ACTRL_MATCH_FILTER | GENERIC_ALL) != 0 && token.has(&ace.sid);
        aces.iter().find(speaks).is_some_and(|ace| ace.allow)
    }

    /// Reads SDDL with plain allow and deny entries, whose rights are `CC`, `GA` or a number, and makes the
    /// self-relative form. `None` for what a filter's descriptor does not have: other rights, flags, object and
    /// conditional entries.
    #[must_use]
    pub fn from_sddl(text: &str) -> Option<Vec<u8>> {
        let (before, list) = text.split_once("D:").filter(|(before, _)| before.is_empty() || before.contains(':'))?;
        let owner = before.strip_prefix("O:").map(|rest| rest.split("G:").next().unwrap_or(rest));
        let group = before.split_once("G:").map(|(_, group)| group);
        let mut aces = Vec::new();
        let list = list.trim_start_matches(['P', 'A', 'I', 'R']);
        for ace in list.split_inclusive(')') {
            let fields: Vec<&str> = ace.strip_prefix('(')?.strip_suffix(')')?.split(';').collect();
            let [kind, "", rights, "", "", sid] = fields.as_slice() else { return None };
            let mask = match *rights {
                "CC" => FWP_ACTRL_MATCH_FILTER,
                "GA" => GENERIC_ALL,
                other => u32::from_str_radix(other.strip_prefix("0x")?, 16).ok()?,
            };
            let kind = ["A", "D"].iter().position(|one| one == kind)?;
            let sid = Sid::from_text(sid)?;
            aces.extend_from_slice(&[kind as u8, 0]);
            aces.extend_from_slice(&u16::try_from(8 + sid.bytes().len()).ok()?.to_le_bytes());
            aces.extend_from_slice(&mask.to_le_bytes());
            aces.extend_from_slice(sid.bytes());
        }
        let count = u16::try_from(list.matches('(').count()).ok()?;
        let (owner, group) = (
            owner.map_or(Some(None), |sid| Sid::from_text(sid).map(Some))?,
            match group {
                Some(sid) => Some(Sid::from_text(sid)?),
                None => None,
            },
        );
        let dacl = u16::try_from(8 + aces.len()).ok()?;
        let mut at = 20 + u32::from(dacl);
        let mut bytes = vec![1, 0, 0x04, 0x80];
        for sid in [&owner, &group] {
            bytes.extend_from_slice(&sid.as_ref().map_or(0, |_| at).to_le_bytes());
            at += sid.as_ref().map_or(0, |sid| sid.bytes().len() as u32);
        }
        bytes.extend_from_slice(&[0, 0, 0, 0, 20, 0, 0, 0, 2, 0]);
        bytes.extend_from_slice(&dacl.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend(aces);
        for sid in [owner, group].into_iter().flatten() {
            bytes.extend_from_slice(sid.bytes());
        }
        Some(bytes)
    }

    /// In SDDL, as `netsh wfp` prints it: `O:LSD:(A;;CC;;;WD)`.
    #[must_use]
    pub fn sddl(&self) -> String {
        let mut text = String::new();
        for (letter, sid) in [('O', &self.owner), ('G', &self.group)] {
            if let Some(sid) = sid {
                let _ = write!(text, "{letter}:{}", sddl_sid(sid));
            }
        }
        let Some(aces) = &self.dacl else {
            text.push_str("D:NO_ACCESS_CONTROL");
            return text;
        };
        text.push_str("D:");
        for Ace { allow, mask, sid } in aces {
            let rights = match *mask {
                FWP_ACTRL_MATCH_FILTER => "CC".to_owned(),
                GENERIC_ALL => "GA".to_owned(),
                other => format!("{other:#x}"),
            };
            let _ = write!(text, "({};;{rights};;;{})", if *allow { 'A' } else { 'D' }, sddl_sid(sid));
        }
        text
    }
}

/// The two letters by which SDDL names a well-known SID ("SID Strings", win32 documentation).
const SHORT: [(&str, &str); 21] = [
    ("S-1-1-0", "WD"),
    ("S-1-3-0", "CO"),
    ("S-1-3-1", "CG"),
    ("S-1-3-4", "OW"),
    ("S-1-5-2", "NU"),
    ("S-1-5-4", "IU"),
    ("S-1-5-6", "SU"),
    ("S-1-5-7", "AN"),
    ("S-1-5-9", "ED"),
    ("S-1-5-11", "AU"),
    ("S-1-5-12", "RC"),
    ("S-1-5-18", "SY"),
    ("S-1-5-19", "LS"),
    ("S-1-5-20", "NS"),
    ("S-1-5-32-544", "BA"),
    ("S-1-5-32-545", "BU"),
    ("S-1-5-32-546", "BG"),
    ("S-1-5-32-547", "PU"),
    ("S-1-5-32-556", "NO"),
    ("S-1-15-2-1", "AC"),
    ("S-1-5-33", "WR"),
];

/// A SID as SDDL writes it: by the two letters of a well-known one, or in full.
fn sddl_sid(sid: &Sid) -> String {
    let full = sid.to_string();
    match SHORT.iter().find(|(long, _)| *long == full) {
        Some((_, short)) => (*short).to_owned(),
        None => full,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::token::Token;

    /// A self-relative descriptor with these ACEs.
    pub(crate) fn descriptor(aces: &[(bool, u32, &Sid)]) -> Vec<u8> {
        let mut list = Vec::new();
        for (allow, mask, sid) in aces {
            list.extend_from_slice(&[u8::from(!allow), 0]);
            list.extend_from_slice(&(8 + sid.bytes().len() as u16).to_le_bytes());
            list.extend_from_slice(&mask.to_le_bytes());
            list.extend_from_slice(sid.bytes());
        }
        let mut bytes = vec![1, 0, 0x04, 0x80];
        for offset in [0u32, 0, 0, 20] {
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        bytes.extend_from_slice(&[2, 0]);
        bytes.extend_from_slice(&(8 + list.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(aces.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend(list);
        bytes
    }

    #[test]
    fn the_first_ace_that_speaks_decides() {
        let (user, group, other) = (Sid::new(5, &[21, 1, 2, 3, 1001]), Sid::new(5, &[32, 544]), Sid::local_system());
        let blob = Token { sids: vec![user.clone(), group.clone()] }.to_blob();
        let grants = |aces: &[(bool, u32, &Sid)]| {
            let parsed = SecurityDescriptor::parse(&descriptor(aces)).expect("well formed");
            parsed.grants_match(&Token::view(blob.bytes()).expect("well formed"))
        };
        assert!(grants(&[(true, 1, &user)]));
        assert!(grants(&[(true, 1, &other), (true, 1, &group)]));
        assert!(!grants(&[(false, 1, &group), (true, 1, &user)]));
        assert!(grants(&[(false, 2, &group), (true, GENERIC_ALL, &user)]), "another right does not decide");
        assert!(!grants(&[(true, 1, &other)]));
        assert!(!grants(&[]), "an empty DACL grants nothing");
    }

    #[test]
    fn descriptors_are_written_in_sddl() {
        let everyone = Sid::new(1, &[0]);
        let sddl = |aces: &[(bool, u32, &Sid)]| SecurityDescriptor::parse(&descriptor(aces)).expect("good").sddl();
        let capability = Sid::new(15, &[3, 1]);
        assert_eq!(sddl(&[(true, 1, &capability), (false, 1, &everyone)]), "D:(A;;CC;;;S-1-15-3-1)(D;;CC;;;WD)");
        // An owner after the DACL, as in Windows Firewall's descriptors (LocalService).
        let mut bytes = descriptor(&[(true, GENERIC_ALL, &Sid::local_system())]);
        let at = bytes.len() as u32;
        bytes[4..8].copy_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(Sid::new(5, &[19]).bytes());
        assert_eq!(SecurityDescriptor::parse(&bytes).expect("good").sddl(), "O:LSD:(A;;GA;;;SY)");
        assert_eq!(SecurityDescriptor::parse(&bytes[..bytes.len() - 1]), None, "the owner is cut off");
    }

    #[test]
    fn sddl_reads_as_it_is_written() {
        for text in [
            "D:(A;;CC;;;WD)",
            "O:LSD:(A;;CC;;;S-1-15-3-1)(D;;GA;;;BA)",
            "O:SYG:BAD:(A;;0x3;;;S-1-5-21-1-2-3-1001)",
            "D:",
        ] {
            let bytes = SecurityDescriptor::from_sddl(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(SecurityDescriptor::parse(&bytes).expect("good").sddl(), text);
        }
        for text in
            ["", "D", "D:(A;;CC;;;WD", "D:(XA;;CC;;;WD;(x))", "D:(A;;QQ;;;WD)", "D:(A;;CC;;;ZZ)", "x D:(A;;CC;;;WD)"]
        {
            assert_eq!(SecurityDescriptor::from_sddl(text), None, "{text}");
        }
    }

    #[test]
    fn malformed_descriptors_are_refused_at_every_length() {
        let whole = descriptor(&[(true, 1, &Sid::local_system())]);
        assert!(SecurityDescriptor::parse(&whole).is_some());
        for len in 0..whole.len() {
            assert_eq!(SecurityDescriptor::parse(&whole[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn sids_are_written_as_windows_writes_them() {
        assert_eq!(Sid::new(5, &[21, 4_000_000_000, 7]).to_string(), "S-1-5-21-4000000000-7");
        assert_eq!(Sid::null().to_string(), "S-1-0-0");
        assert_eq!(sid_text(&[1, 2, 0]), "");
    }
}

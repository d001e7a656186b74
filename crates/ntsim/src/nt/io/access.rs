//! May this caller open that device? Judged by the DACL of the device's security descriptor, as its driver wrote it in
//! the security descriptor definition language (win32: "security descriptor string format", "ACE strings", "SID
//! strings").

use filter_engine::{security::Sid, token::Token};

/// What CreateFile with GENERIC_READ and GENERIC_WRITE asks for: FILE_GENERIC_READ and FILE_GENERIC_WRITE (winnt.h).
pub(super) const READ_AND_WRITE: u32 = FILE_GENERIC_READ | FILE_GENERIC_WRITE;

const FILE_GENERIC_READ: u32 = 0x0012_0089;
const FILE_GENERIC_WRITE: u32 = 0x0012_0116;
const FILE_GENERIC_EXECUTE: u32 = 0x0012_00A0;
const FILE_ALL_ACCESS: u32 = 0x001F_01FF;

/// Whether `sddl` grants `caller` all of `desired`. Entries are taken in order until all is granted or one denies; what
/// nobody grants is refused. A descriptor without a DACL grants everything, an empty DACL nothing.
///
/// An entry of another kind than allow and deny, or one that cannot be read, grants nothing; a denial that cannot be
/// read denies. One that is only there to be inherited (IO) says nothing about the device itself.
pub(super) fn grants(sddl: &str, caller: &Token, desired: u32) -> bool {
    let Some(dacl) = dacl(sddl) else { return true };
    let mut wanted = desired;
    for ace in dacl.split('(').skip(1) {
        let fields: Vec<&str> = ace.trim_end_matches(')').split(';').collect();
        let &[kind, flags, rights, _object, _inherited, who] = fields.as_slice() else { continue };
        if flags.as_bytes().chunks(2).any(|flag| flag == b"IO") {
            continue;
        }
        let (concerned, mask) = (sid(who).map(|sid| caller.sids.contains(&sid)), mask(rights));
        match (kind, concerned, mask) {
            ("D", Some(false), _) => {}
            ("D", _, None) | ("D", None, _) => return false,
            ("D", Some(true), Some(mask)) if wanted & mask != 0 => return false,
            ("A", Some(true), Some(mask)) => wanted &= !mask,
            _ => {}
        }
        if wanted == 0 {
            return true;
        }
    }
    false
}

/// The DACL's flags and entries; None when there is no DACL, or a null one.
fn dacl(sddl: &str) -> Option<&str> {
    // A colon only follows the letter of a part: trustees and rights have none.
    let at = sddl.find("D:")?;
    let rest = &sddl[at + 2..];
    let end = rest.find("S:").unwrap_or(rest.len());
    (!rest[..end].contains("NO_ACCESS_CONTROL")).then_some(&rest[..end])
}

/// An access mask, with the generic rights mapped as for files. None for rights that are unknown.
fn mask(rights: &str) -> Option<u32> {
    if let Some(hex) = rights.strip_prefix("0x") {
        return u32::from_str_radix(hex, 16).ok().map(map_generic);
    }
    if !rights.is_ascii() || !rights.len().is_multiple_of(2) {
        return None;
    }
    let mut mask = 0;
    for at in (0..rights.len()).step_by(2) {
        mask |= match &rights[at..at + 2] {
            "GA" | "FA" => FILE_ALL_ACCESS,
            "GR" | "FR" => FILE_GENERIC_READ,
            "GW" | "FW" => FILE_GENERIC_WRITE,
            "GX" | "FX" => FILE_GENERIC_EXECUTE,
            "RC" => 0x0002_0000,
            "SD" => 0x0001_0000,
            "WD" => 0x0004_0000,
            "WO" => 0x0008_0000,
            "CC" => 0x0001,
            "DC" => 0x0002,
            "LC" => 0x0004,
            "SW" => 0x0008,
            "RP" => 0x0010,
            "WP" => 0x0020,
            "DT" => 0x0040,
            "LO" => 0x0080,
            "CR" => 0x0100,
            _ => return None,
        };
    }
    Some(mask)
}

fn map_generic(mask: u32) -> u32 {
    let generic = [
        (0x8000_0000, FILE_GENERIC_READ),
        (0x4000_0000, FILE_GENERIC_WRITE),
        (0x2000_0000, FILE_GENERIC_EXECUTE),
        (0x1000_0000, FILE_ALL_ACCESS),
    ];
    generic.iter().filter(|(bit, _)| mask & bit != 0).fold(mask & 0x0FFF_FFFF, |mask, (_, rights)| mask | rights)
}

/// A trustee: one of the two-letter names that devices are given to, or a SID.
fn sid(who: &str) -> Option<Sid> {
    Some(match who {
        "WD" => Sid::new(1, &[0]),
        "NU" => Sid::new(5, &[2]),
        "AN" => Sid::new(5, &[7]),
        "UD" => Sid::new(5, &[84, 0, 0, 0, 0, 0]),
        "AU" => Sid::new(5, &[11]),
        "RC" => Sid::new(5, &[12]),
        "IU" => Sid::new(5, &[4]),
        "SU" => Sid::new(5, &[6]),
        "SY" => Sid::local_system(),
        "LS" => Sid::new(5, &[19]),
        "NS" => Sid::new(5, &[20]),
        "BA" => Sid::new(5, &[32, 544]),
        "BU" => Sid::new(5, &[32, 545]),
        "BG" => Sid::new(5, &[32, 546]),
        "NO" => Sid::new(5, &[32, 556]),
        "AC" => Sid::new(15, &[2, 1]),
        _ => {
            let mut parts = who.strip_prefix("S-1-")?.split('-');
            let authority = parts.next()?.parse().ok()?;
            let subs: Vec<u32> = parts.map(|part| part.parse().ok()).collect::<Option<_>>()?;
            return (subs.len() <= 15).then(|| Sid::new(authority, &subs));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(groups: &[&str]) -> Token {
        let sids = [&["S-1-5-21-1-2-3-1001", "WD", "AU", "BU"], groups].concat();
        Token { sids: sids.into_iter().map(|who| sid(who).expect("a trustee")).collect() }
    }

    #[test]
    fn a_device_opens_for_whom_its_dacl_grants_all_that_is_asked() {
        let cases = [
            ("D:P(A;;GA;;;SY)(A;;GA;;;BA)", &[] as &[&str], false),
            ("D:P(A;;GA;;;SY)(A;;GA;;;BA)", &["BA"], true),
            ("D:P(A;;GR;;;WD)", &[], false),
            ("D:P(A;;GR;;;WD)(A;;GW;;;AU)", &[], true),
            ("D:P(D;;GW;;;BU)(A;;GA;;;WD)", &[], false),
            ("D:P(A;;GA;;;WD)(D;;GW;;;BU)", &[], true),
            ("D:P(A;;0xc0000000;;;S-1-5-21-1-2-3-1001)", &[], true),
            ("D:P(A;;0x80000000;;;S-1-5-21-1-2-3-1001)", &[], false),
            ("D:P(A;;FRFW;;;AU)S:(ML;;NW;;;LW)", &[], true),
            ("D:P", &["BA"], false),
            ("O:SYG:SY", &[], true),
            ("D:NO_ACCESS_CONTROL", &[], true),
            ("D:P(A;;ZZ;;;WD)(nonsense)", &[], false),
            ("D:P(D;;GW;;;XX)(A;;GA;;;WD)", &[], false),
            ("D:P(D;;ZZ;;;BU)(A;;GA;;;WD)", &[], false),
            ("D:P(A;OICIIO;GA;;;WD)", &[], false),
            ("D:P(D;CIIO;GA;;;WD)(A;;GA;;;WD)", &[], true),
        ];
        for (sddl, groups, granted) in cases {
            assert_eq!(grants(sddl, &user(groups), READ_AND_WRITE), granted, "{sddl} for {groups:?}");
        }
    }
}

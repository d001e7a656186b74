//! The security descriptors of conditions on ALE_USER_ID.
//!
//! Such a condition holds for a token to which the descriptor grants FWP_ACTRL_MATCH_FILTER ("Filtering condition
//! identifiers", win32 desktop-src/FWP).

use sluice_policy::model::SidBuf;

/// FWP_ACTRL_MATCH_FILTER (fwpmtypes.h).
const MATCH_FILTER: u32 = 1;
/// LocalSystem, the owner: an access check wants one, and the owner's own rights do not include the one above.
const SYSTEM: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
/// `All Application Packages` and `All Restricted Application Packages`, S-1-15-2-1 and -2. To an app container an access
/// check grants what its user is granted and, besides, one of its packages or capabilities ("AppContainer isolation",
/// win32 desktop-src/SecAuthZ); without these a filter on a user would miss what that user runs in a container. No other
/// token has them.
const PACKAGES: [[u8; 16]; 2] =
    [[1, 2, 0, 0, 0, 0, 0, 15, 2, 0, 0, 0, 1, 0, 0, 0], [1, 2, 0, 0, 0, 0, 0, 15, 2, 0, 0, 0, 2, 0, 0, 0]];

/// SE_DACL_PRESENT and SE_SELF_RELATIVE (winnt.h).
const CONTROL: u16 = 0x8004;
/// How long SECURITY_DESCRIPTOR_RELATIVE is, and the ACL's and an ACE's header.
const HEADER: u32 = 20;
const ACL_HEADER: usize = 8;
const ACE_HEADER: usize = 8;
/// ACL_REVISION.
const ACL_REVISION: u8 = 2;

/// At most this many SIDs are in one descriptor: an ACL's size has 16 bits, and a SID at most 68 bytes.
pub(super) const MOST: usize = 256;

/// The self-relative form of `O:SYG:SYD:(A;;CC;;;SID)...` for at most [`MOST`] SIDs.
pub(super) fn granting<'s>(sids: impl Iterator<Item = &'s SidBuf>) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut count = 0u16;
    for sid in sids.map(SidBuf::bytes).chain(PACKAGES.iter().map(|sid| &sid[..])).take(MOST + PACKAGES.len()) {
        entries.extend_from_slice(&[0, 0]); // ACCESS_ALLOWED_ACE_TYPE, no flags
        entries.extend_from_slice(&((ACE_HEADER + sid.len()) as u16).to_le_bytes());
        entries.extend_from_slice(&MATCH_FILTER.to_le_bytes());
        entries.extend_from_slice(sid);
        count += 1;
    }
    let acl = ACL_HEADER + entries.len();
    let owner = HEADER + acl as u32;
    let mut bytes = vec![1, 0];
    bytes.extend_from_slice(&CONTROL.to_le_bytes());
    for offset in [owner, owner + SYSTEM.len() as u32, 0, HEADER] {
        bytes.extend_from_slice(&offset.to_le_bytes());
    }
    bytes.extend_from_slice(&[ACL_REVISION, 0]);
    bytes.extend_from_slice(&(acl as u16).to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&entries);
    bytes.extend_from_slice(&SYSTEM);
    bytes.extend_from_slice(&SYSTEM);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that `SecurityDescriptor::from_sddl` of the filter engine makes of the same text; the property test
    /// of tests/native.rs has the engine match with them.
    #[test]
    fn a_descriptor_is_laid_out_as_winnt_h_says() {
        let sid = SidBuf::parse("S-1-5-19").unwrap();
        let bytes = granting([sid].iter());
        assert_eq!(bytes[..4], [1, 0, 4, 0x80]);
        let at = |offset: usize| u32::from_le_bytes(*bytes[offset..].first_chunk().unwrap()) as usize;
        assert_eq!((bytes[at(4)..at(8)].to_vec(), bytes[at(8)..].to_vec()), (SYSTEM.to_vec(), SYSTEM.to_vec()));
        let acl = &bytes[at(16)..at(4)];
        assert_eq!(acl[..8], [2, 0, acl.len() as u8, 0, 3, 0, 0, 0]);
        assert_eq!(acl[8..28], [0, 0, 20, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 5, 19, 0, 0, 0]);
    }

    #[test]
    fn the_longest_fits_into_an_acl() {
        let longest = SidBuf::parse(&format!("S-1-5{}", "-4294967295".repeat(15))).unwrap();
        let bytes = granting(std::iter::repeat_n(&longest, MOST + 9));
        let size = u16::from_le_bytes([bytes[22], bytes[23]]);
        assert_eq!(usize::from(size) + 20 + 24, bytes.len());
    }
}

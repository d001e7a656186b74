//! Tokens as classify calls carry them: a `FWP_BYTE_BLOB` that holds a TOKEN_ACCESS_INFORMATION (winnt.h).
//!
//! The documentation calls the blob opaque, for use with SeAccessCheckFromState. Published drivers read it as a
//! TOKEN_ACCESS_INFORMATION with addresses in it (eBPF for Windows' netebpfext casts it so, Fort Firewall's ALE callout
//! walks its SidHash for a service's SID), and others take the first SID, `SidHash->SidAttr->Sid`, for the user, so it
//! has that form here. It has not been seen on a real machine yet.

use crate::security::Sid;
use nt_abi::fwp::value::Blob;

/// Who makes a connection: the user and the groups of a process' token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The user, first, and the groups.
    pub sids: Vec<Sid>,
}

/// TOKEN_ACCESS_INFORMATION, 64 bits: its size, and the offsets of the pointers that are filled in. The others are null
/// and the numbers 0.
const INFORMATION_BYTES: usize = 88;
const SID_HASH_AT: usize = 0;
const RESTRICTED_SID_HASH_AT: usize = 8;
/// The logon session: SYSTEM_LUID for LocalSystem; others have none here.
const AUTHENTICATION_ID_AT: usize = 24;
const SYSTEM_LUID: u64 = 0x3e7;
/// TokenPrimary of TOKEN_TYPE.
const TOKEN_TYPE_AT: usize = 32;
const TOKEN_PRIMARY: u32 = 1;

/// SID_AND_ATTRIBUTES_HASH: SidCount, SidAttr, and 32 words (SID_HASH_SIZE) that say which SIDs may end with a byte.
const HASH_BYTES: usize = 16 + 32 * 8;
const SID_COUNT_AT: usize = 0;
const SID_ATTR_AT: usize = 8;
const HASH_AT: usize = 16;

/// SID_AND_ATTRIBUTES: Sid, Attributes.
const ATTRIBUTES_BYTES: usize = 16;
/// SE_GROUP_MANDATORY, SE_GROUP_ENABLED_BY_DEFAULT and SE_GROUP_ENABLED; the user itself has none.
const GROUP: u32 = 7;

impl Token {
    /// LocalSystem's token: itself, the administrators, everyone, and the authenticated users.
    #[must_use]
    pub fn local_system() -> Self {
        let groups = [Sid::new(5, &[32, 544]), Sid::new(1, &[0]), Sid::new(5, &[11])];
        Self { sids: std::iter::once(Sid::local_system()).chain(groups).collect() }
    }

    /// The value of FWP_TOKEN_ACCESS_INFORMATION_TYPE fields.
    ///
    /// # Panics
    /// With more than 4 GiB of SIDs.
    #[must_use]
    pub fn to_blob(&self) -> Blob {
        let sid_hash = INFORMATION_BYTES;
        let restricted = sid_hash + HASH_BYTES;
        let attributes = restricted + HASH_BYTES;
        let sids = attributes + self.sids.len() * ATTRIBUTES_BYTES;
        let size = sids + self.sids.iter().map(|sid| sid.bytes().len()).sum::<usize>();
        Blob::build(size, |bytes, base| {
            let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
            let address = |at: usize| (base + at).to_le_bytes();
            put(SID_HASH_AT, &address(sid_hash));
            put(RESTRICTED_SID_HASH_AT, &address(restricted));
            put(TOKEN_TYPE_AT, &TOKEN_PRIMARY.to_le_bytes());
            if self.sids.first() == Some(&Sid::local_system()) {
                put(AUTHENTICATION_ID_AT, &SYSTEM_LUID.to_le_bytes());
            }
            put(sid_hash + SID_COUNT_AT, &(self.sids.len() as u32).to_le_bytes());
            put(sid_hash + SID_ATTR_AT, &address(attributes));
            for (index, word) in sid_hashes(&self.sids).into_iter().enumerate() {
                put(sid_hash + HASH_AT + 8 * index, &word.to_le_bytes());
            }
            let mut at = sids;
            for (index, sid) in self.sids.iter().enumerate() {
                let entry = attributes + index * ATTRIBUTES_BYTES;
                put(entry, &address(at));
                put(entry + 8, &(if index == 0 { 0 } else { GROUP }).to_le_bytes());
                put(at, sid.bytes());
                at += sid.bytes().len();
            }
        })
    }

    /// The SIDs in a blob of this form. None when a pointer points out of it.
    pub(crate) fn view(bytes: &[u8]) -> Option<TokenView<'_>> {
        let hash = follow(bytes, SID_HASH_AT)?;
        let count = u32::from_le_bytes(bytes.get(hash + SID_COUNT_AT..)?.first_chunk().copied()?) as usize;
        let attributes = follow(bytes, hash + SID_ATTR_AT)?;
        bytes.get(attributes..)?.get(..count.checked_mul(ATTRIBUTES_BYTES)?)?;
        let view = TokenView { bytes, attributes, count };
        (0..count).all(|index| view.sid(index).is_some()).then_some(view)
    }

    /// The user in a blob of this form.
    pub(crate) fn user(bytes: &[u8]) -> Option<Sid> {
        Sid::parse(Self::view(bytes)?.sid(0)?)
    }
}

/// The words of SID_AND_ATTRIBUTES_HASH, as RtlSidHashInitialize makes them: bit `i` of word `n` says that SID `i` ends
/// with low nibble `n`, of word `16 + n` that its last byte has the high nibble `n`. Only the first 64 SIDs have a bit.
fn sid_hashes(sids: &[Sid]) -> [u64; 32] {
    let mut words = [0; 32];
    for (index, sid) in sids.iter().take(64).enumerate() {
        let bytes = sid.bytes();
        // The low byte of the last sub-authority; a SID without any has its last byte.
        let last = bytes[if bytes.len() > 8 { bytes.len() - 4 } else { bytes.len() - 1 }];
        words[usize::from(last & 15)] |= 1 << index;
        words[16 + usize::from(last >> 4)] |= 1 << index;
    }
    words
}

/// The offset in the blob to which the pointer at `at` points.
fn follow(bytes: &[u8], at: usize) -> Option<usize> {
    let address = usize::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?);
    address.checked_sub(bytes.as_ptr() as usize).filter(|offset| *offset < bytes.len())
}

/// The SIDs of a token, read in place.
pub(crate) struct TokenView<'a> {
    bytes: &'a [u8],
    attributes: usize,
    count: usize,
}

impl TokenView<'_> {
    fn sid(&self, index: usize) -> Option<&[u8]> {
        let sid = self.bytes.get(follow(self.bytes, self.attributes + index * ATTRIBUTES_BYTES)?..)?;
        sid.get(..8 + 4 * usize::from(*sid.get(1)?))
    }

    pub(crate) fn has(&self, sid: &Sid) -> bool {
        (0..self.count).any(|index| self.sid(index) == Some(sid.bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token { sids: vec![Sid::new(5, &[21, 1, 2, 3, 1001]), Sid::new(1, &[0]), Sid::new(5, &[32, 545])] }
    }

    #[test]
    fn the_user_and_the_groups_are_found_again() {
        let blob = token().to_blob();
        assert_eq!(Token::user(blob.bytes()), Some(Sid::new(5, &[21, 1, 2, 3, 1001])));
        let view = Token::view(blob.bytes()).expect("well formed");
        assert!(token().sids.iter().all(|sid| view.has(sid)));
        assert!(!view.has(&Sid::local_system()));
    }

    #[test]
    fn a_blob_that_was_cut_or_moved_is_no_token() {
        let blob = token().to_blob();
        for len in 0..blob.bytes().len() {
            assert!(Token::view(&blob.bytes()[..len]).is_none(), "{len} bytes");
        }
        let moved = blob.bytes().to_vec();
        assert!(Token::view(&moved).is_none(), "its pointers point into the first blob");
    }

    #[test]
    fn the_hash_has_a_bit_for_each_sid() {
        let words = sid_hashes(&token().sids);
        // 1001 = 0x3e9, 0, 545 = 0x221.
        assert_eq!((words[9], words[0], words[1]), (1, 2, 4));
        assert_eq!((words[16 + 14], words[16], words[16 + 2]), (1, 2, 4));
    }
}

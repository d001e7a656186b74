//! The owner of a connection: the SIDs of a token, and a single SID.

use core::{marker::PhantomData, slice};

use wfp_sys::{
    FWP_BYTE_BLOB,
    token::{SID_AND_ATTRIBUTES, TOKEN_ACCESS_INFORMATION},
};

/// SID_REVISION and SID_MAX_SUB_AUTHORITIES (winnt.h).
const SID_REVISION: u8 = 1;
const SID_MAX_SUB_AUTHORITIES: u8 = 15;
/// SE_GROUP_ENABLED and SE_GROUP_USE_FOR_DENY_ONLY (winnt.h).
const ENABLED: u32 = 4;
const DENY_ONLY: u32 = 16;
/// The most groups a token can have (documentation of access tokens); a larger count is not valid.
const SIDS: usize = 1025;

/// The SIDs of a token, borrowed for the duration of a classify.
#[derive(Clone, Copy)]
pub struct Token<'a> {
    entries: &'a [SID_AND_ATTRIBUTES],
    sids: PhantomData<&'a [u8]>,
}

impl core::fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Token")
    }
}

impl<'a> Token<'a> {
    /// The token that a `tokenAccessInformation` describes.
    ///
    /// The documentation calls the blob opaque; published drivers read it as a TOKEN_ACCESS_INFORMATION with addresses,
    /// the user first.
    ///
    /// # Safety
    /// The blob's bytes, when there are enough of them, are a TOKEN_ACCESS_INFORMATION whose addresses lead to what it
    /// says, or nowhere, and live for `'a`.
    pub(super) unsafe fn of(blob: &FWP_BYTE_BLOB) -> Option<Self> {
        if (blob.size as usize) < size_of::<TOKEN_ACCESS_INFORMATION>() {
            return None;
        }
        // SAFETY: by this function's contract: the token, or null.
        let information = unsafe { blob.data.cast::<TOKEN_ACCESS_INFORMATION>().as_ref() }?;
        // SAFETY: as above: the hash of its SIDs, or null.
        let hash = unsafe { information.SidHash.as_ref() }?;
        let count = hash.SidCount as usize;
        if hash.SidAttr.is_null() || count == 0 || count > SIDS {
            return None;
        }
        // SAFETY: as above: that many entries, which live for `'a`.
        let entries = unsafe { slice::from_raw_parts(hash.SidAttr, count) };
        Some(Self { entries, sids: PhantomData })
    }

    /// The user and every group that is enabled, services among them, in their binary form. IRQL <= DISPATCH_LEVEL.
    pub fn sids(self) -> impl Iterator<Item = &'a [u8]> {
        let enabled = |(index, entry): &(usize, &SID_AND_ATTRIBUTES)| {
            // The user has no attributes, except in a deny-only token.
            (*index == 0 || entry.Attributes & ENABLED != 0) && entry.Attributes & DENY_ONLY == 0
        };
        // SAFETY: the entries are of a token as `of` requires: addresses of SIDs that live for `'a`, or null.
        self.entries.iter().enumerate().filter(enabled).filter_map(|(_, entry)| unsafe { sid(entry.Sid.cast()) })
    }
}

/// The SID at an address, in its binary form.
///
/// # Safety
/// The address is null or that of a SID, which lives for `'a`.
pub(super) unsafe fn sid<'a>(address: *const u8) -> Option<&'a [u8]> {
    if address.is_null() {
        return None;
    }
    // SAFETY: a SID begins with its revision and the number of 4-byte sub-authorities after its 8-byte head.
    let (revision, sub_authorities) = unsafe { (*address, *address.add(1)) };
    if revision != SID_REVISION || sub_authorities > SID_MAX_SUB_AUTHORITIES {
        return None;
    }
    // SAFETY: as above.
    Some(unsafe { slice::from_raw_parts(address, 8 + 4 * usize::from(sub_authorities)) })
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::ptr;

    use wfp_sys::token::SID_AND_ATTRIBUTES_HASH;

    use super::*;

    /// The SIDs found in a token with these SIDs and attributes, and this count.
    fn sids(entries: &[(Option<&[u8]>, u32)], count: u32) -> Vec<Vec<u8>> {
        let entries: Vec<_> = entries
            .iter()
            .map(|(sid, attributes)| SID_AND_ATTRIBUTES {
                Sid: sid.map_or(ptr::null(), <[u8]>::as_ptr).cast_mut().cast(),
                Attributes: *attributes,
            })
            .collect();
        let hash = SID_AND_ATTRIBUTES_HASH { SidCount: count, SidAttr: entries.as_ptr() };
        let mut token = TOKEN_ACCESS_INFORMATION { SidHash: &raw const hash };
        let blob = FWP_BYTE_BLOB { size: size_of_val(&token) as u32, data: (&raw mut token).cast() };
        // SAFETY: a token as described; the SIDs outlive it.
        let token = unsafe { Token::of(&blob) };
        token.map_or(Vec::new(), |token| token.sids().map(<[u8]>::to_vec).collect())
    }

    const SYSTEM: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
    const EVERYONE: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];

    #[test]
    fn the_user_and_enabled_groups_count() {
        assert_eq!(sids(&[(Some(&SYSTEM), 0), (Some(&EVERYONE), 7)], 2), [SYSTEM.to_vec(), EVERYONE.to_vec()]);
        assert_eq!(sids(&[(Some(&SYSTEM), 0), (Some(&EVERYONE), 3)], 2), [SYSTEM.to_vec()], "not enabled");
        assert_eq!(sids(&[(Some(&SYSTEM), 0), (Some(&EVERYONE), 16)], 2), [SYSTEM.to_vec()], "for denial only");
        assert_eq!(sids(&[(Some(&SYSTEM), 16), (Some(&EVERYONE), 7)], 2), [EVERYONE.to_vec()]);
        assert!(sids(&[(Some(&SYSTEM), 0)], 0).is_empty(), "no SIDs");
        assert!(sids(&[(Some(&SYSTEM), 0)], 5000).is_empty(), "more than a token has");
        assert!(sids(&[(None, 0)], 1).is_empty(), "no address");
        assert!(sids(&[(Some(&[2, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0]), 0)], 1).is_empty(), "another revision");
        assert!(sids(&[(Some(&[1, 16, 0, 0, 0, 0, 0, 5]), 0)], 1).is_empty(), "too many sub-authorities");
    }

    #[test]
    fn a_token_that_is_none_has_no_sids() {
        let mut token = TOKEN_ACCESS_INFORMATION { SidHash: ptr::null() };
        let data = (&raw mut token).cast::<u8>();
        for blob in [FWP_BYTE_BLOB { size: 7, data }, FWP_BYTE_BLOB { size: 8, data }] {
            // SAFETY: a token without a hash, or too few bytes for one.
            assert!(unsafe { Token::of(&blob) }.is_none());
        }
        // SAFETY: no bytes at all.
        assert!(unsafe { Token::of(&FWP_BYTE_BLOB { size: 88, data: ptr::null_mut() }) }.is_none());
    }
}

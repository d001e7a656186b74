//! The SIDs of a flow's owner: those of its token, and of its package.

use alloc::vec::Vec;

use kernel::{
    status::{NtResult, NtStatus},
    wfp::Token,
};
use sluice_policy::{Identities, Sid};

/// The most bytes of SIDs that are kept: a token with 146 domain groups. What exceeds this is not compared when a new
/// policy decides the flow again.
const KEPT: usize = 4096;

/// `All Application Packages`, S-1-15-2-1.
const ALL_PACKAGES: [u8; 16] = [1, 2, 0, 0, 0, 0, 0, 15, 2, 0, 0, 0, 1, 0, 0, 0];

/// The SIDs of an owner.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose<'a> {
    /// As the layer reports them.
    Told { token: Option<Token<'a>>, package: Option<&'a [u8]> },
    /// As an identity keeps them: one after the other.
    Kept(&'a [u8]),
}

impl Whose<'_> {
    /// Whether anything is known of the owner.
    pub(crate) const fn is_known(&self) -> bool {
        match self {
            Self::Told { token, .. } => token.is_some(),
            Self::Kept(sids) => !sids.is_empty(),
        }
    }

    /// The SIDs to keep, one after the other. IRQL <= DISPATCH_LEVEL.
    ///
    /// # Errors
    /// STATUS_INSUFFICIENT_RESOURCES.
    pub(crate) fn keep(&self) -> NtResult<Vec<u8>> {
        let mut length = 0usize;
        self.each(&mut |sid| length = fits(length, sid.0).unwrap_or(length));
        let mut kept = Vec::new();
        kept.try_reserve_exact(length).map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)?;
        self.each(&mut |sid| {
            if fits(kept.len(), sid.0).is_none() {
                return;
            }
            for byte in sid.0 {
                // There is room, and the compiler sees that the vector need not grow.
                if kept.len() < kept.capacity() {
                    kept.push(*byte);
                }
            }
        });
        Ok(kept)
    }

    /// Whether these are the SIDs that were kept. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn is_kept_as(&self, kept: &[u8]) -> bool {
        let (mut at, mut same) = (0usize, true);
        self.each(&mut |sid| {
            if let Some(end) = fits(at, sid.0) {
                same &= kept.get(at..end) == Some(sid.0);
                at = end;
            }
        });
        same && at == kept.len()
    }
}

/// Where the kept SID that starts at `at` ends, if it fits.
fn fits(at: usize, sid: &[u8]) -> Option<usize> {
    Some(at.saturating_add(sid.len())).filter(|end| *end <= KEPT)
}

/// Whether a SID is a package's: S-1-15-2 and more subauthorities. Outside of packages it is S-1-0-0 (nobody).
fn is_package(sid: &[u8]) -> bool {
    matches!(sid, [1, 3..=15, 0, 0, 0, 0, 0, 15, 2, 0, 0, 0, ..])
}

impl Identities for Whose<'_> {
    fn each(&self, visit: &mut dyn FnMut(Sid<'_>)) {
        match *self {
            Self::Told { token, package } => {
                token.into_iter().flat_map(Token::sids).for_each(|sid| visit(Sid(sid)));
                if let Some(package) = package.filter(|sid| is_package(sid)) {
                    visit(Sid(package));
                    visit(Sid(&ALL_PACKAGES));
                }
            }
            Self::Kept(mut sids) => {
                let first = |sids: &'_ [u8]| Some(8 + 4 * usize::from(*sids.get(1)?));
                while let Some((sid, rest)) = first(sids).and_then(|length| sids.split_at_checked(length)) {
                    visit(Sid(sid));
                    sids = rest;
                }
            }
        }
    }
}

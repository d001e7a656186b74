//! The sets of identities that a flow's owner belongs to: users, groups, services and packages alike.
//!
//! A token has ten to two hundred SIDs. Each is looked up once, which gives its sets. A rule with a condition on
//! identities refers to one of these sets. The forest is searched for rules without a set, and then once for every set
//! that the flow is in, so that rules for other sets are not checked.

use super::{budget::Budget, identifiers, layout::Header, table::u32_at};
use crate::{
    flow::{Flow, Sid},
    image::layout::range,
};

/// The most sets of identities in a policy.
pub(crate) const SETS: usize = 1024;

/// The sets, one bit each.
pub(super) struct Members([u64; SETS / 64]);

impl Members {
    /// Looks up every SID of the flow. Skipped for policies without identities.
    #[cold]
    pub(super) fn of(image: &[u8], header: &Header, flow: &Flow<'_>, budget: &mut Budget) -> Self {
        let mut members = Self([0; SETS / 64]);
        let (lists, ranges) = (header.sections.lists.of(image), header.sections.ranges.of(image));
        flow.identities(&mut |sid: Sid<'_>| {
            if budget.is_overdrawn() {
                return;
            }
            let list = identifiers::user(image, header, sid.0, budget) as usize;
            if list == 0 {
                return;
            }
            let first = if list == 1 { 0 } else { u32_at(lists, (list - 2) * 4) };
            for place in first..u32_at(lists, (list - 1) * 4) {
                let (low, high) = range(ranges, place);
                let high = high.min(SETS as u64 - 1);
                if !budget.spend(1 + high.saturating_sub(low) as u32) {
                    return;
                }
                (low..=high).for_each(|set| members.set(set as usize));
            }
        });
        members
    }

    fn set(&mut self, set: usize) {
        if let Some(word) = self.0.get_mut(set / 64) {
            *word |= 1 << (set % 64);
        }
    }

    /// Whether the flow is in a set.
    pub(super) fn has(&self, set: u32) -> bool {
        self.0.get(set as usize / 64).is_some_and(|word| word >> (set % 64) & 1 != 0)
    }

    /// The sets it is in.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().zip(0u64..).flat_map(|(word, index)| {
            let mut left = *word;
            core::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                (bit < 64).then(|| index * 64 + u64::from(bit))
            })
        })
    }
}

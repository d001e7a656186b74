//! How many steps a decision takes, at most.
//!
//! A step is one word of the forest, one entry, one range or halving of a list, one slot of a hash table, one set of an
//! owner, or [`TEXT`] bytes of a path or SID. Validation finds the longest path through an image and refuses an image
//! above [`MOST_STEPS`]. The matcher counts the same steps, so that it stops there whatever it is given.
//!
//! Lookups that the layout itself bounds are not counted: at most three of an address (for IPv4 33 words and 31 lanes;
//! for IPv6 2 tables, 6 nodes and 33 halvings) and one of a name (128 suffixes, twice).

/// The most steps of a decision.
pub const MOST_STEPS: u32 = 1 << 18;
/// The most SIDs of a flow's owner that validation allows for, each passed once: a Windows token has at most 1025, and a
/// package adds two.
pub const MOST_SIDS: u32 = 1027;
/// The longest path of a program that validation allows for, in bytes: that of a `UNICODE_STRING`.
pub const LONGEST_PATH: u32 = u16::MAX as u32;
/// The length of the longest SID, in bytes.
pub(crate) const LONGEST_SID: u32 = 68;

/// The bytes of a path or SID that are hashed or compared in a step.
const TEXT: u32 = 64;
/// The most entries of a leaf that several words may lead to. Validation reads the entries of a leaf once for each of
/// these words.
pub(crate) const SHARED_LEAF: u32 = 8;

/// Steps of hashing that many bytes, or of comparing them once.
#[inline]
pub(crate) fn text(bytes: u32) -> u32 {
    1 + bytes / TEXT
}

/// The most steps of a lookup in a hash table: the bytes are hashed, and compared in each slot of a run.
pub(crate) fn look_up(bytes: u32, run: u32) -> u32 {
    text(bytes) + run * (1 + text(bytes))
}

/// The most steps of looking for a number in a list of ranges.
pub(crate) fn in_list(ranges: u32) -> u32 {
    1 + u32::BITS - ranges.leading_zeros()
}

/// What a decision may still spend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    left: i64,
}

impl Budget {
    /// All of it.
    #[inline]
    pub(crate) fn whole() -> Self {
        Self { left: MOST_STEPS as i64 }
    }

    /// Spends some; false where it does not reach.
    #[inline]
    pub(crate) fn spend(&mut self, steps: u32) -> bool {
        // No decision spends so often that it wraps: it stops at the first step beyond.
        self.left = self.left.wrapping_sub(i64::from(steps));
        self.left >= 0
    }

    /// Whether something was to be spent that was not there.
    #[inline]
    pub(crate) fn is_overdrawn(self) -> bool {
        self.left < 0
    }

    /// What was spent, or was to be.
    pub(crate) fn spent(self) -> u64 {
        (i64::from(MOST_STEPS) - self.left).unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_takes_as_many_halvings_as_its_length_has_bits() {
        assert_eq!([0, 1, 2, 3, 4, 255, 256].map(in_list), [1, 2, 3, 3, 4, 9, 10]);
    }

    #[test]
    fn a_budget_ends_with_the_step_beyond_it() {
        let mut budget = Budget::whole();
        assert!(budget.spend(MOST_STEPS) && !budget.is_overdrawn());
        assert!(!budget.spend(1) && budget.is_overdrawn());
        assert_eq!(budget.spent(), u64::from(MOST_STEPS) + 1);
    }
}

//! The classifier: a forest of cuts over the dimensions, with the boxes of rules in its leaves.
//!
//! Every word of the forest is 8 bytes and carries its kind:
//!
//! ```text
//! empty   0
//! leaf    kind 1: first entry (32 bits), how many (24 bits)
//! cut     kind 2: first child (30), room (5), dimension and shift twice (4 + 6, 4 + 6), bits (5), hashed (1), rest (1)
//! least   kind 3: the least rule number below the word before it (32)
//! ```
//!
//! A cut with `bits` has `2^bits` children. A plain cut takes the bits of one dimension above its shift; a hashed cut
//! mixes one or two dimensions above their shifts. A box that would belong to too many children goes into the rest
//! instead: another tree, whose word follows the children, followed by its least rule number, so that it is searched
//! only if it could still win. So trees hardly share boxes, and the size of the image stays almost linear in the rules
//! however they overlap.
//!
//! Words appear in breadth-first order and every block of children belongs to one cut, so validation takes one pass and
//! every walk terminates. `room` bounds how many rests can be waiting: the matcher's stack is fixed.

use super::{budget::Budget, layout::*, table::u64_at};

/// A decoded word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// No rule.
    Empty,
    /// Boxes, by ascending rule number.
    Leaf {
        /// The first entry.
        first: u32,
        /// How many.
        count: u32,
    },
    /// Children by some bits of the key.
    Cut(Cut),
    /// The least rule number below the word before.
    Least(u32),
}

/// A cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Cut {
    pub(crate) base: u32,
    pub(crate) dimension: u8,
    pub(crate) shift: u8,
    /// Hashed cuts only; the same dimension again if there is only one.
    pub(crate) second_dimension: u8,
    pub(crate) second_shift: u8,
    pub(crate) bits: u8,
    pub(crate) hashed: bool,
    pub(crate) rest: bool,
    /// How many rests may be waiting below, this one's included.
    pub(crate) room: u8,
}

/// The most rests that may be waiting at once.
pub(crate) const ROOM: usize = 16;
/// The most cuts on a path.
pub(crate) const LEVELS: u32 = 64;
/// The most words of a forest.
#[cfg(feature = "std")]
pub(crate) const MAX_WORDS: u32 = 1 << 30;
/// The most bits of a cut.
pub(crate) const MAX_BITS: u8 = 20;

const KIND_LEAF: u64 = 1;
const KIND_CUT: u64 = 2;
const KIND_LEAST: u64 = 3;

impl Word {
    #[inline]
    pub(crate) fn unpack(word: u64) -> Self {
        let base = (word >> 32) as u32;
        let field = |at: u32, bits: u32| (word >> at) as u8 & ((1 << bits) - 1);
        match word & 3 {
            KIND_LEAF => Self::Leaf { first: base, count: (word >> 8) as u32 & 0xff_ffff },
            KIND_CUT => Self::Cut(Cut {
                base: (word >> 34) as u32,
                dimension: field(2, 4),
                shift: field(6, 6),
                second_dimension: field(12, 4),
                second_shift: field(16, 6),
                bits: field(22, 5),
                hashed: field(27, 1) != 0,
                rest: field(28, 1) != 0,
                room: field(29, 5),
            }),
            KIND_LEAST => Self::Least(base),
            _ => Self::Empty,
        }
    }

    #[cfg(feature = "std")]
    pub(crate) fn pack(self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Leaf { first, count } => u64::from(first) << 32 | u64::from(count) << 8 | KIND_LEAF,
            Self::Least(rule) => u64::from(rule) << 32 | KIND_LEAST,
            Self::Cut(cut) => {
                let fields = [
                    (cut.dimension, 2),
                    (cut.shift, 6),
                    (cut.second_dimension, 12),
                    (cut.second_shift, 16),
                    (cut.bits, 22),
                    (cut.hashed.into(), 27),
                    (cut.rest.into(), 28),
                    (cut.room, 29),
                ];
                let packed = fields.iter().fold(0, |sum, &(value, at)| sum | u64::from(value) << at);
                u64::from(cut.base) << 34 | packed | KIND_CUT
            }
        }
    }
}

impl Cut {
    /// The child that the key belongs to.
    #[inline]
    pub(crate) fn child(&self, key: &Key) -> u32 {
        let first = key[usize::from(self.dimension) % DIMENSIONS] >> self.shift;
        if !self.hashed {
            return first as u32 & ((1 << self.bits) - 1);
        }
        let second = key[usize::from(self.second_dimension) % DIMENSIONS] >> self.second_shift;
        mix(first, second, self.bits)
    }

    /// How many words its block has: children, and the rest with its least rule number.
    #[inline]
    pub(crate) fn words(&self) -> u32 {
        (1 << self.bits) + if self.rest { 2 } else { 0 }
    }
}

/// `bits` well mixed bits from two numbers.
#[inline]
pub(crate) fn mix(first: u64, second: u64, bits: u8) -> u32 {
    let sum = first.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ second.wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(32);
    (sum.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32 >> (32 - bits)) as u32
}

/// The least rule number below `best` that `scan` finds in the leaves the key leads to.
///
/// `scan(first, count, best, budget)` checks the entries of a leaf. When the budget is used up, what was found so far is
/// returned.
#[inline]
pub(crate) fn search(
    forest: &[u8],
    root: u64,
    key: &Key,
    mut best: u32,
    budget: &mut Budget,
    scan: impl Fn(u32, u32, u32, &mut Budget) -> u32,
) -> u32 {
    let word = |index: u32| u64_at(forest, index as usize * 8);
    // Rests, each with its least rule number above. It is read long before it is needed, so that its cache line, which
    // usually also holds the rest's word, arrives while the children are searched.
    let mut waiting = [0u64; ROOM];
    let mut waits = 0usize;
    let mut here = root;
    loop {
        match Word::unpack(here) {
            Word::Cut(cut) => {
                if cut.rest {
                    let rest = cut.base.wrapping_add(1 << cut.bits);
                    let least = word(rest.wrapping_add(1)) >> 32 << 32;
                    waiting[waits % ROOM] = least | u64::from(rest);
                    waits = waits.wrapping_add(1);
                }
                here = word(cut.base.wrapping_add(cut.child(key)));
                if !budget.spend(1) {
                    return best;
                }
                continue;
            }
            Word::Leaf { first, count } => {
                if !budget.spend(count.wrapping_add(1)) {
                    return best;
                }
                best = scan(first, count, best, budget);
            }
            Word::Empty | Word::Least(_) => {
                budget.spend(1);
            }
        }
        loop {
            if waits == 0 {
                return best;
            }
            waits -= 1;
            let waited = waiting[waits % ROOM];
            if (waited >> 32) < u64::from(best) {
                here = word(waited as u32);
                break;
            }
        }
    }
}

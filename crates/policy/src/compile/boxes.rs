//! Rules as boxes: for every dimension a range that holds whatever the rule matches.

use crate::{
    image::layout::{Dimension, EntryTail},
    model::address::AddressBits,
};

/// The dimensions boxes can differ in, for one family.
const COUNT: usize = 13;

/// A box: the entry that decides, and the ranges the classifier cuts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Box<A> {
    pub(super) remote: A,
    pub(super) local: A,
    pub(super) tail: EntryTail,
    pub(super) ranges: [(u64, u64); COUNT],
    /// Whether everything in the ranges matches the rule.
    pub(super) exact: bool,
}

impl<A: AddressBits> Box<A> {
    /// A box of all flows.
    pub(super) fn all(tail: EntryTail) -> Self {
        Self { remote: A::narrow(0), local: A::narrow(0), tail, ranges: [(0, u64::MAX); COUNT], exact: true }
    }

    /// Narrows a dimension.
    pub(super) fn within(&mut self, dimension: Dimension, range: (u64, u64)) {
        self.ranges[dimension as usize] = range;
    }

    /// Narrows it to a remote prefix.
    pub(super) fn remote(&mut self, prefix: (A, u8)) {
        self.remote = prefix.0;
        self.tail.remote_length = prefix.1;
        self.prefix(prefix, Dimension::Remote, Dimension::RemoteLow);
    }

    /// Narrows it to a local prefix.
    pub(super) fn local(&mut self, prefix: (A, u8)) {
        self.local = prefix.0;
        self.tail.local_length = prefix.1;
        self.prefix(prefix, Dimension::Local, Dimension::LocalLow);
    }

    fn prefix(&mut self, (value, length): (A, u8), high: Dimension, low: Dimension) {
        let length = u32::from(length);
        let value = value.wide();
        let last = value | if length == A::BITS { 0 } else { (u128::MAX >> (128 - A::BITS)) >> length };
        if A::BITS == 32 {
            self.within(high, (value as u64, last as u64));
        } else {
            self.within(high, ((value >> 64) as u64, (last >> 64) as u64));
            self.within(low, if length > 64 { (value as u64, last as u64) } else { (0, u64::MAX) });
        }
    }

    /// Whether every flow of `other` matches this box's rule.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.exact && self.ranges.iter().zip(&other.ranges).all(|(own, other)| own.0 <= other.0 && other.1 <= own.1)
    }
}

/// Boxes of one family in columns, those dimensions only in which they differ from all.
pub(super) struct Columns {
    pub(super) dimensions: Vec<Column>,
    pub(super) rules: Vec<u32>,
}

/// One dimension's ranges, by box.
pub(super) struct Column {
    pub(super) dimension: u8,
    pub(super) ranges: Vec<(u64, u64)>,
}

impl Columns {
    pub(super) fn new<A: AddressBits>(boxes: &[Box<A>]) -> Self {
        let dimensions = (0..COUNT)
            .filter(|&dimension| boxes.iter().any(|one| one.ranges[dimension] != (0, u64::MAX)))
            .map(|dimension| Column {
                dimension: dimension as u8,
                ranges: boxes.iter().map(|one| one.ranges[dimension]).collect(),
            })
            .collect();
        Self { dimensions, rules: boxes.iter().map(|one| one.tail.rule).collect() }
    }
}

//! Rules as boxes: for every dimension a range that contains everything the rule matches.

use crate::{
    image::layout::{DIMENSION_LIMIT, Dimension, ENTRY_ANY_PROTOCOL, EntryTail},
    model::address::AddressBits,
};

/// A range of a dimension: all of it unless narrowed.
pub(super) type Range = (u64, u64);
const ALL: Range = (0, u64::MAX);

/// A box under construction: the entry that decides, and the ranges that the classifier cuts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape<A> {
    pub(super) entry: Entry<A>,
    ranges: [Range; DIMENSION_LIMIT as usize],
    /// Whether everything in the ranges matches the rule.
    pub(super) exact: bool,
}

/// The entry written to the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry<A> {
    pub(super) remote: A,
    pub(super) local: A,
    pub(super) tail: EntryTail,
}

impl<A: AddressBits> Shape<A> {
    /// A box that holds all flows.
    pub(super) fn all(tail: EntryTail) -> Self {
        let entry = Entry { remote: A::narrow(0), local: A::narrow(0), tail };
        Self { entry, ranges: [ALL; DIMENSION_LIMIT as usize], exact: true }
    }

    /// Narrows a dimension.
    pub(super) fn within(&mut self, dimension: Dimension, range: Range) {
        self.ranges[dimension as usize] = range;
    }

    /// Widens a dimension to its whole range.
    pub(super) fn anywhere(&mut self, dimension: Dimension) {
        self.ranges[dimension as usize] = ALL;
        let tail = &mut self.entry.tail;
        match dimension {
            Dimension::RemotePort => tail.remote_port = (0, u16::MAX),
            Dimension::LocalPort => tail.local_port = (0, u16::MAX),
            Dimension::Protocol => tail.flags |= ENTRY_ANY_PROTOCOL,
            _ => {}
        }
    }

    /// Narrows it to a remote prefix.
    pub(super) fn remote(&mut self, prefix: (A, u8)) {
        self.entry.remote = prefix.0;
        self.entry.tail.remote_length = prefix.1;
        self.prefix(prefix, Dimension::Remote, Dimension::RemoteLow);
    }

    /// Narrows it to a local prefix.
    pub(super) fn local(&mut self, prefix: (A, u8)) {
        self.entry.local = prefix.0;
        self.entry.tail.local_length = prefix.1;
        self.prefix(prefix, Dimension::Local, Dimension::LocalLow);
    }

    fn prefix(&mut self, (value, length): (A, u8), high: Dimension, low: Dimension) {
        let length = u32::from(length);
        if length == 0 {
            return;
        }
        let value = value.wide();
        let last = value | if length == A::BITS { 0 } else { (u128::MAX >> (128 - A::BITS)) >> length };
        if A::BITS == 32 {
            self.within(high, (value as u64, last as u64));
        } else {
            self.within(high, ((value >> 64) as u64, (last >> 64) as u64));
            self.within(low, if length > 64 { (value as u64, last as u64) } else { ALL });
        }
    }
}

/// All boxes of a family: entries, and their ranges in columns. A dimension that no box narrows takes no space.
pub(super) struct Boxes<A> {
    pub(super) entries: Vec<Entry<A>>,
    pub(super) exact: Vec<bool>,
    pub(super) columns: Vec<Column>,
}

/// One dimension's ranges, by box; boxes beyond its end are not narrowed.
pub(super) struct Column {
    pub(super) dimension: u8,
    ranges: Vec<Range>,
}

impl Column {
    /// The range of a box.
    #[inline]
    pub(super) fn of(&self, number: u32) -> Range {
        self.ranges.get(number as usize).copied().unwrap_or(ALL)
    }
}

impl<A> Default for Boxes<A> {
    fn default() -> Self {
        Self { entries: Vec::new(), exact: Vec::new(), columns: Vec::new() }
    }
}

impl<A: AddressBits> Boxes<A> {
    /// Adds a box and returns its number.
    pub(super) fn push(&mut self, shape: &Shape<A>) -> u32 {
        let number = self.entries.len();
        for (dimension, &range) in shape.ranges.iter().enumerate().filter(|(_, range)| **range != ALL) {
            let dimension = dimension as u8;
            let place = self.columns.iter().position(|column| column.dimension == dimension).unwrap_or_else(|| {
                self.columns.push(Column { dimension, ranges: Vec::new() });
                self.columns.len() - 1
            });
            let ranges = &mut self.columns[place].ranges;
            ranges.resize(number, ALL);
            ranges.push(range);
        }
        self.entries.push(shape.entry);
        self.exact.push(shape.exact);
        number as u32
    }

    /// The rule of a box.
    pub(super) fn rule(&self, number: u32) -> u32 {
        self.entries[number as usize].tail.rule
    }

    /// Whether every flow of box `other` matches box `number`'s rule.
    pub(super) fn covers(&self, number: u32, other: u32) -> bool {
        self.exact[number as usize]
            && self.columns.iter().all(|column| {
                let (own, other) = (column.of(number), column.of(other));
                own.0 <= other.0 && other.1 <= own.1
            })
    }
}

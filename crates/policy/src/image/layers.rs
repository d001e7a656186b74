//! The classifier: layers of hashed cells, keyed by classes.
//!
//! Every address, program, user, name and, where it pays, port of a flow is reduced to a class first: what all those
//! have in common that lie in the same conditions. A rule asks for sets of classes. A layer holds some of the rules and
//! tells fewer classes apart, those that its own rules do; to it, a class is a small number, its *part*. The parts of
//! all dimensions together are the key of a cell, in which the layer's rules for exactly these parts stand. A flow
//! thus looks into one cell of each layer in which a rule could match, and compares ports and protocol there.
//!
//! ```text
//! rows        of each dimension, by class: a bit for each layer in which a rule may match it (32), then its parts in the
//!             layers whose keys tell them, side by side, each in as many bits as the layer's parts take
//! layers      least rule (4), first bucket (4), buckets (4), zero (4), then for each slot of the header (see
//!             `layout`): the part's first bit in the row (2), how far it is shifted in the key (1), its bits (1)
//! cells       buckets of 64 bytes: four cells, each key (8) and word (8)
//! words       rule (32), signature (24), checks (1), zero (3), overflow (1), zero (1), kind 1 (2): one entry
//!             first entry (32), how many (24), zero (4), overflow (1), zero (1), kind 2 (2): a list of entries
//!             0: nothing. The overflow bit of a bucket's last word says that the next bucket goes on.
//! entries     lists of words of kind 1, by ascending rule
//! signatures  remote ports, local ports (first and last, 2 each), protocol (1), flags (1), zero (2)
//! ```
//!
//! Layers stand in the order of their least rules, so a search ends where no better one can come. Nothing on the way to
//! a cell depends on what kind of layer it is: the same few steps are taken for each slot, and a part of no bits is
//! zero. Eight bytes of zeros behind the last row let its parts be read like any others.

use super::{
    layout::*,
    table::{record, u32_at, u64_at},
};

/// The most layers: a row's bits.
pub(crate) const LAYERS: usize = 32;
/// A layer's bytes.
pub(crate) const LAYER: usize = 16 + SLOTS * 4;
/// A bucket's bytes.
pub(crate) const BUCKET: usize = 64;
/// Cells of a bucket.
pub(crate) const CELLS: usize = 4;
/// The most buckets a cell may be away from its own.
pub(crate) const REACH: u32 = 64;
/// The most signatures, and the most entries of a list.
pub(crate) const FIELD: u32 = 1 << 24;

/// The next bucket goes on.
pub(crate) const OVERFLOW: u64 = 1 << 60;
/// The rule has conditions that its place does not imply.
pub(crate) const CHECKS: u64 = 1 << 56;
const ONE: u64 = 1;
const LIST: u64 = 2;

/// What a word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// No rule.
    Empty,
    /// One entry.
    One { rule: u32, signature: u32, checks: bool },
    /// Entries by ascending rule.
    List { first: u32, count: u32 },
}

impl Word {
    pub(crate) fn unpack(word: u64) -> Self {
        let (low, field) = (word as u32, (word >> 32) as u32 & (FIELD - 1));
        match word >> 62 {
            ONE => Self::One { rule: low, signature: field, checks: word & CHECKS != 0 },
            LIST => Self::List { first: low, count: field },
            _ => Self::Empty,
        }
    }

    #[cfg(feature = "std")]
    pub(crate) fn pack(self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::One { rule, signature, checks } => {
                u64::from(rule) | u64::from(signature) << 32 | if checks { CHECKS } else { 0 } | ONE << 62
            }
            Self::List { first, count } => u64::from(first) | u64::from(count) << 32 | LIST << 62,
        }
    }
}

/// Where a key's cell is among `buckets`.
#[inline]
pub(crate) fn bucket(key: u64, buckets: u32) -> u32 {
    let product = u128::from(key ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    let mixed = (product as u64 ^ (product >> 64) as u64) >> 32;
    ((mixed * u64::from(buckets)) >> 32) as u32
}

/// A flow's ports, protocol and direction, as signatures ask for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain {
    pub(crate) remote_port: u16,
    pub(crate) local_port: u16,
    pub(crate) protocol: u8,
    /// [`SIGNATURE_OUTBOUND`] or [`SIGNATURE_INBOUND`].
    pub(crate) direction: u8,
}

impl Signature {
    /// Whether a flow has it. Without a branch: which part of it fails is not predictable.
    #[inline]
    pub(crate) fn holds(&self, flow: &Plain) -> bool {
        let within = |value: u16, (low, high): (u16, u16)| (value >= low) & (value <= high);
        within(flow.remote_port, self.remote_port)
            & within(flow.local_port, self.local_port)
            & ((self.flags & SIGNATURE_ANY_PROTOCOL != 0) | (flow.protocol == self.protocol))
            & (self.flags & flow.direction != 0)
    }
}

/// The sections a search reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables<'a> {
    slots: &'a [Slot; SLOTS],
    count: usize,
    rows: &'a [u8],
    layers: &'a [u8],
    cells: &'a [u8],
    entries: &'a [u8],
    signatures: &'a [u8],
}

/// Where a flow's rows lie, and the layers in which a rule may match it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    rows: [u32; SLOTS],
    layers: u32,
}

impl<'a> Tables<'a> {
    #[inline]
    pub(crate) fn of(image: &'a [u8], header: &'a Header) -> Self {
        let sections = &header.sections;
        Self {
            slots: &header.slots,
            count: usize::from(header.slot_count),
            rows: sections.rows.of(image),
            layers: sections.layers.of(image),
            cells: sections.cells.of(image),
            entries: sections.entries.of(image),
            signatures: sections.signatures.of(image),
        }
    }

    /// Where a flow belongs whose classes are `key`.
    #[inline]
    pub(crate) fn place(&self, key: &Key) -> Place {
        let mut place = Place { rows: [0; SLOTS], layers: u32::MAX };
        for (slot, at) in self.slots.iter().zip(&mut place.rows).take(self.count) {
            let class = key[usize::from(slot.dimension) % DIMENSIONS] as u32;
            *at = slot.base.wrapping_add(class.wrapping_mul(u32::from(slot.stride)));
            place.layers &= u32_at(self.rows, *at as usize);
        }
        place
    }

    /// The least rule below `best` among `layers` that matches, or `best`. `holds` says whether the conditions hold
    /// that a rule's place does not imply.
    #[inline]
    pub(crate) fn search(
        &self,
        place: &Place,
        layers: u32,
        flow: &Plain,
        mut best: u32,
        holds: impl Fn(u32) -> bool,
    ) -> u32 {
        let mut left = place.layers & layers;
        while left != 0 {
            let number = left.trailing_zeros();
            left &= left - 1;
            let Some(layer) = record::<LAYER>(self.layers, number) else { break };
            if u32_at(layer, 0) >= best {
                break;
            }
            let cell = self.cell(layer, self.key(layer, place));
            best = self.least(&cell, flow, best, &holds);
        }
        best
    }

    /// The key of a layer's cell.
    #[inline]
    fn key(&self, layer: &[u8; LAYER], place: &Place) -> u64 {
        let mut key = 0u64;
        for (index, row) in place.rows.iter().take(self.count).enumerate() {
            let how = u32_at(layer, 16 + index * 4);
            let (first, shift, bits) = (how & 0xffff, how >> 16 & 63, how >> 24);
            let word = u64_at(self.rows, (*row as usize).wrapping_add((first >> 3) as usize));
            let part = word.wrapping_shr(first & 7) & !u64::MAX.wrapping_shl(bits);
            key |= part << shift;
        }
        key
    }

    /// The word of a key's cell, as bytes.
    #[inline]
    fn cell(&self, layer: &[u8; LAYER], key: u64) -> [u8; 8] {
        let (base, buckets) = (u32_at(layer, 4), u32_at(layer, 8));
        let mut number = bucket(key, buckets);
        for _ in 0..REACH {
            let Some(cells) = record::<BUCKET>(self.cells, base.wrapping_add(number)) else { break };
            // All four are compared: which one it is cannot be predicted.
            let equal = (0..CELLS).fold(0u32, |equal, cell| equal | u32::from(u64_at(cells, cell * 16) == key) << cell);
            if equal != 0 {
                return u64_at(cells, equal.trailing_zeros() as usize * 16 + 8).to_le_bytes();
            }
            if u64_at(cells, BUCKET - 8) & OVERFLOW == 0 {
                break;
            }
            number = if number + 1 >= buckets { 0 } else { number + 1 };
        }
        [0; 8]
    }

    /// The least rule below `best` of a cell.
    #[inline]
    fn least(&self, cell: &[u8; 8], flow: &Plain, best: u32, holds: impl Fn(u32) -> bool) -> u32 {
        let word = u64::from_le_bytes(*cell);
        let entries: &[[u8; 8]] = if word >> 62 == LIST {
            let (first, count) = (word as u32 as usize, (word >> 32) as u32 & (FIELD - 1));
            self.entries.as_chunks().0.get(first..first.wrapping_add(count as usize)).unwrap_or(&[])
        } else if word >> 62 == ONE {
            core::slice::from_ref(cell)
        } else {
            &[]
        };
        for entry in entries {
            let word = u64::from_le_bytes(*entry);
            let rule = word as u32;
            if rule >= best {
                break;
            }
            let Some(signature) = record(self.signatures, (word >> 32) as u32 & (FIELD - 1)) else { break };
            if Signature::read(signature).holds(flow) && (word & CHECKS == 0 || holds(rule)) {
                return rule;
            }
        }
        best
    }
}

//! From an address to the class of the sets it lies in: a trie of tables and chunks of sorted range starts.
//!
//! A map is a row of 4-byte words. Its first word is a value; every value is either a class or, with the top bit set,
//! the word at which a node begins. A node covers one aligned block of addresses, that whose first `position` bits are
//! alike, and begins with a word
//!
//! ```text
//! kind (2)  position (7)  size (6)  form (2)
//! table   kind 0: 2^size values, by the `size` bits at `position`
//! chunk   kind 1, 2, 3: `size` starts of 16, 32, 64 bits in ascending order, taken at `position`; then the values of
//!         the ranges between, one more than starts: form 0 two 16-bit classes that alternate, form 1 16-bit classes,
//!         form 2 32-bit values
//! ```
//!
//! Chunks are small enough that all starts are compared at once, without a branch that depends on them: as many lanes
//! are compared as a chunk can have, and those behind its starts are not counted. [`PADDING`] words of zeros at the end
//! of the map let the last chunk be read like any other. Nodes appear in breadth-first order, each referred to once, at
//! ascending positions along every path: one pass validates them and no walk has more than as many steps as an address
//! has bits.

use super::{
    lanes::{below16, below32, below64},
    table::{u16_at, u32_at},
};

/// The value is a node.
pub(crate) const NODE: u32 = 1 << 31;
/// The most starts of a chunk.
pub(crate) const CHUNK: u32 = 32;
/// The most bytes of starts in a chunk.
pub(crate) const CHUNK_BYTES: u32 = 128;
/// Words behind the last node.
pub(crate) const PADDING: u32 = CHUNK_BYTES / 4;
/// The most bits of a table.
pub(crate) const TABLE_BITS: u32 = 20;

/// How a chunk's values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Two classes that alternate.
    Alternating = 0,
    /// A 16-bit class each.
    Short = 1,
    /// A 32-bit value each.
    Long = 2,
}

/// What a node's first word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// 0 for tables, else the bytes of a start: 2, 4, 8.
    pub(crate) width: u32,
    /// How many leading bits the node's addresses share.
    pub(crate) position: u32,
    /// A table's bits, a chunk's starts.
    pub(crate) size: u32,
    /// A chunk's form.
    pub(crate) form: Form,
}

impl Node {
    #[inline]
    pub(crate) fn unpack(word: u32) -> Self {
        let kind = word & 3;
        Self {
            width: if kind == 0 { 0 } else { 1 << kind },
            position: word >> 2 & 0x7f,
            size: word >> 9 & 0x3f,
            form: match word >> 15 & 3 {
                0 => Form::Alternating,
                1 => Form::Short,
                _ => Form::Long,
            },
        }
    }

    #[cfg(feature = "std")]
    pub(crate) fn pack(self) -> u32 {
        let kind = if self.width == 0 { 0 } else { self.width.trailing_zeros() };
        kind | self.position << 2 | self.size << 9 | (self.form as u32) << 15
    }

    /// Where the values begin, in bytes behind the first word.
    #[inline]
    pub(crate) fn values(&self) -> u32 {
        (self.width * self.size).next_multiple_of(4)
    }

    /// The whole node, in words.
    pub(crate) fn words(&self) -> u32 {
        let values = match (self.width, self.form) {
            (0, _) => return 1 + (1 << self.size),
            (_, Form::Alternating) => 4,
            (_, Form::Short) => (2 * (self.size + 1)).next_multiple_of(4),
            (_, Form::Long) => 4 * (self.size + 1),
        };
        1 + (self.values() + values) / 4
    }
}

/// A number addresses are looked up as.
pub(crate) trait Bits: Copy {
    /// The `count` bits (1 to 64) behind the first `position`, zeros behind the end.
    fn window(self, position: u32, count: u32) -> u64;
}

impl Bits for u32 {
    #[inline]
    fn window(self, position: u32, count: u32) -> u64 {
        ((u64::from(self) << 32).wrapping_shl(position)).wrapping_shr(64 - count)
    }
}

impl Bits for u128 {
    #[inline]
    fn window(self, position: u32, count: u32) -> u64 {
        self.wrapping_shl(position).wrapping_shr(128 - count) as u64
    }
}

/// The class of an address.
#[inline]
pub(crate) fn class<A: Bits>(map: &[u8], address: A) -> u32 {
    let mut value = u32_at(map, 0);
    while value & NODE != 0 {
        let Some((head, body)) = map.get((value & !NODE) as usize * 4..).and_then(|rest| rest.split_first_chunk::<4>())
        else {
            return 0;
        };
        let node = Node::unpack(u32::from_le_bytes(*head));
        if node.width == 0 {
            // Sizes of tables are 1 to 20.
            let index = address.window(node.position, node.size);
            value = u32_at(body, (index as usize).wrapping_mul(4));
            continue;
        }
        let below = match node.width {
            2 => below16(body, node.size, address.window(node.position, 16) as u16),
            4 => below32(body, node.size, address.window(node.position, 32) as u32),
            _ => below64(body, node.size, address.window(node.position, 64)),
        } as usize;
        let values = node.values() as usize;
        value = match node.form {
            Form::Alternating => u32::from(u16_at(body, values + (below & 1) * 2)),
            Form::Short => u32::from(u16_at(body, values + below * 2)),
            Form::Long => u32_at(body, values + below * 4),
        };
    }
    value
}

//! Maps an IPv4 address to the class of the sets it is in: a table of the leading bits, then a chunk of starts.
//!
//! A map is a [`Shape`] in [`HEADER_WORDS`] words, tables of words, and from the next multiple of 64 bytes on chunks:
//!
//! ```text
//! word 0  shift (6)  grain (5)  unit (5)  four (1)  wide (1)  singles (1)  ranges (1)  tree (1)  value (11)
//! word 1  other      word 2  words of the tables
//! ```
//!
//! The root table has a word for each value of an address's leading bits, those above [`Shape::shift`]. Words, from bit
//! 0 on:
//!
//! ```text
//! node   1  bits (4)                            table (27): what is below is distinguished by the next bits, in
//!                                               a table of 2^bits words that begins at that word of the tables
//! chunk  0  first (1)  toggles (5)  lanes (5)   place (20): the chunk begins there, in units of 2^[`Shape::unit`] bytes
//! ```
//!
//! A chunk is `lanes` starts: addresses without their [`Shape::grain`] last bits, and of what is left the last 16 or 32
//! bits ([`Shape::wide`]), as signed numbers (the top bit is inverted). The first `toggles` ascend: from each on,
//! another class begins. Those after them are singles: only there is another class, and after it the previous one
//! continues. This halves the space for scattered hosts.
//!
//! If a map has only two classes, 0 and [`Shape::other`], each toggle and single leads from one to the other: the
//! class is `other` if `first`, the toggles not above the address and the singles that are it add up to an odd number.
//! Otherwise the lanes are followed by classes of [`Shape::value`] bytes: the one before the first toggle, the one from
//! each toggle on, the one of each single.
//!
//! A map of two classes and few ranges of the other is one chunk of [`RANGES`] ranges instead, each its first address
//! and how many follow it; where there are fewer, the last one is repeated.
//!
//! If addresses are so dense that many blocks of any root table have more starts than are compared at once, chunks are
//! trees instead: the last start of every [`GROUP`], then all starts (4 bytes each, no singles), then classes. Counting
//! the last starts that are not above the address gives the group to compare.
//!
//! ```text
//! chunk  0  lanes (9)  zero (2)                 place (20)
//! ```
//!
//! Everything else that a branch could decide is the same for a whole map, so that the branches are predictable: how
//! wide lanes are, how many are compared at once, whether there are singles, what values look like. Only nodes cannot
//! be predicted, and the compiler chooses a shape with few of them.
//!
//! Tables follow each other in the order of the nodes that lead to them, so one pass validates a map.

use super::{
    lanes::{Compared, compared},
    table::{Section, u32_at},
};

/// The word is a node.
pub(crate) const NODE: u32 = 1;
/// Addresses before the first toggle have the other class.
pub(crate) const FIRST: u32 = 2;
/// The positions of a chunk's number of toggles, number of lanes and place in a word.
pub(crate) const TOGGLES: u32 = 2;
pub(crate) const LANES: u32 = 7;
pub(crate) const PLACE: u32 = 12;
/// The position of a tree chunk's lane count, its maximum, and the size of a group.
pub(crate) const TREE_LANES: u32 = 1;
pub(crate) const MOST_TREE_LANES: u32 = 271;
pub(crate) const GROUP: u32 = 16;
/// The positions of a node's bits and table.
pub(crate) const BITS: u32 = 1;
pub(crate) const TABLE: u32 = 5;
/// The most lanes a word can count.
pub(crate) const MOST_LANES: u32 = 31;
/// The most bits a table can have.
pub(crate) const MOST_BITS: u32 = 20;
/// The ranges a map of ranges has.
pub(crate) const RANGES: usize = 4;
/// Words of a shape.
pub(crate) const HEADER_WORDS: u32 = 3;
/// Padding after the last chunk: as many bytes as are read of any chunk.
#[cfg(feature = "std")]
pub(crate) const PADDING: u32 = 64;

/// The parameters of a map, common to all its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// How many bits are left after the root table: 12 to 32.
    pub(crate) shift: u32,
    /// How many last bits of all starts are zero, 16 at most.
    pub(crate) grain: u32,
    /// Chunks begin at multiples of 2^unit bytes.
    pub(crate) unit: u32,
    /// Lanes have 4 bytes, not 2.
    pub(crate) wide: bool,
    /// Four vectors of lanes are compared, not two.
    pub(crate) four: bool,
    /// There are singles.
    pub(crate) singles: bool,
    /// Bytes of a class: 1, 2, 4, or 0 if there are two classes.
    pub(crate) value: u32,
    /// The class other than 0, if there are two.
    pub(crate) other: u32,
    /// Words of the tables.
    pub(crate) tables: u32,
    /// The map is one chunk of [`RANGES`] ranges of the other class.
    pub(crate) ranges: bool,
    /// Chunks are trees.
    pub(crate) tree: bool,
    /// The root table's word if it has only one. It is wider than a word, so that the compiler does not merge its load
    /// with a table's.
    pub(crate) only: u64,
    /// The case of a lookup, as one number.
    pub(crate) form: u8,
    /// The offsets of the tables and chunks in the image.
    pub(crate) root: u32,
    pub(crate) chunks: u32,
}

impl Shape {
    /// Reads the shape of a map; for an empty map, its tables have no words.
    pub(crate) fn read(image: &[u8], section: Section) -> Self {
        let map = section.of(image);
        let word = u32_at(map, 0);
        let flag = |bit: u32| word >> bit & 1 != 0;
        let tables = u32_at(map, 8);
        // Maps of two classes by the flags; of more by the flags, and by the size of a value.
        let form = match (word >> 19 & 3, word >> 21) {
            (1, _) => u8::MAX,
            (0, 0) => (word >> 16 & 7) as u8,
            (0, value) => ((value >> 1).min(2) * 4 + (word >> 17 & 3)) as u8 + 8,
            (_, value) => (value >> 1).min(2) as u8 + 20,
        };
        Self {
            form,
            ranges: flag(19),
            tree: flag(20),
            only: u32_at(map, HEADER_WORDS as usize * 4).into(),
            shift: word & 0x3f,
            grain: word >> 6 & 0x1f,
            unit: word >> 11 & 0x1f,
            wide: flag(17),
            four: flag(16),
            singles: flag(18),
            value: word >> 21,
            other: u32_at(map, 4),
            tables,
            root: section.offset.saturating_add(HEADER_WORDS * 4),
            chunks: u32::try_from(u64::from(section.offset) + chunks(tables)).unwrap_or(u32::MAX),
        }
    }

    #[cfg(feature = "std")]
    pub(crate) fn words(&self) -> [u32; HEADER_WORDS as usize] {
        let flags = u32::from(self.four) << 16
            | u32::from(self.wide) << 17
            | u32::from(self.singles) << 18
            | u32::from(self.ranges) << 19
            | u32::from(self.tree) << 20;
        [self.shift | self.grain << 6 | self.unit << 11 | flags | self.value << 21, self.other, self.tables]
    }

    /// Bytes of a lane.
    pub(crate) fn width(&self) -> u32 {
        if self.wide { 4 } else { 2 }
    }

    /// Bytes of lanes that are compared.
    pub(crate) fn compared(&self) -> u32 {
        if self.four { 64 } else { 32 }
    }

    /// The most lanes of a chunk.
    pub(crate) fn most_lanes(&self) -> u32 {
        if self.tree {
            return MOST_TREE_LANES;
        }
        (self.compared() / self.width()).min(MOST_LANES)
    }
}

/// The offset of the chunks in a map, after that many words of tables.
pub(crate) fn chunks(tables: u32) -> u64 {
    (u64::from(tables) + u64::from(HEADER_WORDS)).wrapping_mul(4).next_multiple_of(64)
}

/// The class of an address, by the map of that shape.
#[inline]
pub(crate) fn class(image: &[u8], shape: &Shape, address: u32) -> u32 {
    // If the map is one chunk, the processor can load it before it has the address.
    let word = if shape.shift == 32 {
        shape.only as u32
    } else {
        table_word(image, shape, u64::from(address).wrapping_shr(shape.shift) as usize)
    };
    if word & NODE == 0 { leaf(image, shape, address, word) } else { below(image, shape, address, word) }
}

/// The class, by the chunk of a word.
#[inline]
fn leaf(image: &[u8], shape: &Shape, address: u32, word: u32) -> u32 {
    // Separate because the latter needs more registers.
    if shape.value == 0 { one_of_two(image, shape, address, word) } else { one_of_many(image, shape, address, word) }
}

/// The class, below a node.
#[cold]
#[inline(never)]
fn below(image: &[u8], shape: &Shape, address: u32, mut word: u32) -> u32 {
    let mut left = shape.shift;
    while word & NODE != 0 {
        let bits = word >> BITS & 0xf;
        // An address has no more bits; no compiled table uses more.
        let Some(behind) = left.checked_sub(bits) else { return 0 };
        left = behind;
        let index = u64::from(address).wrapping_shr(left) as u32 & 1u32.wrapping_shl(bits).wrapping_sub(1);
        word = table_word(image, shape, (word >> TABLE) as usize + index as usize);
    }
    leaf(image, shape, address, word)
}

#[inline(never)]
fn one_of_two(image: &[u8], shape: &Shape, address: u32, word: u32) -> u32 {
    let at = u64::from(shape.chunks) + u64::from((word >> PLACE).wrapping_shl(shape.unit));
    let wanted = address.wrapping_shr(shape.grain);
    let other = shape.other;
    match shape.form {
        0 => toggled::<2, 2, false>(image, word, at, wanted, other),
        1 => toggled::<2, 4, false>(image, word, at, wanted, other),
        2 => toggled::<4, 2, false>(image, word, at, wanted, other),
        3 => toggled::<4, 4, false>(image, word, at, wanted, other),
        4 => toggled::<2, 2, true>(image, word, at, wanted, other),
        5 => toggled::<2, 4, true>(image, word, at, wanted, other),
        6 => toggled::<4, 2, true>(image, word, at, wanted, other),
        7 => toggled::<4, 4, true>(image, word, at, wanted, other),
        _ => ranged(image, at, address, other),
    }
}

#[inline(never)]
fn one_of_many(image: &[u8], shape: &Shape, address: u32, word: u32) -> u32 {
    let at = u64::from(shape.chunks) + u64::from((word >> PLACE).wrapping_shl(shape.unit));
    let wanted = address.wrapping_shr(shape.grain);
    match shape.form {
        8 => value::<2, 1, false>(image, word, at, wanted),
        9 => value::<4, 1, false>(image, word, at, wanted),
        10 => value::<2, 1, true>(image, word, at, wanted),
        11 => value::<4, 1, true>(image, word, at, wanted),
        12 => value::<2, 2, false>(image, word, at, wanted),
        13 => value::<4, 2, false>(image, word, at, wanted),
        14 => value::<2, 2, true>(image, word, at, wanted),
        15 => value::<4, 2, true>(image, word, at, wanted),
        16 => value::<2, 4, false>(image, word, at, wanted),
        17 => value::<4, 4, false>(image, word, at, wanted),
        18 => value::<2, 4, true>(image, word, at, wanted),
        19 => value::<4, 4, true>(image, word, at, wanted),
        20 => tree::<1>(image, word, at, wanted),
        21 => tree::<2>(image, word, at, wanted),
        _ => tree::<4>(image, word, at, wanted),
    }
}

/// A word of the tables.
#[inline]
fn table_word(image: &[u8], shape: &Shape, index: usize) -> u32 {
    // Only the index has to wait for the address.
    let Some(tables) = image.get(shape.root as usize..) else { return 0 };
    tables.as_chunks().0.get(index).map_or(0, |word| u32::from_le_bytes(*word))
}

#[inline]
fn lanes<const VECTORS: usize>(image: &[u8], at: u64) -> Option<&[[u8; 16]; VECTORS]> {
    image.get(at as usize..at as usize + VECTORS * 16)?.as_chunks().0.first_chunk()
}

/// The bits from that of a number (31 at most) on.
#[inline]
fn from(number: u32) -> u32 {
    u32::MAX.wrapping_shl(number)
}

/// One of two classes.
#[inline]
fn toggled<const WIDTH: usize, const VECTORS: usize, const SINGLES: bool>(
    image: &[u8],
    word: u32,
    at: u64,
    wanted: u32,
    other: u32,
) -> u32 {
    let Some(lanes) = lanes::<VECTORS>(image, at) else { return 0 };
    let Compared { above, equal } = compared::<WIDTH, VECTORS>(lanes, wanted);
    let behind = from(word >> TOGGLES);
    let even = if word & FIRST == 0 { 0 } else { other };
    let odd = even ^ other;
    let is_odd = if SINGLES {
        let singles = behind & !from(word >> LANES);
        // The same parity as the toggles that are not above, because 32 is even.
        ((above | behind) ^ (equal & singles)).count_ones() & 1
    } else {
        (above | behind).trailing_zeros() & 1
    };
    if is_odd == 0 { even } else { odd }
}

/// One of many classes.
#[inline]
fn value<const WIDTH: usize, const SIZE: usize, const SINGLES: bool>(
    image: &[u8],
    word: u32,
    at: u64,
    wanted: u32,
) -> u32 {
    let Some(lanes) = lanes::<4>(image, at) else { return 0 };
    let Compared { above, equal } = compared::<WIDTH, 4>(lanes, wanted);
    let behind = from(word >> TOGGLES);
    let count = (above | behind).trailing_zeros();
    let single = if SINGLES { equal & behind & !from(word >> LANES) } else { 0 };
    let index = if single == 0 { count } else { single.trailing_zeros() + 1 };
    let values = at as usize + (word >> LANES & MOST_LANES) as usize * WIDTH;
    value_at::<SIZE>(image, values + index as usize * SIZE)
}

/// One of many classes, by two comparisons.
#[inline]
fn tree<const SIZE: usize>(image: &[u8], word: u32, at: u64, wanted: u32) -> u32 {
    let lanes_here = word >> TREE_LANES & 0x1ff;
    let groups = lanes_here / GROUP;
    let Some(lasts) = lanes::<4>(image, at) else { return 0 };
    let full = (compared::<4, 4>(lasts, wanted).above | from(groups)).trailing_zeros();
    let at = at + u64::from(groups) * 4;
    let Some(group) = lanes::<4>(image, at + u64::from(full) * 64) else { return 0 };
    // The whole group, or the rest in the last one.
    let left = lanes_here.wrapping_sub(full * GROUP).min(GROUP);
    let more = (compared::<4, 4>(group, wanted).above | from(left)).trailing_zeros();
    value_at::<SIZE>(image, at as usize + lanes_here as usize * 4 + (full * GROUP + more) as usize * SIZE)
}

#[inline]
fn value_at<const SIZE: usize>(image: &[u8], at: usize) -> u32 {
    let Some(bytes) = image.get(at..at + SIZE) else { return 0 };
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// One of two classes, where the other has a few ranges.
#[inline]
fn ranged(image: &[u8], at: u64, address: u32, other: u32) -> u32 {
    let Some(ranges) = image.get(at as usize..at as usize + RANGES * 8) else { return 0 };
    let inside = ranges.as_chunks::<8>().0.iter().fold(false, |inside, range| {
        let [low, span] = [u32_at(range, 0), u32_at(range, 4)];
        inside | (address.wrapping_sub(low) <= span)
    });
    if inside { other } else { 0 }
}

//! From an IPv4 address to the class of the sets it lies in: a table of the leading bits, then a chunk of starts.
//!
//! A map is a [`Shape`] in [`HEADER_WORDS`] words, tables of words, and from the next multiple of 64 bytes on chunks.
//! The root table has a word for each value of an address's leading bits, those above [`Shape::shift`]:
//!
//! ```text
//! node   bit 0 set    bits (4)                  table (27): what lies below is told apart by a table of 2^bits words,
//!                                               by the bits that follow; it begins at that word of the tables
//! chunk  bit 0 clear  first (1)  toggles (5)  lanes (5)  chunk (20): in units of 2^[`Shape::unit`] bytes
//! ```
//!
//! A chunk is `lanes` numbers: addresses without their [`Shape::grain`] last bits, and of what is left all or the last
//! 16 bits, whatever the map has, as signed numbers (the top bit is turned). The first `toggles` ascend: from each on,
//! another class begins. Those behind are single: the class is another one there, and behind it what it was before. A
//! set of hosts is half as large this way.
//!
//! Where a map has only two classes, 0 and [`Shape::other`], one toggle leads from either to the other: the class is
//! `other` if `first` and the number of toggles not above the address, and of singles that are the address, are odd
//! together. Otherwise the lanes are followed by the classes, each of [`Shape::value`] bytes: that before the first
//! toggle, that from each toggle on, that of each single.
//!
//! Everything else that could be decided by a branch is the same for a whole map, so that a processor that decides
//! flows learns it: how wide lanes are, how many are compared at once, whether there are singles, what values look
//! like. Nodes are what cannot be foreseen; the compiler chooses a shape for which they are rare.
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
/// Where a chunk's number of toggles, of lanes and its place stand in a word.
pub(crate) const TOGGLES: u32 = 2;
pub(crate) const LANES: u32 = 7;
pub(crate) const PLACE: u32 = 12;
/// Where a node's bits and its table stand.
pub(crate) const BITS: u32 = 1;
pub(crate) const TABLE: u32 = 5;
/// The most lanes a word can count.
pub(crate) const MOST_LANES: u32 = 31;
/// The most bits a table can have.
pub(crate) const MOST_BITS: u32 = 20;
/// Words of a shape.
pub(crate) const HEADER_WORDS: u32 = 3;
/// Bytes behind the last chunk: as many as are read of any.
pub(crate) const PADDING: u32 = 64;

/// What a map says once for all its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// How many bits are left behind the root table: 12 to 32.
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
    /// Bytes of a class: 1, 2, 4, or 0 where there are two classes.
    pub(crate) value: u32,
    /// The class that is not 0, where there are two.
    pub(crate) other: u32,
    /// Words of the tables.
    pub(crate) tables: u32,
    /// All of these that are the same for a map in one number.
    pub(crate) form: u8,
    /// Where in the image the tables begin, and where the chunks.
    pub(crate) root: u32,
    pub(crate) chunks: u32,
}

impl Shape {
    /// Reads the shape of a map; with the map empty, its tables have no words.
    pub(crate) fn read(image: &[u8], section: Section) -> Self {
        let map = section.of(image);
        let word = u32_at(map, 0);
        let flag = |bit: u32| word >> bit & 1 != 0;
        let tables = u32_at(map, 8);
        let form = if word >> 19 == 0 { word >> 16 & 7 } else { 8 + (word >> 17 & 1) };
        Self {
            form: form as u8,
            shift: word & 0x3f,
            grain: word >> 6 & 0x1f,
            unit: word >> 11 & 0x1f,
            wide: flag(17),
            four: flag(16),
            singles: flag(18),
            value: word >> 19,
            other: u32_at(map, 4),
            tables,
            root: section.offset.saturating_add(HEADER_WORDS * 4),
            chunks: u32::try_from(u64::from(section.offset) + chunks(tables)).unwrap_or(u32::MAX),
        }
    }

    #[cfg(feature = "std")]
    pub(crate) fn words(&self) -> [u32; HEADER_WORDS as usize] {
        let flags = u32::from(self.four) << 16 | u32::from(self.wide) << 17 | u32::from(self.singles) << 18;
        [self.shift | self.grain << 6 | self.unit << 11 | flags | self.value << 19, self.other, self.tables]
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
        (self.compared() / self.width()).min(MOST_LANES)
    }
}

/// Where in a map the chunks begin, behind that many words of tables.
pub(crate) fn chunks(tables: u32) -> u64 {
    (u64::from(tables) + u64::from(HEADER_WORDS)).wrapping_mul(4).next_multiple_of(64)
}

/// The class of an address, by the map of that shape.
#[inline]
pub(crate) fn class(image: &[u8], shape: &Shape, address: u32) -> u32 {
    let word = table_word(image, shape, u64::from(address).wrapping_shr(shape.shift) as usize);
    if word & NODE == 0 { leaf(image, shape, address, word) } else { below(image, shape, address, word) }
}

/// The class, below a node.
#[cold]
#[inline(never)]
fn below(image: &[u8], shape: &Shape, address: u32, mut word: u32) -> u32 {
    let mut left = shape.shift;
    while word & NODE != 0 {
        let bits = word >> BITS & 0xf;
        // An address has no more bits to tell tables apart by; no table that was compiled asks for more.
        let Some(behind) = left.checked_sub(bits) else { return 0 };
        left = behind;
        let index = u64::from(address).wrapping_shr(left) as u32 & 1u32.wrapping_shl(bits).wrapping_sub(1);
        word = table_word(image, shape, (word >> TABLE) as usize + index as usize);
    }
    leaf(image, shape, address, word)
}

/// The class, by the chunk of a word.
#[inline(never)]
fn leaf(image: &[u8], shape: &Shape, address: u32, word: u32) -> u32 {
    let at = u64::from(shape.chunks) + u64::from((word >> PLACE).wrapping_shl(shape.unit));
    let wanted = address.wrapping_shr(shape.grain);
    let odd = match shape.form {
        0 => toggled::<2, 2>(image, word, at, wanted),
        1 => toggled::<2, 4>(image, word, at, wanted),
        2 => toggled::<4, 2>(image, word, at, wanted),
        3 => toggled::<4, 4>(image, word, at, wanted),
        4 => toggled_or_single::<2, 2>(image, word, at, wanted),
        5 => toggled_or_single::<2, 4>(image, word, at, wanted),
        6 => toggled_or_single::<4, 2>(image, word, at, wanted),
        7 => toggled_or_single::<4, 4>(image, word, at, wanted),
        8 => return value::<2>(image, shape, word, at, wanted),
        _ => return value::<4>(image, shape, word, at, wanted),
    };
    odd.wrapping_neg() & shape.other
}

/// A word of the tables.
#[inline]
fn table_word(image: &[u8], shape: &Shape, index: usize) -> u32 {
    let at = shape.root as usize + index * 4;
    match image.get(at..at + 4).and_then(|bytes| bytes.first_chunk()) {
        Some(bytes) => u32::from_le_bytes(*bytes),
        None => 0,
    }
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

/// 1 if the address has the other of two classes, of a chunk without singles.
#[inline]
fn toggled<const WIDTH: usize, const VECTORS: usize>(image: &[u8], word: u32, at: u64, wanted: u32) -> u32 {
    let Some(lanes) = lanes::<VECTORS>(image, at) else { return 0 };
    let Compared { above, .. } = compared::<WIDTH, VECTORS>(lanes, wanted);
    let count = (above | from(word >> TOGGLES)).trailing_zeros();
    (count ^ word >> 1) & 1
}

/// The same where there may be singles.
#[inline]
fn toggled_or_single<const WIDTH: usize, const VECTORS: usize>(image: &[u8], word: u32, at: u64, wanted: u32) -> u32 {
    let Some(lanes) = lanes::<VECTORS>(image, at) else { return 0 };
    let Compared { above, equal } = compared::<WIDTH, VECTORS>(lanes, wanted);
    let behind = from(word >> TOGGLES);
    let singles = behind & !from(word >> LANES);
    // As even or odd as the toggles that are not above, because all 32 bits are an even number.
    let odd = ((above | behind) ^ (equal & singles)).count_ones() & 1;
    odd ^ (word >> 1 & 1)
}

/// The class, where there are more than two.
#[inline]
fn value<const WIDTH: usize>(image: &[u8], shape: &Shape, word: u32, at: u64, wanted: u32) -> u32 {
    let Some(lanes) = lanes::<4>(image, at) else { return 0 };
    let Compared { above, equal } = compared::<WIDTH, 4>(lanes, wanted);
    let behind = from(word >> TOGGLES);
    let single = equal & behind & !from(word >> LANES);
    let count = (above | behind).trailing_zeros();
    let index = if single != 0 { single.trailing_zeros() + 1 } else { count };
    let values = at as usize + (word >> LANES & MOST_LANES) as usize * WIDTH;
    let value = u32_at(image, values + index.wrapping_mul(shape.value) as usize);
    // What lies behind a shorter value is another one.
    value & u32::MAX.wrapping_shr(32u32.wrapping_sub(shape.value * 8))
}

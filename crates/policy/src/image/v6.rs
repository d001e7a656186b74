//! Maps an IPv6 address to the class of the sets it is in.
//!
//! Nearly all announced and listed networks are distinguished by an address's first 48 bits, its *site*: the starts of
//! ranges are stored as site numbers, in trees of equal depth whose nodes are compared at once. Deeper ranges in some
//! sites, and blocks with few starts, are sorted lists, and a small map is a single list. In a large map, networks of
//! at most one site and single hosts, which make up lists of hundreds of thousands of entries, are *exceptions*: they
//! are not among the starts but in a hash table whose buckets are one cache line each. In a map of two classes they
//! have the second; otherwise they have the same class on both sides, so that the starts without them give the class
//! around them.
//!
//! ```text
//! words 0..16   form (0 two classes, 1 and 2 classes of 16 and 32 bits); the two classes; levels of the trees; tables;
//!               buckets; links; 8 bytes of lists; values; zero; where the nodes of each level end (6)
//! tables        256 entries each, none if link 0 is all: the first by the first byte, the others by the second
//! nodes         32 words each, level by level, roots first
//! buckets       64 bytes each
//! links         4 words each
//! lists         8 bytes each
//! values        classes by form, none for two classes: those of the buckets' entries first, eight for each bucket
//!
//! entry         kind (2 highest bits), number: 0 a class, 1 a table (in the first), 2 a root, 3 a link
//! node          31 starts; the first child
//! last level    29 starts; a bit for each range that is a link; of two classes, a bit for each that has the second,
//!               else the value of the first range; the first link
//! link          first start; starts; value of the first range; position (7 bits), and bit 8 if starts are whole
//! bucket        8 tags of 32 bits, 8 values of 16, 8 masks of 16
//! ```
//!
//! A start in a node is bits 16 to 48 of the first address, less one and with the highest bit inverted, so that a
//! signed comparison finds it less than what is not before it; unused ones are the highest number, which is never less.
//! The starts in a list are the 64 bits of addresses from `position`, or whole addresses. With two classes, a link's
//! value is that of the first range (0 or 1), and the others alternate.
//!
//! Exceptions are in 2000::/3. Their site times an odd number, modulo 2^45, gives the bucket by its position in that
//! range, and the tag by its lower 30 bits: no two sites have both in common. An entry has a tag, a bit that marks it
//! as present, a bit that marks a host, and the prefix of the 16 bits after the site. Hosts come first, one for each
//! /64 in a bucket; the lower half of the address of the host at place `n` takes place 7 - `n`, cut into tag, value and
//! mask.

use super::{
    lanes::six::{entries, less},
    table::{Section, u16_at, u32_at},
};
use core::hint::select_unpredictable;

/// The bytes of the words before the tables.
pub(crate) const HEAD: usize = 64;
/// The bytes of a table.
pub(crate) const TABLE_BYTES: usize = 1024;
/// The bytes of a node.
pub(crate) const LINES: usize = 128;
/// The bytes of a bucket.
pub(crate) const BUCKET: usize = 64;
/// The bytes of a link.
pub(crate) const LINK: usize = 16;
/// The starts of a node above the last level.
pub(crate) const INNER: u32 = 31;
/// The starts of a node of the last level.
pub(crate) const LAST: u32 = 29;
/// The most levels.
pub(crate) const LEVELS: usize = 6;
/// An unused start.
pub(crate) const UNUSED: u32 = i32::MAX as u32;
/// The fewest buckets: at most 30 of the 45 bits of a site are left for the tag.
pub(crate) const FEWEST_BUCKETS: u32 = 1 << 15;
/// The most.
pub(crate) const MOST_BUCKETS: u32 = 1 << 25;
/// The highest number of an entry.
pub(crate) const NUMBERS: u32 = (1 << 30) - 1;
/// A link whose starts take 16 bytes.
pub(crate) const WIDE: u32 = 1 << 8;

/// The meaning of an entry's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Class = 0,
    Table = 1,
    Root = 2,
    Link = 3,
}

impl Kind {
    #[inline]
    pub(crate) fn of(entry: u32) -> (Self, u32) {
        let kind = match entry >> 30 {
            0 => Self::Class,
            1 => Self::Table,
            2 => Self::Root,
            _ => Self::Link,
        };
        (kind, entry & NUMBERS)
    }

    #[cfg(feature = "std")]
    pub(crate) fn entry(self, number: u32) -> u32 {
        (self as u32) << 30 | number
    }
}

/// How classes are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// Of two, whether it is the second.
    #[default]
    Two = 0,
    /// 16 bits.
    Short = 1,
    /// 32 bits.
    Long = 2,
}

/// A map's first words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) form: Form,
    classes: [u32; 2],
    pub(crate) depth: u32,
    pub(crate) tables: Section,
    pub(crate) nodes: Section,
    pub(crate) buckets: Section,
    pub(crate) links: Section,
    pub(crate) lists: Section,
    pub(crate) values: Section,
    /// The ends of the nodes of each level.
    pub(crate) ends: [u32; LEVELS],
}

impl Map {
    /// Reads the first words. If it is not a valid map, sections may be outside of it.
    pub(crate) fn read(map: &[u8]) -> Self {
        let word = |index: usize| u32_at(map, index * 4);
        let ends = core::array::from_fn(|level| word(10 + level));
        let form = match word(0) {
            0 => Form::Two,
            1 => Form::Short,
            _ => Form::Long,
        };
        let mut offset = HEAD as u32;
        let mut section = |count: u32, size: usize| {
            let length = count.saturating_mul(size as u32);
            offset = offset.saturating_add(length);
            Section { offset: offset.saturating_sub(length), length }
        };
        Self {
            form,
            classes: [word(1), word(2)],
            depth: word(3),
            tables: section(word(4), TABLE_BYTES),
            nodes: section(word(9 + LEVELS), LINES),
            buckets: section(word(5), BUCKET),
            links: section(word(6), LINK),
            lists: section(word(7), 8),
            values: section(word(8), if form == Form::Short { 2 } else { 4 }),
            ends,
        }
    }

    /// The class from tables, trees and lists.
    #[inline]
    fn named(&self, found: u32) -> u32 {
        let [first, second] = self.classes;
        match self.form {
            Form::Two => first ^ (first ^ second) & (found & 1).wrapping_neg(),
            Form::Short | Form::Long => found,
        }
    }

    /// The value with a number.
    #[inline]
    fn value(&self, map: &[u8], number: u32) -> u32 {
        let values = self.values.of(map);
        match self.form {
            Form::Two => number & 1,
            Form::Short => u32::from(u16_at(values, (number as usize).wrapping_mul(2))),
            Form::Long => u32_at(values, (number as usize).wrapping_mul(4)),
        }
    }
}

/// The class of an address.
#[inline]
pub(crate) fn class(map: &[u8], head: &Map, address: u128) -> u32 {
    // As predictable as the traffic; an unneeded lookup in the trees would evict others from the caches.
    if head.buckets.length != 0
        && let Some(entry) = excepted(map, head, address)
    {
        return if head.form == Form::Two { head.classes[1] } else { head.value(map, entry) };
    }
    if head.tables.length == 0 {
        return head.named(in_list(map, head, 0, address));
    }
    let tables = head.tables.of(map);
    let (mut kind, mut number) = Kind::of(u32_at(tables, (address >> 120) as usize * 4));
    if kind == Kind::Table {
        let second = (address >> 112) as usize & 0xff;
        let place = (number as usize).wrapping_mul(TABLE_BYTES).wrapping_add(second * 4);
        (kind, number) = Kind::of(u32_at(tables, place));
    }
    let found = if kind == Kind::Root {
        in_tree(map, head, number, address)
    } else if kind == Kind::Link {
        in_list(map, head, number, address)
    } else {
        number
    };
    head.named(found)
}

#[inline]
fn in_tree(map: &[u8], head: &Map, root: u32, address: u128) -> u32 {
    let wanted = ((address >> 80) as u32 ^ 1 << 31).cast_signed();
    let nodes = head.nodes.of(map).as_chunks::<LINES>().0;
    let mut at = root;
    for _ in 1..head.depth {
        let Some(node) = nodes.get(at as usize) else { return 0 };
        let child = (!less(node, wanted) | 1 << INNER).trailing_zeros();
        at = u32_at(node, 31 * 4).wrapping_add(child);
    }
    let Some(node) = nodes.get(at as usize) else { return 0 };
    let range = (!less(node, wanted) | 7 << LAST).trailing_zeros();
    let (linked, classes) = (u32_at(node, 29 * 4), u32_at(node, 30 * 4));
    if linked.wrapping_shr(range) & 1 != 0 {
        let before = linked & 1u32.wrapping_shl(range).wrapping_sub(1);
        return in_list(map, head, u32_at(node, 31 * 4).wrapping_add(before.count_ones()), address);
    }
    match head.form {
        Form::Two => classes.wrapping_shr(range),
        Form::Short | Form::Long => head.value(map, classes.wrapping_add(range)),
    }
}

/// Binary search without a branch that depends on the address.
#[inline(never)]
fn in_list(map: &[u8], head: &Map, link: u32, address: u128) -> u32 {
    let Some(link) = head.links.record::<LINK>(map, link) else { return 0 };
    let [first, count, value, shape] = [0, 4, 8, 12].map(|at| u32_at(link, at));
    let starts = head.lists.of(map).get(first as usize * 8..).unwrap_or(&[]);
    let below = if shape & WIDE != 0 {
        below(starts.as_chunks::<16>().0, count, |start| u128::from_le_bytes(*start) <= address)
    } else {
        let window = (address.wrapping_shl(shape) >> 64) as u64;
        below(starts.as_chunks::<8>().0, count, |start| u64::from_le_bytes(*start) <= window)
    };
    head.value(map, value.wrapping_add(below))
}

/// How many of the first `count` starts are not above an address.
#[inline]
fn below<const SIZE: usize>(starts: &[[u8; SIZE]], count: u32, not_above: impl Fn(&[u8; SIZE]) -> bool) -> u32 {
    let Some(starts) = starts.get(..count as usize) else { return 0 };
    let (mut low, mut left) = (0, starts.len());
    while left > 1 {
        let half = left / 2;
        let middle = low + half;
        // Written as a selection between two values, it needs no branch.
        let Some(start) = starts.get(middle) else { return 0 };
        low = select_unpredictable(not_above(start), middle, low);
        left -= half;
    }
    low as u32 + u32::from(starts.get(low).is_some_and(not_above))
}

/// The bucket, of `buckets`, and the tag of an address' site.
#[inline]
pub(crate) fn place(address: u128, buckets: u32) -> (u32, u32) {
    // The golden ratio's part of 2^64, odd: it spreads neighbours far apart.
    let product = ((address >> 80) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) << 19;
    let bucket = (u128::from(product) * u128::from(buckets)) >> 64;
    (bucket as u32, ((product >> 17) as u32 & !3) | 2)
}

/// The number of the exception that contains an address, eight to a bucket.
#[inline]
fn excepted(map: &[u8], head: &Map, address: u128) -> Option<u32> {
    let (number, tag) = place(address, head.buckets.count::<BUCKET>());
    let bucket = head.buckets.record::<BUCKET>(map, number)?;
    let (low, found) = entries(bucket, tag, (address >> 64) as u16);
    let hosts = hosts(low);
    let found = found & 0xff_u32.wrapping_shr(hosts);
    let before = 1u32.wrapping_shl(hosts).wrapping_sub(1);
    let host = (found & before | 0x80).trailing_zeros();
    let same = lower_half(bucket, host) == address as u64;
    let held = found & (!before | u32::from(same).wrapping_shl(host));
    let lane = held.trailing_zeros();
    ((held != 0) & (address >> 125 == 1)).then_some(number.wrapping_mul(8).wrapping_add(lane))
}

/// How many of a bucket's entries are hosts, by the lowest bits of the tags.
#[inline]
pub(crate) fn hosts(low: u32) -> u32 {
    (!low | 1 << 4).trailing_zeros()
}

/// The lower half of the address of the host at a place.
#[inline]
pub(crate) fn lower_half(bucket: &[u8; BUCKET], host: u32) -> u64 {
    let place = 7 - (host as usize & 7);
    u64::from(u32_at(bucket, place * 4))
        | u64::from(u16_at(bucket, 32 + place * 2)) << 32
        | u64::from(u16_at(bucket, 48 + place * 2)) << 48
}

//! From a name to the class of the name lists it stands in.
//!
//! Only hashes of names are kept. The hash is a polynomial in two secret points modulo 2^61 - 1, taken over the name's
//! letters from the right, seven to a block, so that every suffix of a name costs one step beside those of the name
//! itself. Two different names of at most `b` blocks have difference polynomials of degree `b`, so the second values
//! agree for at most `b` of the 2^61 points, and the 35 bits kept of the first for at most `b * 2^27` of them: a tag
//! confuses two names with a chance below `(b * 2^-61) * (b * 2^-34)`. For names of up to 55 letters (`b` is 8) that is
//! 2^-89, and 2^-69 that a name which is not listed is taken for any of a million that are; for the longest names there
//! can be (`b` is 37) it is below 2^-64. That only the tags of a bucket or two are compared makes it less likely still and
//! is not counted. The compiler refuses a key under which two listed names meet.
//!
//! The last block is added, not multiplied, so values of names that differ in it lie close together: buckets and the
//! filter's words are taken from the value mixed with a secret.
//!
//! ```text
//! filter   words of 64 bits; a name sets four bits in one word, by its first value
//! buckets  64 bytes: five tags of 12 bytes, then 30 bits of record numbers and whether the next bucket goes on
//! ```
//!
//! Most names asked for are in no list: the filter answers them with one word for each of their suffixes.

use super::{
    layout::Header,
    table::{record, u32_at, u64_at},
};

/// A bucket's bytes: one cache line.
pub(crate) const BUCKET: usize = 64;
/// Tags of a bucket.
pub(crate) const TAGS: usize = 5;
/// A tag's bytes.
pub(crate) const TAG: usize = 12;
/// The most buckets one name may be away from its own. Of a million names thrown at random the farthest is some forty
/// away.
pub(crate) const REACH: u32 = 256;
/// How many records fit into a bucket's own numbers.
pub(crate) const INLINE_RECORDS: u32 = 64;
/// The next bucket goes on.
pub(crate) const OVERFLOW: u32 = 1 << 31;
/// The longest name that is looked at.
const LONGEST: usize = 255;

/// 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;

/// The two secret points, and what values are spread by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Points {
    points: [u64; 2],
    spread: [u64; 2],
}

impl Points {
    /// From an image's key. Mixing loses nothing of a key that was drawn, and makes points without a pattern of one that
    /// was not.
    pub(crate) fn new(key: [u64; 2]) -> Self {
        // Points 0 and 1 would make every block equal; they cost nothing to avoid.
        let point = |half: u64| 2 + (half >> 3) % (PRIME - 2);
        let [first, second] = [mixed(key[0].wrapping_add(STEP)), mixed(key[1].wrapping_add(STEP.wrapping_mul(2)))];
        Self { points: [point(first), point(second)], spread: [mixed(first ^ STEP), mixed(second ^ STEP)] }
    }
}

/// A number whose bits are neither few nor regular.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A permutation of the numbers of 64 bits in which every bit depends on every other: the last steps of SplitMix64.
const fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// The hash of a suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Hash(pub(crate) [u64; 2]);

/// The value of a polynomial with one block more. Values are kept below 2^61 + 4: the product with a point and a block is
/// below 2^123, its halves together below 2^63, and folded once more below 2^61 + 4. [`reduced`] makes them the least
/// they can be.
#[inline]
fn step(value: u64, point: u64, block: u64) -> u64 {
    let product = u128::from(value) * u128::from(point) + u128::from(block);
    let sum = (product as u64 & PRIME) + (product >> 61) as u64;
    (sum & PRIME) + (sum >> 61)
}

#[inline]
fn reduced(value: u64) -> u64 {
    if value >= PRIME { value - PRIME } else { value }
}

impl Hash {
    const EMPTY: Self = Self([1, 1]);

    /// The bucket among `buckets`.
    #[inline]
    pub(crate) fn bucket(self, points: &Points, buckets: u32) -> u32 {
        (((mixed(self.0[0] ^ points.spread[0]) >> 32) * u64::from(buckets)) >> 32) as u32
    }

    /// The 12 bytes kept of it.
    #[inline]
    pub(crate) fn tag(self) -> (u64, u32) {
        let [first, second] = self.0;
        (second | first << 61, (first >> 3) as u32)
    }

    /// The filter's word among `words`, and the bits in it.
    #[cfg(feature = "std")]
    pub(crate) fn filter(self, points: &Points, words: u32) -> (u32, u64) {
        filter(self.0[0], points, words)
    }
}

/// The filter's word and bits by the first value alone.
#[inline]
fn filter(first: u64, points: &Points, words: u32) -> (u32, u64) {
    let mixed = mixed(first ^ points.spread[1]);
    let word = ((mixed >> 32) * u64::from(words)) >> 32;
    let bit = |at: u32| 1u64 << (mixed >> at & 63);
    (word as u32, bit(0) | bit(6) | bit(12) | bit(18))
}

const fn every(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Eight letters in lower case; bytes that are no ASCII letters stay what they are.
#[inline]
fn lower(letters: u64) -> u64 {
    let low = letters & every(0x7f);
    let from_a = low + every(0x80 - b'A');
    let beyond_z = low + every(0x7f - b'Z');
    letters | ((from_a ^ beyond_z) & !letters & every(0x80)) >> 2
}

/// The eight bytes before `end`, the last in the top byte; zeros before the beginning.
#[inline]
fn before(name: &[u8], end: usize) -> u64 {
    let head = name.get(..end).unwrap_or(&[]);
    if let Some(chunk) = head.last_chunk::<8>() {
        return u64::from_le_bytes(*chunk);
    }
    if let Some(chunk) = name.first_chunk::<8>() {
        return u64::from_le_bytes(*chunk).wrapping_shl(64 - 8 * head.len() as u32) * u64::from(!head.is_empty());
    }
    head.iter().fold(0, |word, &byte| word >> 8 | u64::from(byte) << 56)
}

/// Letters of a block.
const BLOCK: usize = 7;
/// Blocks taken together.
const BLOCKS: usize = 8;

/// Where the seven letters before `end` hold dots: bit 0 for the last.
#[inline]
fn dots(letters: u64) -> u64 {
    let undotted = letters ^ every(b'.');
    // 0x80 at each byte that is a dot, exactly; the lowest byte belongs to the next block.
    let dots = !(((undotted & every(0x7f)) + every(0x7f)) | undotted) & every(0x80) & !0xff;
    // The last letter's bit first, then all eight bits side by side: no two of the product's terms meet.
    (dots.swap_bytes() >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// Up to 56 letters of a name, in blocks from the right.
struct Chunk {
    blocks: [u64; BLOCKS + 1],
    /// The first value before each block.
    firsts: [u64; BLOCKS + 1],
    /// Both values before the first block.
    base: Hash,
}

impl Chunk {
    /// The place and contents of the last block of the suffix that has `length` letters of this chunk: what full blocks
    /// leave of it (none to six letters), with their number, which is above all full blocks.
    #[inline]
    fn last(&self, length: usize) -> (usize, u64) {
        let (index, rest) = (length / BLOCK, (length % BLOCK) as u64);
        let block = self.blocks.get(index).copied().unwrap_or(0) >> (8 * (BLOCK as u64 - rest));
        (index, block | (rest + 1) << 56)
    }

    /// The first value of that suffix's hash.
    #[inline]
    fn first(&self, points: &Points, length: usize) -> u64 {
        let (index, last) = self.last(length);
        reduced(step(self.firsts.get(index).copied().unwrap_or(1), points.points[0], last))
    }

    /// Its whole hash.
    fn hash(&self, points: &Points, length: usize) -> Hash {
        let (index, last) = self.last(length);
        let full = self.blocks.iter().take(index);
        let second = full.fold(self.base.0[1], |value, block| step(value, points.points[1], *block));
        Hash([self.first(points, length), reduced(step(second, points.points[1], last))])
    }
}

/// Takes a name's letters in chunks from the right. `visit` gets each chunk, the lengths in it of the suffixes that
/// begin there (bit N for N letters, so that the longest is the highest), and whether the longest is the whole name; it
/// says whether to go on.
#[inline]
fn chunks(points: &Points, name: &[u8], mut visit: impl FnMut(&Chunk, u64, bool) -> bool) {
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.is_empty() || name.len() > LONGEST {
        return;
    }
    let mut end = name.len();
    let mut chunk = Chunk { blocks: [0; BLOCKS + 1], firsts: [1; BLOCKS + 1], base: Hash::EMPTY };
    loop {
        let (mut starts, mut from, mut first) = (0u64, end, chunk.base.0[0]);
        for (index, (block, value)) in chunk.blocks.iter_mut().zip(&mut chunk.firsts).take(BLOCKS).enumerate() {
            let letters = before(name, from);
            starts |= dots(letters) << (BLOCK * index);
            *block = lower(letters) >> 8;
            *value = first;
            if from < BLOCK {
                break;
            }
            first = step(first, points.points[0], *block);
            from -= BLOCK;
        }
        if end <= BLOCK * BLOCKS {
            if end == BLOCK * BLOCKS {
                chunk.firsts[BLOCKS] = first;
            }
            visit(&chunk, starts | 1 << end, true);
            return;
        }
        if !visit(&chunk, starts, false) {
            return;
        }
        let full = chunk.blocks.iter().take(BLOCKS);
        let second = full.fold(chunk.base.0[1], |value, block| step(value, points.points[1], *block));
        chunk.base = Hash([first, second]);
        end -= BLOCK * BLOCKS;
    }
}

/// Walks a name's suffixes from the shortest to the name itself: each one's hash, and whether it is the whole name.
#[cfg(feature = "std")]
pub(crate) fn suffixes(points: &Points, name: &[u8], mut visit: impl FnMut(Hash, bool)) {
    chunks(points, name, |chunk, mut starts, whole| {
        while starts != 0 {
            let length = starts.trailing_zeros() as usize;
            starts &= starts - 1;
            visit(chunk.hash(points, length), whole && starts == 0);
        }
        true
    });
}

/// The bit for names of so many labels.
#[inline]
pub(crate) fn depth_bit(labels: u32) -> u32 {
    1 << labels.min(31)
}

/// The class of a name: of the longest listed suffix, of itself or of what lies below it.
///
/// The filter is asked for all suffixes of a chunk first, by one value and without a branch between them, so that its
/// lines come together; then the buckets, for the longest suffix that passed first, until one is found. What is found
/// farther left is longer and counts more.
pub(crate) fn class(image: &[u8], header: &Header, name: &[u8]) -> u32 {
    let sections = &header.sections;
    let records = sections.name_records.of(image);
    if records.is_empty() {
        return 0;
    }
    let (words, bits) = (sections.name_filter.count::<8>(), sections.name_filter.of(image));
    let (buckets, places) = (sections.name_buckets.of(image), sections.name_places.of(image));
    let count = sections.name_buckets.count::<BUCKET>();
    let points = &header.points;
    let (mut class, mut labels) = (0u32, 0u32);
    chunks(points, name, |chunk, mut starts, whole| {
        let all = starts;
        let mut passed = 0u64;
        while starts != 0 {
            let length = starts.trailing_zeros();
            starts &= starts - 1;
            labels += 1;
            if header.name_depths & depth_bit(labels) != 0 {
                let (word, wanted) = filter(chunk.first(points, length as usize), points, words);
                passed |= u64::from(u64_at(bits, word as usize * 8) & wanted == wanted) << length;
            }
        }
        while passed != 0 {
            let length = 63 - passed.leading_zeros();
            if let Some(found) = find(points, buckets, count, places, chunk.hash(points, length as usize)) {
                let exact = whole && all >> length == 1;
                class = u32_at(records, found as usize * 8 + if exact { 0 } else { 4 });
                break;
            }
            passed ^= 1 << length;
        }
        // Whether listed names have more labels than this.
        header.name_depths > depth_bit(labels) || labels >= 31
    });
    class
}

/// The record of a hash.
#[inline]
fn find(points: &Points, buckets: &[u8], count: u32, places: &[u8], hash: Hash) -> Option<u32> {
    let (wide, narrow) = hash.tag();
    let mut bucket = hash.bucket(points, count);
    for _ in 0..REACH {
        let bytes: &[u8; BUCKET] = record(buckets, bucket)?;
        let meta = u32_at(bytes, TAGS * TAG);
        // All tags are compared: which one it is cannot be predicted.
        let equal = (0..TAGS).fold(0u32, |equal, place| {
            let same = (u64_at(bytes, place * TAG) == wide) & (u32_at(bytes, place * TAG + 8) == narrow);
            equal | u32::from(same) << place
        });
        if equal != 0 {
            let place = equal.trailing_zeros() as usize;
            return Some(if places.is_empty() {
                meta >> (6 * place) & (INLINE_RECORDS - 1)
            } else {
                u32_at(places, (bucket as usize * TAGS + place) * 4)
            });
        }
        if meta & OVERFLOW == 0 {
            return None;
        }
        bucket = if bucket + 1 >= count { 0 } else { bucket + 1 };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(name: &str) -> Vec<(Hash, bool)> {
        let mut found = Vec::new();
        suffixes(&Points::new([0x1234_5678_9abc_def0, 42]), name.as_bytes(), |hash, whole| {
            found.push((hash, whole));
        });
        found
    }

    #[test]
    fn every_suffix_has_the_hash_it_has_alone() {
        let long = "label7x.".repeat(25) + "a.b..c.example.com";
        let even = format!("{}.{}", "x".repeat(55), "y".repeat(56));
        for name in [
            "a",
            "com",
            "example.com",
            "a.b.c.d.e.f",
            "sevenff.exactly",
            "averyveryverylonglabel.x.sevenff",
            &long,
            &even,
            &long[3..59],
            &long[3..60],
            &long[3..115],
        ] {
            let found = all(name);
            let labels: Vec<_> = name.split('.').collect();
            assert_eq!(found.len(), labels.len(), "{name}");
            for (index, (hash, whole)) in found.iter().enumerate() {
                let suffix = labels[labels.len() - 1 - index..].join(".");
                assert_eq!(all(&suffix).last(), Some(&(*hash, true)), "{suffix} of {name}");
                assert_eq!(*whole, suffix == name);
            }
        }
    }

    #[test]
    fn letters_fold_and_final_dots_fall() {
        assert_eq!(all("WwW.ExAmPlE-0123456789.Org."), all("www.example-0123456789.org"));
        assert_ne!(all("a.b"), all("ab"));
        assert_ne!(all("ab.c").last(), all("a.bc").last());
        assert_ne!(all("{[`@"), all("[[`@"));
        assert_eq!(lower(u64::from_le_bytes(*b"@AZ[`az{")), u64::from_le_bytes(*b"@az[`az{"));
        assert_eq!(lower(every(0xc1)), every(0xc1));
    }

    #[test]
    fn names_of_any_bytes_end() {
        for name in [&b"."[..], b"..", b".a", b"a..b", b"......................", &[0; 255], &[0xff; 400], b""] {
            suffixes(&Points::new([0, 0]), name, |_, _| ());
        }
        assert_ne!(all(".a").last(), all("a").last());
        assert_ne!(all("a..b").last(), all("a.b").last());
    }
}

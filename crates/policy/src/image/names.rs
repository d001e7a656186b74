//! From a name to the class of the name lists it stands in.
//!
//! Only hashes of names are kept. The hash is a polynomial in two secret points modulo 2^61 - 1, taken over the name's
//! labels from the right, so that every suffix of a name costs one step more than the suffix before it. Two different
//! names of at most `b` blocks (7 letters of a label each) agree in one point for at most `b` of its 2^61 values, so
//! the chance that both agree is below `(b / 2^61)^2`. A bucket tells `log2(buckets)` bits of the first point's value,
//! a tag 35 more and all 61 of the second's: for a million names of up to 56 letters any two are confused with a chance
//! below 2^-103, any of the pairs among them below 2^-64, and a name that is not listed with one that is below 2^-84.
//! The compiler refuses a key under which two listed names meet.
//!
//! ```text
//! filter   words of 64 bits; a name sets four bits in one word
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
/// The most buckets one name may be away from its own.
pub(crate) const REACH: u32 = 32;
/// How many records fit into a bucket's own numbers.
pub(crate) const INLINE_RECORDS: u32 = 64;
/// The next bucket goes on.
pub(crate) const OVERFLOW: u32 = 1 << 31;
/// The longest name that is looked at.
const LONGEST: usize = 255;

/// 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;

/// The two secret points.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Points([u64; 2]);

impl Points {
    /// From an image's key.
    pub(crate) fn new(key: [u64; 2]) -> Self {
        // Points 0 and 1 would make every block equal; they cost nothing to avoid.
        Self(key.map(|half| 2 + (half >> 3) % (PRIME - 2)))
    }
}

/// The hash of a suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Hash(pub(crate) [u64; 2]);

impl Hash {
    const EMPTY: Self = Self([1, 1]);

    #[inline]
    fn add(self, points: &Points, block: u64) -> Self {
        let step = |value: u64, point: u64| {
            let product = u128::from(value) * u128::from(point) + u128::from(block);
            let sum = (product as u64 & PRIME) + (product >> 61) as u64;
            let folded = (sum & PRIME) + (sum >> 61);
            if folded >= PRIME { folded - PRIME } else { folded }
        };
        Self([step(self.0[0], points.0[0]), step(self.0[1], points.0[1])])
    }

    /// The bucket among `buckets`: the top of the first value.
    #[inline]
    pub(crate) fn bucket(self, buckets: u32) -> u32 {
        ((u128::from(self.0[0]) * u128::from(buckets)) >> 61) as u32
    }

    /// The 12 bytes kept of it.
    #[inline]
    pub(crate) fn tag(self) -> (u64, u32) {
        let [first, second] = self.0;
        (second | first << 61, (first >> 3) as u32)
    }

    /// The filter's word among `words`, and the bits in it.
    #[inline]
    pub(crate) fn filter(self, words: u32) -> (u32, u64) {
        let mixed = self.0[1].wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let word = ((mixed >> 32) * u64::from(words)) >> 32;
        let bit = |at: u32| 1u64 << (mixed >> at & 63);
        (word as u32, bit(0) | bit(6) | bit(12) | bit(18))
    }
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

/// Walks a name's suffixes from the shortest to the name itself. `visit` gets each suffix's hash and whether it is the
/// whole name, and says whether to go on.
#[inline]
pub(crate) fn suffixes(points: &Points, name: &[u8], mut visit: impl FnMut(Hash, bool) -> bool) {
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.is_empty() || name.len() > LONGEST {
        return;
    }
    let mut end = name.len();
    let mut hash = Hash::EMPTY;
    loop {
        let word = before(name, end);
        // Bytes that are dots, exactly: 0x80 at each.
        let undotted = word ^ every(b'.');
        let dots = !(((undotted & every(0x7f)) + every(0x7f)) | undotted) & every(0x80);
        let to_dot = dots.leading_zeros() as usize / 8;
        let letters = to_dot.min(7).min(end);
        // A label ends at a dot or at the name's beginning; one of just seven letters ends there too.
        let ends = letters == end || to_dot == letters;
        let block = if letters == 0 { 0 } else { lower(word) >> (64 - 8 * letters as u32) };
        hash = hash.add(points, block | (letters as u64) << 56 | u64::from(ends) << 59);
        end -= letters;
        if ends {
            if !visit(hash, end == 0) || end == 0 {
                return;
            }
            end -= 1;
            if end == 0 {
                // A name that begins with a dot has an empty first label.
                visit(hash.add(points, 1 << 59), true);
                return;
            }
        }
    }
}

/// The class of a name: of the longest listed suffix, of itself or of what lies below it.
pub(super) fn class(image: &[u8], header: &Header, name: &[u8]) -> u32 {
    let sections = &header.sections;
    let records = sections.name_records.of(image);
    if records.is_empty() {
        return 0;
    }
    let (filter, buckets) = (sections.name_filter.of(image), sections.name_buckets.of(image));
    let places = sections.name_places.of(image);
    let (words, count) = (sections.name_filter.count::<8>(), sections.name_buckets.count::<BUCKET>());
    let points = Points::new(header.key);
    let mut class = 0;
    suffixes(&points, name, |hash, whole| {
        let (word, bits) = hash.filter(words);
        if u64_at(filter, word as usize * 8) & bits == bits
            && let Some(found) = find(buckets, count, places, hash)
        {
            class = u32_at(records, found as usize * 8 + if whole { 0 } else { 4 });
        }
        true
    });
    class
}

/// The record of a hash.
#[inline]
fn find(buckets: &[u8], count: u32, places: &[u8], hash: Hash) -> Option<u32> {
    let (wide, narrow) = hash.tag();
    let mut bucket = hash.bucket(count);
    for _ in 0..REACH {
        let bytes: &[u8; BUCKET] = record(buckets, bucket)?;
        let meta = u32_at(bytes, TAGS * TAG);
        for place in 0..TAGS {
            if u64_at(bytes, place * TAG) == wide && u32_at(bytes, place * TAG + 8) == narrow {
                return Some(if places.is_empty() {
                    meta >> (6 * place) & (INLINE_RECORDS - 1)
                } else {
                    u32_at(places, (bucket as usize * TAGS + place) * 4)
                });
            }
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
            true
        });
        found
    }

    #[test]
    fn every_suffix_has_the_hash_it_has_alone() {
        for name in ["a", "com", "example.com", "a.b.c.d.e.f", "sevenff.exactly", "averyveryverylonglabel.x.sevenff"] {
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
            suffixes(&Points::new([0, 0]), name, |_, _| true);
        }
        assert_ne!(all(".a").last(), all("a").last());
        assert_ne!(all("a..b").last(), all("a.b").last());
    }
}

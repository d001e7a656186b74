//! Hashes of a name: sums of products of its letters with secret numbers.
//!
//! # What decides
//!
//! A name here (or what follows a dot in one) is 1 to 255 letters with their bit of value 32 set, so that none is zero
//! and capitals do not count. It is cut from the right into blocks of sixteen letters, the first of which may have fewer;
//! block 0 is the last. A block `c_j` is an element of the field GF(2^128), with zeros for letters that it lacks.
//! Different names have different blocks: zeros can only mean that the name has begun.
//!
//! The value of a name at a secret point `x`, and its tag, the upper 96 bits of the value, are
//!
//! ```text
//! V(x) = sum over i of (c_2i + x^(2i+1)) (c_2i+1 + x^(2i+2)) + x^(4i+3)
//!      = sum over i of c_2i c_2i+1  +  c_2i x^(2i+2)  +  c_2i+1 x^(2i+1)
//! ```
//!
//! **Claim.** The tags of two given different names of at most `d` blocks, `d` even, are equal with a chance of at most
//! `d / 2^96` over the choice of the key.
//!
//! 1. Let `V'` be the other name's value, and `e` any number. `V(x) + V'(x) + e` is a polynomial in `x`, whose coefficients
//!    at `x^(2i+2)` and `x^(2i+1)` are `c_2i + c'_2i` and `c_2i+1 + c'_2i+1`. Since blocks differ it is not zero, its degree
//!    is at most `d`, and it has at most `d` roots.
//! 2. The tags are equal where `V(x) + V'(x)` is one of the 2^32 numbers `e` whose upper 96 bits are zero: at no more than
//!    `2^32 d` points of 2^128.
//! 3. Points are equally likely when keys are: each half of the point is a permutation of one of the key's.
//!
//! Names of up to 32 letters have two blocks: the chance is 2^-95 for two of them, and below 2^-75 that one which is not
//! listed is taken for any of a million that are. For the longest possible names (`d` is 16) it is 2^-92, and below 2^-72
//! for a million. Every suffix that is looked up counts as a name: together, those of a name of 32 letters and five labels
//! stay below 2^-72, and those of the worst possible name, 127 labels of one letter, below 2^-65. An empty place's tag is
//! zero, a number like any other: it counts as one more name. That a tag is compared only where the filter and a name's
//! place lead makes a false match even less likely and is not counted.
//!
//! # What leads
//!
//! Words of the filter and places are found by a cheaper hash of the letters: the halves of products with powers of the
//! point, taken as integers. It only has to do what is measured: names spread evenly, and few unlisted ones pass. A listed
//! name is always led to its own place, since the compiler made it so. It is a sum over words, the last of which are
//! common to all suffixes of a name: the eight letters from `L - 8j` on for `1 <= j <= L / 8`, where `L` is the number of
//! letters; and word 0 is the rest at the beginning, zero to seven letters, in the upper bytes.

use super::super::lanes::{Field, Sixteen, folded as small};
use core::hint::select_unpredictable;

/// The longest name that is considered.
pub(crate) const LONGEST: usize = 255;
/// The pairs of words in names of that length.
pub(crate) const MOST: usize = 16;
/// The pairs of words that suffice for nearly all names.
pub(crate) const SOME: usize = 4;
/// The pairs of words that suffice for most names.
pub(crate) const FEW: usize = 2;

/// A number with many irregular bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A permutation of the numbers of 64 bits in which every bit depends on every other: the last steps of SplitMix64.
const fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// The powers of the secret point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Points {
    /// The first is the point itself.
    powers: [u128; 2 * MOST],
    /// What the powers alone add to a value, for each number of pairs.
    corrections: [u128; 3],
    field: Field,
}

impl Points {
    /// From an image's key. Mixing loses nothing of a key that was drawn, and makes a point without a pattern of one that
    /// was not.
    pub(crate) fn new(key: [u64; 2]) -> Self {
        Self::with(key, Field::detect())
    }

    fn with(key: [u64; 2], field: Field) -> Self {
        let halves = [mixed(key[0].wrapping_add(STEP)), mixed(key[1].wrapping_add(STEP.wrapping_mul(2)))];
        let point = u128::from(halves[0]) | u128::from(halves[1]) << 64;
        let mut last = 1;
        let powers = core::array::from_fn(|_| {
            last = field.product(last, point);
            last
        });
        let corrections = [FEW, SOME, MOST].map(|pairs| {
            let products =
                powers.as_chunks::<2>().0.iter().take(pairs / 2).map(|[one, other]| field.product(*one, *other));
            products.fold(0, |sum, product| sum ^ product)
        });
        Self { powers, corrections, field }
    }

    /// The power that belongs to a word, as numbers.
    #[inline]
    fn of_word(&self, word: usize) -> [u64; 2] {
        let power = self.powers[word & (2 * MOST - 1)];
        [power as u64, (power >> 64) as u64]
    }
}

/// The eight bytes at `at`.
#[inline]
fn eight(text: &[u8], at: usize) -> u64 {
    text.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// The upper bytes of a word, by how many.
const UPPER: [u64; 8] = [
    0,
    0xff << 56,
    0xffff << 48,
    0xff_ffff << 40,
    0xffff_ffff << 32,
    0xff_ffff_ffff << 24,
    0xffff_ffff_ffff << 16,
    0xff_ffff_ffff_ffff << 8,
];

/// Masks for the letters of a suffix among sixteen: those before the last `16 i` begin at `240 - 16 i`, plus the number
/// of the suffix's letters.
static KEPT: [u8; 512] = {
    let mut kept = [0; 512];
    let mut at = 256;
    while at < 512 {
        kept[at] = 0xff;
        at += 1;
    }
    kept
};

/// A name's words from the right, and the sums of the cheap hash before each. `PAIRS` is a power of two.
pub(crate) struct Words<const PAIRS: usize> {
    /// Folded. The last is never full.
    words: [[u64; 2]; PAIRS],
    sums: [[u64; 2]; PAIRS],
    /// The same letters in their order, as they are. (Words that were just written one by one could be read as pairs only
    /// when they have got as far as the cache.)
    letters: [Sixteen; PAIRS],
}

impl<const PAIRS: usize> Words<PAIRS> {
    /// The longest name in letters.
    pub(super) const LETTERS: usize = 16 * PAIRS - 1;

    /// Of the last `length` bytes of `text`, which has at least eight. Words before the name's beginning hold anything.
    #[inline]
    pub(super) fn new(points: &Points, text: &[u8], length: usize) -> Self {
        let begun = eight(text, 0).wrapping_shl(64 - 8 * (length as u32 & 7));
        // Both are read, and one is selected without a branch: the length of the next name cannot be predicted.
        let word = |index: usize| {
            let at = text.len().saturating_sub(8 * (index + 1));
            select_unpredictable(text.len() >= 8 * (index + 1), eight(text, at), begun)
        };
        let (mut words, mut sums, mut last) = ([[0; 2]; PAIRS], [[0; 2]; PAIRS], 0u64);
        let mut letters = [Sixteen::new(0, 0); PAIRS];
        for pair in 0..PAIRS {
            let [one, other] = [word(2 * pair), word(2 * pair + 1)];
            letters[pair] = Sixteen::new(other, one);
            let [one, other] = [small(one), small(other)];
            words[pair] = [one, other];
            // The first power belongs to word 0.
            let middle = last.wrapping_add(folded(one, points.of_word(2 * pair + 1)));
            sums[pair] = [last, middle];
            last = middle.wrapping_add(folded(other, points.of_word(2 * pair + 2)));
        }
        Self { words, sums, letters }
    }

    /// A bit for each letter of at most four pairs: bit 63 for the last, bit 62 for the one before. What stands before the
    /// name's beginning is told as well.
    #[inline]
    fn told(&self, told: impl Fn(Sixteen) -> u32) -> u64 {
        self.letters
            .iter()
            .zip((0..4).rev())
            .fold(0, |bits, (letters, at)| bits | u64::from(told(*letters)) << (16 * at))
    }

    /// The dots.
    #[inline]
    pub(super) fn dots(&self) -> u64 {
        self.told(Sixteen::dots)
    }

    /// The letters no listed name has.
    #[inline]
    pub(super) fn odd(&self) -> u64 {
        self.told(Sixteen::odd)
    }

    /// The cheap hash of the suffix of `length` letters, [`Self::LETTERS`] at most.
    #[inline]
    pub(super) fn hash(&self, points: &Points, length: usize) -> u64 {
        let full = length >> 3 & (2 * PAIRS - 1);
        let first = self.words.as_flattened()[full] & UPPER[length & 7];
        self.sums.as_flattened()[full].wrapping_add(folded(first, points.of_word(0)))
    }

    /// The tag of the suffix of `length` letters, [`Self::LETTERS`] at most.
    #[inline]
    pub(super) fn tag(&self, points: &Points, length: usize) -> (u64, u32) {
        let blocks: [Sixteen; PAIRS] = core::array::from_fn(|pair| {
            let kept = KEPT.get(240 - 16 * pair + (length & 255)..).and_then(|kept| kept.first_chunk());
            self.letters[pair].kept(kept.unwrap_or(&[0; 16]))
        });
        let correction = points.corrections[usize::from(PAIRS > FEW) + usize::from(PAIRS > SOME)];
        let value = points.field.sum(blocks.as_chunks().0, points.powers.as_chunks().0) ^ correction;
        ((value >> 64) as u64, (value >> 32) as u32)
    }
}

/// Both halves of a product.
#[inline]
fn folded(word: u64, [one, other]: [u64; 2]) -> u64 {
    let product = u128::from(word ^ one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 2] = [0x1234_5678_9abc_def0, 42];

    /// The tag as the module's header defines it, one block after the other.
    fn defined(points: &Points, name: &[u8]) -> (u64, u32) {
        let product = |a, b| Field::PLAIN.product(a, b);
        let power = |exponent| (0..exponent).fold(1, |power, _| product(power, points.powers[0]));
        let mut blocks = [0u128; 16];
        for (block, letters) in blocks.iter_mut().zip(name.rchunks(16)) {
            *block =
                letters.iter().rev().zip((0..16).rev()).map(|(letter, at)| u128::from(letter | 0x20) << (8 * at)).sum();
        }
        let value = blocks.as_chunks::<2>().0.iter().enumerate().fold(0, |sum, (at, [first, second])| {
            sum ^ product(first ^ power(2 * at + 1), second ^ power(2 * at + 2)) ^ power(4 * at + 3)
        });
        ((value >> 64) as u64, (value >> 32) as u32)
    }

    fn padded(name: &[u8]) -> Vec<u8> {
        let mut text = vec![b'#'; 8usize.saturating_sub(name.len())];
        text.extend(name);
        text
    }

    #[test]
    fn tags_are_what_the_definition_says() {
        let points = Points::new(KEY);
        let plain = Points::with(KEY, Field::PLAIN);
        assert_eq!((points.powers, points.corrections), (plain.powers, plain.corrections));
        let long: Vec<u8> = (0..LONGEST as u32).map(|at| (0x2d + (at * 7 + at / 3) % 0x53) as u8).collect();
        let step = if cfg!(miri) { 13 } else { 1 };
        for length in (1..=LONGEST).step_by(step) {
            let name = &long[LONGEST - length..];
            let expected = defined(&points, name);
            let text = padded(name);
            let most = Words::<MOST>::new(&points, &text, length);
            assert_eq!(most.tag(&points, length), expected, "{length}");
            assert_eq!(most.tag(&plain, length), expected, "{length}");
            if length <= Words::<FEW>::LETTERS {
                let few = Words::<FEW>::new(&points, &text, length);
                assert_eq!(
                    (few.tag(&points, length), few.hash(&points, length)),
                    (expected, most.hash(&points, length))
                );
                assert_eq!(few.tag(&plain, length), expected);
            }
            if length <= Words::<SOME>::LETTERS {
                let some = Words::<SOME>::new(&points, &text, length);
                assert_eq!(
                    (some.tag(&points, length), some.hash(&points, length)),
                    (expected, most.hash(&points, length))
                );
            }
            // As a suffix of a longer name.
            let all = Words::<MOST>::new(&points, &long, LONGEST);
            assert_eq!(all.tag(&points, length), expected, "{length}");
            assert_eq!(all.hash(&points, length), most.hash(&points, length));
        }
    }
}

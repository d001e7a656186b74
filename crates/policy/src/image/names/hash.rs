//! Hashes of a name: sums of products of its letters with secret numbers.
//!
//! # What decides
//!
//! A name here (or what follows a dot in one) is 1 to 255 ASCII letters that are not zero. It is cut from the right
//! into blocks of eight letters, the first of which may have fewer; block 0 is the last. The letters' seven bits each
//! make a block a number `c_j` below 2^60, with zeros for letters that the block lacks. Different names have
//! different blocks: the letters can be recovered from the numbers, and no letter is zero, so zeros can only mean that
//! the name has begun.
//!
//! Let `p` be 2^61 - 1, which is prime. The value of a name at a point `x` is
//!
//! ```text
//! V(x) = sum over i of (c_2i + x^(2i+1)) (c_2i+1 + x^(2i+2)) - x^(4i+3)    modulo p
//!      = sum over i of c_2i c_2i+1  +  c_2i x^(2i+2)  +  c_2i+1 x^(2i+1)
//! ```
//!
//! which needs one multiplication for sixteen letters, none of which waits for another. A tag keeps 96 bits of the values
//! at two secret points `x` and `y`: all 61 of `V(y)`, and the lower 35 of `V(x)`.
//!
//! **Claim.** The tags of two given different names of at most `d` blocks, `d` even, are equal with a chance below
//! `(d + 3)^2 / 2^95` over the choice of the key.
//!
//! 1. Let `V'` be the other name's value, and `c` any number. `V(x) - V'(x) - c` is a polynomial in `x` over the field of
//!    `p` elements. Its coefficients at `x^(2i+2)` and `x^(2i+1)` are `c_2i - c'_2i` and `c_2i+1 - c'_2i+1`. The blocks
//!    differ somewhere, so one of these numbers is not zero; it is less than 2^60 away from zero, so it is not zero modulo
//!    `p` either. The polynomial therefore is not zero, its degree is at most `d`, and it has at most `d` roots.
//! 2. A point is 2 more than the remainder modulo `p - 2` of one of 2^61 equally likely numbers, so that three points have
//!    a chance of 2 / 2^61 and all others of 1 / 2^61: the point is one of `r` given ones with a chance of at most
//!    `(r + 3) / 2^61`. The two points depend on different halves of the key.
//! 3. `V(y) = V'(y)` thus has a chance of at most `(d + 3) / 2^61` (`c` is 0).
//! 4. Where the lower 35 bits of `V(x)` and `V'(x)` agree, `V(x) - V'(x)`, both taken as numbers below `p`, is a multiple
//!    of 2^35 that is less than 2^61 away from zero: one of fewer than 2^27 numbers `c`. Each has at most `d` roots, so the
//!    chance is at most `(2^27 d + 3) / 2^61`, which is below `(d + 3) / 2^34`.
//! 5. The points are independent: the chance of both is below the product.
//!
//! Names of up to 32 letters have four blocks: the chance is below 2^-89 for two of them, and below 2^-69 that one which is
//! not listed is taken for any of a million that are. For the longest possible names (`d` is 32) it is below 2^-84, and
//! 2^-64 for a million. Every suffix that is looked up counts as a name: together, those of a name of 32 letters and
//! five labels stay below 2^-67, and those of the worst possible name, 127 labels of one letter, below 2^-59. An empty
//! place's tag is zero, a number like any other: it counts as one more name. That a tag is compared only where a name's
//! place and mark lead makes a false match even less likely and is not counted.
//!
//! # What leads
//!
//! Places and marks are found by a cheaper hash of the letters: the halves of products with powers of the points. It
//! only has to do what is measured: names spread evenly, and few unlisted ones pass. A listed name is always led to its
//! own place, since the compiler made it so. It is a sum over words, the last of which are common to all suffixes of a
//! name: the eight letters from `L - 8j` on for `1 <= j <= L / 8`, where `L` is the number of letters; and word 0 is
//! the rest at the beginning, zero to seven letters, in the upper bytes, and `L` in the lowest.

use super::super::lanes::Sixteen;
use core::hint::select_unpredictable;

/// 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;
/// The longest name that is considered.
pub(crate) const LONGEST: usize = 255;
/// The pairs of words in names of that length.
pub(crate) const MOST: usize = 16;
/// The pairs of words that suffice for nearly all names.
pub(crate) const SOME: usize = 4;
/// The pairs of words that suffice for most names.
pub(crate) const FEW: usize = 2;

/// A number with many irregular bits.
pub(super) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A permutation of the numbers of 64 bits in which every bit depends on every other: the last steps of SplitMix64.
const fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// The powers of the two secret points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Points {
    /// The first is the points themselves.
    powers: [[u64; 2]; 2 * MOST],
    /// The share of the powers alone in a value, for each number of pairs, negated: adding it removes that share.
    corrections: [[u64; 2]; 3],
}

impl Points {
    /// From an image's key. Mixing loses nothing of a random key, and makes points without a pattern from a key that is
    /// not random.
    pub(crate) fn new(key: [u64; 2]) -> Self {
        // Points 0 and 1 would make all powers equal; they cost nothing to avoid.
        let point = |number: u64| 2 + (mixed(number) >> 3) % (PRIME - 2);
        let points = [point(key[0].wrapping_add(STEP)), point(key[1].wrapping_add(STEP.wrapping_mul(2)))];
        let mut last = [1; 2];
        let powers = core::array::from_fn(|_| {
            last = [product(last[0], points[0]), product(last[1], points[1])];
            last
        });
        let corrections = [FEW, SOME, MOST].map(|pairs| {
            powers.as_chunks::<2>().0.iter().take(pairs).fold([0; 2], |[first, second], [one, other]| {
                let less = |sum: u64, a: u64, b: u64| modulo(u128::from(sum) + u128::from(PRIME - product(a, b)));
                [less(first, one[0], other[0]), less(second, one[1], other[1])]
            })
        });
        Self { powers, corrections }
    }
}

/// The remainder of a number below 2^128.
#[inline]
fn modulo(number: u128) -> u64 {
    let folded = (number as u64 & PRIME) + ((number >> 61) as u64 & PRIME) + (number >> 122) as u64;
    let folded = (folded & PRIME) + (folded >> 61);
    if folded >= PRIME { folded - PRIME } else { folded }
}

fn product(a: u64, b: u64) -> u64 {
    modulo(u128::from(a) * u128::from(b))
}

/// The values of a name at both points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Values(pub(crate) [u64; 2]);

impl Values {
    /// The 12 bytes that are stored.
    #[inline]
    pub(crate) fn tag(self) -> (u64, u32) {
        let [first, second] = self.0;
        (second | first << 61, (first >> 3) as u32)
    }
}

/// The eight bytes at `at`.
#[inline]
pub(super) fn eight(text: &[u8], at: usize) -> u64 {
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
    /// The last one is never full.
    words: [[u64; 2]; PAIRS],
    sums: [[u64; 2]; PAIRS],
    /// The same letters in their order. (Words just written one by one could be read as pairs only once they have
    /// reached the cache.)
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
            words[pair] = [one, other];
            letters[pair] = Sixteen::new(other, one);
            // The first power belongs to word 0.
            let middle = last.wrapping_add(folded(one, points.powers[(2 * pair + 1) & (2 * MOST - 1)]));
            sums[pair] = [last, middle];
            last = middle.wrapping_add(folded(other, points.powers[(2 * pair + 2) & (2 * MOST - 1)]));
        }
        Self { words, sums, letters }
    }

    /// Dots, and letters no listed name has, of at most four pairs: bit 63 for the last letter, bit 62 for the one before.
    /// Bytes before the name's beginning are reported as well.
    #[inline]
    pub(super) fn told(&self) -> [u64; 2] {
        self.letters.iter().zip((0..4).rev()).fold([0; 2], |[dots, others], (letters, at)| {
            let letters = letters.letters();
            [dots | u64::from(letters.dots) << (16 * at), others | u64::from(letters.others) << (16 * at)]
        })
    }

    /// The cheap hash of the suffix of `length` letters, [`Self::LETTERS`] at most.
    #[inline]
    pub(super) fn hash(&self, points: &Points, length: usize) -> u64 {
        let full = length >> 3 & (2 * PAIRS - 1);
        let first = self.words.as_flattened()[full] & UPPER[length & 7] | length as u64;
        self.sums.as_flattened()[full].wrapping_add(folded(first, points.powers[0]))
    }

    /// The values of the suffix of `length` letters, [`Self::LETTERS`] at most.
    #[inline]
    pub(super) fn values(&self, points: &Points, length: usize) -> Values {
        let corrections = points.corrections[usize::from(PAIRS > FEW) + usize::from(PAIRS > SOME)];
        // No sum overflows: each of at most 16 products is below 9 * 2^120.
        let mut sums = corrections.map(u128::from);
        for pair in 0..PAIRS {
            let Some(kept) = KEPT.get(240 - 16 * pair + (length & 255)..).and_then(|kept| kept.first_chunk()) else {
                continue;
            };
            let [second, first] = self.letters[pair].packed(kept);
            let [one, other] =
                [points.powers[(2 * pair) & (2 * MOST - 1)], points.powers[(2 * pair + 1) & (2 * MOST - 1)]];
            let term = |point: usize| u128::from(first + one[point]) * u128::from(second + other[point]);
            sums = [sums[0] + term(0), sums[1] + term(1)];
        }
        Values([modulo(sums[0]), modulo(sums[1])])
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

    fn power(point: u64, exponent: usize) -> u64 {
        (0..exponent).fold(1, |power, _| (u128::from(power) * u128::from(point) % u128::from(PRIME)) as u64)
    }

    /// The values as the module's header defines them, one after the other.
    fn defined(points: &Points, name: &[u8]) -> Values {
        let mut blocks = [0u64; 32];
        for (block, letters) in blocks.iter_mut().zip(name.rchunks(8)) {
            let at = |place: usize| 7 * place + if place < 4 { 0 } else { 4 };
            let places = 8 - letters.len()..8;
            *block = letters.iter().zip(places).map(|(letter, place)| u64::from(*letter) << at(place)).sum();
            assert!(*block < 1 << 60);
        }
        Values(std::array::from_fn(|index| {
            let point = points.powers[0][index];
            blocks.as_chunks::<2>().0.iter().enumerate().fold(0, |sum, (at, [first, second])| {
                let (first, second) = (u128::from(*first), u128::from(*second));
                let powers = [2 * at + 1, 2 * at + 2, 4 * at + 3].map(|exponent| u128::from(power(point, exponent)));
                let prime = u128::from(PRIME);
                let term = (first + powers[0]) % prime * ((second + powers[1]) % prime) % prime + prime - powers[2];
                ((u128::from(sum) + term) % prime) as u64
            })
        }))
    }

    fn padded(name: &[u8]) -> Vec<u8> {
        let mut text = vec![b'#'; 8usize.saturating_sub(name.len())];
        text.extend(name);
        text
    }

    #[test]
    fn values_are_what_the_definition_says() {
        let points = Points::new(KEY);
        let long: Vec<u8> = (0..LONGEST as u32).map(|at| (0x2d + (at * 7 + at / 3) % 0x53) as u8).collect();
        for length in 1..=LONGEST {
            let name = &long[LONGEST - length..];
            let expected = defined(&points, name);
            let text = padded(name);
            let most = Words::<MOST>::new(&points, &text, length);
            assert_eq!(most.values(&points, length), expected, "{length}");
            if length <= Words::<FEW>::LETTERS {
                let few = Words::<FEW>::new(&points, &text, length);
                assert_eq!(
                    (few.values(&points, length), few.hash(&points, length)),
                    (expected, most.hash(&points, length))
                );
            }
            if length <= Words::<SOME>::LETTERS {
                let some = Words::<SOME>::new(&points, &text, length);
                assert_eq!(
                    (some.values(&points, length), some.hash(&points, length)),
                    (expected, most.hash(&points, length))
                );
            }
            // As a suffix of a longer name.
            let all = Words::<MOST>::new(&points, &long, LONGEST);
            assert_eq!(all.values(&points, length), expected, "{length}");
            assert_eq!(all.hash(&points, length), most.hash(&points, length));
        }
    }

    #[test]
    fn the_greatest_sums_do_not_overflow() {
        let points = Points { powers: [[PRIME - 1; 2]; 2 * MOST], ..Points::new(KEY) };
        Words::<MOST>::new(&points, &[0x7f; LONGEST], LONGEST).values(&points, LONGEST);
        for number in [0, 1, PRIME - 1, PRIME, PRIME + 1, 2 * PRIME, u64::MAX] {
            assert_eq!(modulo(u128::from(number)), number % PRIME);
            let wide = u128::from(number) << 64 | u128::from(number);
            assert_eq!(u128::from(modulo(wide)), wide % u128::from(PRIME));
        }
        assert_eq!(u128::from(modulo(u128::MAX)), u128::MAX % u128::from(PRIME));
    }
}

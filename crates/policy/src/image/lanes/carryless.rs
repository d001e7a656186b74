//! Polynomials over GF(2) as members of the field GF(2^128) whose polynomial is x^128 + x^7 + x^2 + x + 1, bit N standing
//! for x^N.
//!
//! Most processors have an instruction for their products: PCLMULQDQ, which works on SSE2's registers, and PMULL. Whether it
//! is there is asked for once; without it the same is shifted and added.

use super::Sixteen;

/// What x^128 is in the field.
const REST: u64 = 0x87;

/// How products are made on this processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// The instruction is there: [`Field::detect`] is the only one to say so.
    instruction: bool,
}

impl Field {
    /// Without the instruction.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { instruction: false };

    /// Asks the processor.
    pub(crate) fn detect() -> Self {
        Self { instruction: instruction::available() }
    }

    /// The product of two members.
    pub(crate) fn product(self, a: u128, b: u128) -> u128 {
        let nothing = Sixteen::new(0, 0);
        let a = Sixteen::new(a as u64, (a >> 64) as u64);
        self.sum(&[[a, nothing]], &[[0, b]])
    }

    /// The sum of the products of each pair, after each of its numbers was added to.
    #[inline]
    #[allow(unsafe_code, reason = "the instruction has no safe form")]
    pub(crate) fn sum(self, pairs: &[[Sixteen; 2]], added: &[[u128; 2]]) -> u128 {
        if self.instruction {
            // SAFETY: the flag says that it is available.
            return unsafe { instruction::sum(pairs, added) };
        }
        plain::sum(pairs, added)
    }
}

/// The sum as [`Field::sum`] defines it, from products of 64 bits.
#[inline]
fn sum(pairs: &[[Sixteen; 2]], added: &[[u128; 2]], product: impl Fn(u64, u64) -> u128) -> u128 {
    let halves = |number: u128| [number as u64, (number >> 64) as u64];
    let [low, middle, high] =
        pairs.iter().zip(added).fold([0; 3], |[low, middle, high], ([first, second], [one, other])| {
            let ([a, b], [c, d]) = (halves(first.number() ^ one), halves(second.number() ^ other));
            [low ^ product(a, c), middle ^ product(a, d) ^ product(b, c), high ^ product(b, d)]
        });
    let (low, [near, far]) = (low ^ middle << 64, halves(high ^ middle >> 64));
    // Of what stands for x^192 and above, some is left above x^128.
    let far = product(far, REST);
    low ^ far << 64 ^ product(near ^ (far >> 64) as u64, REST)
}

mod plain {
    use super::{super::Sixteen, sum as sum_by};

    /// Not the usual way: kept out of its instructions.
    #[cold]
    #[inline(never)]
    pub(super) fn sum(pairs: &[[Sixteen; 2]], added: &[[u128; 2]]) -> u128 {
        sum_by(pairs, added, product)
    }

    /// The product of two polynomials.
    pub(super) fn product(a: u64, b: u64) -> u128 {
        // All products with four bits, then those of `b` from its upper end.
        let mut few = [0u128; 16];
        for bit in 0..4 {
            for (number, product) in few.iter_mut().enumerate() {
                *product ^= if number >> bit & 1 == 0 { 0 } else { u128::from(a) << bit };
            }
        }
        (0..16).rev().fold(0, |sum, four| sum << 4 ^ few[(b >> (4 * four) & 15) as usize])
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the instruction has no safe form")]
mod instruction {
    use super::{
        super::{Sixteen, vector},
        REST,
    };
    use core::arch::x86_64::*;

    /// Whether the processor has PCLMULQDQ.
    pub(super) fn available() -> bool {
        // Miri runs some instructions, and knows of none that are not asked for when it compiles.
        cfg!(target_feature = "pclmulqdq") || !cfg!(miri) && __cpuid(1).ecx & 2 != 0
    }

    /// What [`super::sum`] is.
    ///
    /// # Safety
    /// The instruction is available.
    #[inline]
    pub(super) unsafe fn sum(pairs: &[[Sixteen; 2]], added: &[[u128; 2]]) -> u128 {
        // SAFETY: SSE2 is part of x86-64; the caller knows of PCLMULQDQ.
        unsafe { sum_of_products(pairs, added) }
    }

    #[target_feature(enable = "pclmulqdq,sse2")]
    fn sum_of_products(pairs: &[[Sixteen; 2]], added: &[[u128; 2]]) -> u128 {
        let (mut low, mut middle, mut high) = (_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128());
        for ([first, second], [one, other]) in pairs.iter().zip(added) {
            let first = _mm_xor_si128(first.vector(), vector(&one.to_le_bytes()));
            let second = _mm_xor_si128(second.vector(), vector(&other.to_le_bytes()));
            low = _mm_xor_si128(low, _mm_clmulepi64_si128::<0x00>(first, second));
            middle = _mm_xor_si128(middle, _mm_clmulepi64_si128::<0x01>(first, second));
            middle = _mm_xor_si128(middle, _mm_clmulepi64_si128::<0x10>(first, second));
            high = _mm_xor_si128(high, _mm_clmulepi64_si128::<0x11>(first, second));
        }
        let low = _mm_xor_si128(low, _mm_slli_si128::<8>(middle));
        let high = _mm_xor_si128(high, _mm_srli_si128::<8>(middle));
        let rest = _mm_set_epi64x(0, REST.cast_signed());
        let far = _mm_clmulepi64_si128::<0x01>(high, rest);
        let near = _mm_xor_si128(high, _mm_srli_si128::<8>(far));
        let sum = _mm_xor_si128(low, _mm_slli_si128::<8>(far));
        let sum = _mm_xor_si128(sum, _mm_clmulepi64_si128::<0x00>(near, rest));
        let upper = _mm_cvtsi128_si64(_mm_unpackhi_epi64(sum, sum)).cast_unsigned();
        u128::from(upper) << 64 | u128::from(_mm_cvtsi128_si64(sum).cast_unsigned())
    }
}

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code, reason = "the instruction has no safe form")]
mod instruction {
    use super::{super::Sixteen, sum as sum_by};
    use core::arch::aarch64::vmull_p64;

    /// Whether the processor has PMULL.
    #[cfg(feature = "std")]
    pub(super) fn available() -> bool {
        std::arch::is_aarch64_feature_detected!("aes")
    }

    /// Whether the processor has PMULL. Without the standard library this is part of a kernel, which reads it in a
    /// register that programs must not read everywhere.
    #[cfg(not(feature = "std"))]
    pub(super) fn available() -> bool {
        let features: u64;
        // SAFETY: the register can be read at EL1, and reading it does nothing else.
        unsafe {
            core::arch::asm!("mrs {}, id_aa64isar0_el1", out(reg) features, options(nomem, nostack, preserves_flags));
        }
        features >> 4 & 15 >= 2
    }

    /// What [`super::sum`] is.
    ///
    /// # Safety
    /// The instruction is available.
    #[inline]
    pub(super) unsafe fn sum(pairs: &[[Sixteen; 2]], added: &[[u128; 2]]) -> u128 {
        // SAFETY: NEON is part of ARM64; the caller knows of PMULL.
        unsafe { sum_of_products(pairs, added) }
    }

    #[target_feature(enable = "neon,aes")]
    fn sum_of_products(pairs: &[[Sixteen; 2]], added: &[[u128; 2]]) -> u128 {
        sum_by(pairs, added, |a, b| vmull_p64(a, b))
    }
}

/// No other processor's instruction is used.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod instruction {
    use super::super::Sixteen;

    pub(super) fn available() -> bool {
        false
    }

    /// # Safety
    /// None is needed.
    pub(super) unsafe fn sum(pairs: &[[Sixteen; 2]], added: &[[u128; 2]]) -> u128 {
        super::plain::sum(pairs, added)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> impl Iterator<Item = u64> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let random = std::iter::from_fn(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            Some(state)
        });
        [0, 1, 2, 1 << 63, u64::MAX].into_iter().chain(random.take(if cfg!(miri) { 5 } else { 200 }))
    }

    /// A bit at a time, reduced at once.
    fn defined(a: u128, b: u128) -> u128 {
        (0..128).rev().fold(0, |product, bit| {
            let carry = if product >> 127 == 0 { 0 } else { u128::from(REST) };
            product << 1 ^ carry ^ if b >> bit & 1 == 0 { 0 } else { a }
        })
    }

    #[test]
    fn products_are_what_the_definition_says() {
        let mut last = 1;
        for (a, b) in numbers().zip(numbers().skip(3)) {
            let expected = (0..64).fold(0, |sum, bit| sum ^ if b >> bit & 1 == 0 { 0 } else { u128::from(a) << bit });
            assert_eq!(plain::product(a, b), expected);
            let (a, b) = (u128::from(a) << 64 | u128::from(b), u128::from(b) << 64 | last);
            last = defined(a, b);
            assert_eq!(Field::PLAIN.product(a, b), last, "{a:x} {b:x}");
            assert_eq!(Field::detect().product(a, b), last, "{a:x} {b:x}");
        }
    }

    #[test]
    fn sums_are_the_same_with_and_without_the_instruction() {
        let numbers: Vec<u64> = numbers().collect();
        for some in numbers.windows(9) {
            let pair = |at: usize| [Sixteen::new(some[at], some[at + 1]), Sixteen::new(some[at + 2], some[at + 3])];
            let wide = |at: usize| u128::from(some[at]) << 64 | u128::from(some[at + 1]);
            let (pairs, added) = ([pair(0), pair(4)], [[wide(1), wide(3)], [wide(5), wide(7)]]);
            let expected = pairs.iter().zip(&added).fold(0, |sum, ([first, second], [one, other])| {
                sum ^ defined(first.number() ^ one, second.number() ^ other)
            });
            assert_eq!(Field::PLAIN.sum(&pairs, &added), expected);
            assert_eq!(Field::detect().sum(&pairs, &added), expected);
        }
    }
}

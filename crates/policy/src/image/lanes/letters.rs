//! Sixteen letters of a name at once.
//!
//! A letter is folded by setting its bit of 32: that makes capitals small, and lets what names are made of, the letters
//! and digits, `-`, `.` and `_`, differ from each other. What else would then be taken for one of these is odd.

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use plain::Sixteen;
#[cfg(target_arch = "x86_64")]
pub(crate) use sse2::Sixteen;

/// Eight letters, folded.
#[inline]
pub(crate) fn folded(letters: u64) -> u64 {
    letters | 0x2020_2020_2020_2020
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod plain {
    use super::folded;

    /// Sixteen letters.
    #[derive(Clone, Copy)]
    pub(crate) struct Sixteen([u64; 2]);

    impl Sixteen {
        /// Eight letters and the next eight.
        #[inline]
        pub(crate) fn new(lower: u64, upper: u64) -> Self {
            Self([lower, upper])
        }

        /// As a number, the first in the lowest bits.
        #[inline]
        pub(crate) fn number(self) -> u128 {
            u128::from(self.0[1]) << 64 | u128::from(self.0[0])
        }

        fn bits(self, wanted: impl Fn(u8) -> bool) -> u32 {
            let all = self.0.iter().flat_map(|eight| eight.to_le_bytes()).enumerate();
            all.fold(0, |bits, (lane, letter)| bits | u32::from(wanted(letter)) << lane)
        }

        /// A bit for each dot, the lowest for the first letter.
        #[inline]
        pub(crate) fn dots(self) -> u32 {
            self.bits(|letter| letter == b'.')
        }

        /// A bit for each odd letter: those before `-`, those that are not ASCII, and the last that is.
        #[inline]
        pub(crate) fn odd(self) -> u32 {
            self.bits(|letter| !(b'-'..0x7f).contains(&letter))
        }

        /// The letters whose bits are in `kept`, folded, and zeros.
        #[inline]
        pub(crate) fn kept(self, kept: &[u8; 16]) -> Self {
            let (kept, [lower, upper]) = (u128::from_le_bytes(*kept), self.0);
            Self([folded(lower) & kept as u64, folded(upper) & (kept >> 64) as u64])
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the instructions have no safe form")]
mod sse2 {
    use super::super::vector;
    use core::arch::x86_64::*;

    /// Sixteen letters.
    #[derive(Clone, Copy)]
    pub(crate) struct Sixteen(__m128i);

    impl Sixteen {
        /// Eight letters and the next eight.
        #[inline]
        pub(crate) fn new(lower: u64, upper: u64) -> Self {
            // SAFETY: SSE2 is part of x86-64.
            Self(unsafe { _mm_set_epi64x(upper.cast_signed(), lower.cast_signed()) })
        }

        /// As what instructions work on.
        #[inline]
        pub(in crate::image::lanes) fn vector(self) -> __m128i {
            self.0
        }

        /// As a number, the first in the lowest bits.
        #[inline]
        pub(crate) fn number(self) -> u128 {
            // SAFETY: SSE2 is part of x86-64.
            let [lower, upper] =
                unsafe { [self.0, _mm_unpackhi_epi64(self.0, self.0)].map(|half| _mm_cvtsi128_si64(half)) };
            u128::from(upper.cast_unsigned()) << 64 | u128::from(lower.cast_unsigned())
        }

        /// A bit for each dot, the lowest for the first letter.
        #[inline]
        pub(crate) fn dots(self) -> u32 {
            // SAFETY: SSE2 is part of x86-64.
            unsafe { dots(self.0) }
        }

        /// A bit for each odd letter: those before `-`, those that are not ASCII, and the last that is.
        #[inline]
        pub(crate) fn odd(self) -> u32 {
            // SAFETY: SSE2 is part of x86-64.
            unsafe { odd(self.0) }
        }

        /// The letters whose bits are in `kept`, folded, and zeros.
        #[inline]
        pub(crate) fn kept(self, kept: &[u8; 16]) -> Self {
            // SAFETY: SSE2 is part of x86-64.
            Self(unsafe { _mm_and_si128(_mm_or_si128(self.0, _mm_set1_epi8(0x20)), vector(kept)) })
        }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn dots(letters: __m128i) -> u32 {
        _mm_movemask_epi8(_mm_cmpeq_epi8(letters, _mm_set1_epi8(b'.'.cast_signed()))).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn odd(letters: __m128i) -> u32 {
        // What is not ASCII is negative; the last that is becomes so.
        let next = _mm_add_epi8(letters, _mm_set1_epi8(1));
        _mm_movemask_epi8(_mm_cmplt_epi8(next, _mm_set1_epi8(b'-'.cast_signed() + 1))).cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_is_told_in_every_lane() {
        let kept: [u8; 16] = std::array::from_fn(|at| if at < 3 { 0 } else { 0xff });
        for letter in 0..=u8::MAX {
            for lane in 0..16 {
                let mut all = *b"a-0._z~[@`/{\x80\xc1\xda9";
                all[lane] = letter;
                let number = u128::from_le_bytes(all);
                let letters = Sixteen::new(number as u64, (number >> 64) as u64);
                let plain = plain::Sixteen::new(number as u64, (number >> 64) as u64);
                let bits =
                    |wanted: &dyn Fn(u8) -> bool| (0..16).fold(0, |bits, at| bits | u32::from(wanted(all[at])) << at);
                let dots = bits(&|letter| letter == b'.');
                let odd = bits(&|letter| !(b'-'..=b'~').contains(&letter));
                let folded: [u8; 16] = std::array::from_fn(|at| (all[at] | 0x20) & kept[at]);
                let expected = (number, dots, odd, u128::from_le_bytes(folded));
                assert_eq!((letters.number(), letters.dots(), letters.odd(), letters.kept(&kept).number()), expected);
                assert_eq!((plain.number(), plain.dots(), plain.odd(), plain.kept(&kept).number()), expected);
            }
        }
    }

    #[test]
    fn folding_makes_capitals_small_and_nothing_else_alike() {
        let fold = |letter: u8| folded(u64::from_le_bytes([letter; 8])).to_le_bytes()[0];
        let names = |letter: &u8| letter.is_ascii_alphanumeric() || b"-._".contains(letter);
        for letter in (0..=u8::MAX).filter(names) {
            for other in (0..=u8::MAX).filter(|other| !(b'a'..0x7f).contains(&letter) || *other != letter) {
                let odd = Sixteen::new(u64::from_le_bytes([other; 8]), 0).odd() & 1 != 0;
                let same = other.eq_ignore_ascii_case(&letter);
                assert!(odd || (fold(other) == fold(letter)) == same, "{letter:#x} {other:#x}");
            }
        }
    }
}

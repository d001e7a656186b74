//! Sixteen letters of a name at once.

/// A bit for each of sixteen letters, the lowest for the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Letters {
    pub(crate) dots: u32,
    /// Capitals, and characters that no listed name has: those before `-` and those that are not ASCII.
    pub(crate) others: u32,
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use plain::Sixteen;
#[cfg(target_arch = "x86_64")]
pub(crate) use sse2::Sixteen;

#[cfg(any(test, not(target_arch = "x86_64")))]
mod plain {
    use super::Letters;

    /// Sixteen letters.
    #[derive(Clone, Copy)]
    pub(crate) struct Sixteen([u64; 2]);

    impl Sixteen {
        /// Eight letters and the next eight.
        #[inline]
        pub(crate) fn new(lower: u64, upper: u64) -> Self {
            Self([lower, upper])
        }

        /// Classifies the letters.
        #[inline]
        pub(crate) fn letters(self) -> Letters {
            let bits = |wanted: fn(u8) -> bool| {
                let all = self.0.iter().flat_map(|eight| eight.to_le_bytes()).enumerate();
                all.fold(0, |bits, (lane, letter)| bits | u32::from(wanted(letter)) << lane)
            };
            Letters {
                dots: bits(|letter| letter == b'.'),
                others: bits(|letter| letter.is_ascii_uppercase() || !(b'-'..0x80).contains(&letter)),
            }
        }

        /// The ASCII letters whose bits are in `kept`, each eight of them as a number below 2^60: 28 bits for the first
        /// four, four zeros, 28 bits for the others.
        #[inline]
        pub(crate) fn packed(self, kept: &[u8; 16]) -> [u64; 2] {
            let (kept, [lower, upper]) = (u128::from_le_bytes(*kept), self.0);
            [lower & kept as u64, upper & (kept >> 64) as u64].map(|letters| {
                let twos = letters & 0x007f_007f_007f_007f | letters >> 1 & 0x3f80_3f80_3f80_3f80;
                twos & 0x0000_3fff_0000_3fff | twos >> 2 & 0x0fff_c000_0fff_c000
            })
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the instructions have no safe form")]
mod sse2 {
    use super::{super::vector, Letters};
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

        /// Classifies the letters.
        #[inline]
        pub(crate) fn letters(self) -> Letters {
            // SAFETY: SSE2 is part of x86-64.
            unsafe { compared(self.0) }
        }

        /// The ASCII letters whose bits are in `kept`, each eight of them as a number below 2^60: 28 bits for the first
        /// four, four zeros, 28 bits for the others.
        #[inline]
        pub(crate) fn packed(self, kept: &[u8; 16]) -> [u64; 2] {
            // SAFETY: SSE2 is part of x86-64.
            unsafe { joined(self.0, kept) }
        }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn compared(all: __m128i) -> Letters {
        let dots = _mm_cmpeq_epi8(all, _mm_set1_epi8(b'.'.cast_signed()));
        // `A` becomes the least of the signed numbers, and capitals the least 26.
        let from_least = _mm_add_epi8(all, _mm_set1_epi8((0x80 - b'A').cast_signed()));
        let capitals = _mm_cmplt_epi8(from_least, _mm_set1_epi8(i8::MIN + 26));
        // Non-ASCII bytes are negative.
        let before = _mm_cmplt_epi8(all, _mm_set1_epi8(b'-'.cast_signed()));
        Letters {
            dots: _mm_movemask_epi8(dots).cast_unsigned(),
            others: _mm_movemask_epi8(_mm_or_si128(capitals, before)).cast_unsigned(),
        }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn joined(letters: __m128i, kept: &[u8; 16]) -> [u64; 2] {
        let letters = _mm_and_si128(letters, vector(kept));
        // Of a + 256 b, half of 256 b is taken away.
        let half = _mm_and_si128(_mm_srli_epi16::<1>(letters), _mm_set1_epi16(0x3f80));
        let fours = _mm_madd_epi16(_mm_sub_epi16(letters, half), _mm_set1_epi32(1 << 30 | 1));
        let upper = _mm_unpackhi_epi64(fours, fours);
        [_mm_cvtsi128_si64(fours).cast_unsigned(), _mm_cvtsi128_si64(upper).cast_unsigned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_is_told_in_every_lane() {
        for letter in 0..=u8::MAX {
            for lane in 0..16 {
                let mut all = *b"a-0._z~[@`/{\x80\xc1\xda9";
                all[lane] = letter;
                let all = u128::from_le_bytes(all);
                let (lower, upper) = (all as u64, (all >> 64) as u64);
                assert_eq!(Sixteen::new(lower, upper).letters(), plain::Sixteen::new(lower, upper).letters());
            }
        }
        let mixed = u64::from_le_bytes(*b"A.z.[,-\x80");
        assert_eq!(Sixteen::new(mixed, u64::MAX).letters(), Letters { dots: 0xa, others: 0xffa1 });
    }

    #[test]
    fn letters_are_packed_without_loss() {
        let kept = std::array::from_fn(|at| if at < 3 { 0 } else { 0xff });
        for letter in 0..0x80u128 {
            for lane in 0..16 {
                let all = letter << (8 * lane) | 0x61 << (8 * (lane ^ 5));
                let (lower, upper) = (all as u64, (all >> 64) as u64);
                let found = Sixteen::new(lower, upper).packed(&kept);
                assert_eq!(found, plain::Sixteen::new(lower, upper).packed(&kept));
                let expected: [u64; 2] = std::array::from_fn(|half| {
                    let letter =
                        |at: usize| if 8 * half + at < 3 { 0 } else { (all >> (8 * (8 * half + at))) as u64 & 0x7f };
                    (0..8).map(|at| letter(at) << (7 * at + if at < 4 { 0 } else { 4 })).sum()
                });
                assert_eq!(found, expected);
            }
        }
    }
}

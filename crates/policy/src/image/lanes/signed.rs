//! Starts stored as signed numbers, the least one for zero: SSE2 compares signed numbers, and a start costs one
//! instruction for each of the two comparisons.

/// A bit for each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compared {
    /// The start is above the number.
    pub(crate) above: u32,
    /// The start is the number.
    pub(crate) equal: u32,
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use plain::compared;
#[cfg(target_arch = "x86_64")]
pub(crate) use sse2::compared;

#[cfg(any(test, not(target_arch = "x86_64")))]
mod plain {
    use super::Compared;

    /// Compares `VECTORS` (2 or 4) times 16 bytes of starts of `WIDTH` (2 or 4) bytes with `wanted`.
    #[inline]
    pub(crate) fn compared<const WIDTH: usize, const VECTORS: usize>(
        lanes: &[[u8; 16]; VECTORS],
        wanted: u32,
    ) -> Compared {
        let bytes = lanes.as_flattened();
        let mut compared = Compared { above: 0, equal: 0 };
        let mut add = |lane: usize, above: bool, equal: bool| {
            compared.above |= u32::from(above) << lane;
            compared.equal |= u32::from(equal) << lane;
        };
        if WIDTH == 2 {
            let wanted = (wanted as u16 ^ 1 << 15).cast_signed();
            for (lane, start) in bytes.as_chunks().0.iter().map(|start| i16::from_le_bytes(*start)).enumerate() {
                add(lane, start > wanted, start == wanted);
            }
        } else {
            let wanted = (wanted ^ 1 << 31).cast_signed();
            for (lane, start) in bytes.as_chunks().0.iter().map(|start| i32::from_le_bytes(*start)).enumerate() {
                add(lane, start > wanted, start == wanted);
            }
        }
        compared
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the instructions have no safe form")]
mod sse2 {
    use super::{super::vector, Compared};
    use core::arch::x86_64::*;

    /// Compares `VECTORS` (2 or 4) times 16 bytes of starts of `WIDTH` (2 or 4) bytes with `wanted`.
    #[inline]
    pub(crate) fn compared<const WIDTH: usize, const VECTORS: usize>(
        lanes: &[[u8; 16]; VECTORS],
        wanted: u32,
    ) -> Compared {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { if WIDTH == 2 { narrow(lanes, wanted as u16) } else { wide(lanes, wanted) } }
    }

    /// The top bits of sixteen lanes of 16 bits.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn bits(low: __m128i, high: __m128i) -> u32 {
        _mm_movemask_epi8(_mm_packs_epi16(low, high)).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn narrow(lanes: &[[u8; 16]], wanted: u16) -> Compared {
        let wanted = _mm_set1_epi16((wanted ^ 1 << 15).cast_signed());
        let mut compared = Compared { above: 0, equal: 0 };
        for ([a, b], half) in lanes.as_chunks::<2>().0.iter().zip([0, 16]) {
            let (a, b) = (vector(a), vector(b));
            compared.above |= bits(_mm_cmpgt_epi16(a, wanted), _mm_cmpgt_epi16(b, wanted)) << half;
            compared.equal |= bits(_mm_cmpeq_epi16(a, wanted), _mm_cmpeq_epi16(b, wanted)) << half;
        }
        compared
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn wide(lanes: &[[u8; 16]], wanted: u32) -> Compared {
        let wanted = _mm_set1_epi32((wanted ^ 1 << 31).cast_signed());
        // Two vectors of 32 bits as one of 16.
        let pair = |[a, b]: &[[u8; 16]; 2]| {
            let (a, b) = (vector(a), vector(b));
            let above = _mm_packs_epi32(_mm_cmpgt_epi32(a, wanted), _mm_cmpgt_epi32(b, wanted));
            (above, _mm_packs_epi32(_mm_cmpeq_epi32(a, wanted), _mm_cmpeq_epi32(b, wanted)))
        };
        let zero = _mm_setzero_si128();
        let ((above, equal), (above_high, equal_high)) = match lanes.as_chunks::<2>().0 {
            [low, high] => (pair(low), pair(high)),
            [low] => (pair(low), (zero, zero)),
            _ => ((zero, zero), (zero, zero)),
        };
        Compared { above: bits(above, above_high), equal: bits(equal, equal_high) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares everything with the definition.
    fn check<const WIDTH: usize, const VECTORS: usize>(random: &mut impl FnMut() -> u64) {
        let mut lanes = [[0u8; 16]; VECTORS];
        for half in lanes.as_flattened_mut().as_chunks_mut::<8>().0 {
            // Small numbers, so that some are equal, some with the top bit set.
            *half = (random() & 0x8003_0003_8003_8003).to_le_bytes();
        }
        let top = 1u32 << (WIDTH * 8 - 1);
        for wanted in [0, 1, 3, 0x8003, 0x3_8003, u32::MAX, top, random() as u32] {
            let wanted = wanted & (top | (top - 1));
            let mut expected = Compared { above: 0, equal: 0 };
            for (lane, start) in lanes.as_flattened().chunks(WIDTH).enumerate() {
                let start = start.iter().rev().fold(0u32, |start, byte| start << 8 | u32::from(*byte)) ^ top;
                expected.above |= u32::from(start > wanted) << lane;
                expected.equal |= u32::from(start == wanted) << lane;
            }
            assert_eq!(compared::<WIDTH, VECTORS>(&lanes, wanted), expected);
            assert_eq!(plain::compared::<WIDTH, VECTORS>(&lanes, wanted), expected);
        }
    }

    #[test]
    fn a_bit_for_each_lane() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        // Miri is about a thousand times slower.
        for _ in 0..if cfg!(miri) { 2 } else { 500 } {
            check::<2, 2>(&mut random);
            check::<2, 4>(&mut random);
            check::<4, 2>(&mut random);
            check::<4, 4>(&mut random);
        }
    }
}

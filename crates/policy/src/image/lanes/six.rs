//! Parallel comparisons of the IPv6 map: the starts of a node, and the entries of a bucket.

use crate::image::v6::{BUCKET, LINES};

/// A bit for each of the 32 words that is less than `wanted`, all taken as signed numbers.
#[inline]
pub(in crate::image) fn less(node: &[u8; LINES], wanted: i32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return sse2::less(node, wanted);
    #[cfg(not(target_arch = "x86_64"))]
    plain::less(node, wanted)
}

/// Of a bucket's eight entries (see [`crate::image::v6`]): a bit for each whose lowest bit is set, and one for each
/// that has this tag, whatever that bit, and covers `part`.
#[inline]
pub(in crate::image) fn entries(bucket: &[u8; BUCKET], tag: u32, part: u16) -> (u32, u32) {
    #[cfg(target_arch = "x86_64")]
    return sse2::entries(bucket, tag, part);
    #[cfg(not(target_arch = "x86_64"))]
    plain::entries(bucket, tag, part)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod plain {
    use super::{BUCKET, LINES};
    use crate::image::table::{u16_at, u32_at};

    pub(super) fn less(node: &[u8; LINES], wanted: i32) -> u32 {
        let words = node.as_chunks::<4>().0.iter().enumerate();
        words.fold(0, |bits, (lane, word)| bits | u32::from(i32::from_le_bytes(*word) < wanted) << lane)
    }

    pub(super) fn entries(bucket: &[u8; BUCKET], tag: u32, part: u16) -> (u32, u32) {
        (0..8).fold((0, 0), |(low, found), lane| {
            let own = u32_at(bucket, lane * 4);
            let (value, mask) = (u16_at(bucket, 32 + lane * 2), u16_at(bucket, 48 + lane * 2));
            let covers = (own ^ tag) & !1 == 0 && part & mask == value;
            (low | (own & 1) << lane, found | u32::from(covers) << lane)
        })
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the instructions have no safe form")]
mod sse2 {
    use super::{super::vector, BUCKET, LINES};
    use core::arch::x86_64::*;

    #[inline]
    pub(super) fn less(node: &[u8; LINES], wanted: i32) -> u32 {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { compared(node, wanted) }
    }

    #[inline]
    pub(super) fn entries(bucket: &[u8; BUCKET], tag: u32, part: u16) -> (u32, u32) {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { matched(bucket, tag, part) }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn half(a: &[u8; 16], b: &[u8; 16], c: &[u8; 16], d: &[u8; 16], wanted: __m128i) -> u32 {
        let low = _mm_packs_epi32(_mm_cmpgt_epi32(wanted, vector(a)), _mm_cmpgt_epi32(wanted, vector(b)));
        let high = _mm_packs_epi32(_mm_cmpgt_epi32(wanted, vector(c)), _mm_cmpgt_epi32(wanted, vector(d)));
        _mm_movemask_epi8(_mm_packs_epi16(low, high)).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn compared(node: &[u8; LINES], wanted: i32) -> u32 {
        let ([a, b, c, d, e, f, g, h], _) = node.as_chunks::<16>() else { return 0 };
        let wanted = _mm_set1_epi32(wanted);
        half(a, b, c, d, wanted) | half(e, f, g, h, wanted) << 16
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn matched(bucket: &[u8; BUCKET], tag: u32, part: u16) -> (u32, u32) {
        let ([a, b, values, masks], _) = bucket.as_chunks::<16>() else { return (0, 0) };
        let (a, b) = (vector(a), vector(b));
        // The lowest bit becomes the sign.
        let low = _mm_packs_epi32(_mm_slli_epi32(a, 31), _mm_slli_epi32(b, 31));
        let (tag, upper) = (_mm_set1_epi32(tag.cast_signed()), _mm_set1_epi32(!1));
        let same = |tags| _mm_cmpeq_epi32(_mm_and_si128(_mm_xor_si128(tags, tag), upper), _mm_setzero_si128());
        let part = _mm_set1_epi16(part.cast_signed());
        let covers = _mm_cmpeq_epi16(_mm_and_si128(part, vector(masks)), vector(values));
        let found = _mm_and_si128(_mm_packs_epi32(same(a), same(b)), covers);
        let both = _mm_movemask_epi8(_mm_packs_epi16(low, found)).cast_unsigned();
        (both & 0xff, both >> 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_one_by_one() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        // Miri is about a thousand times slower.
        for round in 0..if cfg!(miri) { 5 } else { 2000 } {
            let mut node = [0; LINES];
            node.as_chunks_mut::<8>().0.iter_mut().for_each(|bytes| *bytes = next().to_le_bytes());
            let lane = (round % 31) * 4;
            let known = i32::from_le_bytes(*node[lane..].first_chunk().unwrap());
            for wanted in [known, known.wrapping_add(1), known.wrapping_sub(1), i32::MIN, i32::MAX, 0, -1] {
                assert_eq!(less(&node, wanted), plain::less(&node, wanted), "{wanted} among {node:?}");
            }
            let mut bucket = *node.first_chunk::<BUCKET>().unwrap();
            let part = next() as u16;
            for lane in 0..8 {
                // Masks of prefixes, and values that often match them.
                let mask = !(0xffff_u16.checked_shr((next() % 17) as u32).unwrap_or(0));
                bucket[48 + lane * 2..][..2].copy_from_slice(&mask.to_le_bytes());
                let value = if next() % 2 == 0 { part & mask } else { next() as u16 };
                bucket[32 + lane * 2..][..2].copy_from_slice(&value.to_le_bytes());
            }
            for lane in 0..8 {
                let tag = u32::from_le_bytes(*bucket[lane * 4..].first_chunk().unwrap());
                for tag in [tag, tag ^ 1, tag ^ 2] {
                    assert_eq!(entries(&bucket, tag, part), plain::entries(&bucket, tag, part), "{tag} in {bucket:?}");
                }
            }
        }
    }
}

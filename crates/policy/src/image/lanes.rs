//! How many of a chunk's starts are not above a number, all compared at once.
//!
//! The chunk's starts ascend, so the comparisons that hold are the first ones, and counting them is finding the first
//! that does not. Lanes behind the chunk's own hold whatever follows it in the map; a bit set at `size` stops before
//! them. x86-64 has SSE2 in every processor, and kernel code may use it there; the compiler does not come upon the
//! few instructions this takes by itself. This module is the crate's only one with `unsafe` in it.

mod signed;

pub(super) use signed::{Compared, compared};

/// How many of the first `size` (at most 32) starts of 16 bits are not above `wanted`.
#[inline]
pub(super) fn below16(body: &[u8], size: u32, wanted: u16) -> u32 {
    let Some(starts) = body.first_chunk::<64>() else { return 0 };
    first_clear(not_above16(starts, wanted), size)
}

/// How many of the first `size` (at most 32) starts of 32 bits are not above `wanted`.
#[inline]
pub(super) fn below32(body: &[u8], size: u32, wanted: u32) -> u32 {
    // Small chunks are common, and an eighth of the work.
    if size <= 8 {
        let Some(starts) = body.first_chunk::<32>() else { return 0 };
        return first_clear(few_not_above32(starts, wanted), size);
    }
    let Some(starts) = body.first_chunk::<128>() else { return 0 };
    first_clear(not_above32(starts, wanted), size)
}

/// How many of the first `size` (at most 16) starts of 64 bits are not above `wanted`.
#[inline]
pub(super) fn below64(body: &[u8], size: u32, wanted: u64) -> u32 {
    let Some(starts) = body.first_chunk::<128>() else { return 0 };
    // SSE2 does not compare 64 bits; four steps of halving do.
    let starts = starts.as_chunks::<8>().0;
    let not_above = |place: u32| {
        let start = starts.get(place as usize).map_or(u64::MAX, |start| u64::from_le_bytes(*start));
        u32::from(place < size && start <= wanted)
    };
    let mut count = 0;
    count += 8 * not_above(count + 7);
    count += 4 * not_above(count + 3);
    count += 2 * not_above(count + 1);
    count += not_above(count);
    count + not_above(count)
}

/// The first clear bit of `bits`, `size` at most.
#[inline]
fn first_clear(bits: u32, size: u32) -> u32 {
    (!u64::from(bits) | 1u64.wrapping_shl(size)).trailing_zeros()
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use plain::{few_not_above32, not_above16, not_above32};
#[cfg(target_arch = "x86_64")]
pub(crate) use sse2::{few_not_above32, not_above16, not_above32};

#[cfg(any(test, not(target_arch = "x86_64")))]
mod plain {
    macro_rules! not_above {
        ($name:ident, $type:ty, $bytes:literal) => {
            #[inline]
            pub(crate) fn $name(starts: &[u8; $bytes], wanted: $type) -> u32 {
                let lanes = starts.as_chunks::<{ size_of::<$type>() }>().0.iter().enumerate();
                lanes.fold(0, |bits, (lane, start)| bits | u32::from(<$type>::from_le_bytes(*start) <= wanted) << lane)
            }
        };
    }
    not_above!(not_above16, u16, 64);
    not_above!(not_above32, u32, 128);
    not_above!(few_not_above32, u32, 32);
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the instructions have no safe form")]
mod sse2 {
    use core::arch::x86_64::*;

    /// A bit for each start that is not above `wanted`.
    #[inline]
    pub(crate) fn not_above16(starts: &[u8; 64], wanted: u16) -> u32 {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { compared16(starts, wanted) }
    }

    /// A bit for each start that is not above `wanted`.
    #[inline]
    pub(crate) fn not_above32(starts: &[u8; 128], wanted: u32) -> u32 {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { compared32(starts, wanted) }
    }

    /// The same for eight starts.
    #[inline]
    pub(crate) fn few_not_above32(starts: &[u8; 32], wanted: u32) -> u32 {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { few32(starts, wanted) }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn vector(bytes: &[u8; 16]) -> __m128i {
        let all = u128::from_le_bytes(*bytes);
        _mm_set_epi64x((all >> 64) as i64, all as i64)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn compared16(starts: &[u8; 64], wanted: u16) -> u32 {
        let ([a, b, c, d], _) = starts.as_chunks::<16>() else { return 0 };
        let wanted = _mm_set1_epi16(wanted.cast_signed());
        // Saturating subtraction leaves nothing of what is not above.
        let a = _mm_cmpeq_epi16(_mm_subs_epu16(vector(a), wanted), _mm_setzero_si128());
        let b = _mm_cmpeq_epi16(_mm_subs_epu16(vector(b), wanted), _mm_setzero_si128());
        let c = _mm_cmpeq_epi16(_mm_subs_epu16(vector(c), wanted), _mm_setzero_si128());
        let d = _mm_cmpeq_epi16(_mm_subs_epu16(vector(d), wanted), _mm_setzero_si128());
        let low = _mm_movemask_epi8(_mm_packs_epi16(a, b)).cast_unsigned();
        low | _mm_movemask_epi8(_mm_packs_epi16(c, d)).cast_unsigned() << 16
    }

    /// Lanes above `wanted`, whose top bit is turned as theirs are: SSE2 compares signed numbers.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn above32(starts: &[u8; 16], wanted: __m128i) -> __m128i {
        _mm_cmpgt_epi32(_mm_xor_si128(vector(starts), _mm_set1_epi32(i32::MIN)), wanted)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn half32(starts: [&[u8; 16]; 4], wanted: __m128i) -> u32 {
        let [a, b, c, d] = starts;
        let low = _mm_packs_epi32(above32(a, wanted), above32(b, wanted));
        let high = _mm_packs_epi32(above32(c, wanted), above32(d, wanted));
        _mm_movemask_epi8(_mm_packs_epi16(low, high)).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn compared32(starts: &[u8; 128], wanted: u32) -> u32 {
        let ([a, b, c, d, e, f, g, h], _) = starts.as_chunks::<16>() else { return 0 };
        let wanted = _mm_set1_epi32((wanted ^ 1 << 31).cast_signed());
        !(half32([a, b, c, d], wanted) | half32([e, f, g, h], wanted) << 16)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn few32(starts: &[u8; 32], wanted: u32) -> u32 {
        let ([a, b], _) = starts.as_chunks::<16>() else { return 0 };
        let wanted = _mm_set1_epi32((wanted ^ 1 << 31).cast_signed());
        let both = _mm_packs_epi32(above32(a, wanted), above32(b, wanted));
        !_mm_movemask_epi8(_mm_packs_epi16(both, both)).cast_unsigned() & 0xff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ascending numbers and, behind them, anything.
    fn chunk(seed: u64, size: usize, bits: u32) -> (Vec<u64>, Vec<u64>) {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let number = state >> (64 - bits);
            if number & 7 == 0 { u64::MAX >> (64 - bits) } else { number }
        };
        let mut starts: Vec<u64> = (0..size).map(|_| next()).collect();
        starts.sort_unstable();
        starts.dedup();
        let all = starts.iter().copied().chain(std::iter::repeat_with(&mut next)).take(40).collect();
        (starts, all)
    }

    fn wanted(starts: &[u64], bits: u32) -> impl Iterator<Item = u64> + '_ {
        let most = u64::MAX >> (64 - bits);
        let near = starts.iter().flat_map(move |start| [start.saturating_sub(1), *start, (*start + 1).min(most)]);
        near.chain([0, 1, most / 2, most / 2 + 1, most - 1, most])
    }

    #[test]
    fn as_many_as_a_scan_finds() {
        // Miri is some thousand times slower.
        for seed in 0..if cfg!(miri) { 1 } else { 200 } {
            for size in [1, 2, 7, 8, 9, 15, 16, 17, 31, 32] {
                for bits in [16, 32, 63] {
                    let size = if bits == 63 { size.min(16) } else { size };
                    let (starts, all) = chunk(seed, size, bits);
                    let bytes: Vec<u8> = match bits {
                        16 => all.iter().flat_map(|one| (*one as u16).to_le_bytes()).collect(),
                        32 => all.iter().flat_map(|one| (*one as u32).to_le_bytes()).collect(),
                        _ => all.iter().flat_map(|one| one.to_le_bytes()).collect(),
                    };
                    let size = starts.len() as u32;
                    for wanted in wanted(&starts, bits) {
                        let expected = starts.iter().filter(|start| **start <= wanted).count() as u32;
                        let found = match bits {
                            16 => below16(&bytes, size, wanted as u16),
                            32 => below32(&bytes, size, wanted as u32),
                            _ => below64(&bytes, size, wanted),
                        };
                        assert_eq!(found, expected, "{wanted} in {starts:?} of {bits} bits");
                    }
                    let wanted = all[3];
                    let (few, some) = (bytes.first_chunk().unwrap(), bytes.first_chunk());
                    assert_eq!(few_not_above32(few, wanted as u32), plain::few_not_above32(few, wanted as u32));
                    assert_eq!(
                        not_above16(bytes.first_chunk().unwrap(), wanted as u16),
                        plain::not_above16(bytes.first_chunk().unwrap(), wanted as u16)
                    );
                    if let Some(some) = some {
                        assert_eq!(not_above32(some, wanted as u32), plain::not_above32(some, wanted as u32));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_too_short_has_none() {
        assert_eq!((below16(&[0; 63], 1, 9), below32(&[0; 31], 1, 9), below64(&[0; 127], 1, 9)), (0, 0, 0));
    }
}

//! Parallel comparisons.
//!
//! x86-64 has SSE2 in every processor, and kernel code may use it there; the compiler does not find the few
//! instructions that this needs. This module, with its parts, is the crate's only one with `unsafe` in it.

mod carryless;
mod letters;
mod signed;
pub(super) mod six;

pub(super) use carryless::Field;
pub(super) use letters::{Sixteen, folded};
pub(super) use signed::{Compared, compared};

/// Sixteen bytes, the first in the lowest lane.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn vector(bytes: &[u8; 16]) -> core::arch::x86_64::__m128i {
    let all = u128::from_le_bytes(*bytes);
    core::arch::x86_64::_mm_set_epi64x((all >> 64) as i64, all as i64)
}

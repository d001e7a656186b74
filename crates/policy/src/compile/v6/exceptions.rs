//! Networks within a site and single hosts go to buckets, where there are so many that trees would not stay in the
//! nearer caches.

use crate::{
    compile::addresses::Segment,
    image::{
        table::u32_at,
        v6::{BUCKET, FEWEST_BUCKETS, MOST_BUCKETS, hosts, lower_half, place},
    },
};

/// How many of a bucket's eight places are taken on average: what finds its bucket full stays in the trees.
const FULL: usize = 5;

/// Of segments of two classes, which alternate: buckets with what is an exception of the given class, and the others.
pub(super) fn split(segments: Vec<Segment<u128>>, class: u32) -> (Vec<[u8; BUCKET]>, Vec<Segment<u128>>) {
    let exception = |at: usize| {
        let this = segments.get(at).filter(|this| at > 0 && this.class == class)?;
        Exception::of(*this, *segments.get(at + 1)?)
    };
    let (mut places, mut found) = (0, 0);
    for exception in (0..segments.len()).filter_map(exception) {
        places += if exception.host.is_some() { 2 } else { 1 };
        found += 1;
    }
    let count = (places / FULL) as u32;
    if !(FEWEST_BUCKETS..=MOST_BUCKETS).contains(&count) {
        return (Vec::new(), segments);
    }
    let mut buckets = vec![[0; BUCKET]; count as usize];
    // About one in twelve finds no room.
    let mut others = Vec::with_capacity(segments.len() - found * 2 + found / 5);
    let mut at = 0;
    while at < segments.len() {
        let put = exception(at).is_some_and(|exception| {
            let (bucket, tag) = place(exception.low, count);
            put(&mut buckets[bucket as usize], tag, exception)
        });
        if put {
            // The segment behind goes on with what lies around.
            at += 2;
        } else {
            others.push(segments[at]);
            at += 1;
        }
    }
    (buckets, others)
}

/// What may be an exception: all addresses that begin alike.
#[derive(Clone, Copy)]
struct Exception {
    low: u128,
    /// Which of the 16 bits behind the site are alike.
    mask: u16,
    /// The lower half of the address, if it is but one.
    host: Option<u64>,
}

impl Exception {
    /// Of a segment and the one behind it.
    fn of(this: Segment<u128>, next: Segment<u128>) -> Option<Self> {
        let (low, size) = (this.start, next.start - this.start);
        if !size.is_power_of_two() || low & (size - 1) != 0 || low >> 125 != 1 {
            return None;
        }
        match size.trailing_zeros() {
            0 => Some(Self { low, mask: u16::MAX, host: Some(low as u64) }),
            bits @ 64..=80 => Some(Self { low, mask: (u32::MAX << (bits - 64)) as u16, host: None }),
            _ => None,
        }
    }
}

/// Puts an exception into its bucket if there is room. Hosts come first, then networks.
fn put(bucket: &mut [u8; BUCKET], tag: u32, exception: Exception) -> bool {
    let tags: [u32; 8] = std::array::from_fn(|lane| u32_at(bucket, lane * 4));
    let low = (0..8).fold(0, |bits, lane| bits | (tags[lane] & 1) << lane);
    let known = hosts(low) as usize;
    let networks = tags[known..8 - known].iter().filter(|tag| **tag != 0).count();
    let part = (exception.low >> 64) as u16;
    let Some(half) = exception.host else {
        if known * 2 + networks >= 8 {
            return false;
        }
        write(bucket, known + networks, tag, part, exception.mask);
        return true;
    };
    // Of a /64, a look-up compares one host.
    let twin = (0..known).any(|lane| tags[lane] == tag | 1 && value(bucket, lane) == part);
    if known * 2 + networks > 6 || known == 4 || twin {
        return false;
    }
    if networks > 0 {
        let (value, mask) = (value(bucket, known), mask(bucket, known));
        write(bucket, known + networks, tags[known], value, mask);
    }
    write(bucket, known, tag | 1, part, u16::MAX);
    write(bucket, 7 - known, half as u32, (half >> 32) as u16, (half >> 48) as u16);
    debug_assert_eq!(lower_half(bucket, known as u32), half);
    true
}

fn value(bucket: &[u8; BUCKET], lane: usize) -> u16 {
    u16::from_le_bytes([bucket[32 + lane * 2], bucket[33 + lane * 2]])
}

fn mask(bucket: &[u8; BUCKET], lane: usize) -> u16 {
    value(bucket, lane + 8)
}

fn write(bucket: &mut [u8; BUCKET], lane: usize, tag: u32, value: u16, mask: u16) {
    bucket[lane * 4..][..4].copy_from_slice(&tag.to_le_bytes());
    bucket[32 + lane * 2..][..2].copy_from_slice(&value.to_le_bytes());
    bucket[48 + lane * 2..][..2].copy_from_slice(&mask.to_le_bytes());
}

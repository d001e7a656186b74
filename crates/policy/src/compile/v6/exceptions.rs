//! Networks within a site and single hosts go to buckets if there are so many that trees would not stay in the inner
//! caches.

use crate::{
    compile::addresses::Segment,
    image::{
        table::u32_at,
        v6::{BUCKET, FEWEST_BUCKETS, MOST_BUCKETS, hosts, lower_half, place},
    },
};

/// How many of a bucket's eight slots are used on average: what finds its bucket full stays in the trees.
const FULL: usize = 5;

/// Segments, and the exceptions taken out of them.
pub(super) struct Split {
    pub(super) buckets: Vec<[u8; BUCKET]>,
    /// The classes of the buckets' entries, except for maps of two classes.
    pub(super) classes: Vec<[u32; 8]>,
    pub(super) others: Vec<Segment<u128>>,
}

impl Split {
    /// Takes out exceptions, of a single class if `only` says which.
    pub(super) fn new(segments: Vec<Segment<u128>>, only: Option<u32>) -> Self {
        let exception = |at: usize| {
            let around = at.checked_sub(1).and_then(|before| segments.get(before..at + 2))?;
            let alone = around[0].class == around[2].class && only.is_none_or(|only| around[1].class == only);
            if alone { Exception::of(around[1], around[2]) } else { None }
        };
        let (mut places, mut found) = (0, 0);
        for exception in (0..segments.len()).filter_map(exception) {
            places += if exception.host.is_some() { 2 } else { 1 };
            found += 1;
        }
        let count = (places / FULL) as u32;
        if !(FEWEST_BUCKETS..=MOST_BUCKETS).contains(&count) {
            return Self { buckets: Vec::new(), classes: Vec::new(), others: segments };
        }
        let mut buckets = vec![[0; BUCKET]; count as usize];
        let mut classes = if only.is_none() { vec![[0; 8]; count as usize] } else { Vec::new() };
        // About one in twelve does not fit.
        let mut others = Vec::with_capacity(segments.len().saturating_sub(found * 2) + found / 5);
        let mut at = 0;
        while at < segments.len() {
            let put = exception(at).is_some_and(|exception| {
                let (bucket, tag) = place(exception.low, count);
                let mut unused = [0; 8];
                let classes = classes.get_mut(bucket as usize).unwrap_or(&mut unused);
                put(&mut buckets[bucket as usize], classes, tag, exception)
            });
            if put {
                // The next segment continues with the class around it.
                at += 2;
            } else {
                others.push(segments[at]);
                at += 1;
            }
        }
        Self { buckets, classes, others }
    }
}

/// A possible exception: all addresses with the same prefix.
#[derive(Clone, Copy)]
struct Exception {
    low: u128,
    class: u32,
    /// Which of the 16 bits after the site are common.
    mask: u16,
    /// The lower half of the address, if it is a single one.
    host: Option<u64>,
}

impl Exception {
    /// From a segment and the next one.
    fn of(this: Segment<u128>, next: Segment<u128>) -> Option<Self> {
        let (low, class, size) = (this.start, this.class, next.start - this.start);
        if !size.is_power_of_two() || low & (size - 1) != 0 || low >> 125 != 1 {
            return None;
        }
        match size.trailing_zeros() {
            0 => Some(Self { low, class, mask: u16::MAX, host: Some(low as u64) }),
            bits @ 64..=80 => Some(Self { low, class, mask: (u32::MAX << (bits - 64)) as u16, host: None }),
            _ => None,
        }
    }
}

/// Puts an exception into its bucket if there is room. Hosts come first, then networks.
fn put(bucket: &mut [u8; BUCKET], classes: &mut [u32; 8], tag: u32, exception: Exception) -> bool {
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
        classes[known + networks] = exception.class;
        return true;
    };
    // In a /64, a lookup compares only one host.
    let twin = (0..known).any(|lane| tags[lane] == tag | 1 && value(bucket, lane) == part);
    if known * 2 + networks > 6 || known == 4 || twin {
        return false;
    }
    if networks > 0 {
        let (value, mask) = (value(bucket, known), mask(bucket, known));
        write(bucket, known + networks, tags[known], value, mask);
        classes[known + networks] = classes[known];
    }
    write(bucket, known, tag | 1, part, u16::MAX);
    classes[known] = exception.class;
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

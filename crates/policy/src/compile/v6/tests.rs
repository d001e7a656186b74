use super::*;
use crate::image::{
    v6::{Map, class},
    validate_v6,
};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// Segments that begin at these addresses and have any of some classes.
fn segments(random: &mut Random, mut starts: Vec<u128>, classes: u32) -> Vec<Segment<u128>> {
    starts.push(0);
    starts.sort_unstable();
    starts.dedup();
    let mut segments: Vec<Segment<u128>> = Vec::new();
    for start in starts {
        let last = segments.last().map(|last| last.class);
        let class = match classes {
            2 => 3 + 4 * (segments.len() as u32 & 1),
            _ => 1 + (random.next() as u32 % classes) * 3,
        };
        if last != Some(class) {
            segments.push(Segment { start, class });
        }
    }
    segments
}

/// The first address of random prefixes and the one after their last, below what `inside` leaves of a random address.
fn prefixes(random: &mut Random, count: usize, lengths: &[u32], inside: impl Fn(u128) -> u128) -> Vec<u128> {
    let mut starts = Vec::new();
    for _ in 0..count {
        let length = lengths[random.next() as usize % lengths.len()];
        let size = 1u128 << (128 - length);
        let low = inside(random.wide()) & !(size - 1);
        starts.push(low);
        starts.extend(low.checked_add(size));
    }
    starts
}

fn expected(segments: &[Segment<u128>], address: u128) -> u32 {
    segments[segments.partition_point(|segment| { segment.start } <= address) - 1].class
}

/// Compares at every edge and returns the map.
fn check(segments: &[Segment<u128>]) -> Vec<u8> {
    let map = map(segments.to_vec()).unwrap();
    validate_v6(&map).unwrap();
    let head = Map::read(&map);
    let probe = |address: u128| assert_eq!(class(&map, &head, address), expected(segments, address), "{address:x}");
    for segment in segments {
        let start = segment.start;
        for turned in [0, 1, 1 << 63, 1 << 64, 1 << 79, 1 << 80, 1 << 95, 1 << 112, 1 << 127] {
            probe(start ^ turned);
        }
        probe(start.wrapping_sub(1));
    }
    probe(u128::MAX);
    let bound = HEAD + TABLE_BYTES + 64 * segments.len();
    assert!(map.len() <= bound, "{} bytes for {} segments", map.len(), segments.len());
    map
}

const ALL: &[u32] = &[1, 3, 8, 12, 16, 17, 24, 29, 32, 36, 44, 47, 48, 49, 56, 60, 64, 65, 80, 96, 112, 127, 128];

#[test]
fn every_edge_has_its_class() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for classes in [2, 3, 300, 100_000] {
        for count in [1, 2, 7, 40, 300, 3000] {
            for round in 0..6 {
                let block = random.wide() >> 3 | 1 << 125;
                // Anywhere; one of some /16, /32, /48; below one /64; each at the beginning of its /44.
                let inside = |address: u128| match round {
                    0 => address,
                    1 => address & u128::MAX >> 16 & !(0xf << 96) | 0x2a00 << 112,
                    2 => address & u128::MAX >> 29 & !(0xfff << 80) | block & !(u128::MAX >> 16),
                    3 => address & u128::MAX >> 46 | block & !(u128::MAX >> 46),
                    4 => address & u128::MAX >> 64 | block & !(u128::MAX >> 64),
                    _ => address & !(u128::MAX >> 44) & u128::MAX >> 16 | 0x2001 << 112,
                };
                let starts = prefixes(&mut random, count, ALL, inside);
                check(&segments(&mut random, starts, classes));
            }
        }
    }
}

#[test]
fn the_ends_of_the_space() {
    let mut random = Random(5);
    for classes in [2, 5] {
        check(&segments(&mut random, vec![1], classes));
        check(&segments(&mut random, vec![u128::MAX], classes));
        check(&segments(&mut random, vec![1, u128::MAX], classes));
        // Nested prefixes of all lengths, around both ends and between.
        let nested = |of: u128| {
            (0..128).flat_map(move |bits| [of >> bits << bits, (of >> bits << bits).wrapping_add(1 << bits)])
        };
        let starts: Vec<u128> = nested(0).chain(nested(u128::MAX)).chain(nested(0x2001 << 112 | 0xdb8 << 96)).collect();
        check(&segments(&mut random, starts, classes));
        // Every site of some /32, whole and half.
        check(&segments(&mut random, (0..0x2_0000).map(|site| 0x2001_0db8 << 96 | site << 79).collect(), classes));
        check(&segments(&mut random, (0..0x2_0000).map(|site| 0xffff_ffff << 96 | site << 79).collect(), classes));
    }
    let all = [Segment { start: 0, class: 9 }];
    let whole = map(all.to_vec()).unwrap();
    assert_eq!(class(&whole, &Map::read(&whole), 77), 9);
    assert!(map(vec![Segment { start: 0, class: 0 }]).unwrap().is_empty());
}

#[test]
fn exceptions_have_their_class() {
    let mut random = Random(77);
    let lengths = [47, 48, 48, 50, 56, 64, 64, 65, 127, 128, 128];
    for spread in [30, 34, 47] {
        // Fewer networks share more; some are outside of where exceptions can be.
        let inside = |address: u128| address & !(0x1f << 123) & !(0xff << (128 - spread)) | 1 << 125;
        let mut starts = prefixes(&mut random, 220_000, &lengths, inside);
        starts.extend(prefixes(&mut random, 1000, &lengths, |address| address));
        let two = segments(&mut random, starts, 2);
        // The surroundings have some classes of their own, and so does nearly every listed entry.
        let named = |least: usize, most: usize| {
            let class = |at: usize| if at.is_multiple_of(2) { at / 1000 % 7 } else { least + at % (most - least) };
            let one = |(at, segment): (usize, &Segment<u128>)| Segment { class: class(at) as u32, ..*segment };
            two.iter().enumerate().map(one).collect::<Vec<_>>()
        };
        for segments in [named(7, 60_000), named(7, 1 << 20), two.clone()] {
            let map = check(&segments);
            assert!(Map::read(&map).buckets.length > 0, "{spread}");
        }
    }
}

#[test]
fn many_below_one_network() {
    let mut random = Random(3);
    for (bits, lengths) in
        [(48, &[128][..]), (64, &[128]), (64, &[70, 90, 120, 128]), (100, &[128]), (16, &[128]), (0, &[128])]
    {
        let starts = prefixes(&mut random, 120_000, lengths, |address| {
            if bits == 0 { address } else { address >> bits | 0x2001_0db8_1234_5678_9abc << 48 >> bits << bits }
        });
        check(&segments(&mut random, starts, 2));
    }
}

#[test]
fn hostile_maps_are_refused_or_harmless() {
    let mut random = Random(99);
    for (classes, count) in [(2, 3000), (2, 110_000), (40, 3000), (90_000, 3000)] {
        let inside = |address: u128| address & u128::MAX >> 30 & !(0xff << 96) | 1 << 125;
        let starts = prefixes(&mut random, count, &[33, 40, 48, 56, 64, 100, 128, 128], inside);
        let segments = segments(&mut random, starts, classes);
        let map = map(segments.clone()).unwrap();
        let mut accepted = 0;
        for round in 0..if count > 9999 { 50 } else { 2000 } {
            let mut hostile = map.clone();
            for _ in 0..1 + round % 4 {
                // Mostly in the first words, where it has the most effect.
                let limit = if round % 2 == 0 { 64 } else { hostile.len() };
                let at = random.next() as usize % limit;
                hostile[at] ^= 1 << (random.next() % 8);
            }
            if round % 16 == 15 {
                hostile.truncate(random.next() as usize % (map.len() / 4) * 4);
            }
            accepted += u32::from(validate_v6(&hostile).is_ok());
            let head = Map::read(&hostile);
            for _ in 0..20 {
                // An access out of bounds would panic here in a build with checks.
                class(&hostile, &head, segments[random.next() as usize % segments.len()].start ^ random.wide() >> 100);
            }
        }
        assert!(accepted > 0 || count > 9999);
    }
}

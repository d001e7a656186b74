use super::*;
use crate::image::{table::Section, v4::class};
use std::collections::BTreeSet;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }
}

/// Compares the map of these sets with the sets themselves around every edge, and returns its shape.
fn check(sets: &[Ranges<u32>], shape: Option<Shape>) -> Option<Shape> {
    let mut classes = Classes::default();
    let references: Vec<_> = sets.iter().collect();
    let space = Space::new(&references, &mut classes);
    let map = match (&space, shape) {
        (_, None) => space.map().unwrap(),
        (Space::Many(segments), Some(shape)) => {
            let writer = Writer { segments: &Several { segments }, shape, tables: Vec::new(), chunks: Vec::new() };
            writer.write().unwrap()
        }
        (Space::One(..), Some(_)) => unreachable!("shapes are given for several sets"),
    };
    let section = Section { offset: 0, length: map.len() as u32 };
    let shape = (!map.is_empty()).then(|| Shape::read(&map, section));
    let probe = |address: u32| {
        let expected: Vec<u32> = (0..sets.len() as u32).filter(|set| sets[*set as usize].contains(address)).collect();
        let found = shape.map_or(0, |shape| class(&map, &shape, address));
        // A combination that never occurred cannot be looked up.
        assert_eq!(Some(found), classes.number_of(&expected), "{address:x} in a map of {shape:?}");
    };
    probe(0);
    probe(u32::MAX);
    for set in sets {
        for &(low, high) in set.ranges() {
            for edge in [low, high, low.wrapping_sub(1), high.wrapping_add(1), low.midpoint(high)] {
                probe(edge);
            }
        }
    }
    shape
}

/// Prefixes of `lengths`, all over the space or in a few of its corners.
fn prefixes(random: &mut Random, count: usize, lengths: std::ops::RangeInclusive<u32>, clustered: bool) -> Ranges<u32> {
    let one = |_| {
        let mut value = (random.next() >> 8) as u32;
        if clustered {
            value &= 0x8003_03ff;
        }
        let length = lengths.start() + random.next() as u32 % (lengths.end() - lengths.start() + 1);
        let rest = u32::MAX.checked_shr(length).unwrap_or(0);
        (value & !rest, value | rest)
    };
    Ranges::new((0..count).map(one).collect())
}

#[test]
fn every_edge_has_its_class() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let counts = if cfg!(miri) { &[1, 40][..] } else { &[1, 2, 7, 40, 300, 3000, 30_000] };
    for &count in counts {
        for lengths in [1..=32, 8..=24, 24..=24, 28..=32, 32..=32] {
            for clustered in [false, true] {
                for sets in [1, 2, 5] {
                    let sets: Vec<_> =
                        (0..sets).map(|_| prefixes(&mut random, count, lengths.clone(), clustered)).collect();
                    check(&sets, None);
                }
            }
        }
    }
}

/// Shapes that the compiler would not choose: nearly everything is below nodes, and nodes below nodes.
#[test]
#[cfg_attr(miri, ignore = "its root tables take Miri too long, and no unsafe code is in them")]
fn any_shape_will_do() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut forms = BTreeSet::new();
    for lengths in [8..=24, 20..=32, 32..=32] {
        let sets: Vec<_> = (0..3).map(|_| prefixes(&mut random, 5000, lengths.clone(), false)).collect();
        let chosen = check(&sets, None).unwrap();
        for (shift, unit, wide) in [(32, 2, true), (30, 5, true), (16, 3, false), (20, 2, true)] {
            for (value, singles) in [(1, false), (1, true), (2, false), (2, true), (4, false), (4, true)] {
                let shape = Shape { shift, unit, wide, four: true, value, singles, tree: false, ..chosen };
                forms.extend(check(&sets, Some(shape)).map(|shape| shape.form));
            }
        }
        for (shift, unit, value) in [(32, 2, 1), (30, 3, 2), (20, 2, 4), (16, 5, 1), (22, 2, 1)] {
            let shape = Shape { shift, unit, wide: true, singles: false, tree: true, value, ..chosen };
            forms.extend(check(&sets, Some(shape)).map(|shape| shape.form));
        }
        // Two of one class, so that there are only two.
        let sets = [sets[0].clone(), Ranges::default()];
        let chosen = Shape { value: 0, tree: false, ..check(&sets, None).unwrap() };
        assert_eq!(chosen.other, 1);
        for four in [false, true] {
            for singles in [false, true] {
                for (shift, unit, wide) in [(32, 2, true), (30, 5, true), (16, 3, false), (20, 2, true)] {
                    let shape = Shape { shift, unit, wide, four, singles, ..chosen };
                    forms.extend(check(&sets, Some(shape)).map(|shape| shape.form));
                }
            }
        }
    }
    assert_eq!(forms.len(), 23, "only forms {forms:?} occurred");
}

#[test]
fn the_ends_of_the_space() {
    check(&[Ranges::new(vec![(0, u32::MAX)])], None);
    check(&[Ranges::new(vec![(0, 0)])], None);
    check(&[Ranges::new(vec![(u32::MAX, u32::MAX)])], None);
    check(&[Ranges::new(vec![(0, 0), (u32::MAX, u32::MAX)])], None);
    check(&[Ranges::new(vec![(0, 5), (7, 7), (9, u32::MAX)])], None);
    check(&[Ranges::new(vec![(0, 5), (7, 7), (9, 9), (11, u32::MAX)])], None);
    check(&[Ranges::new(vec![(1, 5), (7, 7), (9, 9), (11, 12)])], None);
    check(&[Ranges::new(vec![(1, 5), (7, 7), (9, 9), (11, 12), (14, 14)])], None);
    check(&[Ranges::new(vec![(0, 5), (7, 7), (9, 9), (11, 12), (14, u32::MAX)])], None);
    check(&[Ranges::new(vec![(u32::MAX, u32::MAX)]), Ranges::new(vec![(0, 0)])], None);
    check(&[Ranges::new(vec![(0, u32::MAX)]), Ranges::new(vec![(0, u32::MAX)])], None);
    assert_eq!(check(&[Ranges::default()], None), None);
    assert_eq!(check(&[], None), None);
}

#[test]
fn hosts_take_two_bytes() {
    let mut random = Random(0xfeed_5678_9abc_def1);
    let set = prefixes(&mut random, 200_000, 32..=32, false);
    let map = Space::One(&set, 1).map().unwrap();
    assert!(map.len() < set.ranges().len() * 4, "{} bytes", map.len());
}

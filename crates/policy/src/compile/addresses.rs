//! Turns overlapping sets of addresses into ascending ranges of classes.

use super::classes::Classes;
use crate::model::address::{AddressBits, Ranges};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

/// The start of a class, which extends to the next segment. Packed, because there may be millions.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
pub(super) struct Segment<A> {
    pub(super) start: A,
    /// The class: its provisional number, later its final one.
    pub(super) class: u32,
}

/// Gives the classes their final numbers.
pub(super) fn renumber<A>(segments: &mut [Segment<A>], classes: &[u32]) {
    segments.iter_mut().for_each(|segment| segment.class = classes[segment.class as usize]);
}

/// The whole space as segments of classes (by provisional numbers), with neighbours of the same class merged.
pub(super) fn segments<A: AddressBits>(sets: &[&Ranges<A>], classes: &mut Classes) -> Vec<Segment<A>> {
    let zero = A::narrow(0);
    let ranges: usize = sets.iter().map(|set| set.ranges().len()).sum();
    let mut segments: Vec<Segment<A>> = Vec::with_capacity(ranges * 2 + 1);
    let mut push = |start: A, class: u32| {
        if segments.last().is_some_and(|last| { last.start } == start) {
            segments.pop();
        }
        if segments.last().is_none_or(|last| { last.class } != class) {
            segments.push(Segment { start, class });
        }
    };
    push(zero, 0);
    if let [only] = sets {
        let class = classes.number(&[0]);
        for &(low, high) in only.ranges() {
            push(low, class);
            if let Some(next) = high.after() {
                push(next, 0);
            }
        }
        return segments;
    }
    // The next edge of each set, by address: sets are merged without copying their edges, which may be millions.
    let edge = |set: u32, index: usize| -> Option<A> {
        let &(low, high) = sets[set as usize].ranges().get(index / 2)?;
        if index.is_multiple_of(2) { Some(low) } else { high.after() }
    };
    let mut next: BinaryHeap<Reverse<(A, u32, usize)>> =
        (0..sets.len() as u32).filter_map(|set| Some(Reverse((edge(set, 0)?, set, 0)))).collect();
    let mut inside: Vec<u32> = Vec::new();
    let (mut class, mut steps) = (0, Steps::new(ranges));
    while let Some(&Reverse((start, first, _))) = next.peek() {
        let mut edges = 0;
        while let Some(mut top) = next.peek_mut().filter(|top| top.0.0 == start) {
            let Reverse((_, set, index)) = *top;
            match inside.binary_search(&set) {
                Ok(place) => drop(inside.remove(place)),
                Err(place) => inside.insert(place, set),
            }
            edges += 1;
            match edge(set, index + 1) {
                Some(after) => *top = Reverse((after, set, index + 1)),
                None => drop(PeekMut::pop(top)),
            }
        }
        // No class begins between two edges at one address.
        class = if edges == 1 { steps.of(class, first, || classes.number(&inside)) } else { classes.number(&inside) };
        push(start, class);
    }
    segments
}

/// Recently computed classes, by the previous class and the set whose edge is between.
struct Steps(Box<[(u32, u32, u32)]>);

impl Steps {
    /// Room for the steps of that many ranges, or for the latest ones.
    fn new(ranges: usize) -> Self {
        Self(vec![(0, u32::MAX, 0); ranges.next_power_of_two().min(1 << 10)].into())
    }

    fn of(&mut self, class: u32, set: u32, number: impl FnOnce() -> u32) -> u32 {
        let place = class.wrapping_mul(0x9e37_79b1).wrapping_add(set).wrapping_mul(0x85eb_ca6b) >> 22;
        let known = &mut self.0[place as usize & (self.0.len() - 1)];
        if (known.0, known.1) != (class, set) {
            *known = (class, set, number());
        }
        known.2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sets: &[Ranges<u128>]) {
        let mut classes = Classes::default();
        let segments = segments(&sets.iter().collect::<Vec<_>>(), &mut classes);
        assert!(segments.windows(2).all(|two| { two[0].start } < two[1].start && two[0].class != two[1].class));
        let edges = sets.iter().flat_map(|set| set.ranges()).flat_map(|&(low, high)| [Some(low), high.after()]);
        for edge in edges.flatten().chain([0, u128::MAX]) {
            for address in [edge, edge.wrapping_sub(1)] {
                let around: Vec<u32> =
                    (0..sets.len() as u32).filter(|set| sets[*set as usize].contains(address)).collect();
                let holds = segments[segments.partition_point(|segment| { segment.start } <= address) - 1];
                assert_eq!(classes.number_of(&around), Some(holds.class), "{address:x}");
            }
        }
    }

    #[test]
    fn every_edge_has_its_sets() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u128::from(state) << 64 | u128::from(state.rotate_left(29))
        };
        for sets in 1..6 {
            for count in [1, 7, 200] {
                // Few starts, so that edges meet.
                let mut range = || {
                    let low = next() >> 120 << 120;
                    (low, low | next() >> 8)
                };
                let mut set = || Ranges::new((0..count).map(|_| range()).collect());
                check(&(0..sets).map(|_| set()).collect::<Vec<_>>());
            }
        }
        check(&[Ranges::new(vec![(0, u128::MAX)]), Ranges::new(vec![(u128::MAX, u128::MAX)])]);
        check(&[Ranges::new(vec![(0, u128::MAX)])]);
    }
}

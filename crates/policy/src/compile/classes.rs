//! Classes: what all members of a space have in common that lie in the same sets.

use crate::model::NumberSet;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Combinations of sets, each with a number. 0 is the empty combination.
#[derive(Debug)]
pub(super) struct Classes {
    numbers: HashMap<Box<[u32]>, u32>,
    combinations: Vec<Box<[u32]>>,
    unions: HashMap<(u32, u32), u32>,
}

impl Default for Classes {
    fn default() -> Self {
        let empty: Box<[u32]> = Box::default();
        Self { numbers: HashMap::from([(empty.clone(), 0)]), combinations: vec![empty], unions: HashMap::new() }
    }
}

/// Final numbers of classes, and which sets make up each.
#[derive(Debug)]
pub(super) struct Numbering {
    /// By the number [`Classes`] gave.
    pub(super) classes: Vec<u32>,
    /// By final number: the sets its members lie in, in ascending order.
    pub(super) combinations: Vec<Box<[u32]>>,
}

impl Numbering {
    /// The classes of the sets that are `wanted`.
    pub(super) fn members(&self, wanted: &BTreeSet<u32>) -> BTreeMap<u32, NumberSet> {
        let mut ranges: BTreeMap<u32, Vec<(u64, u64)>> = wanted.iter().map(|set| (*set, Vec::new())).collect();
        for (class, combination) in self.combinations.iter().enumerate() {
            for set in combination {
                if let Some(ranges) = ranges.get_mut(set) {
                    ranges.push((class as u64, class as u64));
                }
            }
        }
        ranges.into_iter().map(|(set, ranges)| (set, NumberSet::from_ranges(ranges))).collect()
    }
}

impl Classes {
    /// The number of a combination, sets in ascending order.
    pub(super) fn number(&mut self, sets: &[u32]) -> u32 {
        if let Some(&number) = self.numbers.get(sets) {
            return number;
        }
        let number = self.combinations.len() as u32;
        self.combinations.push(sets.into());
        self.numbers.insert(sets.into(), number);
        number
    }

    /// The number of a combination, if it came up.
    #[cfg(test)]
    pub(super) fn number_of(&self, sets: &[u32]) -> Option<u32> {
        self.numbers.get(sets).copied()
    }

    /// The number of a combination with one more set.
    pub(super) fn with(&mut self, class: u32, set: u32) -> u32 {
        if let Some(&known) = self.unions.get(&(class, set)) {
            return known;
        }
        let mut sets = self.combinations[class as usize].to_vec();
        let number = match sets.binary_search(&set) {
            Ok(_) => class,
            Err(place) => {
                sets.insert(place, set);
                self.number(&sets)
            }
        };
        self.unions.insert((class, set), number);
        number
    }

    /// The number of two combinations together.
    pub(super) fn union(&mut self, class: u32, other: u32) -> u32 {
        let sets = self.combinations[other as usize].clone();
        sets.iter().fold(class, |sum, &set| self.with(sum, set))
    }

    /// Numbers the classes so that those of one set lie together as far as sets do not overlap: conditions are ranges of
    /// class numbers.
    pub(super) fn finish(mut self) -> Numbering {
        let mut order: Vec<u32> = (0..self.combinations.len() as u32).collect();
        order.sort_unstable_by(|a, b| self.combinations[*a as usize].cmp(&self.combinations[*b as usize]));
        let mut classes = vec![0; order.len()];
        let mut combinations = Vec::with_capacity(order.len());
        for (rank, &class) in order.iter().enumerate() {
            classes[class as usize] = rank as u32;
            combinations.push(std::mem::take(&mut self.combinations[class as usize]));
        }
        Numbering { classes, combinations }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_made_of_their_classes() {
        let mut classes = Classes::default();
        let only_one = classes.with(0, 1);
        let both = classes.with(only_one, 0);
        let only_zero = classes.number(&[0]);
        assert_eq!(classes.union(only_zero, only_one), both);
        let numbering = classes.finish();
        assert_eq!(numbering.classes[0], 0);
        let members = numbering.members(&BTreeSet::from([0, 1, 2]));
        for (class, in_zero, in_one) in
            [(0, false, false), (only_one, false, true), (both, true, true), (only_zero, true, false)]
        {
            let number = u64::from(numbering.classes[class as usize]);
            assert_eq!((members[&0].contains(number), members[&1].contains(number)), (in_zero, in_one));
        }
        assert_eq!(members[&2].ranges(), []);
    }
}

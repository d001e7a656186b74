//! Classes: members of a space that are in the same sets share a class.

use crate::model::NumberSet;
use std::collections::HashMap;

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

/// Final numbers of classes, and the classes of each set.
#[derive(Debug)]
pub(super) struct Numbering {
    /// Indexed by the number from [`Classes`].
    pub(super) classes: Vec<u32>,
    /// The classes of each set.
    pub(super) members: Vec<NumberSet>,
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

    /// The number of a combination, if it occurred.
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

    /// The number of a combination without one set.
    pub(super) fn without(&mut self, class: u32, set: u32) -> u32 {
        let mut sets = self.combinations[class as usize].to_vec();
        match sets.binary_search(&set) {
            Ok(place) => {
                sets.remove(place);
                self.number(&sets)
            }
            Err(_) => class,
        }
    }

    /// The number of the union of two combinations.
    pub(super) fn union(&mut self, class: u32, other: u32) -> u32 {
        let sets = self.combinations[other as usize].clone();
        sets.iter().fold(class, |sum, &set| self.with(sum, set))
    }

    /// Numbers the classes so that those of one set are adjacent as far as the overlap of sets allows: the classifier
    /// cuts at ranges of class numbers.
    pub(super) fn finish(self, sets: usize) -> Numbering {
        let mut order: Vec<u32> = (0..self.combinations.len() as u32).collect();
        order.sort_unstable_by(|a, b| self.combinations[*a as usize].cmp(&self.combinations[*b as usize]));
        let mut classes = vec![0; order.len()];
        let mut members = vec![Vec::new(); sets];
        for (rank, &class) in order.iter().enumerate() {
            classes[class as usize] = rank as u32;
            for &set in &self.combinations[class as usize] {
                members[set as usize].push((rank as u64, rank as u64));
            }
        }
        Numbering { classes, members: members.into_iter().map(NumberSet::from_ranges).collect() }
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
        let numbering = classes.finish(3);
        assert_eq!(numbering.classes[0], 0);
        let zero = &numbering.members[0];
        let one = &numbering.members[1];
        for (class, in_zero, in_one) in
            [(0, false, false), (only_one, false, true), (both, true, true), (only_zero, true, false)]
        {
            let number = u64::from(numbering.classes[class as usize]);
            assert_eq!((zero.contains(number), one.contains(number)), (in_zero, in_one));
        }
        assert_eq!(numbering.members[2].ranges(), []);
    }
}

//! Classes as far as some of the conditions tell them apart.

use std::collections::HashMap;

/// Lists of numbers, one behind the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    ends: Vec<u32>,
    numbers: Vec<u32>,
}

impl Lists {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn of(&self, list: u32) -> &[u32] {
        let start = if list == 0 { 0 } else { self.ends[list as usize - 1] };
        &self.numbers[start as usize..self.ends[list as usize] as usize]
    }

    fn push(&mut self, list: &[u32]) {
        self.numbers.extend_from_slice(list);
        self.ends.push(self.numbers.len() as u32);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u32]> {
        (0..self.ends.len() as u32).map(|list| self.of(list))
    }

    /// For each number below `count`, the lists it is in.
    pub(super) fn inverse(&self, count: usize) -> Self {
        let mut ends = vec![0u32; count];
        self.numbers.iter().for_each(|number| ends[*number as usize] += 1);
        let mut sum = 0;
        for end in &mut ends {
            sum += std::mem::replace(end, sum);
        }
        // Each end is where its list begins until the list is full.
        let mut numbers = vec![0u32; self.numbers.len()];
        for (list, members) in self.iter().enumerate() {
            for &member in members {
                numbers[ends[member as usize] as usize] = list as u32;
                ends[member as usize] += 1;
            }
        }
        Self { ends, numbers }
    }
}

/// The classes of a dimension, those put together that the same conditions hold for. Part 0 is that of no condition.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    /// By class: its part.
    pub(super) of: Vec<u32>,
    /// By part: the conditions that hold, ascending.
    pub(super) conditions: Lists,
}

impl Partition {
    /// Every class by itself.
    pub(super) fn all(combinations: &[Box<[u32]>]) -> Self {
        let mut conditions = Lists::default();
        combinations.iter().for_each(|combination| conditions.push(combination));
        Self { of: (0..combinations.len() as u32).collect(), conditions }
    }

    /// The same parts as classes, each by itself.
    pub(super) fn parts(&self) -> Self {
        Self { of: (0..self.conditions.len() as u32).collect(), conditions: self.conditions.clone() }
    }

    /// The partition of the classes when `coarser` is one of this one's parts.
    pub(super) fn then(&self, coarser: Self) -> Self {
        let of = self.of.iter().map(|part| coarser.of[*part as usize]).collect();
        Self { of, conditions: coarser.conditions }
    }

    /// Whether there is nothing to tell apart.
    pub(super) fn is_whole(&self) -> bool {
        self.conditions.len() <= 1
    }

    /// The same with only the `active` conditions.
    pub(super) fn restricted(&self, active: &[bool]) -> Self {
        let mut conditions = Lists::default();
        conditions.push(&[]);
        let mut known: HashMap<u64, u32> = HashMap::new();
        let mut kept: Vec<u32> = Vec::new();
        let mut new = Vec::with_capacity(self.conditions.len());
        for list in self.conditions.iter() {
            kept.clear();
            kept.extend(list.iter().filter(|condition| active[**condition as usize]));
            if kept.is_empty() {
                new.push(0);
                continue;
            }
            let mut hash = kept.iter().fold(0u64, |sum, number| {
                (sum.rotate_left(25) ^ u64::from(*number)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            });
            // Lists that have the same hash take the next free number.
            let part = loop {
                match known.get(&hash) {
                    Some(&part) if conditions.of(part) == kept => break part,
                    Some(_) => hash = hash.wrapping_add(1),
                    None => {
                        let part = conditions.len() as u32;
                        known.insert(hash, part);
                        conditions.push(&kept);
                        break part;
                    }
                }
            };
            new.push(part);
        }
        Self { of: self.of.iter().map(|part| new[*part as usize]).collect(), conditions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_fall_together_when_conditions_go() {
        let combinations: Vec<Box<[u32]>> =
            [&[][..], &[0], &[0, 1], &[0, 2], &[2]].map(|sets: &[u32]| sets.into()).into();
        let all = Partition::all(&combinations);
        let some = all.restricted(&[true, false, true]);
        assert_eq!(some.of, [0, 1, 1, 2, 3]);
        assert_eq!(some.conditions.iter().collect::<Vec<_>>(), [&[][..], &[0], &[0, 2], &[2]]);
        let inverse = some.conditions.inverse(3);
        assert_eq!(inverse.iter().collect::<Vec<_>>(), [&[1, 2][..], &[], &[2, 3]]);
        assert!(some.restricted(&[false; 3]).is_whole());
    }
}

//! A place for each hash: a perfect hash, found by trial.
//!
//! Hashes fall into groups, two of five hashes on average. The largest groups choose first: each takes the least pilot
//! that leads its hashes to free places. If there is none, it takes the places where it evicts the fewest hashes, and
//! the evicted groups choose again. The order depends only on the hashes and their numbers.

use crate::image::names::{TAGS, group, place};

/// Groups for each hundred hashes: with fewer, the last groups try many pilots.
const GROUPS: usize = 40;
/// Extra places for each hundred hashes.
const SPARE: usize = 2;
/// How many of the latest groups cannot be evicted.
const SETTLED: usize = 16;
/// The place is free.
const FREE: u32 = u32::MAX;

/// The function from hashes to places.
pub(super) struct Places {
    pub(super) pilots: Vec<u8>,
    /// The place of each hash.
    pub(super) places: Vec<u32>,
    /// How many places there are: whole lines of tags.
    pub(super) size: u32,
}

/// Finds a place for each hash; the hashes are distinct.
pub(super) fn places(hashes: &[u64]) -> Option<Places> {
    let count = u32::try_from(hashes.len().max(1)).ok().filter(|count| *count < u32::MAX / 2)?;
    let groups = Groups::new(hashes, (hashes.len() * GROUPS).div_ceil(100).max(1) as u32);
    let mut size = (count + (hashes.len() * SPARE / 100) as u32 + 1).next_multiple_of(TAGS as u32);
    for _ in 0..8 {
        if let Some(found) = groups.settle(size) {
            return Some(found);
        }
        size = (size + size / 16 + 1).next_multiple_of(TAGS as u32);
    }
    None
}

/// The hashes by group.
struct Groups {
    /// The start of each, and the end of the last.
    starts: Vec<u32>,
    hashes: Vec<(u64, u32)>,
}

impl Groups {
    fn new(hashes: &[u64], count: u32) -> Self {
        let mut starts = vec![0u32; count as usize + 1];
        for hash in hashes {
            starts[group(*hash, count) as usize + 1] += 1;
        }
        for index in 0..count as usize {
            starts[index + 1] += starts[index];
        }
        let mut next = starts.clone();
        let mut grouped = vec![(0, 0); hashes.len()];
        for (number, hash) in hashes.iter().enumerate() {
            let at = &mut next[group(*hash, count) as usize];
            grouped[*at as usize] = (*hash, number as u32);
            *at += 1;
        }
        Self { starts, hashes: grouped }
    }

    fn count(&self) -> usize {
        self.starts.len() - 1
    }

    fn size(&self, group: usize) -> usize {
        (self.starts[group + 1] - self.starts[group]) as usize
    }

    fn hashes(&self, group: usize) -> &[(u64, u32)] {
        &self.hashes[self.starts[group] as usize..self.starts[group + 1] as usize]
    }

    /// The groups that are not empty, the smallest first.
    fn by_size(&self) -> Vec<u32> {
        let largest = (0..self.count()).map(|group| self.size(group)).max().unwrap_or(0);
        let mut starts = vec![0u32; largest + 2];
        (0..self.count()).for_each(|group| starts[self.size(group) + 1] += 1);
        (0..=largest).for_each(|size| starts[size + 1] += starts[size]);
        let empty = starts[1];
        let mut order = vec![0; self.count()];
        for group in 0..self.count() {
            let at = &mut starts[self.size(group)];
            order[*at as usize] = group as u32;
            *at += 1;
        }
        order.drain(..empty as usize);
        order
    }

    /// Places all groups among `size` places; None if that does not converge.
    fn settle(&self, size: u32) -> Option<Places> {
        let mut pilots = vec![0u8; self.count()];
        let mut owners = vec![FREE; size as usize];
        let mut bits = vec![0u64; (size as usize).div_ceil(64)];
        let mut waiting = self.by_size();
        let mut settled = [FREE; SETTLED];
        let mut effort = 20 * self.count() + 1000;
        let mut turn = 0;
        while let Some(group) = waiting.pop() {
            effort = effort.checked_sub(1)?;
            let hashes = self.hashes(group as usize);
            let pilot = match free_pilot(hashes, size, &mut bits) {
                Some(pilot) => pilot,
                None => {
                    let weight = |at: u32| match owners[at as usize] {
                        FREE => Some(0),
                        owner if settled.contains(&owner) => None,
                        owner => Some(self.size(owner as usize).pow(2)),
                    };
                    let pilot = least_trouble(hashes, size, turn, weight)?;
                    turn = turn.wrapping_add(1);
                    for (hash, _) in hashes {
                        let owner = owners[place(*hash, pilot, size) as usize];
                        if owner == FREE {
                            continue;
                        }
                        for (other, _) in self.hashes(owner as usize) {
                            let at = place(*other, pilots[owner as usize], size);
                            owners[at as usize] = FREE;
                            bits[at as usize / 64] &= !(1 << (at % 64));
                        }
                        waiting.push(owner);
                    }
                    settled.rotate_right(1);
                    settled[0] = group;
                    for (hash, _) in hashes {
                        let at = place(*hash, pilot, size);
                        bits[at as usize / 64] |= 1 << (at % 64);
                    }
                    pilot
                }
            };
            pilots[group as usize] = pilot;
            for (hash, _) in hashes {
                owners[place(*hash, pilot, size) as usize] = group;
            }
        }
        let mut places = vec![0; self.hashes.len()];
        for (group, pilot) in pilots.iter().enumerate() {
            for (hash, number) in self.hashes(group) {
                places[*number as usize] = place(*hash, *pilot, size);
            }
        }
        Some(Places { pilots, places, size })
    }
}

/// The least pilot that leads all hashes to free places, whose bits it sets.
fn free_pilot(hashes: &[(u64, u32)], size: u32, bits: &mut [u64]) -> Option<u8> {
    let bit = |hash: u64, pilot: u8| {
        let at = place(hash, pilot, size);
        (at as usize / 64, 1u64 << (at % 64))
    };
    (0..=u8::MAX).find(|&pilot| {
        let free = |&(hash, _): &(u64, u32)| {
            let (word, bit) = bit(hash, pilot);
            bits[word] & bit == 0
        };
        if !hashes.iter().all(free) {
            return false;
        }
        // Two of them may lead to the same place.
        let set = hashes.iter().take_while(|(hash, _)| {
            let (word, bit) = bit(*hash, pilot);
            let free = bits[word] & bit == 0;
            bits[word] |= bit;
            free
        });
        let set = set.count();
        if set < hashes.len() {
            for (hash, _) in &hashes[..set] {
                let (word, bit) = bit(*hash, pilot);
                bits[word] &= !bit;
            }
        }
        set == hashes.len()
    })
}

/// The pilot whose places have the least weight; None if every pilot leads to a place that must stay, or twice to the
/// same. The search begins elsewhere with every `turn`, so that two groups cannot evict each other forever.
fn least_trouble(hashes: &[(u64, u32)], size: u32, turn: u8, weight: impl Fn(u32) -> Option<usize>) -> Option<u8> {
    let mut best = None;
    for pilot in (0..=u8::MAX).map(|pilot| pilot.wrapping_add(turn.wrapping_mul(37))) {
        let at = |index: usize| place(hashes[index].0, pilot, size);
        let alone = |index: usize| (0..index).all(|other| at(other) != at(index));
        let sum = (0..hashes.len())
            .map(|index| if alone(index) { weight(at(index)) } else { None })
            .try_fold(0, |sum, weight| Some(sum + weight?));
        if let Some(sum) = sum
            && best.is_none_or(|(least, _)| sum < least)
        {
            best = Some((sum, pilot));
        }
    }
    best.map(|(_, pilot)| pilot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(count: u64) -> Vec<u64> {
        (1..=count)
            .map(|number| {
                number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
            })
            .collect()
    }

    #[test]
    fn every_hash_has_a_place_of_its_own() {
        for count in (0..200).chain([1000, if cfg!(miri) { 1001 } else { 100_000 }]) {
            let hashes = hashes(count);
            let found = places(&hashes).unwrap();
            let size = found.size;
            assert!(u64::from(size) <= count + count / 8 + 2 + TAGS as u64, "{size} places for {count}");
            for (hash, at) in hashes.iter().zip(&found.places) {
                let pilot = found.pilots[group(*hash, found.pilots.len() as u32) as usize];
                assert_eq!(place(*hash, pilot, size), *at);
            }
            let mut taken = found.places.clone();
            taken.sort_unstable();
            taken.dedup();
            assert_eq!(taken.len(), hashes.len());
            assert!(taken.last().is_none_or(|last| *last < size));
        }
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        assert!(places(&[7, 8, 7]).is_none());
    }
}

//! Name tables: every listed name's hash, and the classes of itself and of what lies below.

use super::classes::{Classes, Numbering};
use crate::{
    image::{
        layout::Parts,
        names::{BUCKET, Hash, INLINE_RECORDS, OVERFLOW, Points, REACH, TAG, TAGS, depth_bit, suffixes},
    },
    model::{NameSet, names::Scope},
};
use std::collections::BTreeMap;

/// Bits of the filter for each name.
const FILTER_BITS: usize = 12;
/// Names for each hundred tags: the fuller, the more names stand in a bucket that is not their own.
const FULL: usize = 80;

/// A listed name: where its text is, and what the names at and below it are.
struct Listed {
    hash: Hash,
    set: u32,
    entry: u32,
    exact: u32,
    below: u32,
}

/// The tables while names go in.
struct Table {
    points: Points,
    filter: Vec<u64>,
    /// Number of the listed name plus one.
    places: Vec<u32>,
    overflow: Vec<bool>,
}

impl Table {
    fn buckets_for(names: usize) -> usize {
        (names * 100).div_ceil(FULL * TAGS).max(1)
    }

    fn new(points: Points, names: usize) -> Self {
        let buckets = Self::buckets_for(names);
        Self {
            points,
            filter: vec![0; (names * FILTER_BITS).div_ceil(64).max(1)],
            places: vec![0; buckets * TAGS],
            overflow: vec![false; buckets],
        }
    }

    fn buckets(&self) -> u32 {
        self.overflow.len() as u32
    }

    fn may_hold(&self, hash: Hash) -> bool {
        let (word, bits) = hash.filter(&self.points, self.filter.len() as u32);
        self.filter[word as usize] & bits == bits
    }

    /// The name with the same bucket and tag, as the matcher would find it.
    fn find(&self, listed: &[Listed], hash: Hash) -> Option<u32> {
        let mut bucket = hash.bucket(&self.points, self.buckets());
        for _ in 0..REACH {
            for place in &self.places[bucket as usize * TAGS..][..TAGS] {
                if *place != 0 && listed[*place as usize - 1].hash.tag() == hash.tag() {
                    return Some(*place - 1);
                }
            }
            if !self.overflow[bucket as usize] {
                return None;
            }
            bucket = if bucket + 1 >= self.buckets() { 0 } else { bucket + 1 };
        }
        None
    }

    /// False when no place is near enough.
    fn insert(&mut self, hash: Hash, number: u32) -> bool {
        let (word, bits) = hash.filter(&self.points, self.filter.len() as u32);
        self.filter[word as usize] |= bits;
        let mut bucket = hash.bucket(&self.points, self.buckets());
        for _ in 0..REACH {
            if let Some(place) = self.places[bucket as usize * TAGS..][..TAGS].iter_mut().find(|place| **place == 0) {
                *place = number + 1;
                return true;
            }
            self.overflow[bucket as usize] = true;
            bucket = if bucket + 1 >= self.buckets() { 0 } else { bucket + 1 };
        }
        false
    }
}

/// What compiling names came to.
pub(super) struct Names {
    pub(super) numbering: Numbering,
    pub(super) undecidable: u32,
    /// How many labels the listed names have, a bit for each number.
    pub(super) depths: u32,
}

/// Writes the tables of `sets`; the flag says whether an undecidable name belongs to the set too.
pub(super) fn compile(sets: &[(&NameSet, bool)], key: [u8; 16], parts: &mut Parts) -> Result<Names, String> {
    let mut classes = Classes::default();
    let undecidable: Vec<u32> = (0..sets.len() as u32).filter(|set| sets[*set as usize].1).collect();
    let undecidable = classes.number(&undecidable);
    let (low, high) = (u64::from_le_bytes(half(key, 0)), u64::from_le_bytes(half(key, 8)));
    let points = Points::new([low, high]);

    let (listed, table) = list(sets, &points, &mut classes)?;
    let numbering = classes.finish();
    if !listed.is_empty() {
        let fits = table.overflow.len() == Table::buckets_for(listed.len());
        let table = if fits { table } else { again(&listed, &points) };
        write(&listed, table, &numbering, parts);
    }
    let undecidable = numbering.classes[undecidable as usize];
    let labels = |one: &Listed| sets[one.set as usize].0.get(one.entry as usize).0.split('.').count() as u32;
    let depths = listed.iter().fold(0, |depths, one| depths | depth_bit(labels(one)));
    Ok(Names { numbering, undecidable, depths })
}

fn half(key: [u8; 16], at: usize) -> [u8; 8] {
    std::array::from_fn(|index| key[at + index])
}

/// Every name that changes something, with its classes. Names with fewer labels come first, so that whatever lies
/// above a name is known when its turn comes.
fn list(sets: &[(&NameSet, bool)], points: &Points, classes: &mut Classes) -> Result<(Vec<Listed>, Table), String> {
    let total: usize = sets.iter().map(|(set, _)| set.len()).sum();
    let mut by_labels: BTreeMap<usize, Vec<(u32, u32)>> = BTreeMap::new();
    for (number, (set, _)) in sets.iter().enumerate() {
        for (entry, (name, _)) in set.iter().enumerate() {
            let labels = name.bytes().filter(|byte| *byte == b'.').count();
            by_labels.entry(labels).or_default().push((number as u32, entry as u32));
        }
    }
    let mut table = Table::new(*points, total);
    let mut listed: Vec<Listed> = Vec::with_capacity(total);
    for (set, entry) in by_labels.into_values().flatten() {
        let (name, scope) = sets[set as usize].0.get(entry as usize);
        let mut above = 0;
        let mut own = None;
        let mut clash = false;
        let mut hash = None;
        suffixes(points, name.as_bytes(), |suffix, whole| {
            if whole {
                hash = Some(suffix);
            }
            if table.may_hold(suffix)
                && let Some(found) = table.find(&listed, suffix)
            {
                let other = &listed[found as usize];
                let (text, _) = sets[other.set as usize].0.get(other.entry as usize);
                clash |= !name.ends_with(text);
                if whole {
                    own = Some(found);
                    clash |= text.len() != name.len();
                } else {
                    above = other.below;
                }
            }
        });
        let Some(hash) = hash else { continue };
        if clash || hash.tag() == (0, 0) {
            return Err("two names have the same hash under this key: compile with another key".to_owned());
        }
        let (exact, below) = match own {
            Some(found) => (listed[found as usize].exact, listed[found as usize].below),
            None => (above, above),
        };
        let add =
            |classes: &mut Classes, class: u32, applies: bool| if applies { classes.with(class, set) } else { class };
        let exact = add(classes, exact, scope != Scope::Below);
        let below = add(classes, below, scope != Scope::Exact);
        match own {
            Some(found) => {
                listed[found as usize].exact = exact;
                listed[found as usize].below = below;
            }
            // A name under one that says all the same changes nothing.
            None if (exact, below) == (above, above) => {}
            None => {
                if !table.insert(hash, listed.len() as u32) {
                    return Err("the names fill the table unevenly: compile with another key".to_owned());
                }
                listed.push(Listed { hash, set, entry, exact, below });
            }
        }
    }
    Ok((listed, table))
}

/// A table of the size that what is left of the lists needs.
fn again(listed: &[Listed], points: &Points) -> Table {
    let mut names = listed.len();
    loop {
        let mut table = Table::new(*points, names);
        if listed.iter().enumerate().all(|(number, name)| table.insert(name.hash, number as u32)) {
            return table;
        }
        names += names / 16 + 1;
    }
}

fn write(listed: &[Listed], table: Table, numbering: &Numbering, parts: &mut Parts) {
    let final_class = |class: u32| numbering.classes[class as usize];
    let mut records: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    // Neighbours in a list mean the same more often than not.
    let mut last = None;
    let numbers: Vec<u32> = listed
        .iter()
        .map(|name| {
            let classes = (final_class(name.exact), final_class(name.below));
            match last {
                Some((known, number)) if known == classes => number,
                _ => {
                    let next = records.len() as u32;
                    let number = *records.entry(classes).or_insert(next);
                    last = Some((classes, number));
                    number
                }
            }
        })
        .collect();
    let mut in_order: Vec<_> = records.iter().map(|(classes, number)| (*number, *classes)).collect();
    in_order.sort_unstable();
    for (_, (exact, below)) in in_order {
        parts.name_records.extend(exact.to_le_bytes());
        parts.name_records.extend(below.to_le_bytes());
    }
    let inline = records.len() as u32 <= INLINE_RECORDS;
    parts.name_buckets.reserve_exact(table.overflow.len() * BUCKET);
    for (bucket, overflow) in table.places.chunks_exact(TAGS).zip(&table.overflow) {
        let mut meta = if *overflow { OVERFLOW } else { 0 };
        for (index, place) in bucket.iter().enumerate() {
            let Some(number) = place.checked_sub(1) else {
                parts.name_buckets.extend([0; TAG]);
                if !inline {
                    parts.name_places.extend([0; 4]);
                }
                continue;
            };
            let (wide, narrow) = listed[number as usize].hash.tag();
            parts.name_buckets.extend(wide.to_le_bytes());
            parts.name_buckets.extend(narrow.to_le_bytes());
            let record = numbers[number as usize];
            if inline {
                meta |= record << (6 * index);
            } else {
                parts.name_places.extend(record.to_le_bytes());
            }
        }
        parts.name_buckets.extend(meta.to_le_bytes());
    }
    parts.name_filter.extend(table.filter.iter().flat_map(|word| word.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that differ in little: all below one name, with labels of one length that count up.
    fn alike(count: usize) -> NameSet {
        let mut set = NameSet::default();
        for number in 0..count {
            set.push(&format!("n{number:06}.example.com"), Scope::Both);
        }
        set
    }

    #[test]
    fn names_that_are_alike_fill_the_table_evenly() {
        let set = alike(40_000);
        for key in [[0x5a; 16], [0; 16], [0xff; 16], std::array::from_fn(|index| index as u8)] {
            let mut parts = Parts::default();
            let names = compile(&[(&set, false)], key, &mut parts).unwrap();
            assert_eq!(names.numbering.combinations.len(), 2);
            let buckets = parts.name_buckets.as_chunks::<BUCKET>().0;
            let going_on = buckets.iter().filter(|bucket| bucket[BUCKET - 1] & 0x80 != 0).count();
            // Names thrown at random make four in ten of the buckets overflow at this load.
            assert!(going_on * 20 < buckets.len() * 9, "{going_on} of {} buckets overflow", buckets.len());
        }
    }

    #[test]
    fn few_names_that_are_not_listed_pass_the_filter() {
        let mut parts = Parts::default();
        let key = [0x5a; 16];
        compile(&[(&alike(40_000), false)], key, &mut parts).unwrap();
        let points = Points::new([u64::from_le_bytes(half(key, 0)), u64::from_le_bytes(half(key, 8))]);
        let words = (parts.name_filter.len() / 8) as u32;
        let passed = (0..20_000).filter(|number| {
            let mut last = None;
            suffixes(&points, format!("m{number:06}.example.com").as_bytes(), |hash, _| {
                last = Some(hash);
            });
            let (word, bits) = last.unwrap().filter(&points, words);
            crate::image::table::u64_at(&parts.name_filter, word as usize * 8) & bits == bits
        });
        let passed = passed.count();
        assert!(passed < 20_000 / 12, "{passed} of 20000 pass");
    }
}

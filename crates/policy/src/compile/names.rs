//! Name tables: every listed name's hash, and the classes of the name itself and of names below it.

use super::{
    classes::{Classes, Numbering},
    places::places,
};
use crate::{
    image::{
        layout::Parts,
        names::{INLINE_RECORDS, LINE, TAG, TAGS, bits, depth_bit, hash::Points, suffixes, tag, word},
    },
    model::{NameSet, names::Scope},
};
use std::{collections::BTreeMap, hint::black_box};

/// Names that are hashed together, so that the cache lines they lead to are fetched together.
const TOGETHER: usize = 64;

/// Names per word of the filter: fewer take more memory, more let more unlisted names pass.
const NAMES_OF_WORD: usize = 4;

/// A listed name: where its text is, and the classes of the names at and below it.
struct Listed {
    hash: u64,
    set: u32,
    entry: u32,
    exact: u32,
    below: u32,
}

/// The listed names by hash, while names are added.
struct Known {
    /// Bits of the hash, and the number of the listed name plus one.
    slots: Vec<(u32, u32)>,
}

impl Known {
    fn new(names: usize) -> Self {
        Self { slots: vec![(0, 0); names + names / 2 + 1] }
    }

    fn slot(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize
    }

    /// The name with this hash, or its free slot.
    fn find(&self, listed: &[Listed], hash: u64) -> Result<u32, usize> {
        let mut slot = self.slot(hash);
        loop {
            match self.slots[slot] {
                (_, 0) => return Err(slot),
                (bits, number) if bits == hash as u32 && listed[number as usize - 1].hash == hash => {
                    return Ok(number - 1);
                }
                _ => slot = if slot + 1 == self.slots.len() { 0 } else { slot + 1 },
            }
        }
    }

    /// Prefetches what finding these will read. Memory is slow, and independent reads overlap.
    fn touch(&self, listed: &[Listed], hashes: &[u64]) {
        black_box(hashes.iter().fold(0, |sum, hash| sum ^ self.slots[self.slot(*hash)].0));
        let met = hashes.iter().filter_map(|hash| {
            let (bits, number) = self.slots[self.slot(*hash)];
            listed.get(number.wrapping_sub(1) as usize).filter(|_| bits == *hash as u32)
        });
        black_box(met.fold(0, |sum, name| sum ^ name.entry));
    }
}

/// The result of compiling names.
pub(super) struct Names {
    pub(super) numbering: Numbering,
    pub(super) undecidable: u32,
    /// The label counts of the listed names, one bit for each count.
    pub(super) depths: u32,
}

/// Writes the tables of `sets`; the flag says whether an undecidable name belongs to the set too.
pub(super) fn compile(sets: &[(&NameSet, bool)], key: [u8; 16], parts: &mut Parts) -> Result<Names, String> {
    let mut classes = Classes::default();
    let undecidable: Vec<u32> = (0..sets.len() as u32).filter(|set| sets[*set as usize].1).collect();
    let undecidable = classes.number(&undecidable);
    let points = Points::new([u64::from_le_bytes(half(key, 0)), u64::from_le_bytes(half(key, 8))]);

    let (listed, depths) = list(sets, &points, &mut classes)?;
    let numbering = classes.finish(sets.len());
    if !listed.is_empty() {
        write(sets, &listed, &points, &numbering, parts)?;
    }
    let undecidable = numbering.classes[undecidable as usize];
    Ok(Names { numbering, undecidable, depths })
}

fn half(key: [u8; 16], at: usize) -> [u8; 8] {
    std::array::from_fn(|index| key[at + index])
}

/// How many dots a name has. Names are short, and there are many.
fn dots(name: &[u8]) -> u8 {
    let (eights, rest) = name.as_chunks::<8>();
    let mut sum = rest.iter().filter(|letter| **letter == b'.').count() as u64;
    for eight in eights {
        // Letters are ASCII: the top bit of each is free, and stays clear in dots.
        let others = (u64::from_le_bytes(*eight) ^ 0x2e2e_2e2e_2e2e_2e2e) + 0x7f7f_7f7f_7f7f_7f7f;
        sum += (!others >> 7 & 0x0101_0101_0101_0101).wrapping_mul(0x0101_0101_0101_0101) >> 56;
    }
    sum as u8
}

/// All entries as set and number: those with fewer labels first, so that everything above a name is known when its turn
/// comes.
fn by_labels(sets: &[(&NameSet, bool)]) -> Vec<(u32, u32)> {
    let total = sets.iter().map(|(set, _)| set.len()).sum();
    let mut all = Vec::with_capacity(total);
    sets.iter().for_each(|(set, _)| all.extend((0..set.len()).map(|entry| dots(set.get(entry).0.as_bytes()))));
    let mut starts = [0usize; 257];
    all.iter().for_each(|labels| starts[usize::from(*labels) + 1] += 1);
    (0..256).for_each(|labels| starts[labels + 1] += starts[labels]);
    let mut order = vec![(0, 0); all.len()];
    let entries = sets.iter().enumerate().flat_map(|(set, (names, _))| (0..names.len()).map(move |entry| (set, entry)));
    for ((set, entry), labels) in entries.zip(all) {
        let at = &mut starts[usize::from(labels)];
        order[*at] = (set as u32, entry as u32);
        *at += 1;
    }
    order
}

/// Every name that changes something, with its classes, and how many labels such names have.
fn list(sets: &[(&NameSet, bool)], points: &Points, classes: &mut Classes) -> Result<(Vec<Listed>, u32), String> {
    let order = by_labels(sets);
    let mut known = Known::new(order.len());
    let mut listed: Vec<Listed> = Vec::with_capacity(order.len());
    let mut depths = 0;
    let (mut hashes, mut ends, mut met) = (Vec::new(), Vec::new(), Vec::new());
    // The previous question is usually asked again.
    let mut last = [None; 2];
    let text = |set: u32, entry: u32| sets[set as usize].0.get(entry as usize);
    for entries in order.chunks(TOGETHER) {
        hashes.clear();
        ends.clear();
        for &(set, entry) in entries {
            suffixes(points, text(set, entry).0.as_bytes(), |hash| hashes.push(hash));
            ends.push(hashes.len());
        }
        known.touch(&listed, &hashes);
        met.clear();
        let mut start = 0;
        for (&(set, entry), &end) in entries.iter().zip(&ends) {
            let (name, scope, except) = text(set, entry);
            let Some((whole, suffixes)) = hashes[start..end].split_last() else { continue };
            start = end;
            let mut above = 0;
            for (hash, labels) in suffixes.iter().zip(1..) {
                if depths & depth_bit(labels) != 0
                    && let Ok(found) = known.find(&listed, *hash)
                {
                    above = listed[found as usize].below;
                    met.push((name, found, false));
                }
            }
            let own = known.find(&listed, *whole);
            let (exact, below) = match own {
                Ok(found) => {
                    met.push((name, found, true));
                    (listed[found as usize].exact, listed[found as usize].below)
                }
                Err(_) => (above, above),
            };
            let mut add = |which: usize, class: u32, applies: bool| match last[which] {
                _ if !applies => class,
                // An exception follows every name of its set that it is below.
                _ if except => classes.without(class, set),
                Some((asked, known)) if asked == (class, set) => known,
                _ => {
                    let known = classes.with(class, set);
                    last[which] = Some(((class, set), known));
                    known
                }
            };
            let exact = add(0, exact, scope != Scope::Below);
            let below = add(1, below, scope != Scope::Exact);
            match own {
                Ok(found) => {
                    listed[found as usize].exact = exact;
                    listed[found as usize].below = below;
                }
                // A name under one with the same classes changes nothing.
                Err(_) if (exact, below) == (above, above) => {}
                Err(slot) => {
                    listed.push(Listed { hash: *whole, set, entry, exact, below });
                    known.slots[slot] = (*whole as u32, listed.len() as u32);
                    depths |= depth_bit(suffixes.len() as u32 + 1);
                }
            }
        }
        // Whether names with equal hashes are equal, also in batches.
        let others: Vec<&str> =
            met.iter().map(|met| &listed[met.1 as usize]).map(|other| text(other.set, other.entry).0).collect();
        let same = met.iter().zip(others).all(|((name, _, whole), other)| {
            let above = || name.strip_suffix(other).is_some_and(|rest| rest.ends_with('.'));
            if *whole { *name == other } else { above() }
        });
        if !same {
            return Err("two names have the same hash under this key: compile with another key".to_owned());
        }
    }
    Ok((listed, depths))
}

/// The number of each name's record, and the records.
fn records(listed: &[Listed], numbering: &Numbering) -> (Vec<u32>, Vec<(u32, u32)>) {
    let final_class = |class: u32| numbering.classes[class as usize];
    let mut records: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    // Neighbours in a list usually mean the same.
    let mut last = None;
    let numbers = listed
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
    let mut in_order: Vec<_> = records.into_iter().map(|(classes, number)| (number, classes)).collect();
    in_order.sort_unstable();
    (numbers, in_order.into_iter().map(|(_, classes)| classes).collect())
}

/// The filter that these hashes pass.
fn filter(hashes: &[u64]) -> Vec<u8> {
    let mut filter = vec![0u64; hashes.len() / NAMES_OF_WORD + 1];
    let words = filter.len() as u32;
    hashes.iter().for_each(|hash| filter[word(*hash, words) as usize] |= bits(*hash));
    filter.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn write(
    sets: &[(&NameSet, bool)],
    listed: &[Listed],
    points: &Points,
    numbering: &Numbering,
    parts: &mut Parts,
) -> Result<(), String> {
    let (numbers, records) = records(listed, numbering);
    for (exact, below) in &records {
        parts.name_records.extend(exact.to_le_bytes());
        parts.name_records.extend(below.to_le_bytes());
    }
    let inline = records.len() as u32 <= INLINE_RECORDS;
    let hashes: Vec<u64> = listed.iter().map(|name| name.hash).collect();
    let found = places(&hashes).ok_or("no perfect hash was found for the names: compile with another key")?;
    parts.name_filter = filter(&hashes);
    drop(hashes);
    parts.name_pilots = found.pilots;
    parts.name_tags = vec![0; found.size as usize / TAGS * LINE];
    if !inline {
        parts.name_places = vec![0; found.size as usize * 4];
    }
    for ((name, place), number) in listed.iter().zip(&found.places).zip(numbers) {
        let place = *place as usize;
        let (text, ..) = sets[name.set as usize].0.get(name.entry as usize);
        let (wide, narrow) = tag(points, text.as_bytes());
        if (wide, narrow) == (0, 0) {
            return Err("a name has the tag of an empty slot under this key: compile with another key".to_owned());
        }
        let (line, at) = (&mut parts.name_tags[place / TAGS * LINE..][..LINE], place % TAGS);
        line[at * TAG..][..8].copy_from_slice(&wide.to_le_bytes());
        line[at * TAG + 8..][..4].copy_from_slice(&narrow.to_le_bytes());
        if inline && number != 0 {
            let meta = u32::from_le_bytes([line[60], line[61], line[62], line[63]]) | number << (6 * at);
            line[TAGS * TAG..].copy_from_slice(&meta.to_le_bytes());
        } else if !inline {
            parts.name_places[place * 4..][..4].copy_from_slice(&number.to_le_bytes());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that hardly differ: all below one name, with labels of one length that count up.
    fn alike(count: usize) -> NameSet {
        let mut set = NameSet::default();
        for number in 0..count {
            set.push(&format!("n{number:06}.example.com"), Scope::Both);
        }
        set
    }

    #[test]
    fn names_that_are_alike_spread_evenly() {
        let set = alike(40_000);
        for key in [[0x5a; 16], [0; 16], [0xff; 16], std::array::from_fn(|index| index as u8)] {
            let mut parts = Parts::default();
            let names = compile(&[(&set, false)], key, &mut parts).unwrap();
            assert_eq!(names.numbering.members.len(), 1);
            assert_eq!(names.depths, depth_bit(3));
            // The first size tried works.
            assert_eq!(parts.name_tags.len() / LINE * TAGS, (40_000usize + 40_000 / 50 + 1).next_multiple_of(TAGS));
        }
    }

    #[test]
    fn few_names_that_are_not_listed_pass_the_filter() {
        let mut parts = Parts::default();
        let key = [0x5a; 16];
        compile(&[(&alike(40_000), false)], key, &mut parts).unwrap();
        let points = Points::new([u64::from_le_bytes(half(key, 0)), u64::from_le_bytes(half(key, 8))]);
        let passed = (0..20_000).filter(|number| {
            let mut last = 0;
            suffixes(&points, format!("m{number:06}.example.com").as_bytes(), |hash| last = hash);
            let (words, _) = parts.name_filter.as_chunks::<8>();
            bits(last) & !u64::from_le_bytes(words[word(last, words.len() as u32) as usize]) == 0
        });
        let passed = passed.count();
        assert!(passed < 20_000 / 80, "{passed} of 20000 pass");
    }
}

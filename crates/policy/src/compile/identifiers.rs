//! Tables of programs and identities.

use super::{
    classes::{Classes, Numbering},
    writer::Writer,
};
use crate::{
    image::{
        identifiers::{RUN, hash},
        layout::Parts,
        members::SETS,
    },
    model::NumberSet,
};
use std::collections::{BTreeMap, BTreeSet};

/// An entry of a set of programs: an NT path in lower case as UTF-16LE; directories end in a backslash.
pub(super) type Identifiers = BTreeSet<Vec<u8>>;

/// A backslash in UTF-16LE.
const BACKSLASH: [u8; 2] = [b'\\', 0];

/// Slots per record. Most identities of a token are in no rule: they should meet an empty slot at once.
const SLOTS: usize = 8;

/// Writes the table of programs.
pub(super) fn applications(sets: &[Identifiers], key: [u8; 16], parts: &mut Parts) -> Numbering {
    let (records, numbering) = records(sets);
    let lengths: BTreeSet<usize> =
        records.keys().filter(|path| path.ends_with(&BACKSLASH)).map(|path| path.len()).collect();
    for length in lengths.iter().rev() {
        parts.directory_lengths.extend((*length as u32).to_le_bytes());
    }
    let (slots, table) = table(&records, key, &mut parts.strings);
    (parts.application_slots, parts.application_records) = (slots, table);
    numbering
}

/// Writes the table of identities; programs come first. Returns the key of each set.
pub(super) fn users(sets: &[Identifiers], key: [u8; 16], writer: &mut Writer) -> Result<Vec<NumberSet>, String> {
    if sets.len() > SETS {
        return Err(format!(
            "the rules use {} different sets of users, groups, services and packages; at most {SETS} are possible",
            sets.len()
        ));
    }
    let mut memberships: BTreeMap<&Vec<u8>, Vec<(u64, u64)>> = BTreeMap::new();
    for (set, identities) in (0u64..).zip(sets) {
        for identity in identities {
            memberships.entry(identity).or_default().push((set, set));
        }
    }
    let records = memberships
        .into_iter()
        .map(|(identity, sets)| (identity.clone(), writer.list(&NumberSet::from_ranges(sets)) + 1))
        .collect();
    let (slots, table) = table(&records, key, &mut writer.parts.strings);
    (writer.parts.user_slots, writer.parts.user_records) = (slots, table);
    Ok((1..=sets.len() as u64).map(|number| NumberSet::from_ranges(vec![(number, number)])).collect())
}

/// Every program with its class; a program in a directory is in the directory's sets too.
fn records(sets: &[Identifiers]) -> (BTreeMap<Vec<u8>, u32>, Numbering) {
    let mut classes = Classes::default();
    let mut records: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for (set, identifiers) in sets.iter().enumerate() {
        for identifier in identifiers {
            let class = records.get(identifier).copied().unwrap_or(0);
            records.insert(identifier.clone(), classes.with(class, set as u32));
        }
    }
    // In byte order a directory comes before its content, so its class is complete when it is passed on.
    let paths: Vec<Vec<u8>> = records.keys().cloned().collect();
    for path in &paths {
        let above = (2..path.len()).step_by(2).rev().find_map(|end| {
            let directory = path.get(..end).filter(|head| head.ends_with(&BACKSLASH))?;
            records.get(directory).copied()
        });
        if let (Some(above), Some(own)) = (above, records.get(path).copied()) {
            records.insert(path.clone(), classes.union(own, above));
        }
    }
    let numbering = classes.finish(sets.len());
    for class in records.values_mut() {
        *class = numbering.classes[*class as usize];
    }
    (records, numbering)
}

fn table(records: &BTreeMap<Vec<u8>, u32>, key: [u8; 16], strings: &mut Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let halves = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|index| key[at + index])));
    let mut table = Vec::with_capacity(records.len() * 8);
    for (bytes, class) in records {
        strings.extend_from_slice(bytes);
        table.extend((strings.len() as u32).to_le_bytes());
        table.extend(class.to_le_bytes());
    }
    let mut count = records.len() * SLOTS;
    let slots = loop {
        match slots(records, halves, count) {
            Some(slots) => break slots,
            None => count *= 2,
        }
    };
    (slots.into_iter().flat_map(u32::to_le_bytes).collect(), table)
}

/// The slots of a table of that size; none when an identifier would be too far from its slot.
fn slots(records: &BTreeMap<Vec<u8>, u32>, halves: [u64; 2], count: usize) -> Option<Vec<u32>> {
    let mut slots = vec![0u32; count];
    for (number, bytes) in records.keys().enumerate() {
        let first = ((u64::from(hash(halves, bytes)) * count as u64) >> 32) as usize;
        let slot = (0..RUN as usize).map(|step| (first + step) % count).find(|slot| slots[*slot] == 0)?;
        slots[slot] = number as u32 + 1;
    }
    Some(slots)
}

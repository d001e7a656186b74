//! Lays the parts of an image out.

use crate::{image::layout::*, model::NumberSet};
use std::collections::BTreeMap;

/// The parts of an image while they are put together.
#[derive(Default)]
pub(super) struct Writer {
    rules: Vec<u8>,
    rule_count: u32,
    names: Vec<u8>,
    conditions: Vec<u8>,
    condition_count: u32,
    lists: Vec<u8>,
    ranges: Vec<u8>,
    known_lists: BTreeMap<NumberSet, u32>,
    pub(super) entries4: [Vec<Entry4>; 2],
    pub(super) entries6: [Vec<Entry6>; 2],
    applications: Vec<u8>,
    users: Vec<u8>,
    strings: Vec<u8>,
}

impl Writer {
    /// Adds a rule and returns its number.
    pub(super) fn rule(&mut self, name: &str, flags: u8, conditions: &[(Dimension, NumberSet)]) -> u32 {
        let record = RuleRecord {
            name: self.names.len() as u32,
            name_length: name.len() as u16,
            flags,
            conditions: self.condition_count,
            condition_count: conditions.len() as u8,
        };
        record.write(&mut self.rules);
        self.names.extend_from_slice(name.as_bytes());
        for (dimension, set) in conditions {
            let list = self.list(set);
            ConditionRecord { dimension: *dimension as u32, list }.write(&mut self.conditions);
            self.condition_count += 1;
        }
        self.rule_count += 1;
        self.rule_count - 1
    }

    fn list(&mut self, set: &NumberSet) -> u32 {
        if let Some(&known) = self.known_lists.get(set) {
            return known;
        }
        for (low, high) in set.ranges() {
            self.ranges.extend(low.to_le_bytes());
            self.ranges.extend(high.to_le_bytes());
        }
        self.lists.extend(((self.ranges.len() / 16) as u32).to_le_bytes());
        let number = self.known_lists.len() as u32;
        self.known_lists.insert(set.clone(), number);
        number
    }

    /// Adds applications and users, in byte order.
    pub(super) fn identifiers(&mut self, applications: &BTreeMap<Vec<u8>, u32>, users: &BTreeMap<Vec<u8>, u32>) {
        for (table, map) in [(&mut self.applications, applications), (&mut self.users, users)] {
            for (bytes, number) in map {
                self.strings.extend_from_slice(bytes);
                table.extend((self.strings.len() as u32).to_le_bytes());
                table.extend(number.to_le_bytes());
            }
        }
    }

    /// The bytes.
    pub(super) fn finish(self, defaults: [u8; 2], key: [u8; 16]) -> Result<Vec<u8>, String> {
        let (mut entries4, mut entries6) = (Vec::new(), Vec::new());
        let mut roots = Vec::new();
        let mut first = 0;
        for entries in &self.entries4 {
            entries.iter().for_each(|entry| entry.write(&mut entries4));
            roots.push(Root { first, count: entries.len() as u32 });
            first += entries.len() as u32;
        }
        first = 0;
        for entries in &self.entries6 {
            entries.iter().for_each(|entry| entry.write(&mut entries6));
            roots.push(Root { first, count: entries.len() as u32 });
            first += entries.len() as u32;
        }
        let sections: [Vec<u8>; SECTIONS] = [
            self.rules,
            self.names,
            self.conditions,
            self.lists,
            self.ranges,
            entries4,
            entries6,
            self.applications,
            self.users,
            self.strings,
        ];
        let mut image = vec![0; HEADER_LENGTH];
        for (index, section) in sections.iter().enumerate() {
            let offset = image.len();
            image.extend_from_slice(section);
            image.resize(image.len().next_multiple_of(SECTION_ALIGNMENT), 0);
            put(&mut image, SECTION_TABLE + index * 8, &(offset as u32).to_le_bytes());
            put(&mut image, SECTION_TABLE + index * 8 + 4, &(section.len() as u32).to_le_bytes());
        }
        let length =
            u32::try_from(image.len()).map_err(|_| "the policy does not fit into an image of 4 GiB".to_owned())?;
        put(&mut image, 0, &MAGIC);
        put(&mut image, 8, &VERSION.to_le_bytes());
        put(&mut image, 12, &length.to_le_bytes());
        put(&mut image, 32, &defaults);
        put(&mut image, 40, &key);
        for (index, root) in roots.iter().enumerate() {
            put(&mut image, 56 + index * 8, &root.first.to_le_bytes());
            put(&mut image, 60 + index * 8, &root.count.to_le_bytes());
        }
        let checksum = crate::image::checksum(&image);
        put(&mut image, 16, &checksum);
        Ok(image)
    }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

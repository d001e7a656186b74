//! Lays the parts of an image out.

use crate::{
    image::{budget::in_list, layout::*},
    model::{Action, NumberSet},
};
use std::collections::HashMap;

/// The parts of an image under construction.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) parts: Parts,
    /// The most steps of each rule's conditions.
    steps: Vec<u32>,
    conditions: u32,
    lists: HashMap<NumberSet, u32>,
}

impl Writer {
    /// Adds a rule and returns its number.
    ///
    /// # Panics
    /// The name is longer than a policy file's may be.
    pub(crate) fn rule(&mut self, name: &str, action: Action, flags: u8, conditions: &[(Dimension, NumberSet)]) -> u32 {
        // A condition is a range, or a list of them.
        let range = |set: &NumberSet| match set.ranges() {
            [(low, high)] if *high <= u64::from(u32::MAX) => Some((*low as u32, *high as u32)),
            _ => None,
        };
        let steps = |(_, set): &(Dimension, NumberSet)| range(set).map_or(in_list(set.ranges().len() as u32), |_| 1);
        let record = RuleRecord {
            name: self.parts.rule_names.len() as u32,
            name_length: u8::try_from(name.len()).expect("names have at most 255 bytes"),
            answer_seconds: if let Action::Ask(ask) = action { ask.within } else { 0 },
            flags,
            conditions: self.conditions,
            condition_count: conditions.len() as u8,
            steps: conditions.iter().map(steps).sum(),
        };
        self.steps.push(record.steps);
        record.write(&mut self.parts.rules);
        self.parts.rule_names.extend_from_slice(name.as_bytes());
        for (dimension, set) in conditions {
            let within = match range(set) {
                Some((low, high)) => Within::Range(low, high),
                None => Within::List(self.list(set)),
            };
            ConditionRecord { dimension: *dimension as u32, within }.write(&mut self.parts.conditions);
            self.conditions += 1;
        }
        self.steps.len() as u32 - 1
    }

    /// The most steps of a rule's conditions.
    pub(crate) fn steps(&self, rule: u32) -> u32 {
        self.steps[rule as usize]
    }

    /// The number of a list with these ranges.
    pub(crate) fn list(&mut self, set: &NumberSet) -> u32 {
        if let Some(&known) = self.lists.get(set) {
            return known;
        }
        for (low, high) in set.ranges() {
            self.parts.ranges.extend(low.to_le_bytes());
            self.parts.ranges.extend(high.to_le_bytes());
        }
        self.parts.lists.extend(((self.parts.ranges.len() / 16) as u32).to_le_bytes());
        let number = self.lists.len() as u32;
        self.lists.insert(set.clone(), number);
        number
    }

    /// The bytes. `defaults` are those of the directions, in their order. `names` are the class of undecidable names, and
    /// the label counts of listed ones.
    pub(crate) fn finish(
        self,
        [outbound, inbound, forward, listen, bind]: [u8; 5],
        options: u8,
        key: [u8; 16],
        roots: [u64; ROOTS],
        names: [u32; 2],
    ) -> Result<Vec<u8>, String> {
        let sections = self.parts.all();
        let length = sections
            .iter()
            .fold(HEADER_LENGTH, |sum, section| (sum + section.len()).next_multiple_of(SECTION_ALIGNMENT));
        let total = u32::try_from(length).map_err(|_| "the policy does not fit into an image of 4 GiB".to_owned())?;
        let mut image = Vec::with_capacity(length);
        image.resize(HEADER_LENGTH, 0);
        for (index, section) in sections.into_iter().enumerate() {
            let offset = image.len();
            image.extend_from_slice(&section);
            image.resize(image.len().next_multiple_of(SECTION_ALIGNMENT), 0);
            put(&mut image, SECTION_TABLE + index * 8, &(offset as u32).to_le_bytes());
            put(&mut image, SECTION_TABLE + index * 8 + 4, &(section.len() as u32).to_le_bytes());
        }
        put(&mut image, 0, &MAGIC);
        put(&mut image, 8, &VERSION.to_le_bytes());
        put(&mut image, 12, &total.to_le_bytes());
        put(&mut image, 32, &[outbound, inbound, forward, options, listen, bind]);
        put(&mut image, 40, &key);
        for (index, root) in roots.iter().enumerate() {
            put(&mut image, ROOT_TABLE + index * 8, &root.to_le_bytes());
        }
        put(&mut image, UNDECIDABLE, &names[0].to_le_bytes());
        put(&mut image, NAME_DEPTHS, &names[1].to_le_bytes());
        let checksum = crate::image::checksum(&image);
        put(&mut image, 16, &checksum);
        Ok(image)
    }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

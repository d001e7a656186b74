//! What is in an image, for people.

use crate::image::{Image, StableBytes, layers::Word, layout::*, table::u64_at};
use serde::Serialize;

/// An image laid open.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Its identity in hexadecimal.
    pub identity: String,
    /// Its length.
    pub bytes: usize,
    /// The layout's version.
    pub version: u32,
    /// What happens to outbound flows no rule matches.
    pub default_outbound: Said,
    /// What happens to inbound flows no rule matches.
    pub default_inbound: Said,
    /// The rules in order.
    pub rules: Vec<ShownRule>,
    /// The parts that are not empty.
    pub sections: Vec<ShownSection>,
}

/// What a rule or default says.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Said {
    /// `permit`, `block` or `drop`.
    pub action: &'static str,
    /// Hard or soft.
    pub hard: bool,
    /// Whether it is logged.
    pub log: bool,
}

/// A rule of an image.
#[derive(Clone, Debug, Serialize)]
pub struct ShownRule {
    /// Its name.
    pub name: String,
    /// What it says.
    #[serde(flatten)]
    pub said: Said,
    /// In how many cells it stands; none when it was disabled or out of its schedule, or never decides.
    pub entries: usize,
    /// How many conditions are checked one by one, because nothing else implies them.
    pub conditions: u8,
}

/// A part of an image.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ShownSection {
    /// Its name.
    pub name: &'static str,
    /// Its length.
    pub bytes: u32,
    /// How many records.
    pub records: u32,
}

/// Lays an image open.
#[must_use]
pub fn show<B: StableBytes>(image: &Image<B>) -> Shown {
    let bytes = image.as_bytes();
    let header = Header::read(bytes);
    let sections = header.sections;
    let mut entries = vec![0usize; image.rule_count() as usize];
    let words = sections.cells.of(bytes).as_chunks::<16>().0.iter().map(|cell| u64_at(cell, 8));
    let mut count = |word: u64| match Word::unpack(word) {
        Word::One { rule, .. } => {
            if let Some(count) = entries.get_mut(rule as usize) {
                *count += 1;
            }
            None
        }
        Word::List { first, count } => Some(first..first + count),
        Word::Empty => None,
    };
    for list in words.filter_map(&mut count).collect::<Vec<_>>() {
        for index in list {
            count(u64_at(sections.entries.of(bytes), index as usize * 8));
        }
    }
    let rules = entries.into_iter().enumerate().map(|(index, entries)| {
        let record = sections.rules.record(bytes, index as u32).map(RuleRecord::read).unwrap_or_default();
        let name = image.rule_name(index as u32).unwrap_or_default().to_owned();
        ShownRule { name, said: said(record.flags), entries, conditions: record.condition_count }
    });
    let parts = sections.all().into_iter().zip(SECTION_NAMES).zip(RECORD_SIZES);
    Shown {
        identity: image.identity().iter().map(|byte| format!("{byte:02x}")).collect(),
        bytes: bytes.len(),
        version: VERSION,
        default_outbound: said(header.defaults[0]),
        default_inbound: said(header.defaults[1]),
        rules: rules.collect(),
        sections: parts
            .filter(|((section, _), _)| section.length > 0)
            .map(|((section, name), size)| ShownSection {
                name,
                bytes: section.length,
                records: section.length / size as u32,
            })
            .collect(),
    }
}

fn said(flags: u8) -> Said {
    let action = match (flags & RULE_PERMIT != 0, flags & RULE_SILENT != 0) {
        (true, _) => "permit",
        (false, false) => "block",
        (false, true) => "drop",
    };
    Said { action, hard: flags & RULE_HARD != 0, log: flags & RULE_LOG != 0 }
}

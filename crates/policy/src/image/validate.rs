//! Accepts or refuses bytes, in time linear in their length and without allocating.

use super::{
    layout::*,
    table::{Section, u32_at},
};
use core::fmt;

/// Why bytes are not an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidImage {
    /// Shorter than a header, or not as long as the header says.
    Length,
    /// The first eight bytes are not an image's.
    Magic,
    /// Made by a compiler of another version.
    Version(u32),
    /// The checksum differs: damaged on its way.
    Checksum,
    /// A field holds what it must not.
    Field {
        /// The part of the image.
        section: &'static str,
        /// The record in it.
        index: u32,
        /// What must hold.
        rule: &'static str,
    },
}

impl fmt::Display for InvalidImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("the policy image is cut short or has bytes too many"),
            Self::Magic => f.write_str("these bytes are not a policy image"),
            Self::Version(found) => {
                write!(f, "the policy image has version {found}, version {VERSION} is expected: compile it again")
            }
            Self::Checksum => f.write_str("the policy image is damaged: its checksum differs"),
            Self::Field { section, index, rule } => {
                write!(f, "the policy image is malformed: {section}, record {index}: {rule}")
            }
        }
    }
}

impl core::error::Error for InvalidImage {}

/// The checksum an image carries: over everything behind it.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 16] {
    xxhash_rust::xxh3::xxh3_128(bytes.get(32..).unwrap_or(&[])).to_le_bytes()
}

fn field(section: &'static str, index: u32, rule: &'static str) -> InvalidImage {
    InvalidImage::Field { section, index, rule }
}

pub(super) fn validate(bytes: &[u8]) -> Result<Header, InvalidImage> {
    if bytes.get(..8).is_some_and(|magic| magic != MAGIC) {
        return Err(InvalidImage::Magic);
    }
    if bytes.len() < HEADER_LENGTH || bytes.len() as u64 != u64::from(u32_at(bytes, 12)) {
        return Err(InvalidImage::Length);
    }
    let version = u32_at(bytes, 8);
    if version != VERSION {
        return Err(InvalidImage::Version(version));
    }
    let header = Header::read(bytes);
    if header.checksum != checksum(bytes) {
        return Err(InvalidImage::Checksum);
    }
    sections(bytes, &header)?;
    if header.defaults.iter().any(|flags| flags & !RULE_FLAGS != 0) {
        return Err(field("defaults", 0, "only known flags are set"));
    }
    lists(bytes, &header)?;
    rules(bytes, &header)?;
    entries(bytes, &header)?;
    identifiers(bytes, &header)?;
    Ok(header)
}

/// Every section follows the one before it, on a boundary, in whole records.
fn sections(bytes: &[u8], header: &Header) -> Result<(), InvalidImage> {
    const SIZES: [usize; SECTIONS] =
        [RuleRecord::SIZE, 1, ConditionRecord::SIZE, 4, 16, Entry4::SIZE, Entry6::SIZE, 8, 8, 1];
    let mut end = HEADER_LENGTH as u64;
    for (index, (section, size)) in header.sections().into_iter().zip(SIZES).enumerate() {
        if u64::from(section.offset) != end {
            return Err(field("section table", index as u32, "sections follow each other"));
        }
        if section.length as usize % size != 0 {
            return Err(field("section table", index as u32, "whole records"));
        }
        end = (end + u64::from(section.length)).next_multiple_of(SECTION_ALIGNMENT as u64);
    }
    if end == bytes.len() as u64 { Ok(()) } else { Err(InvalidImage::Length) }
}

fn lists(bytes: &[u8], header: &Header) -> Result<(), InvalidImage> {
    let (lists, ranges) = (header.lists.of(bytes), header.ranges.of(bytes));
    let mut start = 0;
    for index in 0..header.lists.count::<4>() {
        let end = u32_at(lists, index as usize * 4);
        if end < start || end > header.ranges.count::<16>() {
            return Err(field("lists", index, "ends after its start and within the ranges"));
        }
        let mut last = None;
        for position in start..end {
            let (low, high) = range(ranges, position);
            if high < low || last.is_some_and(|last| low <= last) {
                return Err(field("ranges", position, "ascending and disjoint"));
            }
            last = Some(high);
        }
        start = end;
    }
    if start == header.ranges.count::<16>() { Ok(()) } else { Err(field("ranges", start, "belongs to a list")) }
}

fn rules(bytes: &[u8], header: &Header) -> Result<(), InvalidImage> {
    let names = header.rule_names.of(bytes);
    let (mut name_end, mut condition_end) = (0u32, 0u32);
    for index in 0..header.rules.count::<{ RuleRecord::SIZE }>() {
        let Some(record) = header.rules.record(bytes, index).map(RuleRecord::read) else {
            return Err(field("rules", index, "lies in the image"));
        };
        if record.name != name_end {
            return Err(field("rules", index, "names follow each other"));
        }
        name_end = name_end.saturating_add(u32::from(record.name_length));
        let name = names.get(record.name as usize..name_end as usize);
        if !name.is_some_and(|name| core::str::from_utf8(name).is_ok()) {
            return Err(field("rules", index, "the name is UTF-8"));
        }
        if record.flags & !RULE_FLAGS != 0 {
            return Err(field("rules", index, "only known flags are set"));
        }
        if record.conditions != condition_end {
            return Err(field("rules", index, "conditions follow each other"));
        }
        condition_end = condition_end.saturating_add(u32::from(record.condition_count));
    }
    if name_end != header.rule_names.length {
        return Err(field("rule names", name_end, "belongs to a rule"));
    }
    if condition_end != header.conditions.count::<{ ConditionRecord::SIZE }>() {
        return Err(field("conditions", condition_end, "belongs to a rule"));
    }
    for index in 0..condition_end {
        let record = header.conditions.record(bytes, index).map(ConditionRecord::read);
        if !record.is_some_and(|c| c.dimension < DIMENSION_LIMIT && c.list < header.lists.count::<4>()) {
            return Err(field("conditions", index, "names a dimension and a list"));
        }
    }
    Ok(())
}

fn entries(bytes: &[u8], header: &Header) -> Result<(), InvalidImage> {
    let rules = header.rules.count::<{ RuleRecord::SIZE }>();
    let tail = |tail: &EntryTail, bits: u8| {
        tail.rule < rules
            && tail.remote_length <= bits
            && tail.local_length <= bits
            && tail.flags & !(ENTRY_ANY_PROTOCOL | ENTRY_CONDITIONS) == 0
    };
    for index in 0..header.entries4.count::<{ Entry4::SIZE }>() {
        if !header.entries4.record(bytes, index).map(Entry4::read).is_some_and(|entry| tail(&entry.tail, 32)) {
            return Err(field("IPv4 entries", index, "names a rule, prefix lengths up to 32, known flags"));
        }
    }
    for index in 0..header.entries6.count::<{ Entry6::SIZE }>() {
        if !header.entries6.record(bytes, index).map(Entry6::read).is_some_and(|entry| tail(&entry.tail, 128)) {
            return Err(field("IPv6 entries", index, "names a rule, prefix lengths up to 128, known flags"));
        }
    }
    for (index, root) in header.roots.iter().enumerate() {
        let count = if index < 2 {
            header.entries4.count::<{ Entry4::SIZE }>()
        } else {
            header.entries6.count::<{ Entry6::SIZE }>()
        };
        if u64::from(root.first) + u64::from(root.count) > u64::from(count) {
            return Err(field("roots", index as u32, "lies in the entries"));
        }
    }
    Ok(())
}

fn identifiers(bytes: &[u8], header: &Header) -> Result<(), InvalidImage> {
    let mut end = 0;
    for (section, what) in [(header.applications, "applications"), (header.users, "users")] {
        end = identifier_table(section.of(bytes), section, what, end)?;
    }
    if end == header.strings.length { Ok(()) } else { Err(field("strings", end, "belongs to an identifier")) }
}

fn identifier_table(table: &[u8], section: Section, what: &'static str, mut start: u32) -> Result<u32, InvalidImage> {
    for index in 0..section.count::<8>() {
        let end = u32_at(table, index as usize * 8);
        if end < start {
            return Err(field(what, index, "ends after its start"));
        }
        start = end;
    }
    Ok(start)
}

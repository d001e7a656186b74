//! Accepts or refuses bytes, in time linear in their length and without allocating.

mod forest;
mod identifiers;
#[cfg(all(test, feature = "std"))]
mod slow_tests;
mod v4;
mod v6;

use super::{
    budget::{MOST_STEPS, in_list},
    layout::*,
    members::SETS,
    names,
    table::u32_at,
};
use crate::flow::ANSWER_SECONDS;
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
    /// The checksum differs: damaged in transit.
    Checksum,
    /// A decision could take more steps than allowed.
    Steps {
        /// How many.
        steps: u64,
        /// What most of them are spent on.
        part: SlowPart,
    },
    /// A field has an invalid value.
    Field {
        /// The part of the image.
        section: &'static str,
        /// The record in it.
        index: u32,
        /// What must hold.
        rule: &'static str,
    },
}

/// What a decision's steps are spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowPart {
    /// Finding the program of a flow.
    Programs,
    /// Finding the identities of a flow's owner.
    Identities,
    /// Finding the rule, with all the sets of identities that an owner can be in.
    Rules,
}

impl fmt::Display for SlowPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Programs => "to find its program",
            Self::Identities => "to find its owner's identities",
            Self::Rules => "to find its rule",
        })
    }
}

impl fmt::Display for InvalidImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("the policy image is truncated or too long"),
            Self::Magic => f.write_str("these bytes are not a policy image"),
            Self::Version(found) => {
                write!(f, "the policy image has version {found}, expected version {VERSION}: compile it again")
            }
            Self::Checksum => f.write_str("the policy image is damaged: its checksum differs"),
            Self::Steps { steps, part } => {
                write!(f, "the policy image could take {steps} steps to decide a flow, most of them {part}; ")?;
                write!(f, "{MOST_STEPS} are allowed")
            }
            Self::Field { section, index, rule } => {
                write!(f, "the policy image is malformed: {section}, record {index}: {rule}")
            }
        }
    }
}

impl core::error::Error for InvalidImage {}

/// The checksum of an image: over everything after it.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 16] {
    xxhash_rust::xxh3::xxh3_128(bytes.get(32..).unwrap_or(&[])).to_le_bytes()
}

/// Ok if the rule holds; otherwise an error that says which and where.
pub(super) fn require(holds: bool, section: &'static str, index: u32, rule: &'static str) -> Result<(), InvalidImage> {
    if holds { Ok(()) } else { Err(InvalidImage::Field { section, index, rule }) }
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
    let mut header = Header::read(bytes);
    if header.checksum != checksum(bytes) {
        return Err(InvalidImage::Checksum);
    }
    let sections = &header.sections;
    layout(bytes, sections)?;
    let known = header.defaults.iter().all(|flags| flags & !DEFAULT_FLAGS == 0);
    require(known, "defaults", 0, "only known flags are set")?;
    require(header.options & !OPTIONS == 0, "options", 0, "only known options are set")?;
    lists(bytes, sections)?;
    rules(bytes, sections)?;
    entries(bytes, sections)?;
    let search = forest::validate(bytes, &header)?;
    let [remote4, local4] = &header.shapes4;
    v4::validate(sections.remote4.of(bytes), remote4, "remote4")?;
    v4::validate(sections.local4.of(bytes), local4, "local4")?;
    v6::validate(sections.remote6.of(bytes), "remote6")?;
    v6::validate(sections.local6.of(bytes), "local6")?;
    name_tables(bytes, sections)?;
    let owner = identifiers::validate(bytes, sections)?;
    header.most_steps = most_steps(search, &owner)?;
    super::sources::validate(bytes, sections)?;
    Ok(header)
}

/// The most steps of a decision: the owner is looked up, and rules are searched for once for nobody and once for each
/// set that the owner is in.
fn most_steps(search: u64, owner: &identifiers::Owner) -> Result<u32, InvalidImage> {
    let rules = search.saturating_mul(1 + u64::from(owner.sets));
    let steps = rules.saturating_add(owner.program).saturating_add(owner.identities);
    if steps <= MOST_STEPS.into() {
        return Ok(steps as u32);
    }
    let part = if rules >= owner.program.max(owner.identities) {
        SlowPart::Rules
    } else if owner.program >= owner.identities {
        SlowPart::Programs
    } else {
        SlowPart::Identities
    };
    Err(InvalidImage::Steps { steps, part })
}

#[cfg(test)]
pub(crate) fn validate_v6(map: &[u8]) -> Result<(), InvalidImage> {
    v6::validate(map, "remote6")
}

/// Every section follows the previous one, on a boundary, in whole records, without gaps.
fn layout(bytes: &[u8], sections: &Sections) -> Result<(), InvalidImage> {
    let mut end = HEADER_LENGTH as u64;
    for ((section, size), name) in sections.all().into_iter().zip(RECORD_SIZES).zip(SECTION_NAMES) {
        require(u64::from(section.offset) == end, name, 0, "follows the previous section")?;
        require((section.length as usize).checked_rem(size) == Some(0), name, 0, "consists of whole records")?;
        end = (end + u64::from(section.length)).next_multiple_of(SECTION_ALIGNMENT as u64);
    }
    if end == bytes.len() as u64 { Ok(()) } else { Err(InvalidImage::Length) }
}

fn lists(bytes: &[u8], sections: &Sections) -> Result<(), InvalidImage> {
    let (lists, ranges) = (sections.lists.of(bytes), sections.ranges.of(bytes));
    let mut start = 0;
    for index in 0..sections.lists.count::<4>() {
        let end = u32_at(lists, index as usize * 4);
        require(end >= start && end <= sections.ranges.count::<16>(), "lists", index, "ends after its start")?;
        let mut last = None;
        for position in start..end {
            let (low, high) = range(ranges, position);
            let ascends = low <= high && last.is_none_or(|last| last < low);
            require(ascends, "ranges", position, "is above the previous range")?;
            last = Some(high);
        }
        start = end;
    }
    require(start == sections.ranges.count::<16>(), "ranges", start, "belongs to a list")
}

fn rules(bytes: &[u8], sections: &Sections) -> Result<(), InvalidImage> {
    let names = sections.rule_names.of(bytes);
    let (mut name_end, mut condition_end) = (0u32, 0u32);
    for index in 0..sections.rules.count::<{ RuleRecord::SIZE }>() {
        let record = sections.rules.record(bytes, index).map(RuleRecord::read).unwrap_or_default();
        require(record.name == name_end, "rules", index, "names follow each other")?;
        name_end = name_end.saturating_add(u32::from(record.name_length));
        let name = names.get(record.name as usize..name_end as usize);
        let readable = name.is_some_and(|name| core::str::from_utf8(name).is_ok());
        require(readable, "rules", index, "the name is UTF-8")?;
        require(record.flags & !RULE_FLAGS == 0, "rules", index, "only known flags are set")?;
        let asks = record.flags & RULE_ASKS != 0;
        let in_time = if asks { ANSWER_SECONDS.contains(&record.answer_seconds) } else { record.answer_seconds == 0 };
        require(in_time, "rules", index, "a rule that asks says how long an answer may take, and no other does")?;
        require(!asks || record.flags & RULE_SILENT == 0, "rules", index, "a rule that asks is not silent")?;
        require(record.conditions == condition_end, "rules", index, "conditions follow each other")?;
        condition_end = condition_end.saturating_add(u32::from(record.condition_count));
    }
    require(name_end == sections.rule_names.length, "rule_names", name_end, "belongs to a rule")?;
    let count = sections.conditions.count::<{ ConditionRecord::SIZE }>();
    require(condition_end == count, "conditions", condition_end, "belongs to a rule")?;
    condition_steps(bytes, sections)?;
    for index in 0..count {
        let holds = sections.conditions.record(bytes, index).map(ConditionRecord::read).is_some_and(|condition| {
            let of_user = condition.dimension == Dimension::User as u32;
            condition.dimension < DIMENSION_LIMIT
                && match condition.within {
                    Within::Range(low, high) if of_user => low == high && (1..=SETS as u32).contains(&low),
                    Within::List(_) if of_user => false,
                    Within::Range(low, high) => low <= high,
                    Within::List(list) => list < sections.lists.count::<4>(),
                }
        });
        require(holds, "conditions", index, "names a dimension and a range or list")?;
    }
    Ok(())
}

/// What is said of a rule's conditions is what they take when all of them are looked at.
fn condition_steps(bytes: &[u8], sections: &Sections) -> Result<(), InvalidImage> {
    for index in 0..sections.rules.count::<{ RuleRecord::SIZE }>() {
        let record = sections.rules.record(bytes, index).map(RuleRecord::read).unwrap_or_default();
        let steps = conditions_steps(bytes, sections, &record);
        require(record.steps == steps, "rules", index, "the steps are those of its conditions")?;
    }
    Ok(())
}

/// The steps of a rule's conditions.
pub(super) fn conditions_steps(bytes: &[u8], sections: &Sections, rule: &RuleRecord) -> u32 {
    let lists = sections.lists.of(bytes);
    let own = (0..u32::from(rule.condition_count)).map(|place| rule.conditions.saturating_add(place));
    let steps = own.map(|condition| match sections.conditions.record(bytes, condition).map(ConditionRecord::read) {
        Some(ConditionRecord { within: Within::List(list), .. }) => in_list(list_length(lists, list)),
        _ => 1,
    });
    steps.sum()
}

/// How many ranges a list has.
fn list_length(lists: &[u8], list: u32) -> u32 {
    let start = list.checked_sub(1).map_or(0, |before| u32_at(lists, before as usize * 4));
    u32_at(lists, list as usize * 4).wrapping_sub(start)
}

fn entries(bytes: &[u8], sections: &Sections) -> Result<(), InvalidImage> {
    let rules = sections.rules.count::<{ RuleRecord::SIZE }>();
    let sound = |tail: EntryTail, bits: u8| {
        tail.rule < rules
            && tail.remote_length <= bits
            && tail.local_length <= bits
            && tail.flags & !(ENTRY_ANY_PROTOCOL | ENTRY_CONDITIONS) == 0
    };
    const RULE: &str = "names a rule, prefix lengths of its family and known flags";
    for index in 0..sections.entries4.count::<{ Entry4::SIZE }>() {
        let entry = sections.entries4.record(bytes, index).map(Entry4::read);
        require(entry.is_some_and(|entry| sound(entry.tail, 32)), "entries4", index, RULE)?;
    }
    for index in 0..sections.entries6.count::<{ Entry6::SIZE }>() {
        let entry = sections.entries6.record(bytes, index).map(Entry6::read);
        require(entry.is_some_and(|entry| sound(entry.tail, 128)), "entries6", index, RULE)?;
    }
    Ok(())
}

/// Every hash of a name leads to a pilot, a place, a tag and a record that exist.
fn name_tables(bytes: &[u8], sections: &Sections) -> Result<(), InvalidImage> {
    let records = sections.name_records.count::<8>();
    let (filter, pilots) = (sections.name_filter.length, sections.name_pilots.length);
    let (lines, places) = (sections.name_tags.count::<{ names::LINE }>(), sections.name_places.of(bytes));
    if records == 0 {
        let none = filter == 0 && pilots == 0 && lines == 0 && places.is_empty();
        return require(none, "name_records", 0, "exist when names do");
    }
    require(filter != 0, "name_filter", 0, "exists when records do")?;
    require(pilots != 0, "name_pilots", 0, "exist when records do")?;
    require(lines != 0, "name_tags", 0, "exist when records do")?;
    if places.is_empty() {
        let inline = records <= names::INLINE_RECORDS;
        return require(inline, "name_places", 0, "exist only for more records than fit inline");
    }
    let all = u64::from(sections.name_places.count::<4>()) == u64::from(lines) * names::TAGS as u64;
    require(all, "name_places", 0, "one for each place")?;
    for (index, place) in places.as_chunks::<4>().0.iter().enumerate() {
        require(u32::from_le_bytes(*place) < records, "name_places", index as u32, "names a record")?;
    }
    Ok(())
}

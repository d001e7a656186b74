//! The contents of an image, for people.

use crate::flow::{Direction, Verdict};
use crate::image::{Image, StableBytes, layout::*};
use serde::Serialize;

/// The contents of an image.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Its identity in hexadecimal.
    pub identity: String,
    /// Its length.
    pub bytes: usize,
    /// The layout's version.
    pub version: u32,
    /// What happens to outbound flows that no rule matches.
    pub default_outbound: Said,
    /// What happens to inbound flows that no rule matches.
    pub default_inbound: Said,
    /// Whether essential traffic is beyond the defaults.
    pub essential: bool,
    /// What happens to forwarded packets no rule matches.
    pub default_forward: Said,
    /// What happens to ports that programs want to listen on, where no rule matches.
    pub default_listen: Said,
    /// What happens to ports that programs ask for, where no rule matches.
    pub default_bind: Said,
    /// Whether the IPv4 address inside a remote IPv6 one counts.
    pub embedded_ipv4: bool,
    /// Whether an address with names of several rules follows one that permits.
    pub shared_permit: bool,
    /// The rules in order.
    pub rules: Vec<ShownRule>,
    /// The parts that are not empty.
    pub sections: Vec<ShownSection>,
}

/// What a rule or default does.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Said {
    /// `permit`, `block`, `drop` or `ask`.
    pub action: &'static str,
    /// What holds without an answer, of a rule that asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_unanswered: Option<Verdict>,
    /// How many seconds an answer may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_within: Option<u8>,
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
    /// What it does.
    #[serde(flatten)]
    pub said: Said,
    /// How many entries it has; none when it was disabled or out of its schedule.
    pub entries: usize,
    /// How many conditions beyond addresses, ports and protocol.
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

/// Lists the contents of an image.
#[must_use]
pub fn show<B: StableBytes>(image: &Image<B>) -> Shown {
    let bytes = image.as_bytes();
    let header = Header::read(bytes);
    let sections = header.sections;
    let mut entries = vec![0usize; image.rule_count() as usize];
    let four = sections.entries4.of(bytes).as_chunks().0.iter().map(|entry| Entry4::read(entry).tail.rule);
    let six = sections.entries6.of(bytes).as_chunks().0.iter().map(|entry| Entry6::read(entry).tail.rule);
    for rule in four.chain(six) {
        if let Some(count) = entries.get_mut(rule as usize) {
            *count += 1;
        }
    }
    let rules = entries.into_iter().enumerate().map(|(index, entries)| {
        let record = sections.rules.record(bytes, index as u32).map(RuleRecord::read).unwrap_or_default();
        let name = image.rule_name(index as u32).unwrap_or_default().to_owned();
        let mut said = said(record.flags);
        if record.flags & RULE_ASKS != 0 {
            let unanswered = if record.flags & RULE_PERMIT != 0 { Verdict::Permit } else { Verdict::Block };
            said = Said {
                action: "ask",
                when_unanswered: Some(unanswered),
                answer_within: Some(record.answer_seconds),
                ..said
            };
        }
        ShownRule { name, said, entries, conditions: record.condition_count }
    });
    let default = |direction| said(header.default_of(direction));
    let parts = sections.all().into_iter().zip(SECTION_NAMES).zip(RECORD_SIZES);
    Shown {
        identity: image.identity().iter().map(|byte| format!("{byte:02x}")).collect(),
        bytes: bytes.len(),
        version: VERSION,
        default_outbound: default(Direction::Outbound),
        default_inbound: default(Direction::Inbound),
        essential: [Direction::Outbound, Direction::Inbound]
            .iter()
            .all(|one| header.default_of(*one) & DEFAULT_SPARES_ESSENTIAL != 0),
        default_forward: default(Direction::Forward),
        default_listen: default(Direction::Listen),
        default_bind: default(Direction::Bind),
        embedded_ipv4: header.options & OPTION_EMBEDDED != 0,
        shared_permit: header.options & OPTION_SHARED_PERMIT != 0,
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
    let (hard, log) = (flags & RULE_HARD != 0, flags & RULE_LOG != 0);
    Said { action, when_unanswered: None, answer_within: None, hard, log }
}

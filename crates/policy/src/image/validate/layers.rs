//! Layers lead to buckets that are there, cells to entries, entries to rules and signatures.

use super::{
    super::{
        layers::{LAYER, LAYERS, Word},
        layout::*,
        table::{record, u32_at, u64_at},
    },
    InvalidImage, require,
};

pub(super) fn validate(bytes: &[u8], header: &Header) -> Result<(), InvalidImage> {
    let sections = &header.sections;
    let layers = sections.layers.of(bytes);
    let count = sections.layers.count::<LAYER>();
    let all = header.layers[0] | header.layers[1];
    require(count <= LAYERS as u32 && count == all.count_ones(), "layers", count, "are as many as the header says")?;
    let slots = header.slots.get(..usize::from(header.slot_count));
    require(slots.is_some(), "slots", 0, "are at most eight")?;
    let mut end = 0;
    for (index, slot) in slots.unwrap_or(&[]).iter().enumerate() {
        let sound = usize::from(slot.dimension) < CLASSED && slot.stride >= 4 && slot.base >= end;
        require(sound, "slots", index as u32, "rows of a dimension of classes follow each other")?;
        end = slot.base;
    }
    require(end <= sections.rows.length, "rows", end, "are there")?;
    for (section, what) in [(sections.remote_ports, "remote_ports"), (sections.local_ports, "local_ports")] {
        pages(section.of(bytes), what)?;
    }
    let buckets = sections.cells.count::<{ super::super::layers::BUCKET }>();
    for index in 0..count {
        let Some(layer) = record::<LAYER>(layers, index) else { break };
        let end = u64::from(u32_at(layer, 4)) + u64::from(u32_at(layer, 8));
        require(u32_at(layer, 8) != 0 && end <= u64::from(buckets), "layers", index, "have buckets")?;
        for (at, slot) in slots.unwrap_or(&[]).iter().enumerate() {
            let how = u32_at(layer, 16 + at * 4);
            let (first, shift, bits) = (how & 0xffff, how >> 16 & 0xff, how >> 24);
            let sound = shift < 64 && bits <= 32 && (bits == 0 || first + bits <= u32::from(slot.stride) * 8);
            require(sound, "layers", index, "use parts that rows have")?;
        }
    }
    let entries = sections.entries.of(bytes);
    let rules = sections.rules.count::<{ RuleRecord::SIZE }>();
    let signatures = sections.signatures.count::<{ Signature::SIZE }>();
    let one = |rule: u32, signature: u32| rule < rules && signature < signatures;
    for (index, cell) in sections.cells.of(bytes).as_chunks::<16>().0.iter().enumerate() {
        let sound = match Word::unpack(u64_at(cell, 8)) {
            Word::Empty => true,
            Word::One { rule, signature, .. } => one(rule, signature),
            Word::List { first, count } => {
                u64::from(first) + u64::from(count) <= u64::from(sections.entries.count::<8>())
            }
        };
        require(sound, "cells", index as u32, "name a rule and a signature, or a list")?;
    }
    for (index, entry) in entries.as_chunks::<8>().0.iter().enumerate() {
        let sound = match Word::unpack(u64::from_le_bytes(*entry)) {
            Word::One { rule, signature, .. } => one(rule, signature),
            Word::Empty | Word::List { .. } => false,
        };
        require(sound, "entries", index as u32, "name a rule and a signature")?;
    }
    Ok(())
}

/// Every page that is named is there.
fn pages(section: &[u8], what: &'static str) -> Result<(), InvalidImage> {
    if section.is_empty() {
        return Ok(());
    }
    let numbers = section.as_chunks::<2>().0;
    let pages = numbers.len() / 256;
    for (index, number) in numbers.iter().take(256).enumerate() {
        let there = usize::from(u16::from_le_bytes(*number)) + 1 < pages;
        require(there, what, index as u32, "the page is there")?;
    }
    require(pages > 1 && numbers.len() % 256 == 0, what, 0, "are whole pages")
}

//! Makes bytes more like an image, so that a fuzzer comes further than their first mismatch.

use super::{
    budget::MOST_STEPS,
    forest::Word,
    layout::*,
    table::{Section, u64_at},
    validate::{checksum, conditions_steps},
};

/// Sets the magic, version, length and checksum, and what is said of the steps of rules and cuts. Too few bytes for a
/// header are left alone.
pub fn put_right(bytes: &mut [u8]) {
    if bytes.len() < HEADER_LENGTH {
        return;
    }
    let length = bytes.len() as u32;
    put(bytes, 0, &MAGIC);
    put(bytes, 8, &VERSION.to_le_bytes());
    put(bytes, 12, &length.to_le_bytes());
    let header = Header::read(bytes);
    let sections = &header.sections;
    for index in 0..sections.rules.of(bytes).len() / RuleRecord::SIZE {
        let record = sections.rules.record(bytes, index as u32).map(RuleRecord::read).unwrap_or_default();
        let steps = conditions_steps(bytes, sections, &record);
        put(bytes, sections.rules.offset as usize + index * RuleRecord::SIZE + 12, &steps.to_le_bytes());
    }
    let (roots4, roots6) = header.roots.split_at(ROOTS_V6);
    for (four, roots, forest, steps) in
        [(true, roots4, sections.forest4, sections.steps4), (false, roots6, sections.forest6, sections.steps6)]
    {
        let said = steps_of_cuts(bytes, sections, four, forest, roots);
        for (place, said) in said.into_iter().enumerate().take(steps.of(bytes).len() / 4) {
            put(bytes, steps.offset as usize + place * 4, &said.to_le_bytes());
        }
    }
    let sum = checksum(bytes);
    put(bytes, 16, &sum);
}

/// The steps of the cuts that the roots and the words of a forest are, if it is one.
fn steps_of_cuts(bytes: &[u8], sections: &Sections, four: bool, forest: Section, roots: &[u64]) -> Vec<u32> {
    let words: Vec<u64> = forest.of(bytes).as_chunks::<8>().0.iter().map(|word| u64_at(word, 0)).collect();
    let mut below = vec![0u32; words.len()];
    let entry = |index: u32| {
        let tail = if four {
            sections.entries4.record(bytes, index).map(|entry| Entry4::read(entry).tail)
        } else {
            sections.entries6.record(bytes, index).map(|entry| Entry6::read(entry).tail)
        };
        let tail = tail.filter(|tail| tail.flags & ENTRY_CONDITIONS != 0);
        let rule = tail.and_then(|tail| sections.rules.record(bytes, tail.rule)).map(RuleRecord::read);
        1 + rule.map_or(0, |rule| rule.steps)
    };
    let steps = |word: u64, below: &[u32]| match Word::unpack(word) {
        Word::Empty | Word::Least(_) => 1,
        // More entries than that are refused anyway.
        Word::Leaf { first, count } => {
            (0..count.min(MOST_STEPS)).map(|place| entry(first.wrapping_add(place))).fold(1, u32::saturating_add)
        }
        Word::Cut(cut) => {
            let children = (cut.base as usize).saturating_add(1 << cut.bits.min(24));
            let most = below.get(cut.base as usize..children).and_then(|all| all.iter().max()).copied().unwrap_or(0);
            let rest = if cut.rest { below.get(children).copied().unwrap_or(0) } else { 0 };
            most.saturating_add(rest).saturating_add(1)
        }
    };
    for index in (0..words.len()).rev() {
        below[index] = steps(words[index], &below);
    }
    let own = |(index, root): (usize, &u64)| (!roots[..index].contains(root)).then_some(*root);
    let all = roots.iter().enumerate().filter_map(own).chain(words.iter().copied());
    all.filter(|word| matches!(Word::unpack(*word), Word::Cut(_))).map(|word| steps(word, &below)).collect()
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    if let Some(old) = bytes.get_mut(at..at + new.len()) {
        old.copy_from_slice(new);
    }
}

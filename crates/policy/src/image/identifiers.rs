//! Maps an application's path to a class, and a SID to the list of its sets. The bytes decide: the hash only says where
//! to compare.
//!
//! A record is the end of its bytes among the strings, and a class: u32 each. A slot is a record's number plus one;
//! slots are probed one after the other from the hash's slot to the first empty one. A directory is stored with its
//! final backslash, and looked up by the lengths that directories have, longest first.

use super::{
    budget::{Budget, text},
    layout::Header,
    table::{Section, u32_at, u64_at},
};

/// The most slots that are probed for one identifier.
pub(crate) const RUN: u32 = 64;

/// A hash for distribution only; it decides nothing.
#[inline]
pub(crate) fn hash(key: [u64; 2], bytes: &[u8]) -> u32 {
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let (chunks, rest) = bytes.as_chunks::<16>();
    let mut state = key[0] ^ (bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut add = |chunk: &[u8; 16]| {
        state = fold(state ^ u64_at(chunk, 0), key[1] ^ u64_at(chunk, 8) ^ 0xd6e8_feb8_6659_fd93);
    };
    for chunk in chunks {
        add(chunk);
    }
    let mut last = [0; 16];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    add(&last);
    (fold(state, 0xff51_afd7_ed55_8ccd) >> 16) as u32
}

/// The table of one kind of identifier.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    slots: &'a [u8],
    records: &'a [u8],
    strings: &'a [u8],
    /// Where the first record's bytes begin.
    start: u32,
    key: [u64; 2],
}

impl<'a> Table<'a> {
    fn new(image: &'a [u8], header: &Header, slots: Section, records: Section, start: u32) -> Self {
        let strings = header.sections.strings.of(image);
        Self { slots: slots.of(image), records: records.of(image), strings, start, key: header.key }
    }

    /// The class of exactly these bytes.
    #[inline]
    fn find(&self, wanted: &[u8], budget: &mut Budget) -> Option<u32> {
        let steps = text(wanted.len() as u32);
        if !budget.spend(steps) {
            return None;
        }
        let count = (self.slots.len() / 4) as u32;
        let mut slot = ((u64::from(hash(self.key, wanted)) * u64::from(count)) >> 32) as u32;
        for _ in 0..RUN.min(count) {
            let record = u32_at(self.slots, slot as usize * 4).checked_sub(1)? as usize * 8;
            let begin = if record == 0 { self.start } else { u32_at(self.records, record - 8) };
            let end = u32_at(self.records, record);
            let record_bytes = self.strings.get(begin as usize..end as usize).unwrap_or(&[]);
            // Bytes are compared only where there are as many of them.
            let compared = record_bytes.len() == wanted.len();
            if !budget.spend(1 + if compared { steps } else { 0 }) {
                return None;
            }
            if compared && record_bytes == wanted {
                return Some(u32_at(self.records, record + 4));
            }
            slot = if slot + 1 >= count { 0 } else { slot + 1 };
        }
        None
    }
}

/// The class of an application's path.
pub(super) fn application(image: &[u8], header: &Header, path: &[u8], budget: &mut Budget) -> u32 {
    let sections = &header.sections;
    let table = Table::new(image, header, sections.application_slots, sections.application_records, 0);
    if let Some(class) = table.find(path, budget) {
        return class;
    }
    let lengths = sections.directory_lengths.of(image);
    if !budget.spend((lengths.len() / 4) as u32) {
        return 0;
    }
    for index in 0..lengths.len() / 4 {
        let length = u32_at(lengths, index * 4) as usize;
        if let Some(directory) = path.get(..length)
            && directory.ends_with(&[b'\\', 0])
            && let Some(class) = table.find(directory, budget)
        {
            return class;
        }
    }
    0
}

/// The list of an identity's sets, its number plus one; 0 for none.
pub(super) fn user(image: &[u8], header: &Header, sid: &[u8], budget: &mut Budget) -> u32 {
    let sections = &header.sections;
    let applications = sections.application_records.of(image);
    let start = applications.len().checked_sub(8).map_or(0, |last| u32_at(applications, last));
    Table::new(image, header, sections.user_slots, sections.user_records, start).find(sid, budget).unwrap_or(0)
}

//! Tables of programs and identities name what is there, and looking something up in them takes few steps.

use super::{
    super::{
        budget::{LONGEST_PATH, LONGEST_SID, MOST_SIDS, look_up, text},
        identifiers::RUN,
        layout::*,
        members::SETS,
        table::{Section, u32_at},
    },
    InvalidImage, require,
};

/// What looking up the owner of a flow takes, and what may have to be searched for after it.
pub(super) struct Owner {
    /// The most steps of looking up a program.
    pub(super) program: u64,
    /// The most steps of looking up a token's SIDs.
    pub(super) identities: u64,
    /// How many sets of identities somebody can be in.
    pub(super) sets: u32,
}

pub(super) fn validate(bytes: &[u8], sections: &Sections) -> Result<Owner, InvalidImage> {
    let programs =
        Table::validate(bytes, sections.application_slots, sections.application_records, "application_records", 0)?;
    let users = Table::validate(bytes, sections.user_slots, sections.user_records, "user_records", programs.end)?;
    require(users.end == sections.strings.length, "strings", users.end, "belongs to a record")?;
    let (in_sets, sets) = memberships(bytes, sections)?;
    // A token's SIDs are told once each, and of a SID that no record names nothing but its hash is looked at.
    let each = u64::from(look_up(LONGEST_SID, users.run));
    let identities = if users.run == 0 { 0 } else { (u64::from(MOST_SIDS) + 1) * each + in_sets };
    let program = if programs.run == 0 { 0 } else { program(bytes, sections, &programs)? };
    Ok(Owner { program, identities, sets: if users.run == 0 { 0 } else { sets } })
}

/// The most steps of looking up a path and the directories it lies in.
fn program(bytes: &[u8], sections: &Sections, programs: &Table) -> Result<u64, InvalidImage> {
    let lengths = sections.directory_lengths.of(bytes).as_chunks().0;
    let descend = lengths.is_sorted_by(|a, b| u32::from_le_bytes(*a) > u32::from_le_bytes(*b));
    require(descend, "directory_lengths", 0, "descend")?;
    // A path is hashed whatever its length; only one that is as long as a record's is compared with it.
    let whole = u64::from(text(LONGEST_PATH)) + u64::from(look_up(programs.longest, programs.run));
    let each = |length: &[u8; 4]| 1 + u64::from(look_up(u32::from_le_bytes(*length).min(LONGEST_PATH), programs.run));
    Ok(lengths.iter().map(each).fold(whole, u64::saturating_add))
}

/// A table that was looked through.
struct Table {
    /// Where the bytes of its last record end.
    end: u32,
    /// The bytes of its longest record.
    longest: u32,
    /// The most slots that are tried for one identifier.
    run: u32,
}

impl Table {
    fn validate(
        bytes: &[u8],
        slots: Section,
        records: Section,
        what: &'static str,
        start: u32,
    ) -> Result<Self, InvalidImage> {
        let table = records.of(bytes);
        let (mut end, mut longest) = (start, 0);
        for index in 0..records.count::<8>() {
            let next = u32_at(table, index as usize * 8);
            require(next >= end, what, index, "ends behind its start")?;
            longest = longest.max(next - end);
            end = next;
        }
        let (mut run, mut most, mut first) = (0u32, 0, None);
        for (index, slot) in slots.of(bytes).as_chunks::<4>().0.iter().enumerate() {
            let record = u32::from_le_bytes(*slot);
            require(record <= records.count::<8>(), what, index as u32, "the slot names a record")?;
            if record == 0 {
                first = first.or(Some(run));
                run = 0;
            } else {
                run += 1;
                most = most.max(run);
            }
        }
        // Behind the last slot comes the first, and an empty one is looked at too.
        let most = most.max(run.saturating_add(first.unwrap_or(0)));
        let run = if slots.length == 0 { 0 } else { most.saturating_add(1).min(RUN) };
        Ok(Self { end, longest, run })
    }
}

/// Every identity is in a list of sets that there can be. Returns the most sets that are counted for a token, an identity
/// after the other, and how many different ones there are.
fn memberships(bytes: &[u8], sections: &Sections) -> Result<(u64, u32), InvalidImage> {
    let (records, lists, ranges) =
        (sections.user_records.of(bytes), sections.lists.of(bytes), sections.ranges.of(bytes));
    let (mut all, mut most, mut sets) = (0u64, 0u64, [0u64; SETS / 64]);
    for index in 0..sections.user_records.count::<8>() {
        let list = u32_at(records, index as usize * 8 + 4) as usize;
        let named = (1..=lists.len() / 4).contains(&list);
        require(named, "user_records", index, "names a list of sets")?;
        let first = if list <= 1 { 0 } else { u32_at(lists, (list - 2) * 4) };
        // The ranges of a list ascend, so that the last says of all.
        let last = u32_at(lists, list.wrapping_sub(1) * 4);
        let within = last == first || range(ranges, last.wrapping_sub(1)).1 < SETS as u64;
        require(within, "user_records", index, "is in sets that there can be")?;
        let mut own = 0;
        for place in first..last {
            let (low, high) = range(ranges, place);
            own += high - low + 1;
            for set in low..=high {
                if let Some(word) = sets.get_mut(set as usize / 64) {
                    *word |= 1 << (set % 64);
                }
            }
        }
        (all, most) = (all.saturating_add(own), most.max(own));
    }
    let sets = sets.iter().map(|word| word.count_ones()).sum();
    // A user may be told alone and again among the SIDs of its token.
    Ok((all.min(most.saturating_mul(MOST_SIDS.into())).saturating_add(most), sets))
}

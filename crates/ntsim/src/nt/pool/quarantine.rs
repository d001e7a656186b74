//! Freed blocks, kept for a while.

use super::Entry;
use crate::cpu;
use std::collections::VecDeque;

/// The most bytes and blocks kept.
const MOST_BYTES: usize = 4 << 20;
const MOST_BLOCKS: usize = 4096;

/// The freed blocks of one machine, oldest first.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    freed: VecDeque<(Entry, u64)>,
    bytes: usize,
}

impl Quarantine {
    /// Takes a block in. When an older one that leaves for it was written to meanwhile: its address and description.
    pub(super) fn put(&mut self, entry: Entry, freed_by: u64) -> Option<(u64, String)> {
        entry.memory.spoil();
        self.bytes += entry.memory.size();
        self.freed.push_back((entry, freed_by));
        let mut spoiled = None;
        while self.bytes > MOST_BYTES || self.freed.len() > MOST_BLOCKS {
            let Some((old, by)) = self.freed.pop_front() else { break };
            self.bytes -= old.memory.size();
            if !old.memory.is_unspoiled() {
                spoiled = Some((old.memory.address() as u64, describe(&old, by)));
            }
        }
        spoiled
    }

    /// Looks at every block kept: the address and description of one that was written to after it was freed.
    pub(super) fn inspect(&self) -> Option<(u64, String)> {
        let found = self.freed.iter().find(|(entry, _)| !entry.memory.is_unspoiled());
        found.map(|(entry, by)| (entry.memory.address() as u64, describe(entry, *by)))
    }

    /// The block that began at `address` when it was freed last.
    pub(super) fn find(&self, address: u64) -> Option<String> {
        let found = self.freed.iter().rev().find(|(entry, _)| entry.memory.address() as u64 == address);
        found.map(|(entry, by)| describe(entry, *by))
    }

    /// The block `address` is in.
    pub(super) fn find_extent(&self, address: u64) -> Option<String> {
        let found = self.freed.iter().rev().find(|(entry, _)| entry.memory.extent().contains(&address));
        found.map(|(entry, by)| describe(entry, *by))
    }
}

fn describe(entry: &Entry, freed_by: u64) -> String {
    format!("{} and freed by {}", entry.describe(), cpu::frame_of(freed_by))
}

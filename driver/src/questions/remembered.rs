//! Answers for the life of a process. Readers take no lock; writers hold the table's.

use core::sync::atomic::{AtomicU64, Ordering};

use sluice_policy::Verdict;
use sluice_protocol::ask::MAX_REMEMBERED;

/// One answer.
struct Entry {
    /// The process and the verdict; 0 where there is none. Written last.
    who: AtomicU64,
    /// The tag of the rules that it is for.
    tag: AtomicU64,
}

/// All of them.
pub(super) struct Remembered([Entry; MAX_REMEMBERED]);

const PERMIT: u64 = 1;
const BLOCK: u64 = 2;
const VERDICT_BITS: u32 = 2;

const fn who(process_id: u32, verdict: Verdict) -> u64 {
    let verdict = match verdict {
        Verdict::Permit => PERMIT,
        Verdict::Block => BLOCK,
    };
    (process_id as u64) << VERDICT_BITS | verdict
}

impl Remembered {
    pub(super) const fn new() -> Self {
        Self([const { Entry { who: AtomicU64::new(0), tag: AtomicU64::new(0) } }; MAX_REMEMBERED])
    }

    /// The answer for a process to what rules of this tag ask. Any IRQL.
    pub(super) fn verdict(&self, process_id: u32, tag: u64) -> Option<Verdict> {
        self.0.iter().find_map(|entry| {
            let found = entry.who.load(Ordering::SeqCst);
            let same = process_id != 0
                && found >> VERDICT_BITS == u64::from(process_id)
                && entry.tag.load(Ordering::SeqCst) == tag
                // Not another's by now.
                && entry.who.load(Ordering::SeqCst) == found;
            same.then_some(if found & BLOCK == 0 { Verdict::Permit } else { Verdict::Block })
        })
    }

    /// Remembers an answer; false without room, or for a process that is not known. The table is locked.
    pub(super) fn add(&self, process_id: u32, tag: u64, verdict: Verdict) -> bool {
        let is = |entry: &&Entry| {
            entry.who.load(Ordering::SeqCst) >> VERDICT_BITS == u64::from(process_id)
                && entry.tag.load(Ordering::SeqCst) == tag
        };
        let free = || self.0.iter().find(|entry| entry.who.load(Ordering::SeqCst) == 0);
        let Some(entry) = self.0.iter().find(is).or_else(free).filter(|_| process_id != 0) else { return false };
        entry.tag.store(tag, Ordering::SeqCst);
        entry.who.store(who(process_id, verdict), Ordering::SeqCst);
        true
    }

    /// Forgets what was answered for a process. The table is locked.
    pub(super) fn forget(&self, process_id: u32) {
        for entry in &self.0 {
            if entry.who.load(Ordering::SeqCst) >> VERDICT_BITS == u64::from(process_id) {
                entry.who.store(0, Ordering::SeqCst);
            }
        }
    }

    /// Forgets everything. Nobody reads.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(|entry| entry.who.store(0, Ordering::SeqCst));
    }
}

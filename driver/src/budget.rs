//! How many events one source may cause per second, so that nobody who can cause decisions can flush the log.
//!
//! A source is the other end of an inbound conversation (an IPv4 address, an IPv6 /64) or the process of an outbound
//! one. Sources are spread over a fixed number of budgets by hash, so two sources may share one; all together, real or
//! spoofed, stay below [`REMOTE`] + [`LOCAL`] times [`PER_SECOND`] events a second. Nothing is allocated, and only
//! decisions that are to be recorded touch a budget.
//!
//! A budget belongs to all processors, or a source that comes to each of them would have as many. It is written to at
//! most [`PER_SECOND`] + 1 times a second: whoever finds it used up only reads it, and counts for its own processor.

use core::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use kernel::{
    irql::AtDispatch,
    processor::{Padded, SLOTS},
};

/// How many events a budget holds for each second.
pub(crate) const PER_SECOND: u32 = 32;
/// How many budgets remote sources share. When all are used up, that is 1024 events a second: a sixteenth of the rings
/// together.
const REMOTE: usize = 32;
/// How many budgets local processes share.
const LOCAL: usize = 32;
const ALL: usize = REMOTE + LOCAL;

/// Who caused a decision.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// The other end of an inbound conversation, or of an outbound one whose process is not known.
    Remote(IpAddr),
    /// A process of this machine.
    Process(u32),
}

/// Every budget.
pub(crate) struct Budgets {
    /// The second in the upper half; in the lower the number of events requested in it, [`PER_SECOND`] + 1 at most.
    spent: [AtomicU64; ALL],
    /// How many decisions each processor has refused for each budget. Processors beyond [`SLOTS`] share cells.
    refused: [Padded<[AtomicU64; ALL]>; SLOTS],
    /// How many of them an event has told of.
    told: [AtomicU64; ALL],
}

/// A budget's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    /// Record the event; this many were refused before it that no event has told of.
    Within { refused_before: u32 },
    /// The budget is used up.
    Beyond,
}

impl Budgets {
    pub(crate) const fn new() -> Self {
        Self {
            spent: [const { AtomicU64::new(0) }; ALL],
            refused: [const { Padded([const { AtomicU64::new(0) }; ALL]) }; SLOTS],
            told: [const { AtomicU64::new(0) }; ALL],
        }
    }

    /// Takes one event from the source's budget, at `time` in 100 ns.
    pub(crate) fn spend(&self, dispatch: &AtDispatch, source: Source, time: u64) -> Spent {
        let second = (time / 10_000_000) as u32;
        let place = place(source);
        // The index is below the number of budgets, so there is always one.
        let Some(spent) = self.spent.get(place) else { return Spent::Beyond };
        let mut word = spent.load(Ordering::Relaxed);
        loop {
            let (then, asked) = ((word >> 32) as u32, word as u32);
            // The clocks of two processors can differ by a little.
            let same = then >= second;
            if same && asked > PER_SECOND {
                return self.refuse(dispatch, place);
            }
            let new = if same { word + 1 } else { u64::from(second) << 32 | 1 };
            match spent.compare_exchange_weak(word, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) if same && asked == PER_SECOND => return self.refuse(dispatch, place),
                Ok(_) if !same && asked > PER_SECOND => return Spent::Within { refused_before: self.untold(place) },
                Ok(_) => return Spent::Within { refused_before: 0 },
                Err(now) => word = now,
            }
        }
    }

    fn refuse(&self, dispatch: &AtDispatch, place: usize) -> Spent {
        let own = self.refused.get(dispatch.processor() % SLOTS).and_then(|Padded(cells)| cells.get(place));
        if let Some(own) = own {
            own.fetch_add(1, Ordering::Relaxed);
        }
        Spent::Beyond
    }

    /// How many were refused that no event has told of, as many as a record can say; the caller's event tells of them.
    fn untold(&self, place: usize) -> u32 {
        let cells = self.refused.iter().filter_map(|Padded(cells)| cells.get(place));
        let all: u64 = cells.map(|cell| cell.load(Ordering::Relaxed)).sum();
        let before = self.told.get(place).map_or(all, |told| told.fetch_max(all, Ordering::Relaxed));
        u32::try_from(all.saturating_sub(before)).unwrap_or(u32::MAX)
    }
}

fn place(source: Source) -> usize {
    let mix = |bits: u64| (bits.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize;
    match source {
        Source::Remote(IpAddr::V4(address)) => mix(u64::from(u32::from(address))) % REMOTE,
        Source::Remote(IpAddr::V6(address)) => mix((u128::from(address) >> 64) as u64) % REMOTE,
        Source::Process(id) => REMOTE + mix(u64::from(id)) % LOCAL,
    }
}

//! How many events one source may cause per second, so that nobody who can cause decisions can flush the log.
//!
//! A source is the other end of an inbound conversation (an IPv4 address, an IPv6 /64) or the process of an outbound
//! one. Sources are spread over a fixed number of budgets by hash, so two sources may share one; all together, real or
//! spoofed, stay below [`REMOTE`] + [`LOCAL`] times [`PER_SECOND`] events a second. Nothing is allocated, and only
//! decisions that are to be recorded touch a budget.

use core::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

/// How many events a budget holds for each second.
pub(crate) const PER_SECOND: u32 = 32;
/// How many budgets remote sources share. When all are used up, that is 1024 events a second, a quarter of the ring.
const REMOTE: usize = 32;
/// How many budgets local processes share.
const LOCAL: usize = 32;

/// Who caused a decision.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// The other end of an inbound conversation, or of an outbound one whose process is not known.
    Remote(IpAddr),
    /// A process of this machine.
    Process(u32),
}

/// Every budget: the second in the upper half, and the number of events requested in that second.
pub(crate) struct Budgets([AtomicU64; REMOTE + LOCAL]);

/// A budget's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    /// Record the event; this many were refused in the last second in which the budget was used.
    Within { refused_before: u32 },
    /// The budget is used up.
    Beyond,
}

impl Budgets {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; REMOTE + LOCAL])
    }

    /// Takes one event from the source's budget, at `time` in 100 ns. Any IRQL.
    pub(crate) fn spend(&self, source: Source, time: u64) -> Spent {
        let second = (time / 10_000_000) as u32;
        // The index is below the number of budgets, so there is always one.
        let Some(budget) = self.0.get(place(source)) else { return Spent::Beyond };
        let mut word = budget.load(Ordering::Relaxed);
        loop {
            let (then, asked) = ((word >> 32) as u32, word as u32);
            let (asked, answer) = if then == second {
                let asked = asked.saturating_add(1);
                (asked, if asked <= PER_SECOND { Spent::Within { refused_before: 0 } } else { Spent::Beyond })
            } else {
                (1, Spent::Within { refused_before: asked.saturating_sub(PER_SECOND) })
            };
            let new = u64::from(second) << 32 | u64::from(asked);
            match budget.compare_exchange_weak(word, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return answer,
                Err(now) => word = now,
            }
        }
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

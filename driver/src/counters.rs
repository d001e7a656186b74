//! What was decided and seen, counted per processor so that processors never wait for each other's cache lines.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::processor::{self, Padded, SLOTS};
use sluice_protocol::status::{Counter, Counters};

/// Every counter, once per processor slot.
pub(crate) struct PerProcessor([Padded<[AtomicU64; Counter::COUNT]>; SLOTS]);

impl PerProcessor {
    pub(crate) const fn new() -> Self {
        Self([const { Padded([const { AtomicU64::new(0) }; Counter::COUNT]) }; SLOTS])
    }

    /// Adds to one counter. Any IRQL.
    pub(crate) fn add(&self, counter: Counter, amount: u64) {
        // The slot is below SLOTS and a counter's number below COUNT, so nothing can be out of range.
        if let Some(cell) = self.0.get(processor::slot()).and_then(|Padded(cells)| cells.get(counter as usize)) {
            cell.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// The sums. Counters that change meanwhile may be from slightly different moments.
    pub(crate) fn sums(&self) -> Counters {
        let mut sums = Counters::default();
        for &(counter, _) in Counter::ALL {
            let cells = self.0.iter().filter_map(|Padded(cells)| cells.get(counter as usize));
            *sums.get_mut(counter) = cells.map(|cell| cell.load(Ordering::Relaxed)).sum();
        }
        sums
    }
}

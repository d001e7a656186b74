//! What was decided and seen, counted per processor so that processors never wait for each other's cache lines. What
//! living flows have carried is in the flows.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::{
    irql::AtDispatch,
    processor::{Padded, SLOTS},
    wfp::{FlowSet, Way},
};
use sluice_protocol::status::{Counter, Counters};

use crate::flow::FlowState;

type Cells = [AtomicU64; Counter::COUNT];

/// Every counter, once per processor.
pub(crate) struct PerProcessor {
    own: [Padded<Cells>; SLOTS],
    /// Processors beyond this many share cells.
    shared: Cells,
}

impl PerProcessor {
    pub(crate) const fn new() -> Self {
        Self {
            own: [const { Padded([const { AtomicU64::new(0) }; Counter::COUNT]) }; SLOTS],
            shared: [const { AtomicU64::new(0) }; Counter::COUNT],
        }
    }

    /// Adds to one counter. At DISPATCH_LEVEL nothing else runs on the processor, so its own cell needs no locked
    /// instruction.
    pub(crate) fn add(&self, dispatch: &AtDispatch, counter: Counter, amount: u64) {
        match self.own.get(dispatch.processor()).and_then(|Padded(cells)| cells.get(counter as usize)) {
            Some(cell) => cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed),
            None => {
                if let Some(cell) = self.shared.get(counter as usize) {
                    cell.fetch_add(amount, Ordering::Relaxed);
                }
            }
        }
    }

    /// Adds 1 to one counter, away from the hot path. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn count(&self, counter: Counter) {
        self.add(&AtDispatch::raise(), counter, 1);
    }

    /// Adds what a flow has carried that is no more. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn add_traffic(&self, flow: &FlowState) {
        let dispatch = AtDispatch::raise();
        for (counter, amount) in carried(flow) {
            self.add(&dispatch, counter, amount);
        }
    }

    /// The sums, with what `flows` have carried so far. Counters that change meanwhile may be from slightly different
    /// moments: what a flow has carried that ends just now may be missing. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn sums(&self, flows: &'static FlowSet<FlowState>) -> Counters {
        let mut sums = Counters::default();
        for &(counter, _) in Counter::ALL {
            let cells = self.own.iter().map(|Padded(cells)| cells).chain([&self.shared]);
            let values = cells.filter_map(|cells| cells.get(counter as usize));
            *sums.get_mut(counter) = values.map(|cell| cell.load(Ordering::Relaxed)).sum();
        }
        flows.for_each(|flow| {
            for (counter, amount) in carried(flow) {
                let sum = sums.get_mut(counter);
                *sum = sum.saturating_add(amount);
            }
        });
        sums
    }
}

/// What a flow has carried, by the counters of all flows.
fn carried(flow: &FlowState) -> [(Counter, u64); 4] {
    let [sent, received] = [Way::Out, Way::In].map(|way| flow.carried(way));
    [
        (Counter::PacketsOut, sent.packets),
        (Counter::BytesOut, sent.bytes),
        (Counter::PacketsIn, received.packets),
        (Counter::BytesIn, received.bytes),
    ]
}

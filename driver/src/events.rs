//! Decisions on their way to whoever reads them.
//!
//! A decision is pushed into a bounded ring and never waits: a full ring drops it and counts that. Readers wait in a
//! manual queue; a DPC hands them what the ring holds. The hot path queues that DPC only when somebody armed it, once
//! per batch.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kernel::{
    ring::Ring,
    spin::SpinLock,
    status::{NtResult, NtStatus},
    time,
    wdf::{ControlDevice, Dpc, ManualQueue, Request, Routine},
};
use sluice_protocol::{Event, status::Counter};
use zerocopy::IntoBytes;

use crate::{SLUICE, device::Device};

/// How many events wait for a reader: 1 MiB of them.
const CAPACITY: usize = 4096;
const WORDS: usize = size_of::<Event>() / 8;

type Words = [u64; WORDS];

/// The ring and those who wait for it.
pub(crate) struct Events {
    ring: Ring<CAPACITY, WORDS>,
    sequence: AtomicU64,
    readers: ManualQueue,
    delivery: Dpc,
    /// A reader waits and the ring was empty: the next event must queue the DPC.
    armed: AtomicBool,
    /// Held by the one DPC that delivers, so that events reach readers in order.
    delivering: SpinLock<()>,
}

impl Events {
    pub(crate) const fn new() -> Self {
        Self {
            ring: Ring::new(),
            sequence: AtomicU64::new(0),
            readers: ManualQueue::new(),
            delivery: Dpc::new(),
            armed: AtomicBool::new(false),
            delivering: SpinLock::new(()),
        }
    }

    /// Creates the queue and the DPC. PASSIVE_LEVEL.
    pub(crate) fn start(&self, device: &ControlDevice<Device>) -> NtResult<()> {
        self.readers.create(device)?;
        self.delivery.create::<Deliver, _>(device)
    }

    /// Undoes `start`, before the device is deleted; readers still waiting are cancelled with it. PASSIVE_LEVEL.
    pub(crate) fn stop(&self) {
        self.delivery.forget();
        self.readers.forget();
    }

    /// Numbers, stamps and stores a decision. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn record(&self, mut event: Event) {
        event.sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        event.time = time::system_time();
        let words: Words = zerocopy::transmute!(event);
        if !self.ring.push(&words) {
            SLUICE.counters.add(Counter::EventsDropped, 1);
            return;
        }
        SLUICE.counters.add(Counter::EventsWritten, 1);
        if self.armed.load(Ordering::SeqCst) && self.armed.swap(false, Ordering::SeqCst) {
            self.delivery.queue();
        }
    }

    /// Lets a read wait for events. PASSIVE_LEVEL.
    pub(crate) fn wait(&self, mut request: Request) {
        match request.output(size_of::<Event>()) {
            Ok(_) => {
                self.readers.add(request);
                self.delivery.queue();
            }
            Err(_) => request.complete(NtStatus::BUFFER_TOO_SMALL),
        }
    }

    /// Hands waiting readers what there is. DISPATCH_LEVEL.
    fn deliver(&self) {
        let _one_at_a_time = self.delivering.lock();
        loop {
            if self.ring.is_empty() {
                self.armed.store(true, Ordering::SeqCst);
                // An event that came before the flag was up would wait for the next one: look again.
                if self.ring.is_empty() || !self.armed.swap(false, Ordering::SeqCst) {
                    return;
                }
            }
            let Some(request) = self.readers.take() else { return };
            self.fill(request);
        }
    }

    /// Answers one read with as many events as fit.
    fn fill(&self, mut request: Request) {
        let written = request.output(size_of::<Event>()).map(|mut output| {
            while output.room() >= size_of::<Event>() {
                let Some(words) = self.ring.pop() else { break };
                output.push(words.as_bytes());
            }
            output.written()
        });
        match written {
            Ok(written) => request.complete_with(written),
            Err(status) => request.complete(status),
        }
    }
}

/// The delivery DPC.
struct Deliver;

impl Routine for Deliver {
    fn run() {
        SLUICE.events.deliver();
    }
}

//! Decisions on their way to their readers.
//!
//! Recorded are decisions whose rule or default says `log`, as far as the budget of their source allows
//! ([`crate::budget`]), and every decision while a reader asks for all. A recorded decision is pushed into a bounded
//! ring and never waits: a full ring refuses it. The next record that fits says how many were refused; when a reader
//! has emptied the ring, a record that says only that. Readers wait in a manual queue; a DPC completes them with what
//! the ring holds. The hot path queues that DPC only when it is armed, once per batch.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use kernel::{
    irql::AtDispatch,
    ring::Ring,
    spin::SpinLock,
    status::{NtResult, NtStatus},
    time,
    wdf::{ControlDevice, Dpc, FileId, ManualQueue, Request, Routine},
};
use sluice_protocol::{Event, ioctl::MAX_RECORD_ALL, status::Counter};
use zerocopy::IntoBytes;

use crate::{
    SLUICE,
    budget::{Budgets, Source, Spent},
    device::Device,
};

/// How many events the ring holds: 1 MiB.
const CAPACITY: usize = 4096;
const WORDS: usize = size_of::<Event>() / 8;

type Words = [u64; WORDS];

/// The ring and those who wait for it.
pub(crate) struct Events {
    ring: Ring<CAPACITY, WORDS>,
    /// Events that the ring refused and no record has reported yet.
    lost: AtomicU64,
    budgets: Budgets,
    /// The files that asked for every decision; 0 is a free slot.
    watchers: [AtomicUsize; MAX_RECORD_ALL],
    /// Whether there is any.
    watched: AtomicBool,
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
            lost: AtomicU64::new(0),
            budgets: Budgets::new(),
            watchers: [const { AtomicUsize::new(0) }; MAX_RECORD_ALL],
            watched: AtomicBool::new(false),
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

    /// Records every decision until `file` is closed. PASSIVE_LEVEL.
    ///
    /// # Errors
    /// STATUS_DEVICE_BUSY when too many files have asked.
    pub(crate) fn watch(&self, file: FileId) -> NtResult<()> {
        let id = file.get();
        if !self.watchers.iter().any(|slot| slot.load(Ordering::Relaxed) == id) {
            let free = |slot: &&AtomicUsize| slot.compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            self.watchers.iter().find(free).ok_or(NtStatus::DEVICE_BUSY)?;
        }
        self.watched.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// `file` is closed. PASSIVE_LEVEL.
    pub(crate) fn unwatch(&self, file: FileId) {
        for slot in &self.watchers {
            let _ = slot.compare_exchange(file.get(), 0, Ordering::SeqCst, Ordering::SeqCst);
        }
        let some = || self.watchers.iter().any(|slot| slot.load(Ordering::SeqCst) != 0);
        self.watched.store(some(), Ordering::SeqCst);
        if some() {
            // Another file asked between the two checks.
            self.watched.store(true, Ordering::SeqCst);
        }
    }

    /// Records a decision of `source` if it is to be recorded: `log` is what its rule says. `event` makes the event,
    /// without its number and time.
    pub(crate) fn record(&self, dispatch: &AtDispatch, log: bool, source: Source, event: impl FnOnce() -> Event) {
        let watched = self.watched.load(Ordering::Relaxed);
        if !log && !watched {
            return;
        }
        let time = time::system_time();
        let mut unrecorded = 0;
        if !watched {
            match self.budgets.spend(source, time) {
                Spent::Within { refused_before } => unrecorded = refused_before,
                Spent::Beyond => return SLUICE.counters.add(dispatch, Counter::EventsOverBudget, 1),
            }
        }
        self.push(dispatch, Event { time, unrecorded, ..event() });
    }

    /// Records what is no decision, away from the hot path. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn note(&self, event: Event) {
        self.push(&AtDispatch::raise(), Event { time: time::system_time(), ..event });
    }

    fn push(&self, dispatch: &AtDispatch, mut event: Event) {
        let pushed = self.ring.push(|place| {
            event.sequence = place + 1;
            event.lost = self.take_lost();
            let words: Words = zerocopy::transmute!(event);
            words
        });
        if !pushed {
            self.lost.fetch_add(1, Ordering::SeqCst);
            SLUICE.counters.add(dispatch, Counter::EventsDropped, 1);
            return;
        }
        SLUICE.counters.add(dispatch, Counter::EventsWritten, 1);
        if self.armed.load(Ordering::SeqCst) && self.armed.swap(false, Ordering::SeqCst) {
            self.delivery.queue();
        }
    }

    /// How many lost events no record has reported yet; the caller reports them.
    fn take_lost(&self) -> u32 {
        if self.lost.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let lost = self.lost.swap(0, Ordering::SeqCst);
        let told = u32::try_from(lost).unwrap_or(u32::MAX);
        if lost > u64::from(told) {
            self.lost.fetch_add(lost - u64::from(told), Ordering::SeqCst);
        }
        told
    }

    /// Whether there is nothing for a reader.
    fn is_empty(&self) -> bool {
        self.ring.is_empty() && self.lost.load(Ordering::SeqCst) == 0
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

    /// Completes waiting readers with what there is. DISPATCH_LEVEL.
    fn deliver(&self) {
        let _one_at_a_time = self.delivering.lock();
        loop {
            if self.is_empty() {
                self.armed.store(true, Ordering::SeqCst);
                // An event that came before the flag was set would wait for the next one: check again.
                if self.is_empty() || !self.armed.swap(false, Ordering::SeqCst) {
                    return;
                }
            }
            let Some(request) = self.readers.take() else { return };
            self.fill(request);
        }
    }

    /// Completes one read with as many events as fit, at least one: there is something, and nobody else takes it.
    fn fill(&self, mut request: Request) {
        let written = request.output(size_of::<Event>()).map(|mut output| {
            while output.room() >= size_of::<Event>() {
                if let Some(words) = self.ring.pop() {
                    output.push(words.as_bytes());
                    continue;
                }
                // What was lost after the last record: no later event may come to report it.
                let lost = self.take_lost();
                if lost != 0 {
                    output.push(Event { time: time::system_time(), lost, ..Event::zeroed() }.as_bytes());
                } else if output.written() != 0 {
                    break;
                }
                // Otherwise another processor has taken a slot and is filling it, at DISPATCH_LEVEL.
                core::hint::spin_loop();
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

//! Decisions on their way to their readers.
//!
//! Recorded are decisions whose rule or default says `log`, as far as the budget of their source allows
//! ([`crate::budget`]), and every decision while a reader asks for all. A recorded decision is pushed into a bounded
//! ring and never waits: it overwrites the oldest. Every reader, which is an open handle of the device, has its own place
//! in the ring, so each gets every event, and one that is slow costs the others nothing: what was overwritten before it
//! came there is lost to it alone, and its next record says how many that were. Reads wait in a manual queue of their
//! reader; a DPC completes them with what the ring holds. The hot path queues that DPC only when it is armed, once per
//! batch.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kernel::{
    irql::AtDispatch,
    ring::{Ring, Seen},
    spin::SpinLock,
    status::{NtResult, NtStatus},
    time,
    wdf::{ControlDevice, Dpc, FileId, ManualQueue, Request, Routine},
};
use sluice_policy::{Decision, Verdict};
use sluice_protocol::{
    Event, event,
    ioctl::{MAX_READERS, MAX_RECORD_ALL},
    status::Counter,
};
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

/// A file that reads events.
#[derive(Clone, Copy)]
struct Reader {
    /// Its file; 0 is a free slot.
    file: usize,
    /// The position of the next event for it.
    at: u64,
    /// How many events it has lost that no record has told it of.
    lost: u64,
    /// Whether a read may wait in its queue.
    waits: bool,
}

impl Reader {
    const NONE: Self = Self { file: 0, at: 0, lost: 0, waits: false };
}

/// The ring and those who read it.
pub(crate) struct Events {
    ring: Ring<CAPACITY, WORDS>,
    budgets: Budgets,
    /// The files that asked for every decision; 0 is a free slot.
    watchers: [AtomicUsize; MAX_RECORD_ALL],
    /// Whether there is any.
    watched: AtomicBool,
    /// The readers. Held by the one DPC that delivers, too, so that events reach each reader in order.
    readers: SpinLock<[Reader; MAX_READERS]>,
    /// The reads of each that wait.
    queues: [ManualQueue; MAX_READERS],
    delivery: Dpc,
    /// A reader waits and has had all events: the next one must queue the DPC.
    armed: AtomicBool,
}

impl Events {
    pub(crate) const fn new() -> Self {
        Self {
            ring: Ring::new(),
            budgets: Budgets::new(),
            watchers: [const { AtomicUsize::new(0) }; MAX_RECORD_ALL],
            watched: AtomicBool::new(false),
            readers: SpinLock::new([Reader::NONE; MAX_READERS]),
            queues: [const { ManualQueue::new() }; MAX_READERS],
            delivery: Dpc::new(),
            armed: AtomicBool::new(false),
        }
    }

    /// Creates the queues and the DPC. PASSIVE_LEVEL.
    pub(crate) fn start(&self, device: &ControlDevice<Device>) -> NtResult<()> {
        self.queues.iter().try_for_each(|queue| queue.create(device))?;
        self.delivery.create::<Deliver, _>(device)
    }

    /// Undoes `start`, before the device is deleted; readers still waiting are cancelled with it. PASSIVE_LEVEL.
    pub(crate) fn stop(&self) {
        self.delivery.forget();
        self.queues.iter().for_each(ManualQueue::forget);
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

    /// `file` is closed, and no read of it waits any more. PASSIVE_LEVEL.
    pub(crate) fn forget(&self, file: FileId) {
        for reader in self.readers.lock().iter_mut().filter(|reader| reader.file == file.get()) {
            *reader = Reader::NONE;
        }
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
            let words: Words = zerocopy::transmute!(event);
            words
        });
        // What is not written is lost to each of the readers, and counted there.
        if pushed {
            SLUICE.counters.add(dispatch, Counter::EventsWritten, 1);
        }
        if self.armed.load(Ordering::SeqCst) && self.armed.swap(false, Ordering::SeqCst) {
            self.delivery.queue();
        }
    }

    /// Lets a read wait for events. A reader begins with the oldest that the ring holds. PASSIVE_LEVEL.
    pub(crate) fn wait(&self, mut request: Request) {
        if request.output(size_of::<Event>()).is_err() {
            return request.complete(NtStatus::BUFFER_TOO_SMALL);
        }
        let Some(file) = request.file() else { return request.complete(NtStatus::INVALID_DEVICE_REQUEST) };
        let Some(slot) = self.slot(file) else { return request.complete(NtStatus::DEVICE_BUSY) };
        let Some(queue) = self.queues.get(slot) else { return request.complete(NtStatus::DEVICE_BUSY) };
        // In the queue before anybody looks for it there; and the file is open as long as it waits.
        queue.add(request);
        if let Some(reader) = self.readers.lock().get_mut(slot).filter(|reader| reader.file == file.get()) {
            reader.waits = true;
        }
        self.delivery.queue();
    }

    /// Completes a request with the events that there are for its file, which may be none. PASSIVE_LEVEL.
    pub(crate) fn take(&self, mut request: Request) {
        if request.output(size_of::<Event>()).is_err() {
            return request.complete(NtStatus::BUFFER_TOO_SMALL);
        }
        let Some(slot) = request.file().and_then(|file| self.slot(file)) else {
            return request.complete(NtStatus::DEVICE_BUSY);
        };
        match self.readers.lock().get_mut(slot) {
            Some(reader) => self.fill(reader, request),
            None => request.complete(NtStatus::DEVICE_BUSY),
        }
    }

    /// The slot of a reader, which it has from its first read on; none if there are too many.
    fn slot(&self, file: FileId) -> Option<usize> {
        let mut readers = self.readers.lock();
        let of = |file: usize, readers: &[Reader]| readers.iter().position(|reader| reader.file == file);
        if let Some(slot) = of(file.get(), &*readers) {
            return Some(slot);
        }
        let slot = of(0, &*readers)?;
        *readers.get_mut(slot)? = Reader { file: file.get(), at: self.ring.oldest(), ..Reader::NONE };
        Some(slot)
    }

    /// Completes waiting reads with what there is. DISPATCH_LEVEL.
    fn deliver(&self) {
        let mut readers = self.readers.lock();
        loop {
            for (reader, queue) in readers.iter_mut().zip(&self.queues).filter(|(reader, _)| reader.file != 0) {
                while self.has_news(reader) {
                    let Some(request) = queue.take() else {
                        reader.waits = false;
                        break;
                    };
                    self.fill(reader, request);
                }
            }
            let waiting = |reader: &&Reader| reader.file != 0 && reader.waits;
            if !readers.iter().any(|reader| waiting(&reader)) {
                return;
            }
            self.armed.store(true, Ordering::SeqCst);
            // An event that came before the flag was set would wait for the next one: look again.
            let missed = readers.iter().filter(waiting).any(|reader| self.has_news(reader));
            if !missed || !self.armed.swap(false, Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Whether there is something for a reader.
    fn has_news(&self, reader: &Reader) -> bool {
        reader.lost != 0 || self.ring.head() > reader.at
    }

    /// Completes a request with as many events as fit; at least one record if there is news, since nobody else takes it.
    fn fill(&self, reader: &mut Reader, mut request: Request) {
        let written = request.output(size_of::<Event>()).map(|mut output| {
            while output.room() >= size_of::<Event>() {
                match self.ring.read(reader.at) {
                    Seen::Record(words) => {
                        let mut event: Event = zerocopy::transmute!(words);
                        event.lost = reader.tell();
                        output.push(event.as_bytes());
                        reader.at += 1;
                    }
                    Seen::Lost(next) => {
                        let lost = next.saturating_sub(reader.at);
                        reader.lost = reader.lost.saturating_add(lost);
                        reader.at = next;
                        SLUICE.counters.add(&AtDispatch::raise(), Counter::EventsDropped, lost);
                    }
                    // At DISPATCH_LEVEL: it takes a few instructions.
                    Seen::Writing => core::hint::spin_loop(),
                    // What was lost after the last record: no later event may come to report it.
                    Seen::Nothing if reader.lost != 0 => {
                        let (time, lost) = (time::system_time(), reader.tell());
                        output.push(Event { time, lost, ..Event::zeroed() }.as_bytes());
                    }
                    Seen::Nothing => break,
                }
            }
            output.written()
        });
        match written {
            Ok(written) => request.complete_with(written),
            Err(status) => request.complete(status),
        }
    }
}

impl Reader {
    /// How many lost events no record has told it of yet, as many as a record can say; this one tells it.
    fn tell(&mut self) -> u32 {
        let told = u32::try_from(self.lost).unwrap_or(u32::MAX);
        self.lost -= u64::from(told);
        told
    }
}

/// The delivery DPC.
struct Deliver;

impl Routine for Deliver {
    fn run() {
        SLUICE.events.deliver();
    }
}

/// Says in `event` what a policy decided: the verdict, and the rule or what stands for one.
pub(crate) fn set_decision(event: &mut Event, decision: &Decision) {
    event.rule = match (decision.rule, decision.essential) {
        (Some(rule), _) => rule,
        (None, Some(_)) => event::RULE_ESSENTIAL,
        (None, None) => event::RULE_DEFAULT,
    };
    event.verdict = match decision.verdict {
        Verdict::Permit => event::verdict::PERMIT,
        Verdict::Block => event::verdict::BLOCK,
    };
}

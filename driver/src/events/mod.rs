//! Decisions on their way to their readers.
//!
//! Recorded are decisions whose rule or default says `log`, as far as the budget of their source allows
//! ([`crate::budget`]), and every decision while a reader asks for all. A recorded decision is pushed into the ring of its
//! processor and never waits: it overwrites the oldest there. [`readers`] merges the rings for each reader.

mod readers;

use core::{
    mem::offset_of,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use kernel::{
    irql::AtDispatch,
    processor::{self, Padded},
    rings::Rings,
    status::{NtResult, NtStatus},
    time::{self, WallClock},
    wdf::{ControlDevice, FileId},
};
use sluice_policy::{Decision, Verdict};
use sluice_protocol::{
    Event, event,
    ioctl::{EVENTS_HELD, MAX_RECORD_ALL},
    status::Counter,
};

use self::readers::Readers;
use crate::{
    SLUICE,
    budget::{Budgets, Source, Spent},
    device::Device,
};

const WORDS: usize = size_of::<Event>() / 8;
// In the rings an event's time is where its number will be, which follows from a reader's place.
const _: () = assert!(offset_of!(Event, sequence) == 0);

type Words = [u64; WORDS];

/// The rings and those who read them.
pub(crate) struct Events {
    rings: Rings<EVENTS_HELD, WORDS>,
    wall: WallClock,
    budgets: Budgets,
    /// The files that asked for every decision; 0 is a free slot.
    watchers: [AtomicUsize; MAX_RECORD_ALL],
    /// What every decision reads.
    flags: Padded<Flags>,
    readers: Readers,
}

struct Flags {
    /// Whether there is any watcher.
    watched: AtomicBool,
    /// A reader waits and has had all events: the next one must queue the DPC.
    armed: AtomicBool,
}

impl Events {
    pub(crate) const fn new() -> Self {
        Self {
            rings: Rings::new(),
            wall: WallClock::new(),
            budgets: Budgets::new(),
            watchers: [const { AtomicUsize::new(0) }; MAX_RECORD_ALL],
            flags: Padded(Flags { watched: AtomicBool::new(false), armed: AtomicBool::new(false) }),
            readers: Readers::new(),
        }
    }

    /// Creates the readers' queues and DPC. PASSIVE_LEVEL.
    pub(crate) fn start(&self, device: &ControlDevice<Device>) -> NtResult<()> {
        self.readers.start(device)
    }

    /// Undoes `start`, before the device is deleted; readers still waiting are cancelled with it. PASSIVE_LEVEL.
    pub(crate) fn stop(&self) {
        self.readers.stop();
    }

    /// Gives each processor its ring. Before anything is recorded. PASSIVE_LEVEL.
    pub(crate) fn prepare(&self) {
        self.rings.split(processor::active());
        // Before two processors can look at once.
        self.wall.at(time::interrupt_time());
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
        self.flags.0.watched.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// `file` is closed, and no read of it waits any more. PASSIVE_LEVEL.
    pub(crate) fn forget(&self, file: FileId) {
        self.readers.forget(file);
        for slot in &self.watchers {
            let _ = slot.compare_exchange(file.get(), 0, Ordering::SeqCst, Ordering::SeqCst);
        }
        let some = || self.watchers.iter().any(|slot| slot.load(Ordering::SeqCst) != 0);
        self.flags.0.watched.store(some(), Ordering::SeqCst);
        if some() {
            // Another file asked between the two checks.
            self.flags.0.watched.store(true, Ordering::SeqCst);
        }
    }

    /// Records a decision of `source` if it is to be recorded: `log` is what its rule says. `write` makes the event of one of
    /// zeros, without its number and time.
    pub(crate) fn record(&self, dispatch: &AtDispatch, log: bool, source: Source, write: impl FnOnce(&mut Event)) {
        let watched = self.flags.0.watched.load(Ordering::Relaxed);
        if !log && !watched {
            return;
        }
        self.push(dispatch, |now, place| {
            let unrecorded = match watched {
                true => 0,
                false => match self.budgets.spend(dispatch, source, now) {
                    Spent::Within { refused_before } => refused_before,
                    Spent::Beyond => return None,
                },
            };
            let event = place.insert(Event::zeroed());
            write(event);
            event.unrecorded = unrecorded;
            Some(event)
        });
    }

    /// Records what is no decision, away from the hot path. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn note(&self, event: Event) {
        self.push(&AtDispatch::raise(), |_, place| Some(place.insert(event)));
    }

    /// Records the event that `make` puts in its place, if it does. An event of 256 bytes is not moved.
    #[inline]
    fn push(&self, dispatch: &AtDispatch, make: impl FnOnce(u64, &mut Option<Event>) -> Option<&mut Event>) {
        let mut place = None;
        let of_place = &mut place;
        let pushed = self.rings.push(dispatch, move |now| {
            let event = make(now, of_place)?;
            event.time = self.wall.at(now);
            let words: &Words = zerocopy::transmute_ref!(&*event);
            Some(words)
        });
        let counter = if pushed { Counter::EventsWritten } else { Counter::EventsOverBudget };
        SLUICE.counters.add(dispatch, counter, 1);
        let Flags { armed, .. } = &self.flags.0;
        if pushed && armed.load(Ordering::SeqCst) && armed.swap(false, Ordering::SeqCst) {
            self.readers.wake();
        }
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

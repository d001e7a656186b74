//! Who reads events: an open handle of the device.
//!
//! Every reader has its own place in each ring and its own filter, so each gets every event that it wants, in the order of
//! time, and one that is slow costs the others nothing: what was overwritten before it came there is lost to it alone,
//! and its next record of that ring says how many that were. Reads wait in a manual queue of their reader; a DPC completes
//! them with what the rings hold. The hot path queues that DPC only when it is armed, once per batch. An event that no
//! waiting reader wants completes no read.

use kernel::{
    irql::AtDispatch,
    rings::{Cursor, Merge},
    spin::SpinLock,
    status::{NtResult, NtStatus},
    time,
    wdf::{ControlDevice, Dpc, FileId, ManualQueue, Output, Request, Routine},
};
use sluice_protocol::{
    Event,
    filter::Filter,
    ioctl::{EVENTS_HELD, MAX_READERS},
    status::Counter,
};
use zerocopy::{FromBytes, IntoBytes};

use core::sync::atomic::Ordering;

use super::{Events, WORDS};
use crate::{SLUICE, device::Device};

/// How many events are looked at for a reader while all are locked, at DISPATCH_LEVEL: some 20 us.
const AT_ONCE: usize = 256;

/// A file that reads events.
#[derive(Clone, Copy)]
struct Reader {
    /// Its file; 0 is a free slot.
    file: usize,
    /// Its place in each ring.
    place: Cursor,
    /// How many events it has lost that no record has told it of.
    lost: u64,
    /// Which events it wants.
    filter: Filter,
    /// Whether a read may wait in its queue.
    waits: bool,
}

/// Every reader.
pub(super) struct Readers {
    /// Held by the one DPC that delivers, too, so that events reach each reader in order.
    slots: SpinLock<[Reader; MAX_READERS]>,
    /// The reads of each that wait.
    queues: [ManualQueue; MAX_READERS],
    delivery: Dpc,
}

/// What is looked at for a reader.
struct Look<'a> {
    merge: Merge<'a, EVENTS_HELD, WORDS>,
    /// How many more events may be.
    left: usize,
}

impl Readers {
    pub(super) const fn new() -> Self {
        Self {
            slots: SpinLock::new([Reader::NONE; MAX_READERS]),
            queues: [const { ManualQueue::new() }; MAX_READERS],
            delivery: Dpc::new(),
        }
    }

    /// Creates the queues and the DPC. PASSIVE_LEVEL.
    pub(super) fn start(&self, device: &ControlDevice<Device>) -> NtResult<()> {
        self.queues.iter().try_for_each(|queue| queue.create(device))?;
        self.delivery.create::<Deliver, _>(device)
    }

    /// Undoes `start`. PASSIVE_LEVEL.
    pub(super) fn stop(&self) {
        self.delivery.forget();
        self.queues.iter().for_each(ManualQueue::forget);
    }

    /// Frees the slot of a file. IRQL <= DISPATCH_LEVEL.
    pub(super) fn forget(&self, file: FileId) {
        for reader in self.slots.lock().iter_mut().filter(|reader| reader.file == file.get()) {
            *reader = Reader::NONE;
        }
    }

    /// Queues the DPC. IRQL <= DISPATCH_LEVEL.
    pub(super) fn wake(&self) {
        self.delivery.queue();
    }
}

impl Reader {
    const NONE: Self = Self { file: 0, place: Cursor::START, lost: 0, filter: Filter::ALL, waits: false };

    /// Its next event that it wants, passing those that it does not. IRQL = DISPATCH_LEVEL.
    #[inline(never)]
    fn next(&mut self, look: &mut Look<'_>) -> Option<Event> {
        while look.left > 0 {
            let seen = look.merge.next(&self.place)?;
            look.left -= 1;
            self.place.pass(&seen);
            self.lost = self.lost.saturating_add(seen.lost);
            let event: Event = zerocopy::transmute!(seen.record);
            if self.filter.wants(&event) {
                return Some(Event { sequence: seen.number, ring: seen.ring as u16, lost: self.tell(), ..event });
            }
        }
        None
    }

    /// How many lost events no record has told it of yet, as many as a record can say; this one tells it.
    fn tell(&mut self) -> u32 {
        let told = u32::try_from(self.lost).unwrap_or(u32::MAX);
        self.lost -= u64::from(told);
        told
    }
}

impl Events {
    /// Lets a read wait for events. A reader begins with the oldest that the rings hold. PASSIVE_LEVEL.
    pub(crate) fn wait(&self, mut request: Request) {
        if request.output(size_of::<Event>()).is_err() {
            return request.complete(NtStatus::BUFFER_TOO_SMALL);
        }
        let Some(file) = request.file() else { return request.complete(NtStatus::INVALID_DEVICE_REQUEST) };
        let Some(slot) = self.slot(file) else { return request.complete(NtStatus::DEVICE_BUSY) };
        let Some(queue) = self.readers.queues.get(slot) else { return request.complete(NtStatus::DEVICE_BUSY) };
        // In the queue before anybody looks for it there; and the file is open as long as it waits.
        queue.add(request);
        if let Some(reader) = self.readers.slots.lock().get_mut(slot).filter(|reader| reader.file == file.get()) {
            reader.waits = true;
        }
        self.readers.wake();
    }

    /// Completes a request with the events that there are for its file, which may be none. PASSIVE_LEVEL.
    pub(crate) fn take(&self, mut request: Request) {
        if request.output(size_of::<Event>()).is_err() {
            return request.complete(NtStatus::BUFFER_TOO_SMALL);
        }
        let Some(slot) = request.file().and_then(|file| self.slot(file)) else {
            return request.complete(NtStatus::DEVICE_BUSY);
        };
        let written = request.output(size_of::<Event>()).map(|mut output| {
            // Others get their turn in between.
            while self.readers.slots.lock().get_mut(slot).is_some_and(|reader| {
                let mut look = Look { merge: self.rings.merge(), left: AT_ONCE };
                fill(reader, &mut look, &mut output);
                look.left == 0 && output.room() >= size_of::<Event>()
            }) {}
            output.written()
        });
        request.answer(written);
    }

    /// From now on the file of a request wants what its input says. PASSIVE_LEVEL.
    pub(crate) fn want(&self, mut request: Request) {
        let filter = Filter::read_from_bytes(request.input()).ok().filter(Filter::is_valid);
        let (Some(filter), Some(file)) = (filter, request.file()) else {
            return request.complete(NtStatus::INVALID_PARAMETER);
        };
        let Some(slot) = self.slot(file) else { return request.complete(NtStatus::DEVICE_BUSY) };
        if let Some(reader) = self.readers.slots.lock().get_mut(slot) {
            reader.filter = filter;
        }
        request.complete(NtStatus::SUCCESS);
    }

    /// The slot of a reader, which it has from its first request on; none if there are too many.
    fn slot(&self, file: FileId) -> Option<usize> {
        let mut readers = self.readers.slots.lock();
        let of = |file: usize, readers: &[Reader]| readers.iter().position(|reader| reader.file == file);
        if let Some(slot) = of(file.get(), &*readers) {
            return Some(slot);
        }
        let slot = of(0, &*readers)?;
        *readers.get_mut(slot)? = Reader { file: file.get(), place: self.rings.oldest(), ..Reader::NONE };
        Some(slot)
    }

    /// Completes waiting reads with what there is. DISPATCH_LEVEL.
    fn deliver(&self) {
        let armed = &self.flags.0.armed;
        let mut readers = self.readers.slots.lock();
        loop {
            let mut more = false;
            for (reader, queue) in readers.iter_mut().zip(&self.readers.queues).filter(|(reader, _)| reader.file != 0) {
                let mut look = Look { merge: self.rings.merge(), left: AT_ONCE };
                while reader.waits {
                    // First whether there is an event, then whether somebody still waits for it: it is not lost in between,
                    // since the place is kept.
                    let before = *reader;
                    let first = reader.next(&mut look);
                    if first.is_none() && reader.lost == 0 {
                        break;
                    }
                    let Some(request) = queue.take() else {
                        *reader = Reader { waits: false, ..before };
                        break;
                    };
                    complete(reader, first, &mut look, request);
                }
                more |= look.left == 0;
            }
            if more {
                // Nobody is to find this processor busy for longer.
                return self.readers.wake();
            }
            let waiting = |reader: &&Reader| reader.file != 0 && reader.waits;
            if !readers.iter().any(|reader| waiting(&reader)) {
                return;
            }
            armed.store(true, Ordering::SeqCst);
            // An event that came before the flag was set would wait for the next one: look again.
            let missed = readers.iter().filter(waiting).any(|reader| self.rings.has_news(&reader.place));
            if !missed || !armed.swap(false, Ordering::SeqCst) {
                return;
            }
        }
    }
}

/// Completes a request with this event and as many more as fit; at least one record if there is news.
fn complete(reader: &mut Reader, first: Option<Event>, look: &mut Look<'_>, mut request: Request) {
    let written = request.output(size_of::<Event>()).map(|mut output| {
        if let Some(event) = first {
            write(&event, &mut output);
        }
        fill(reader, look, &mut output);
        output.written()
    });
    request.answer(written);
}

/// Writes as many events as fit.
fn fill(reader: &mut Reader, look: &mut Look<'_>, output: &mut Output<'_>) {
    while output.room() >= size_of::<Event>() {
        match reader.next(look) {
            Some(event) => write(&event, output),
            // What was lost after the last record that it wants: no later one may come to report it.
            None if reader.lost != 0 => {
                let (time, lost) = (time::system_time(), reader.tell());
                write(&Event { time, lost, ..Event::zeroed() }, output);
            }
            None => return,
        }
    }
}

/// Writes a record, and counts what it tells of. IRQL <= DISPATCH_LEVEL.
fn write(event: &Event, output: &mut Output<'_>) {
    output.push(event.as_bytes());
    if event.lost > 0 {
        SLUICE.counters.add(&AtDispatch::raise(), Counter::EventsDropped, event.lost.into());
    }
}

/// The delivery DPC.
struct Deliver;

impl Routine for Deliver {
    fn run() {
        SLUICE.events.deliver();
    }
}

//! The latest events, in a bounded ring for each processor; any number of readers follow all rings as one, in the order
//! of time.
//!
//! ```text
//! writer: claim the ring of its processor     reader: read the clock: the horizon
//!         read the clock                              for each ring: wait while it is claimed
//!         write the record over the oldest            deliver the earliest record before the horizon,
//!         count it, give the ring back                     until there is none
//! ```
//!
//! Why nothing comes late: a ring that the reader saw unclaimed after it had read the clock gets only records whose
//! writers claim it later, and read the clock after that. So every record before the horizon is there. Claiming and
//! looking are sequentially consistent, and the clock is the same for all processors to within [`SKEW`].
//!
//! A writer waits for nobody as long as there are as many rings as processors: what it writes lies in lines of its
//! processor alone. Beyond [`SLOTS`] processors, or for those that came after the start, a ring that another one has
//! claimed is passed over for the next; only when each is being written to does a writer wait for the others' few
//! instructions.
//!
//! A reader keeps its own place in each ring ([`Cursor`]). What was overwritten before it came there is lost to it, and
//! since positions are counted without gaps it knows exactly how much that is, in which ring, and before which record.
//!
//! A record is an array of atomic words, so there is no data race to reason about, and no `unsafe`.

mod merge;
#[cfg(test)]
mod tests;

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use crate::{
    irql::AtDispatch,
    processor::{Padded, SLOTS},
    time,
};

pub use merge::{Cursor, Merge, Seen};

/// By how much the clocks of two processors can differ, in 100 ns: what "KeQueryInterruptTimePrecise" says of its
/// accuracy.
pub const SKEW: u64 = 10;

/// Rings of records of `W` words, `PLACES` of them together (a power of two, at least [`SLOTS`]).
pub struct Rings<const PLACES: usize, const W: usize> {
    places: [Place<W>; PLACES],
    rings: [Padded<Ring>; SLOTS],
    /// One less than the number of rings.
    last: Padded<AtomicUsize>,
}

/// Records begin at a cache line.
#[repr(align(64))]
struct Place<const W: usize>([AtomicU64; W]);

struct Ring {
    /// A processor writes here.
    claimed: AtomicBool,
    /// The next position to write, counted from 0 for ever.
    head: AtomicU64,
    /// The time of the record before it.
    latest: AtomicU64,
}

impl Ring {
    const fn new() -> Self {
        Self { claimed: AtomicBool::new(false), head: AtomicU64::new(0), latest: AtomicU64::new(0) }
    }

    /// Waits until nobody writes: a few instructions, since writers are at DISPATCH_LEVEL. What is written from now on is
    /// later than what the caller did before.
    fn settle(&self) {
        while self.claimed.load(Ordering::SeqCst) {
            pause();
        }
    }
}

/// While another processor is writing. The clock is a call of the kernel: where that is simulated, the other one can go on.
fn pause() {
    core::hint::spin_loop();
    let _ = time::interrupt_time();
}

impl<const PLACES: usize, const W: usize> Default for Rings<PLACES, W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const PLACES: usize, const W: usize> Rings<PLACES, W> {
    const SHAPE: () = assert!(PLACES.is_power_of_two() && SLOTS.is_power_of_two() && PLACES > SLOTS && W > 0);

    /// One empty ring. All its bytes are zero, so static rings take no space in the image file.
    #[must_use]
    pub const fn new() -> Self {
        let () = Self::SHAPE;
        Self {
            places: [const { Place([const { AtomicU64::new(0) }; W]) }; PLACES],
            rings: [const { Padded(Ring::new()) }; SLOTS],
            last: Padded(AtomicUsize::new(0)),
        }
    }

    /// Makes as many rings as there are processors, [`SLOTS`] at most, which share the places evenly. Before the first
    /// record and the first reader.
    pub fn split(&self, processors: usize) {
        self.last.0.store(processors.clamp(1, SLOTS) - 1, Ordering::Release);
    }

    /// How many rings there are.
    fn count(&self) -> usize {
        // The mask proves that there are at most SLOTS.
        (self.last.0.load(Ordering::Relaxed) & (SLOTS - 1)) + 1
    }

    /// How many records each ring holds: a power of two.
    fn size(&self) -> u64 {
        (PLACES / self.count().next_power_of_two()) as u64
    }

    const fn ring(&self, ring: usize) -> &Ring {
        &self.rings[ring & (SLOTS - 1)].0
    }

    fn place(&self, ring: usize, position: u64) -> &Place<W> {
        let size = self.size();
        // PLACES is a power of two, so the index is in range.
        &self.places[(ring * size as usize + (position & (size - 1)) as usize) & (PLACES - 1)]
    }

    /// Appends the record that `fill` makes for a time ([`time::interrupt_time`]), if it makes one; whether it did. It is
    /// copied from where it was made, once, and its first word is replaced by that time. IRQL = DISPATCH_LEVEL.
    #[inline]
    pub fn push<'r>(&self, dispatch: &AtDispatch, fill: impl FnOnce(u64) -> Option<&'r [u64; W]>) -> bool {
        self.push_from(dispatch.processor(), fill)
    }

    #[inline]
    fn push_from<'r>(&self, processor: usize, fill: impl FnOnce(u64) -> Option<&'r [u64; W]>) -> bool {
        let count = self.count();
        let mut number = if processor < count { processor } else { processor % count };
        // SeqCst: whoever finds the ring unclaimed after it has announced itself is seen by this writer afterwards.
        while self.ring(number).claimed.swap(true, Ordering::SeqCst) {
            number += 1;
            if number == count {
                number = 0;
                pause();
            }
        }
        let ring = self.ring(number);
        let time = time::interrupt_time().max(ring.latest.load(Ordering::Relaxed));
        let record = fill(time);
        let written = record.is_some();
        if let Some(record) = record {
            let position = ring.head.load(Ordering::Relaxed);
            // The words come after the claim: a reader that sees one of them sees that, too.
            fence(Ordering::Release);
            let Place(place) = self.place(number, position);
            for (word, value) in place.iter().zip(record) {
                word.store(*value, Ordering::Relaxed);
            }
            if let Some(word) = place.first() {
                word.store(time, Ordering::Relaxed);
            }
            ring.latest.store(time, Ordering::Relaxed);
            ring.head.store(position + 1, Ordering::Release);
        }
        ring.claimed.store(false, Ordering::Release);
        written
    }

    /// What `load` reads of the first record of a ring that is still there, from a position on, and its position.
    fn read<T>(&self, number: usize, mut from: u64, load: impl Fn(&[AtomicU64; W]) -> T) -> Option<(u64, T)> {
        let ring = self.ring(number);
        let size = self.size();
        loop {
            let head = ring.head.load(Ordering::Acquire);
            if from >= head {
                return None;
            }
            let position = from.max(head.saturating_sub(size));
            let record = load(&self.place(number, position).0);
            // What is read comes before the look at whether it was being overwritten. In this order: who gives the ring
            // back has counted its record.
            fence(Ordering::Acquire);
            let claimed = ring.claimed.load(Ordering::Acquire);
            let newer = ring.head.load(Ordering::Acquire) - position;
            if newer < size || (newer == size && !claimed) {
                return Some((position, record));
            }
            from = position + 1;
        }
    }

    fn time_at(&self, number: usize, from: u64) -> Option<u64> {
        let time = |words: &[AtomicU64; W]| words.first().map_or(0, |word| word.load(Ordering::Relaxed));
        self.read(number, from, time).map(|(_, time)| time)
    }

    fn record_at(&self, number: usize, from: u64) -> Option<(u64, [u64; W])> {
        self.read(number, from, |words| {
            let mut record = [0; W];
            for (value, word) in record.iter_mut().zip(words) {
                *value = word.load(Ordering::Relaxed);
            }
            record
        })
    }
}

//! All rings as one, for a reader.

use core::sync::atomic::Ordering;

use super::{Rings, SKEW};
use crate::{processor::SLOTS, time};

/// A reader's place in each ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The next position in each.
    at: [u64; SLOTS],
    /// Their sum.
    passed: u64,
}

/// A record, as a reader comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<const W: usize> {
    /// The record; its first word is its time.
    pub record: [u64; W],
    /// The ring it is from.
    pub ring: usize,
    /// How many records of that ring, right before it, are lost to the reader.
    pub lost: u64,
    /// The record's place among all, from 1: one more than that of the reader's record before it and what it has lost
    /// since. The same for all readers that have lost nothing.
    pub number: u64,
    position: u64,
}

/// The records that there are now, in the order of time; those of the same time in the order of their rings. On the
/// stack of one reader, for a while.
#[derive(Debug)]
pub struct Merge<'a, const PLACES: usize, const W: usize> {
    rings: &'a Rings<PLACES, W>,
    /// The time of the next record of each ring; [`NONE`] where there is none.
    times: [u64; SLOTS],
    /// Every record before this time is known.
    horizon: u64,
    /// A ring whose next record is not known, since it may have been passed.
    stale: Option<usize>,
}

const NONE: u64 = u64::MAX;

impl Cursor {
    /// The beginning of every ring.
    pub const START: Self = Self { at: [0; SLOTS], passed: 0 };

    const fn at(&self, ring: usize) -> u64 {
        self.at[ring & (SLOTS - 1)]
    }

    /// Goes behind a record.
    pub const fn pass<const W: usize>(&mut self, seen: &Seen<W>) {
        self.at[seen.ring & (SLOTS - 1)] = seen.position + 1;
        self.passed = seen.number;
    }
}

impl<const PLACES: usize, const W: usize> core::fmt::Debug for Rings<PLACES, W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Rings").field("count", &self.count()).field("size", &self.size()).finish()
    }
}

impl<const PLACES: usize, const W: usize> Rings<PLACES, W> {
    /// The places of the oldest records that are there. Any IRQL.
    pub fn oldest(&self) -> Cursor {
        let (size, mut cursor) = (self.size(), Cursor::START);
        for (number, at) in cursor.at.iter_mut().enumerate().take(self.count()) {
            *at = self.ring(number).head.load(Ordering::Acquire).saturating_sub(size);
            cursor.passed += *at;
        }
        cursor
    }

    /// Whether there is a record that the reader has not passed. IRQL = DISPATCH_LEVEL: it waits for who is writing one.
    ///
    /// Whoever stores something with SeqCst, and is told no then, is seen by the writer of every later record when that
    /// has been written.
    pub fn has_news(&self, cursor: &Cursor) -> bool {
        (0..self.count()).any(|number| {
            let ring = self.ring(number);
            ring.settle();
            ring.head.load(Ordering::Acquire) > cursor.at(number)
        })
    }

    /// What there is for a reader, which must be the same for each [`Merge::next`]. IRQL = DISPATCH_LEVEL.
    pub const fn merge(&self) -> Merge<'_, PLACES, W> {
        Merge { rings: self, times: [NONE; SLOTS], horizon: 0, stale: None }
    }
}

impl<const PLACES: usize, const W: usize> Merge<'_, PLACES, W> {
    /// The reader's next record. It stays that until the reader passes it, or it is overwritten.
    /// IRQL = DISPATCH_LEVEL: it waits for who is writing a record, and at most [`SKEW`] for the clock.
    #[inline(never)] // several callers; it is the only large one
    pub fn next(&mut self, cursor: &Cursor) -> Option<Seen<W>> {
        if let Some(ring) = self.stale.take() {
            self.look_at(ring, cursor);
        }
        loop {
            let (ring, time) = self.earliest();
            if time >= self.horizon {
                if !self.look(cursor) {
                    return None;
                }
                continue;
            }
            // It is still there, unless it was overwritten meanwhile; then another ring's may be earlier.
            let from = cursor.at(ring);
            match self.rings.record_at(ring, from).filter(|(_, record)| record.first() == Some(&time)) {
                Some((position, record)) => {
                    self.stale = Some(ring);
                    let lost = position - from;
                    return Some(Seen { record, ring, lost, number: cursor.passed + lost + 1, position });
                }
                None => self.look_at(ring, cursor),
            }
        }
    }

    fn earliest(&self) -> (usize, u64) {
        let mut earliest = (0, NONE);
        for (ring, &time) in self.times.iter().enumerate().take(self.rings.count()) {
            if time < earliest.1 {
                earliest = (ring, time);
            }
        }
        earliest
    }

    #[inline(never)]
    fn look_at(&mut self, ring: usize, cursor: &Cursor) {
        self.times[ring & (SLOTS - 1)] = self.rings.time_at(ring, cursor.at(ring)).unwrap_or(NONE);
    }

    /// Looks at every ring; whether there is a record.
    fn look(&mut self, cursor: &Cursor) -> bool {
        loop {
            let horizon = time::interrupt_time().saturating_sub(SKEW);
            for ring in 0..self.rings.count() {
                self.rings.ring(ring).settle();
                self.look_at(ring, cursor);
            }
            self.horizon = horizon;
            match self.earliest() {
                (_, NONE) => return false,
                (_, time) if time < horizon => return true,
                _ => core::hint::spin_loop(),
            }
        }
    }
}

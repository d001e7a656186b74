//! A bounded record of the latest events, which any processor writes to at any IRQL and any number of readers follow.
//!
//! A writer takes the next position and overwrites what is there: it never waits for a reader, and a reader never waits
//! for another one. A reader keeps its own position; what was overwritten before it came there is lost to it, and since
//! positions are counted without gaps it knows exactly how much that is.
//!
//! A record is an array of atomic words, so there is no data race to reason about, and no `unsafe`. Each slot has a turn:
//! odd while the record of a position is written there, even when it is complete, and higher in each lap. A reader that
//! finds the same turn before and after has read one whole record.

use core::sync::atomic::{AtomicU64, Ordering, fence};

/// The latest `N` records (a power of two) of `W` words.
pub struct Ring<const N: usize, const W: usize> {
    places: [Place<W>; N],
    /// The next position to write, counted from 0 for ever.
    head: AtomicU64,
}

struct Place<const W: usize> {
    /// `2 * position + 1` while that position is written here, one more when it is complete; 0 before the first.
    turn: AtomicU64,
    /// One more than the last position whose writer gave up here.
    skipped: AtomicU64,
    words: [AtomicU64; W],
}

/// What a reader finds at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<const W: usize> {
    /// The record.
    Record([u64; W]),
    /// It is lost, as is everything before this position.
    Lost(u64),
    /// It has been taken, and is being written by another processor.
    Writing,
    /// Nobody has taken it yet.
    Nothing,
}

impl<const N: usize, const W: usize> Default for Ring<N, W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize, const W: usize> Ring<N, W> {
    const SHAPE: () = assert!(N.is_power_of_two());

    /// An empty ring. All its bytes are zero, so a static ring takes no space in the image file.
    #[must_use]
    pub const fn new() -> Self {
        let () = Self::SHAPE;
        Self {
            places: [const {
                Place { turn: AtomicU64::new(0), skipped: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; W] }
            }; N],
            head: AtomicU64::new(0),
        }
    }

    const fn place(&self, position: u64) -> &Place<W> {
        // N is a power of two, so the remainder is in range.
        &self.places[(position % N as u64) as usize]
    }

    /// Appends the record that `fill` makes for its position. False if another writer has not finished in its place after
    /// a whole lap: every reader then finds the position lost. A writer that can be suspended or preempted raises first
    /// ([`crate::irql::AtDispatch`]), or readers that come to its position wait for it. Any IRQL, any processor.
    pub fn push(&self, fill: impl FnOnce(u64) -> [u64; W]) -> bool {
        // SeqCst: whoever finds the head unchanged after it has announced itself is seen by this writer afterwards.
        let position = self.head.fetch_add(1, Ordering::SeqCst);
        let (place, writing) = (self.place(position), position * 2 + 1);
        let turn = place.turn.load(Ordering::Relaxed);
        let mine = turn % 2 == 0
            && turn < writing
            && place.turn.compare_exchange(turn, writing, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !mine {
            place.skipped.fetch_max(position + 1, Ordering::Release);
            return false;
        }
        // The words come after the odd turn: a reader that sees one of them sees that, too.
        fence(Ordering::Release);
        for (word, value) in place.words.iter().zip(fill(position)) {
            word.store(value, Ordering::Relaxed);
        }
        place.turn.store(writing + 1, Ordering::Release);
        true
    }

    /// The position that will be written next. Any IRQL.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::SeqCst)
    }

    /// The first position that may still be there. Any IRQL.
    pub fn oldest(&self) -> u64 {
        self.head().saturating_sub(N as u64)
    }

    /// What is at a position that the caller has come to. Any IRQL.
    pub fn read(&self, position: u64) -> Seen<W> {
        let (place, complete) = (self.place(position), position * 2 + 2);
        let turn = place.turn.load(Ordering::Acquire);
        if turn == complete {
            let mut record = [0; W];
            for (value, word) in record.iter_mut().zip(&place.words) {
                *value = word.load(Ordering::Relaxed);
            }
            // The words come before the second look at the turn.
            fence(Ordering::Acquire);
            if place.turn.load(Ordering::Relaxed) == complete {
                return Seen::Record(record);
            }
        } else if turn < complete {
            if place.skipped.load(Ordering::Acquire) <= position {
                return if self.head() > position { Seen::Writing } else { Seen::Nothing };
            }
            return Seen::Lost(position + 1);
        }
        Seen::Lost(self.oldest().max(position + 1))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{sync::Arc, sync::atomic::AtomicBool, thread, vec::Vec};

    #[test]
    fn every_reader_finds_the_latest_in_order() {
        let ring = Ring::<4, 1>::new();
        assert_eq!((ring.read(0), ring.oldest()), (Seen::Nothing, 0));
        for value in 0..11 {
            assert!(ring.push(|position| {
                assert_eq!(position, value);
                [value * 10]
            }));
            let found: Vec<_> = (ring.oldest()..ring.head()).map(|at| ring.read(at)).collect();
            let last: Vec<_> = (value.saturating_sub(3)..=value).map(|value| Seen::Record([value * 10])).collect();
            assert_eq!(found, last);
        }
        assert_eq!(ring.read(0), Seen::Lost(7), "a slow reader learns where to go on");
        assert_eq!(ring.read(11), Seen::Nothing);
    }

    #[test]
    fn a_writer_that_is_not_done_after_a_lap_costs_others_their_place() {
        let ring = Ring::<2, 1>::new();
        assert!(ring.push(|_| {
            assert_eq!(ring.read(0), Seen::Writing);
            assert!(ring.push(|_| [1]));
            assert!(!ring.push(|_| panic!("its place is taken")));
            [0]
        }));
        assert_eq!(ring.read(2), Seen::Lost(3), "that of the second lap, which nobody will write");
        assert!(ring.push(|_| [3]));
        assert!(ring.push(|_| [4]));
        assert_eq!([ring.read(3), ring.read(4)], [Seen::Record([3]), Seen::Record([4])]);
    }

    /// Records of a writer, its number, both mixed, and the position: a torn one shows.
    #[test]
    fn readers_lose_only_what_they_know_of_and_read_nothing_torn() {
        const EACH: u64 = 30_000;
        const WRITERS: u64 = 3;
        let ring = Arc::new(Ring::<64, 4>::new());
        let done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = [0, 3]
            .map(|pauses| {
                let (ring, done) = (ring.clone(), done.clone());
                thread::spawn(move || {
                    let (mut at, mut read, mut lost) = (0, 0, 0);
                    let mut next = [0; WRITERS as usize];
                    loop {
                        let ended = done.load(Ordering::SeqCst);
                        match ring.read(at) {
                            Seen::Record([writer, number, check, place]) => {
                                assert_eq!((check, place), (writer ^ number, at));
                                assert!(number >= next[writer as usize], "in the order of its writer");
                                next[writer as usize] = number + 1;
                                (at, read) = (at + 1, read + 1);
                                (0..pauses).for_each(|_| thread::yield_now());
                            }
                            Seen::Lost(next) => {
                                assert!(next > at);
                                lost += next - at;
                                at = next;
                            }
                            Seen::Nothing if ended => break,
                            Seen::Writing | Seen::Nothing => thread::yield_now(),
                        }
                    }
                    assert_eq!(read + lost, WRITERS * EACH, "exactly");
                    read
                })
            })
            .into();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let ring = ring.clone();
                thread::spawn(move || {
                    for number in 0..EACH {
                        ring.push(|place| [writer, number, writer ^ number, place]);
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::SeqCst);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
    }
}

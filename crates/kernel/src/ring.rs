//! A bounded queue of fixed records that any processor writes to at any IRQL and one reader empties.
//!
//! A record is an array of atomic words, so there is no data race to reason about, and no `unsafe`. Each slot has a
//! turn number: even means free in that lap, odd means written. A writer takes the next position if its slot is free
//! and gives up at once if it is not: the hot path never waits for a reader.

use core::sync::atomic::{AtomicU64, Ordering};

/// A queue of `N` records (a power of two) of `W` words.
pub struct Ring<const N: usize, const W: usize> {
    places: [Place<W>; N],
    /// The next position to write.
    head: AtomicU64,
    /// The next position to read.
    tail: AtomicU64,
}

struct Place<const W: usize> {
    turn: AtomicU64,
    words: [AtomicU64; W],
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
            places: [const { Place { turn: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; W] } }; N],
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
        }
    }

    const fn place(&self, position: u64) -> (&Place<W>, u64) {
        // N is a power of two, so the remainder is in range.
        (&self.places[(position % N as u64) as usize], position / N as u64 * 2)
    }

    /// Appends the record that `fill` makes for its position, counted from 0; false when the ring is full, and then
    /// `fill` is not called. A slot that is taken but not yet filled blocks the reader, so a writer that can be
    /// suspended or preempted raises first ([`crate::irql::AtDispatch`]). Any IRQL, any processor.
    pub fn push(&self, fill: impl FnOnce(u64) -> [u64; W]) -> bool {
        let mut position = self.head.load(Ordering::Relaxed);
        loop {
            let (place, free) = self.place(position);
            let turn = place.turn.load(Ordering::Acquire);
            if turn == free {
                match self.head.compare_exchange_weak(position, position + 1, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        for (word, value) in place.words.iter().zip(fill(position)) {
                            word.store(value, Ordering::Relaxed);
                        }
                        place.turn.store(free + 1, Ordering::Release);
                        return true;
                    }
                    Err(now) => position = now,
                }
            } else if turn < free {
                return false; // the reader has not freed it in the previous lap
            } else {
                position = self.head.load(Ordering::Relaxed); // another writer took it
            }
        }
    }

    /// Takes the oldest record. One reader at a time; a second one reads nothing wrong, but may read nothing at all.
    pub fn pop(&self) -> Option<[u64; W]> {
        let position = self.tail.load(Ordering::Relaxed);
        let (place, free) = self.place(position);
        if place.turn.load(Ordering::Acquire) != free + 1 {
            return None;
        }
        if self.tail.compare_exchange(position, position + 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return None;
        }
        let mut record = [0; W];
        for (value, word) in record.iter_mut().zip(&place.words) {
            *value = word.load(Ordering::Relaxed);
        }
        place.turn.store(free + 2, Ordering::Release);
        Some(record)
    }

    /// Whether there is nothing to take right now.
    pub fn is_empty(&self) -> bool {
        let (place, free) = self.place(self.tail.load(Ordering::Relaxed));
        place.turn.load(Ordering::SeqCst) != free + 1
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{sync::Arc, thread, vec::Vec};

    #[test]
    fn keeps_order_and_refuses_when_full() {
        let ring = Ring::<4, 1>::new();
        assert!(ring.is_empty());
        for lap in 0..3 {
            for value in 0..4 {
                assert!(ring.push(|place| {
                    assert_eq!(place, lap * 4 + value);
                    [lap * 10 + value]
                }));
            }
            assert!(!ring.push(|_| panic!("there is no place")));
            for value in 0..4 {
                assert_eq!(ring.pop(), Some([lap * 10 + value]));
            }
            assert_eq!(ring.pop(), None);
        }
    }

    #[test]
    fn writers_on_many_threads_lose_and_tear_nothing() {
        const EACH: u64 = 20_000;
        let ring = Arc::new(Ring::<64, 4>::new());
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let ring = ring.clone();
                thread::spawn(move || {
                    for number in 0..EACH {
                        while !ring.push(|place| [writer, number, writer ^ number, place]) {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0; 4];
        let mut places = 0..;
        while next != [EACH; 4] {
            if let Some([writer, number, check, place]) = ring.pop() {
                assert_eq!(check, writer ^ number);
                assert_eq!(Some(place), places.next(), "records come in the order of their places");
                assert_eq!(number, next[writer as usize]);
                next[writer as usize] += 1;
            }
        }
        for writer in writers {
            writer.join().unwrap();
        }
    }
}

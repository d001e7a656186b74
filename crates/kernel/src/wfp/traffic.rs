//! How many packets and bytes a flow has carried, each way.
//!
//! A packet costs one locked instruction, on the line that its verdict was read from, and no raised IRQL: packets and
//! bytes are in one word. When either half of the word is half full, whoever sees it moves that half into a number of
//! its own; until somebody does the other half of it is left, so a thread that is suspended here harms nobody.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use super::PacketTotals;

/// Bits of bytes in a word; the rest are packets.
const BYTES: u32 = 40;
/// What is moved at once: half of what a word holds.
const MANY_BYTES: u64 = 1 << (BYTES - 1);
const MANY_PACKETS: u64 = 1 << (63 - BYTES);

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Sent by this machine.
    Out,
    /// Received.
    In,
}

/// What went each way, but for what is [`Moved`]. Any IRQL, as nothing here calls the kernel.
#[derive(Debug, Default)]
pub struct Traffic {
    words: [AtomicU64; 2],
}

/// What was moved out of the words: apart from them, so that whoever lays a flow out decides what is beside either.
#[derive(Debug, Default)]
pub struct Moved {
    /// In units of [`MANY_PACKETS`]; stays at its largest, 2^39 packets.
    packets: [AtomicU16; 2],
    /// In units of [`MANY_BYTES`]; stays at its largest, 2^47 bytes.
    bytes: [AtomicU8; 2],
}

impl Moved {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { packets: [const { AtomicU16::new(0) }; 2], bytes: [const { AtomicU8::new(0) }; 2] }
    }

    fn of(&self, way: Way) -> (&AtomicU16, &AtomicU8) {
        let ([packets_out, packets_in], [bytes_out, bytes_in]) = (&self.packets, &self.bytes);
        match way {
            Way::Out => (packets_out, bytes_out),
            Way::In => (packets_in, bytes_in),
        }
    }
}

impl Traffic {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: [const { AtomicU64::new(0) }; 2] }
    }

    /// Adds what a classify shows; `moved` is the same for every call.
    #[inline(always)]
    pub fn add(&self, moved: &Moved, way: Way, totals: PacketTotals) {
        // One classify shows less than this by far; more would spill from one half of the word into the other.
        let packets = totals.packets.min(MANY_PACKETS - 1);
        let bytes = totals.bytes.min(MANY_BYTES - 1);
        let word = self.of(way);
        let added = packets << BYTES | bytes;
        let now = word.fetch_add(added, Ordering::Relaxed).wrapping_add(added);
        if now & (MANY_PACKETS << BYTES | MANY_BYTES) != 0 {
            self.carry(moved, way);
        }
    }

    const fn of(&self, way: Way) -> &AtomicU64 {
        let [out, back] = &self.words;
        match way {
            Way::Out => out,
            Way::In => back,
        }
    }

    #[cold]
    #[inline(never)]
    fn carry(&self, moved: &Moved, way: Way) {
        let (word, (packets, bytes)) = (self.of(way), moved.of(way));
        let full = |now: u64, half: u64| (now & half != 0).then(|| now - half);
        if word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| full(now, MANY_PACKETS << BYTES)).is_ok() {
            let _ = packets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |many| many.checked_add(1));
        }
        if word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| full(now, MANY_BYTES)).is_ok() {
            let _ = bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |many| many.checked_add(1));
        }
    }

    /// What went `way` so far; packets that pass meanwhile are in it or not.
    #[must_use]
    pub fn total(&self, moved: &Moved, way: Way) -> PacketTotals {
        let (packets, bytes) = moved.of(way);
        let word = self.of(way).load(Ordering::Relaxed);
        PacketTotals {
            packets: u64::from(packets.load(Ordering::Relaxed)) * MANY_PACKETS + (word >> BYTES),
            bytes: u64::from(bytes.load(Ordering::Relaxed)) * MANY_BYTES + (word & ((1 << BYTES) - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    fn totals(packets: u64, bytes: u64) -> PacketTotals {
        PacketTotals { packets, bytes }
    }

    #[test]
    fn neither_half_of_the_word_spills_into_the_other() {
        let (traffic, moved) = (Traffic::new(), Moved::new());
        for (round, way) in [Way::Out, Way::In].into_iter().enumerate() {
            let (mut packets, mut bytes) = (0, 0);
            for step in 0..100 {
                let (p, b) = (MANY_PACKETS - 1 - step, MANY_BYTES - 1 - 7 * step * (round as u64 + 1));
                traffic.add(&moved, way, totals(p, b));
                (packets, bytes) = (packets + p, bytes + b);
                assert_eq!(traffic.total(&moved, way), totals(packets, bytes));
            }
        }
        traffic.add(&moved, Way::In, totals(3, 40));
        assert_eq!(traffic.total(&moved, Way::Out).packets, (0..100).map(|step| MANY_PACKETS - 1 - step).sum::<u64>());
    }

    #[test]
    fn what_one_call_cannot_show_is_cut_off_and_the_largest_numbers_stay() {
        let (traffic, moved) = (Traffic::new(), Moved::new());
        traffic.add(&moved, Way::Out, totals(u64::MAX, u64::MAX));
        assert_eq!(traffic.total(&moved, Way::Out), totals(MANY_PACKETS - 1, MANY_BYTES - 1));
        for _ in 0..70_000 {
            traffic.add(&moved, Way::Out, totals(u64::MAX, u64::MAX));
        }
        let now = traffic.total(&moved, Way::Out);
        assert!(now.packets >= u64::from(u16::MAX) * MANY_PACKETS && now.bytes >= u64::from(u8::MAX) * MANY_BYTES);
        assert_eq!(traffic.total(&moved, Way::In), totals(0, 0));
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let (traffic, moved) = (Traffic::new(), Moved::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        traffic.add(&moved, Way::In, totals(MANY_PACKETS / 100, MANY_BYTES / 300));
                    }
                });
            }
        });
        assert_eq!(traffic.total(&moved, Way::In), totals(20_000 * (MANY_PACKETS / 100), 20_000 * (MANY_BYTES / 300)));
    }
}

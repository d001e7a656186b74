//! How long the classify functions of drivers take, without the filter engine around them.
//!
//! While [`start`]ed, each call of a classifyFn is timed by the processor's time stamp counter and added to a row of its
//! function and layer. What the function calls in the kernel is part of it. The time that two readings of the counter
//! take on their own is measured and taken off. Otherwise a call costs one more load and a branch.

use core::arch::x86_64::{_mm_lfence, _rdtsc};
use filter_engine::layers::LayerId;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Rows there are: drivers with more functions and layers share the last.
const ROWS: usize = 256;

static ON: AtomicBool = AtomicBool::new(false);
static TABLE: [Row; ROWS] = [const { Row::new() }; ROWS];

struct Row {
    /// The function's address and the layer, of which one is never 0; 0 is a free row.
    key: AtomicU64,
    calls: AtomicU64,
    ticks: AtomicU64,
}

impl Row {
    const fn new() -> Self {
        Self { key: AtomicU64::new(0), calls: AtomicU64::new(0), ticks: AtomicU64::new(0) }
    }

    fn add(&self, ticks: u64) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.ticks.fetch_add(ticks, Ordering::Relaxed);
    }
}

/// What was measured of one classify function at one layer.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Where the function is; see [`crate::cpu::frame_of`].
    pub routine: u64,
    /// The layer.
    pub layer: LayerId,
    /// How often it was called.
    pub calls: u64,
    /// How long all calls took together, in nanoseconds.
    pub nanoseconds: f64,
}

/// Timing, from its start until it is dropped. One at a time in a process.
#[derive(Debug)]
pub struct Times {
    since: (Instant, u64),
}

/// Begins to time every classify of every machine in the process, with an empty table.
///
/// # Panics
/// When timing is on already.
#[must_use]
pub fn start() -> Times {
    assert!(!ON.swap(true, Ordering::AcqRel), "classify calls are timed already");
    for row in &TABLE {
        for cell in [&row.key, &row.calls, &row.ticks] {
            cell.store(0, Ordering::Relaxed);
        }
    }
    Times { since: (Instant::now(), now()) }
}

impl Times {
    /// How long one tick is, in nanoseconds.
    fn tick(&self) -> f64 {
        let ticks = now().wrapping_sub(self.since.1).max(1);
        self.since.0.elapsed().as_secs_f64() * 1e9 / ticks as f64
    }

    /// What a classifyFn that only returns takes, in nanoseconds, measured the same way: the floor of every row.
    #[must_use]
    pub fn floor(&self) -> f64 {
        let routine = core::hint::black_box(nothing as ClassifyFn);
        let call = || routine(0, 0, 0, 0, 0, 0, 0);
        (median(call) - own_ticks()).max(0.0) * self.tick()
    }

    /// What was measured so far, by function and layer.
    #[must_use]
    pub fn taken(&self) -> Vec<Taken> {
        let nanoseconds = self.tick();
        let own = own_ticks();
        let rows = TABLE.iter().take_while(|row| row.key.load(Ordering::Acquire) != 0);
        rows.map(|row| {
            let (key, calls) = (row.key.load(Ordering::Relaxed), row.calls.load(Ordering::Relaxed));
            let ticks = row.ticks.load(Ordering::Relaxed) as f64 - own * calls as f64;
            let layer = LayerId((key >> 48) as u16);
            Taken { routine: key & LOW, layer, calls, nanoseconds: ticks.max(0.0) * nanoseconds }
        })
        .collect()
    }
}

impl Drop for Times {
    fn drop(&mut self) {
        ON.store(false, Ordering::Release);
    }
}

const LOW: u64 = (1 << 48) - 1;

#[inline(always)]
fn now() -> u64 {
    // SAFETY: every x86-64 processor has both; the fences keep what is timed between the readings.
    unsafe {
        _mm_lfence();
        let ticks = _rdtsc();
        _mm_lfence();
        ticks
    }
}

/// As many words as a classifyFn takes.
type ClassifyFn = extern "win64" fn(u64, u64, u64, u64, u64, u64, u64);

extern "win64" fn nothing(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64) {}

/// What two readings show of themselves.
fn own_ticks() -> f64 {
    median(|| ())
}

/// The median of many calls, in ticks.
#[inline(always)]
fn median(call: impl Fn()) -> f64 {
    let mut samples = [0; 1001];
    for sample in &mut samples {
        let before = now();
        call();
        *sample = now().wrapping_sub(before);
    }
    samples.sort_unstable();
    samples[samples.len() / 2] as f64
}

/// Calls a classify function, timed if timing is on.
#[inline(always)]
pub(crate) fn classify<R>(routine: u64, layer: LayerId, call: impl FnOnce() -> R) -> R {
    if !ON.load(Ordering::Relaxed) {
        return call();
    }
    let before = now();
    let value = call();
    add(routine, layer, now().wrapping_sub(before));
    value
}

#[cold]
#[inline(never)]
fn add(routine: u64, layer: LayerId, ticks: u64) {
    let key = routine & LOW | u64::from(layer.0) << 48;
    let mine = |row: &&Row| {
        let found = row.key.load(Ordering::Acquire);
        found == key || found == 0 && row.key.compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire).is_ok()
    };
    // Another thread may have taken the free row for the same key.
    let taken = |row: &&Row| row.key.load(Ordering::Acquire) == key;
    let row = TABLE.iter().find(|row| mine(row) || taken(row));
    row.unwrap_or(&TABLE[ROWS - 1]).add(ticks);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_added_up_by_function_and_layer() {
        let spend = |routine, layer, times: u32| {
            for _ in 0..times {
                let value = classify(routine, LayerId(layer), || core::hint::black_box(7));
                assert_eq!(value, 7);
            }
        };
        let times = start();
        spend(0x1234, 12, 3);
        spend(0x1234, 16, 2);
        spend(0x9999, 12, 1);
        // Other tests of this process may classify meanwhile.
        let mine = |routine, layer| {
            let taken = times.taken();
            let row = taken.iter().find(|row| row.routine == routine && row.layer == LayerId(layer)).copied();
            row.map_or(0, |row| row.calls)
        };
        assert_eq!([mine(0x1234, 12), mine(0x1234, 16), mine(0x9999, 12), mine(0x9999, 16)], [3, 2, 1, 0]);
        assert!(times.floor().is_finite());
        drop(times);
        spend(0x1234, 12, 3);
        assert_eq!(start().taken().iter().find(|row| row.routine == 0x1234).map(|row| row.calls), None);
    }
}

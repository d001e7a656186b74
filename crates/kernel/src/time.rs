//! Clocks and waiting.

use core::sync::atomic::{AtomicU64, Ordering};

use wdk_sys::LARGE_INTEGER;

use crate::processor::Padded;

/// The time since the machine was started, in 100 ns: it goes on when the system time is set, and is the same for all
/// processors to within a microsecond ("KeQueryInterruptTimePrecise"). Any IRQL.
#[must_use]
pub fn interrupt_time() -> u64 {
    let mut counter = 0;
    // SAFETY: KeQueryInterruptTimePrecise writes one ULONG64 and may be called at any IRQL (wdm.h).
    unsafe { wdk_sys::ntddk::KeQueryInterruptTimePrecise(&raw mut counter) }
}

/// The system time in 100 ns since 1601-01-01 UTC, as FILETIME. Any IRQL.
#[must_use]
pub fn system_time() -> u64 {
    let mut now = LARGE_INTEGER::default();
    // SAFETY: KeQuerySystemTimePrecise writes one LARGE_INTEGER and may be called at any IRQL (wdm.h).
    unsafe { wdk_sys::ntddk::KeQuerySystemTimePrecise(&raw mut now) };
    // SAFETY: every bit pattern is a valid QuadPart.
    unsafe { now.QuadPart as u64 }
}

/// The system time of moments of [`interrupt_time`], without reading a second clock for each.
///
/// The difference between the two clocks is looked at again every [`WallClock::EVERY`], and taken over when it has
/// changed by more than [`WallClock::TOLERANCE`]: so times keep the order of their moments unless the system time was set
/// back, and are right to within that tolerance.
#[derive(Debug)]
pub struct WallClock(Padded<Difference>);

#[derive(Debug)]
struct Difference {
    /// System time less interrupt time; 0 before the first look.
    value: AtomicU64,
    /// The moment of the last look.
    looked: AtomicU64,
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new()
    }
}

impl WallClock {
    /// How often the difference is looked at, in 100 ns: 10 ms.
    pub const EVERY: u64 = 100_000;
    /// By how much a time can be wrong, in 100 ns: 1 ms.
    pub const TOLERANCE: u64 = 10_000;
    /// A look that takes longer, in 100 ns, says too little: 0.1 ms.
    const LONGEST_LOOK: u64 = 1000;

    /// A clock that has not been looked at.
    #[must_use]
    pub const fn new() -> Self {
        Self(Padded(Difference { value: AtomicU64::new(0), looked: AtomicU64::new(0) }))
    }

    /// The system time (FILETIME) of a moment that has just been read. Any IRQL.
    pub fn at(&self, moment: u64) -> u64 {
        let Difference { value, looked } = &self.0.0;
        let before = looked.load(Ordering::Relaxed);
        let old = value.load(Ordering::Relaxed);
        let due = old == 0 || moment.saturating_sub(before) >= Self::EVERY;
        if due && looked.compare_exchange(before, moment, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let (start, system, end) = (interrupt_time(), system_time(), interrupt_time());
            let new = system.wrapping_sub(start);
            let clear = end.saturating_sub(start) <= Self::LONGEST_LOOK;
            if old == 0 || (clear && new.abs_diff(old) > Self::TOLERANCE) {
                value.store(new, Ordering::Relaxed);
            }
        }
        moment.wrapping_add(value.load(Ordering::Relaxed))
    }
}

/// Sleeps for about a millisecond. IRQL = PASSIVE_LEVEL.
pub fn sleep_a_moment() {
    const KERNEL_MODE: i8 = 0;
    let mut interval = LARGE_INTEGER { QuadPart: -10_000 };
    // SAFETY: a kernel-mode, non-alertable delay with a valid relative interval; the result only says that it ended.
    let _ = unsafe { wdk_sys::ntddk::KeDelayExecutionThread(KERNEL_MODE as _, 0, &raw mut interval) };
}

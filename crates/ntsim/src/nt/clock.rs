//! The machine's time.
//!
//! Three scales, as on Windows: system time (100 ns since 1601-01-01 UTC), interrupt time (100 ns since the machine
//! started), and the performance counter, which ticks at 10 MHz as on every machine with an invariant TSC since
//! Windows 10. All run with the host's clocks; a test can push them forward, let the machine sleep, and set the system
//! time back.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// 100 ns units in a second; also the frequency of the performance counter.
pub const PER_SECOND: u64 = 10_000_000;
/// Seconds between 1601-01-01 and 1970-01-01.
const EPOCH_DIFFERENCE: u64 = 11_644_473_600;

/// A machine's clock.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    pushed: AtomicU64,
    /// How much of that the machine slept.
    slept: AtomicU64,
    /// By how much the system time was set forward, or back.
    set: AtomicI64,
    /// How often [`Clock::read`] was called.
    readings: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            pushed: AtomicU64::new(0),
            slept: AtomicU64::new(0),
            set: AtomicI64::new(0),
            readings: AtomicU64::new(0),
        }
    }
}

/// A duration in units of 100 ns.
#[must_use]
pub fn units(duration: Duration) -> u64 {
    duration.as_secs() * PER_SECOND + u64::from(duration.subsec_nanos()) / 100
}

impl Clock {
    fn pushed(&self) -> u64 {
        self.pushed.load(Ordering::Acquire)
    }

    /// System time, in 100 ns since 1601.
    #[must_use]
    pub fn system_time(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unset = EPOCH_DIFFERENCE * PER_SECOND + units(since_1970) + self.pushed();
        unset.saturating_add_signed(self.set.load(Ordering::Acquire))
    }

    /// Interrupt time without that in which the machine slept ("KeQueryUnbiasedInterruptTime").
    #[must_use]
    pub fn unbiased_interrupt_time(&self) -> u64 {
        self.interrupt_time() - self.slept.load(Ordering::Acquire)
    }

    /// The machine sleeps: the scales move on, but for that of the time in which it works. Whoever calls this tells the
    /// drivers, see [`Machine::sleep`](crate::machine::Machine::sleep).
    pub(crate) fn sleep(&self, time: Duration) {
        self.push(time);
        self.slept.fetch_add(units(time), Ordering::AcqRel);
    }

    /// Sets the system time forward by so many 100 ns, or back, as an administrator or a time service does. The other scales
    /// go on.
    pub fn set(&self, by: i64) {
        self.set.fetch_add(by, Ordering::AcqRel);
    }

    /// Interrupt time, in 100 ns since the machine started.
    #[must_use]
    pub fn interrupt_time(&self) -> u64 {
        units(self.started.elapsed()) + self.pushed()
    }

    /// A time since the machine started that goes on by a microsecond with each call of this, and not by itself.
    pub(crate) fn read(&self) -> u64 {
        10 * (1 + self.readings.fetch_add(1, Ordering::AcqRel)) + self.pushed()
    }

    /// The system time at which such a time began.
    pub(crate) fn started_at(&self) -> u64 {
        /// 2024-01-01 in FILETIME.
        const BEGIN: u64 = 133_485_408_000_000_000;
        BEGIN.saturating_add_signed(self.set.load(Ordering::Acquire))
    }

    /// Moves every scale forward. What waits for a time that is then past finds out within a millisecond or two.
    pub fn push(&self, by: Duration) {
        self.pushed.fetch_add(units(by), Ordering::AcqRel);
    }

    /// The interrupt time a `LARGE_INTEGER` timeout means: negative is relative, else it is an absolute system time.
    #[must_use]
    pub fn due(&self, timeout: i64) -> u64 {
        let now = self.interrupt_time();
        if timeout < 0 {
            now.saturating_add(timeout.unsigned_abs())
        } else {
            now.saturating_add((timeout as u64).saturating_sub(self.system_time()))
        }
    }
}

//! A clock that costs a packet one load: the second that it is, noted by a timer.
//!
//! Flows begin and are used in a second of it. Its resolution is a second and a half, as Windows may put the timer off;
//! after a sleep it is right again when the timer has run, within as much. It is the system time, so it goes back when
//! somebody sets the machine's clock back.

use kernel::{
    status::NtResult,
    time,
    wdf::{ControlDevice, Routine, Timer},
};

use crate::{SLUICE, device::Device};

/// How often the second is noted, in milliseconds.
const PERIOD: u32 = 1000;
/// 100 ns of a second.
const SECOND: u64 = 10_000_000;
/// 1601-01-01 to 1970-01-01 in seconds. From there seconds fit 32 bits until 2106.
const TO_1970: u64 = 11_644_473_600;

pub(crate) struct Clock {
    timer: Timer,
}

impl Clock {
    pub(crate) const fn new() -> Self {
        Self { timer: Timer::new() }
    }

    /// PASSIVE_LEVEL.
    pub(crate) fn start(&self, device: &ControlDevice<Device>) -> NtResult<()> {
        Tick::run();
        self.timer.every::<Tick, _>(device, PERIOD)
    }

    /// Before the device is deleted. PASSIVE_LEVEL.
    pub(crate) fn stop(&self) {
        self.timer.forget();
    }
}

struct Tick;

impl Routine for Tick {
    fn run() {
        SLUICE.policy.note_second((time::system_time() / SECOND).saturating_sub(TO_1970) as u32);
    }
}

/// A second of the clock as FILETIME, in 100 ns since 1601-01-01 UTC.
pub(crate) const fn filetime(second: u32) -> u64 {
    (second as u64 + TO_1970) * SECOND
}

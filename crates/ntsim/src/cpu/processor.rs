//! The machine's processors.
//!
//! A thread below DISPATCH_LEVEL may run anywhere. At or above it, it owns one processor until it lowers again, so that
//! driver code which indexes its data by processor number at DISPATCH_LEVEL has it to itself, as on Windows.

use super::kpcr::Kpcr;
use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The processors of one machine.
#[derive(Debug)]
pub struct Processors {
    claimed: Box<[CachePadded<AtomicBool>]>,
    next: AtomicU32,
}

impl Processors {
    /// `count` processors, at least one, numbered from 0.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Self { claimed: (0..count.max(1)).map(|_| CachePadded::default()).collect(), next: AtomicU32::new(0) }
    }

    /// The number of processors.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.claimed.len() as u32
    }

    /// A processor number for a thread that starts to run on this machine.
    pub(super) fn assign(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed) % self.count()
    }

    fn try_claim(&self, number: u32) -> bool {
        let slot = &self.claimed[number as usize % self.claimed.len()];
        slot.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Makes a processor free again.
    pub(super) fn free(&self, number: u32) {
        self.claimed[number as usize % self.claimed.len()].store(false, Ordering::Release);
    }
}

/// Makes this thread the owner of a processor: its last one if that is free, else any free one; waits when none is
/// free.
pub(super) fn claim(kpcr: &Kpcr) {
    let processors = &super::context::machine().processors;
    let preferred = kpcr.number();
    if processors.try_claim(preferred) {
        return;
    }
    for round in 1_u32.. {
        for offset in 1..=processors.count() {
            let number = (preferred + offset) % processors.count();
            if processors.try_claim(number) {
                kpcr.set_number(number);
                return;
            }
        }
        super::leave_if_stopped();
        if round.is_multiple_of(16) { std::thread::yield_now() } else { std::hint::spin_loop() }
    }
}

/// Releases this thread's processor.
pub(super) fn release(kpcr: &Kpcr) {
    super::context::machine().processors.free(kpcr.number());
}

/// Waits until processor `number` has been below DISPATCH_LEVEL once. The caller must be below it.
pub(crate) fn pass_through(number: u32) {
    let machine = super::context::machine();
    for round in 1_u32.. {
        if machine.processors.try_claim(number) {
            machine.processors.free(number);
            return;
        }
        super::leave_if_stopped();
        if round.is_multiple_of(16) { std::thread::yield_now() } else { std::hint::spin_loop() }
    }
}

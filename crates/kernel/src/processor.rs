//! The current processor.

use core::ptr::null_mut;

/// Data kept per processor is padded to this, so that two processors never share a cache line (two lines, because
/// x64 prefetches pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

/// How many per-processor slots such data has. Processors beyond this many share slots; that costs time, not
/// correctness.
pub const SLOTS: usize = 64;

/// The slot of the current processor, below [`SLOTS`]. A thread below DISPATCH_LEVEL may be moved right after.
/// Any IRQL.
#[must_use]
pub fn slot() -> usize {
    number() % SLOTS
}

/// How many processors are active now, in all groups. Any IRQL.
#[must_use]
pub fn active() -> usize {
    const ALL_PROCESSOR_GROUPS: u16 = 0xffff;
    // SAFETY: KeQueryActiveProcessorCountEx takes a number and may be called at any IRQL (wdm.h).
    let count = unsafe { wdk_sys::ntddk::KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS) };
    count as usize
}

/// The number of the current processor. Any IRQL.
pub(crate) fn number() -> usize {
    // SAFETY: KeGetCurrentProcessorNumberEx takes an optional out parameter and may be called at any IRQL (wdm.h).
    let number = unsafe { wdk_sys::ntddk::KeGetCurrentProcessorNumberEx(null_mut()) };
    number as usize
}

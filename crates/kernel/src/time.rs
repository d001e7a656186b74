//! Clocks and waiting.

use wdk_sys::LARGE_INTEGER;

/// The system time in 100 ns since 1601-01-01 UTC, as FILETIME. Any IRQL.
#[must_use]
pub fn system_time() -> u64 {
    let mut now = LARGE_INTEGER::default();
    // SAFETY: KeQuerySystemTimePrecise writes one LARGE_INTEGER and may be called at any IRQL (wdm.h).
    unsafe { wdk_sys::ntddk::KeQuerySystemTimePrecise(&raw mut now) };
    // SAFETY: every bit pattern is a valid QuadPart.
    unsafe { now.QuadPart as u64 }
}

/// Sleeps for about a millisecond. IRQL = PASSIVE_LEVEL.
pub fn sleep_a_moment() {
    const KERNEL_MODE: i8 = 0;
    let mut interval = LARGE_INTEGER { QuadPart: -10_000 };
    // SAFETY: a kernel-mode, non-alertable delay with a valid relative interval; the result only says that it ended.
    let _ = unsafe { wdk_sys::ntddk::KeDelayExecutionThread(KERNEL_MODE as _, 0, &raw mut interval) };
}

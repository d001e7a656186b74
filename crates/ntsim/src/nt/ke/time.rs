//! Reading the clocks.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::{Export, exports};
use crate::nt::clock::PER_SECOND;
use nt_abi::Irql;

exports! {
    "ntoskrnl.exe";
    KeQuerySystemTimePrecise: HIGH,
    KeQueryInterruptTime: HIGH,
    KeQueryInterruptTimePrecise: HIGH,
    KeQueryUnbiasedInterruptTime: HIGH,
    KeQueryTickCount: HIGH,
    KeQueryTimeIncrement: HIGH,
    KeQueryPerformanceCounter: HIGH,
    KeStallExecutionProcessor: HIGH,
    ExSystemTimeToLocalTime: HIGH,
    ExLocalTimeToSystemTime: HIGH,
}

/// HAL.dll's share.
pub const HAL_EXPORTS: &[Export] =
    &[Export::function("HAL.dll", "KeQueryPerformanceCounter", Irql::HIGH, KeQueryPerformanceCounter as *const ())];

/// 15.625 ms in 100 ns units: the clock interrupt of x64 Windows.
const TIME_INCREMENT: u32 = 156_250;

/// Where calls are repeatable ([`crate::trace::Hooks::schedule`]), so is what a driver reads of the clock.
fn interrupt_time() -> u64 {
    cpu::with_machine(|machine| match machine.hooks.is_scheduled() {
        true => machine.clock.read(),
        false => machine.clock.interrupt_time(),
    })
}

unsafe extern "win64" fn KeQuerySystemTimePrecise(time: *mut u64) {
    let now = cpu::with_machine(|machine| match machine.hooks.is_scheduled() {
        true => machine.clock.started_at() + machine.clock.read(),
        false => machine.clock.system_time(),
    });
    // SAFETY: the page demands a LARGE_INTEGER to write.
    unsafe { time.write(now) };
}

extern "win64" fn KeQueryInterruptTime() -> u64 {
    interrupt_time()
}

unsafe extern "win64" fn KeQueryInterruptTimePrecise(counter: *mut u64) -> u64 {
    let now = interrupt_time();
    // SAFETY: the page demands a ULONG64 to write.
    unsafe { counter.write(now) };
    now
}

extern "win64" fn KeQueryUnbiasedInterruptTime() -> u64 {
    cpu::with_machine(|machine| machine.clock.unbiased_interrupt_time())
}

unsafe extern "win64" fn KeQueryTickCount(count: *mut u64) {
    let ticks = interrupt_time() / u64::from(TIME_INCREMENT);
    // SAFETY: the page demands a LARGE_INTEGER to write.
    unsafe { count.write(ticks) };
}

extern "win64" fn KeQueryTimeIncrement() -> u32 {
    TIME_INCREMENT
}

unsafe extern "win64" fn KeQueryPerformanceCounter(frequency: *mut u64) -> u64 {
    if !frequency.is_null() {
        // SAFETY: null is checked; the page demands a LARGE_INTEGER to write.
        unsafe { frequency.write(PER_SECOND) };
    }
    interrupt_time()
}

extern "win64" fn KeStallExecutionProcessor(microseconds: u32) {
    let until = std::time::Instant::now() + std::time::Duration::from_micros(u64::from(microseconds));
    while std::time::Instant::now() < until {
        core::hint::spin_loop();
    }
}

/// The machine's time zone is UTC, so both conversions copy.
unsafe extern "win64" fn ExSystemTimeToLocalTime(from: *const u64, to: *mut u64) {
    // SAFETY: the page demands two LARGE_INTEGERs, one to read and one to write; they may be the same.
    unsafe { to.write(from.read()) };
}

unsafe extern "win64" fn ExLocalTimeToSystemTime(from: *const u64, to: *mut u64) {
    // SAFETY: the page demands two LARGE_INTEGERs, one to read and one to write; they may be the same.
    unsafe { to.write(from.read()) };
}

//! Kernel functions for unit tests on the host, where there is no kernel: only what the tested modules need.

extern crate std;

use std::{
    cell::Cell,
    sync::OnceLock,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

static THREADS: AtomicU32 = AtomicU32::new(0);

std::thread_local! {
    static PROCESSOR: Cell<u32> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
    /// How often the clock has been read, where it does not run by itself.
    static READ: Cell<Option<u64>> = const { Cell::new(None) };
}

/// xorshift64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }
}

/// From now on the clock goes on for this thread with every fourth reading of it, and not by itself.
pub(crate) fn script_clock() {
    READ.with(|read| read.set(Some(1000)));
}

#[unsafe(no_mangle)]
extern "C" fn KeQueryInterruptTimePrecise(counter: *mut u64) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let time = match READ.with(|read| read.replace(read.get().map(|count| count + 1))) {
        Some(count) => count / 4,
        None => START.get_or_init(Instant::now).elapsed().as_nanos() as u64 / 100,
    };
    // SAFETY: the tested code passes a word to write.
    unsafe { counter.write(time) };
    time
}

/// Every thread is its own processor, and moves to another one from time to time.
#[unsafe(no_mangle)]
extern "C" fn KeGetCurrentProcessorNumberEx(_number: *mut core::ffi::c_void) -> u32 {
    PROCESSOR.with(|processor| {
        processor.set(processor.get().wrapping_mul(5).wrapping_add(1));
        processor.get()
    })
}

#[unsafe(no_mangle)]
extern "C" fn KeDelayExecutionThread(_mode: i8, _alertable: u8, _interval: *mut i64) -> i32 {
    thread::yield_now();
    0
}

/// A thread of a test is at DISPATCH_LEVEL from the start.
#[unsafe(no_mangle)]
extern "C" fn KeGetCurrentIrql() -> u8 {
    2
}

#[unsafe(no_mangle)]
extern "C" fn KeRaiseIrqlToDpcLevel() -> u8 {
    2
}

#[unsafe(no_mangle)]
extern "C" fn KeLowerIrql(_irql: u8) {}

#[unsafe(no_mangle)]
extern "C" fn KeAcquireSpinLockRaiseToDpc(lock: *mut usize) -> u8 {
    // SAFETY: the tested code passes its own lock, a word that only these two functions touch.
    let lock = unsafe { AtomicUsize::from_ptr(lock) };
    while lock.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
        thread::yield_now();
    }
    2
}

#[unsafe(no_mangle)]
extern "C" fn KeReleaseSpinLock(lock: *mut usize, _irql: u8) {
    // SAFETY: as above.
    unsafe { AtomicUsize::from_ptr(lock) }.store(0, Ordering::Release);
}

/// There is never memory.
#[unsafe(no_mangle)]
extern "C" fn MmMapLockedPagesSpecifyCache(
    _mdl: *mut core::ffi::c_void,
    _mode: i8,
    _cache: u32,
    _requested: *mut core::ffi::c_void,
    _bug_check: u32,
    _priority: u32,
) -> *mut core::ffi::c_void {
    core::ptr::null_mut()
}

//! Kernel functions for unit tests on the host, where there is no kernel: as little as the tested rooms need.

extern crate std;

use std::{
    cell::Cell,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

static THREADS: AtomicU32 = AtomicU32::new(0);

std::thread_local! {
    static PROCESSOR: Cell<u32> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
}

/// Every thread is its own processor, and moves to another one now and then.
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

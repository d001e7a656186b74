//! Unloads while its system thread runs.
#![no_std]

use planted::{Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn start() {
        unsafe extern "system" fn run(_context: *mut core::ffi::c_void) {
            loop {
                let second = -10_000_000_i64;
                KeDelayExecutionThread(0, 0, &raw const second);
            }
        }
        let mut handle = core::ptr::null_mut();
        let (process, client) = (core::ptr::null_mut(), core::ptr::null_mut());
        PsCreateSystemThread(&raw mut handle, 0, core::ptr::null(), process, client, run, core::ptr::null_mut());
        ZwClose(handle);
    }
}

planted::driver!(Planted);

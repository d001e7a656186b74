//! Calls a routine that must be called at PASSIVE_LEVEL from classifyFn, which is at DISPATCH_LEVEL.
#![no_std]

use planted::{Classify, Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn classify(_call: &Classify) {
        let mut handle = core::ptr::null_mut();
        ZwOpenKey(&raw mut handle, 0, core::ptr::null());
    }
}

planted::driver!(Planted);

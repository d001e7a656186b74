//! Frees a block that holds an active timer.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        let block = ExAllocatePool2(NON_PAGED, 64, TAG);
        KeInitializeTimer(block.cast());
        KeSetTimer(block.cast(), -600_000_000, core::ptr::null_mut()); // a minute
        ExFreePoolWithTag(block, TAG);
        false
    }
}

planted::driver!(Planted);

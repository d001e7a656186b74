//! Runs code in pool that is not executable.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        let block = ExAllocatePool2(NON_PAGED, 64, TAG);
        block.write_volatile(0xc3); // ret
        let code: extern "system" fn() = core::mem::transmute(block);
        code();
        ExFreePoolWithTag(block, TAG);
        false
    }
}

planted::driver!(Planted);

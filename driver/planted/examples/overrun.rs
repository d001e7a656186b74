//! Writes past the end of a block.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        let block = ExAllocatePool2(NON_PAGED, 48, TAG);
        block.add(48).write_volatile(1);
        ExFreePoolWithTag(block, TAG);
        false
    }
}

planted::driver!(Planted);

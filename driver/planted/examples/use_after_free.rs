//! Writes to a block that it has freed.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        let block = ExAllocatePool2(NON_PAGED, 64, TAG);
        ExFreePoolWithTag(block, TAG);
        block.add(8).write_volatile(1);
        false
    }
}

planted::driver!(Planted);

//! Frees an address inside a block.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        let block = ExAllocatePool2(NON_PAGED, 64, TAG);
        ExFreePoolWithTag(block.add(16), TAG);
        false
    }
}

planted::driver!(Planted);

//! Describes a block with an MDL, and frees only the block.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        let block = ExAllocatePool2(NON_PAGED, 64, TAG);
        IoAllocateMdl(block, 64, 0, 0, core::ptr::null_mut());
        ExFreePoolWithTag(block, TAG);
        false
    }
}

planted::driver!(Planted);

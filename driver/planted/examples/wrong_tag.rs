//! Frees with a tag that it did not allocate with.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        let block = ExAllocatePool2(NON_PAGED, 64, TAG);
        ExFreePoolWithTag(block, u32::from_le_bytes(*b"Othr"));
        false
    }
}

planted::driver!(Planted);

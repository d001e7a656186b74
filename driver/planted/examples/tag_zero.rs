//! Allocates pool with the tag 0.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        ExAllocatePool2(NON_PAGED, 64, 0);
        false
    }
}

planted::driver!(Planted);

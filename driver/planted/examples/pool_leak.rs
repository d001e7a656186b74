//! Allocates and forgets.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        ExAllocatePool2(NON_PAGED, 123, TAG);
        false
    }
}

planted::driver!(Planted);

//! Calls KeBugCheckEx.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        KeBugCheckEx(0xE2, 1, 2, 3, 4)
    }
}

planted::driver!(Planted);

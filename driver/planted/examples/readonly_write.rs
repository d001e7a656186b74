//! Writes to a read-only section of its image.
#![no_std]

use planted::{Defect, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        static CONSTANT: [u8; 4] = *b"rock";
        CONSTANT.as_ptr().cast_mut().write_volatile(b's');
        false
    }
}

planted::driver!(Planted);

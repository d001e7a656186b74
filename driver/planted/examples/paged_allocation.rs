//! Allocates paged pool at DISPATCH_LEVEL.
#![no_std]

use planted::{Classify, Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn classify(_call: &Classify) {
        ExAllocatePool2(PAGED, 64, TAG);
    }
}

planted::driver!(Planted);

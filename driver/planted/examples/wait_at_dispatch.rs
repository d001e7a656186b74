//! Waits at DISPATCH_LEVEL.
#![no_std]

use planted::{Classify, Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn classify(_call: &Classify) {
        static EVENT: Object = Object::new();
        KeInitializeEvent(EVENT.at(), 0, 0);
        let millisecond = -10_000_i64;
        KeWaitForSingleObject(EVENT.at(), 0, 0, 0, &raw const millisecond);
    }
}

planted::driver!(Planted);

//! Unloads with an active timer.
#![no_std]

use planted::{Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn start() {
        static TIMER: Object = Object::new();
        KeInitializeTimer(TIMER.at());
        KeSetTimer(TIMER.at(), -600_000_000, core::ptr::null_mut()); // a minute
    }
}

planted::driver!(Planted);

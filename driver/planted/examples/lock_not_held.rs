//! Releases a spin lock that nobody holds.
#![no_std]

use planted::{Classify, Defect, kernel::*};

struct Planted;

static LOCK: Object = Object::new();

impl Defect for Planted {
    unsafe fn classify(_call: &Classify) {
        KeReleaseSpinLockFromDpcLevel(LOCK.at());
    }
}

planted::driver!(Planted);

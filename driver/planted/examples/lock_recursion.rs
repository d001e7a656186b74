//! Acquires a spin lock that it holds.
#![no_std]

use planted::{Classify, Defect, kernel::*};

struct Planted;

static LOCK: Object = Object::new();

impl Defect for Planted {
    unsafe fn classify(_call: &Classify) {
        KeAcquireSpinLockAtDpcLevel(LOCK.at());
        KeAcquireSpinLockAtDpcLevel(LOCK.at());
    }
}

planted::driver!(Planted);

//! Acquires a reader/writer spin lock twice, both times as a reader.
#![no_std]

use planted::{Classify, Defect, kernel::*};

struct Planted;

static LOCK: Object = Object::new();

impl Defect for Planted {
    unsafe fn classify(_call: &Classify) {
        ExAcquireSpinLockSharedAtDpcLevel(LOCK.at());
        ExAcquireSpinLockSharedAtDpcLevel(LOCK.at());
    }
}

planted::driver!(Planted);

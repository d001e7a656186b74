//! No defect: no check may fire.
#![no_std]

use planted::{Classify, Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn classify(_call: &Classify) {
        // At DISPATCH_LEVEL, like the others: pool and locks, used correctly.
        static LOCK: Object = Object::new();
        KeAcquireSpinLockAtDpcLevel(LOCK.at());
        KeReleaseSpinLockFromDpcLevel(LOCK.at());
        let block = ExAllocatePool2(NON_PAGED, 40, TAG);
        if !block.is_null() {
            block.add(39).write_volatile(1);
            ExFreePoolWithTag(block, TAG);
        }
    }
}

planted::driver!(Planted);

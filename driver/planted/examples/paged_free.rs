//! Frees paged pool at DISPATCH_LEVEL.
#![no_std]

use core::sync::atomic::{AtomicPtr, Ordering};

use planted::{Classify, Defect, kernel::*, wdk_sys::*};

struct Planted;

static BLOCK: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        BLOCK.store(ExAllocatePool2(PAGED, 64, TAG), Ordering::Release);
        false
    }

    unsafe fn classify(_call: &Classify) {
        ExFreePoolWithTag(BLOCK.load(Ordering::Acquire), TAG);
    }
}

planted::driver!(Planted);

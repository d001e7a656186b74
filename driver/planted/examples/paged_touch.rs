//! Reads paged pool at DISPATCH_LEVEL.
#![no_std]

use core::sync::atomic::{AtomicPtr, Ordering};

use planted::{Classify, Defect, kernel::*, wdk_sys::*};

struct Planted;

static BLOCK: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        // It may be touched here.
        let block = ExAllocatePool2(PAGED, 64, TAG);
        block.write_volatile(1);
        BLOCK.store(block, Ordering::Release);
        false
    }

    unsafe fn classify(_call: &Classify) {
        BLOCK.load(Ordering::Acquire).read_volatile();
    }

    unsafe fn stop() {
        ExFreePoolWithTag(BLOCK.load(Ordering::Acquire), TAG);
    }
}

planted::driver!(Planted);

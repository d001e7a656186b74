//! Fails fast, as a stack cookie or a corrupt list makes a driver do.
#![no_std]

use planted::{Defect, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        core::arch::asm!("int 0x29", in("ecx") 3, options(noreturn)); // FAST_FAIL_CORRUPT_LIST_ENTRY
    }
}

planted::driver!(Planted);

//! Divides an integer by zero.
#![no_std]

use planted::{Defect, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        core::arch::asm!("div {zero}", zero = in(reg) 0_u64, inout("rax") 1_u64 => _, inout("rdx") 0_u64 => _);
        false
    }
}

planted::driver!(Planted);

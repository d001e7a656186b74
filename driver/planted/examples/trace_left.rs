//! Registers an event provider and does not unregister it.
#![no_std]

use planted::{Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn start() {
        let provider = [0x5a_u8; 16];
        let mut handle = 0;
        EtwRegister(provider.as_ptr(), core::ptr::null(), core::ptr::null(), &raw mut handle);
    }
}

planted::driver!(Planted);

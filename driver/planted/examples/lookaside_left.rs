//! Unloads without deleting its lookaside list.
#![no_std]

use planted::{Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn start() {
        static LIST: Object = Object::new();
        let none = core::ptr::null_mut();
        ExInitializeLookasideListEx(LIST.at(), none, none, 0x200, 0, 64, TAG, 0); // NonPagedPoolNx
    }
}

planted::driver!(Planted);

//! Reads through a null pointer.
#![no_std]

use planted::{Classify, Defect};

struct Planted;

impl Defect for Planted {
    unsafe fn classify(_call: &Classify) {
        let field = core::ptr::without_provenance::<u64>(core::hint::black_box(0x10));
        field.read_volatile();
    }
}

planted::driver!(Planted);

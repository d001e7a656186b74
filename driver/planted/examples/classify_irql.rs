//! Returns from classifyFn at a raised IRQL.
#![no_std]

use planted::{Classify, Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn classify(_call: &Classify) {
        KfRaiseIrql(12);
    }
}

planted::driver!(Planted);

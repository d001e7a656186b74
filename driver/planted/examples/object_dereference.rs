//! Dereferences the current process without having referenced it.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        ObfDereferenceObject(IoGetCurrentProcess());
        false
    }
}

planted::driver!(Planted);

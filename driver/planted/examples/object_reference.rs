//! References the current process and does not dereference it.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        ObfReferenceObject(IoGetCurrentProcess());
        false
    }
}

planted::driver!(Planted);

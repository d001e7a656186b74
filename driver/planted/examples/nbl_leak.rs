//! Clones a packet and does not free the clone.
#![no_std]

use planted::{Classify, Defect, wfp_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn classify(call: &Classify) {
        let original = call.layer_data.cast();
        let mut clone = core::ptr::null_mut();
        let _ =
            FwpsAllocateCloneNetBufferList0(original, core::ptr::null_mut(), core::ptr::null_mut(), 0, &raw mut clone);
    }
}

planted::driver!(Planted);

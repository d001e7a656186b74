//! Pends a classification and never completes it.
#![no_std]

use planted::{Classify, Defect, wfp_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn classify(call: &Classify) {
        let (mut handle, filter) = (0, (*call.filter).filterId);
        let _ = FwpsAcquireClassifyHandle0(call.context.cast_mut(), 0, &raw mut handle);
        let _ = FwpsPendClassify0(handle, filter, 0, call.out);
    }
}

planted::driver!(Planted);

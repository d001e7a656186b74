//! Writes an action without checking FWPS_RIGHT_ACTION_WRITE.
#![no_std]

use planted::{Classify, Defect, wfp_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn classify(call: &Classify) {
        (*call.out).actionType = FWP_ACTION_PERMIT as _;
    }
}

planted::driver!(Planted);

//! Makes an injection handle in classifyFn: FwpsInjectionHandleCreate0 requires PASSIVE_LEVEL.
#![no_std]

use planted::{Classify, Defect, wfp_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn classify(_call: &Classify) {
        let mut handle = core::ptr::null_mut();
        let _ = FwpsInjectionHandleCreate0(AF_UNSPEC as _, FWPS_INJECTION_TYPE_TRANSPORT, &raw mut handle);
    }
}

planted::driver!(Planted);

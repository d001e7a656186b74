//! Makes an injection handle and does not destroy it.
#![no_std]

use planted::{Defect, wfp_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn start() {
        let mut handle = core::ptr::null_mut();
        let _ = FwpsInjectionHandleCreate0(AF_UNSPEC as _, FWPS_INJECTION_TYPE_TRANSPORT, &raw mut handle);
    }
}

planted::driver!(Planted);

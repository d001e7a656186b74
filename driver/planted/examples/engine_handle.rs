//! Opens the filter engine and does not close it.
#![no_std]

use planted::{Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn start() {
        let mut handle = core::ptr::null_mut();
        // RPC_C_AUTHN_WINNT is 10.
        let (name, identity, session) = (core::ptr::null(), core::ptr::null_mut(), core::ptr::null());
        let _ = FwpmEngineOpen0(name, 10, identity, session, &raw mut handle);
    }
}

planted::driver!(Planted);

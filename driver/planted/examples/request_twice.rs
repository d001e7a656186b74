//! Completes a request twice.
#![no_std]

use planted::{Defect, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, request: WDFREQUEST) -> bool {
        call_unsafe_wdf_function_binding!(WdfRequestComplete, request, 0);
        call_unsafe_wdf_function_binding!(WdfRequestComplete, request, 0);
        true
    }
}

planted::driver!(Planted);

//! Completes a request that is still marked cancelable.
#![no_std]

use planted::{Defect, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, request: WDFREQUEST) -> bool {
        unsafe extern "C" fn cancel(_request: WDFREQUEST) {}
        let _ = call_unsafe_wdf_function_binding!(WdfRequestMarkCancelableEx, request, Some(cancel));
        call_unsafe_wdf_function_binding!(WdfRequestComplete, request, 0);
        true
    }
}

planted::driver!(Planted);

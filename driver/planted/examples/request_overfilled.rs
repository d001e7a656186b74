//! Reports that it has written more bytes into a buffer than the buffer holds.
#![no_std]

use planted::{Defect, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, request: WDFREQUEST) -> bool {
        call_unsafe_wdf_function_binding!(WdfRequestCompleteWithInformation, request, 0, 4096);
        true
    }
}

planted::driver!(Planted);

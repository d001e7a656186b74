//! Writes to the buffer of a request that it has completed.
#![no_std]

use planted::{Defect, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, request: WDFREQUEST) -> bool {
        let (mut buffer, mut length) = (core::ptr::null_mut(), 0);
        let _ = call_unsafe_wdf_function_binding!(
            WdfRequestRetrieveOutputBuffer,
            request,
            1,
            &raw mut buffer,
            &raw mut length
        );
        call_unsafe_wdf_function_binding!(WdfRequestComplete, request, 0);
        buffer.cast::<u8>().write_volatile(1);
        true
    }
}

planted::driver!(Planted);

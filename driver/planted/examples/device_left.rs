//! Makes a device without the framework and does not delete it.
#![no_std]

use planted::{Defect, device, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn start() {
        static NAME: [u16; 16] = planted::wide(b"\\Device\\Leftover");
        let name = planted::counted(&NAME);
        let driver = call_unsafe_wdf_function_binding!(WdfDeviceGetDriver, device());
        let object = call_unsafe_wdf_function_binding!(WdfDriverWdmGetDriverObject, driver);
        let mut device = core::ptr::null_mut();
        IoCreateDevice(object.cast(), 0, &raw const name, FILE_DEVICE_UNKNOWN, 0, 0, &raw mut device);
    }
}

planted::driver!(Planted);

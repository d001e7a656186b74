//! Opens a registry key and does not close it.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        static NAME: [u16; 24] = planted::wide(b"\\Registry\\Machine\\System");
        let name = planted::counted(&NAME);
        let attributes = ObjectAttributes {
            length: size_of::<ObjectAttributes>() as u32,
            root: core::ptr::null_mut(),
            name: &raw const name,
            attributes: 0x240, // OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE
            descriptor: core::ptr::null(),
            quality: core::ptr::null(),
        };
        let mut handle = core::ptr::null_mut();
        ZwOpenKey(&raw mut handle, 0x2_0019, &raw const attributes); // KEY_READ
        false
    }
}

planted::driver!(Planted);

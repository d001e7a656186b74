//! Returns from a DPC at a raised IRQL.
#![no_std]

use planted::{Classify, Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn classify(_call: &Classify) {
        unsafe extern "system" fn routine(
            _dpc: *mut core::ffi::c_void,
            _context: *mut core::ffi::c_void,
            _first: *mut core::ffi::c_void,
            _second: *mut core::ffi::c_void,
        ) {
            KfRaiseIrql(12);
        }
        static DPC: Object = Object::new();
        KeInitializeDpc(DPC.at(), routine, core::ptr::null_mut());
        KeInsertQueueDpc(DPC.at(), core::ptr::null_mut(), core::ptr::null_mut());
    }
}

planted::driver!(Planted);

//! Returns from EvtIoDeviceControl inside a critical region.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        KeEnterCriticalRegion();
        false
    }
}

planted::driver!(Planted);

//! Returns from EvtIoDeviceControl at a raised IRQL.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        KfRaiseIrql(DISPATCH_LEVEL as u8);
        false
    }
}

planted::driver!(Planted);

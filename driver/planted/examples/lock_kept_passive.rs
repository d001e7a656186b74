//! Returns from EvtIoDeviceControl with a spin lock held, at the IRQL it was called at.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

static LOCK: Object = Object::new();

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        let old = KeAcquireSpinLockRaiseToDpc(LOCK.at());
        KeLowerIrql(old);
        false
    }
}

planted::driver!(Planted);

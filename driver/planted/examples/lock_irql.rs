//! Releases a spin lock to an IRQL above the one it was held at.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

static LOCK: Object = Object::new();

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        let _ = KeAcquireSpinLockRaiseToDpc(LOCK.at());
        KeReleaseSpinLock(LOCK.at(), 12);
        false
    }
}

planted::driver!(Planted);

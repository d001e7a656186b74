//! Releases a guarded mutex that it does not hold.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

static MUTEX: Object = Object::new();

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        KeInitializeGuardedMutex(MUTEX.at());
        KeReleaseGuardedMutex(MUTEX.at());
        false
    }
}

planted::driver!(Planted);

//! Takes two guarded mutexes in one order, and later in the other.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

static FIRST: Object = Object::new();
static SECOND: Object = Object::new();

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        KeInitializeGuardedMutex(FIRST.at());
        KeInitializeGuardedMutex(SECOND.at());
        KeAcquireGuardedMutex(FIRST.at());
        KeAcquireGuardedMutex(SECOND.at());
        KeReleaseGuardedMutex(SECOND.at());
        KeReleaseGuardedMutex(FIRST.at());
        KeAcquireGuardedMutex(SECOND.at());
        KeAcquireGuardedMutex(FIRST.at());
        KeReleaseGuardedMutex(FIRST.at());
        KeReleaseGuardedMutex(SECOND.at());
        false
    }
}

planted::driver!(Planted);

//! Takes two spin locks in one order, and later in the other.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

static FIRST: Object = Object::new();
static SECOND: Object = Object::new();

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        let old = KeAcquireSpinLockRaiseToDpc(FIRST.at());
        KeAcquireSpinLockAtDpcLevel(SECOND.at());
        KeReleaseSpinLockFromDpcLevel(SECOND.at());
        KeReleaseSpinLock(FIRST.at(), old);
        let old = KeAcquireSpinLockRaiseToDpc(SECOND.at());
        KeAcquireSpinLockAtDpcLevel(FIRST.at());
        KeReleaseSpinLockFromDpcLevel(FIRST.at());
        KeReleaseSpinLock(SECOND.at(), old);
        false
    }
}

planted::driver!(Planted);

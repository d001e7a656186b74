//! Releases an ERESOURCE that it does not hold.
#![no_std]

use planted::{Defect, kernel::*, wdk_sys::*};

struct Planted;

static RESOURCE: Object = Object::new();

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        ExInitializeResourceLite(RESOURCE.at());
        KeEnterCriticalRegion();
        ExReleaseResourceLite(RESOURCE.at());
        false
    }
}

planted::driver!(Planted);

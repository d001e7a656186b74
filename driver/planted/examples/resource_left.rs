//! Unloads without deleting its ERESOURCE.
#![no_std]

use planted::{Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn start() {
        static RESOURCE: Object = Object::new();
        ExInitializeResourceLite(RESOURCE.at());
    }
}

planted::driver!(Planted);

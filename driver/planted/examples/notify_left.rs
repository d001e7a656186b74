//! Unloads with a process notify routine registered.
#![no_std]

use planted::{Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn start() {
        unsafe extern "system" fn notify(_parent: usize, _process: usize, _create: u8) {}
        PsSetCreateProcessNotifyRoutine(notify, 0);
    }
}

planted::driver!(Planted);

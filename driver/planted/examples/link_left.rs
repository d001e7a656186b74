//! Makes a second symbolic link to its device and does not delete it.
#![no_std]

use planted::{Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn start() {
        static LINK: [u16; 24] = planted::wide(b"\\DosDevices\\PlantedAlias");
        static TARGET: [u16; 15] = planted::wide(b"\\Device\\Planted");
        let (link, target) = (planted::counted(&LINK), planted::counted(&TARGET));
        IoCreateSymbolicLink(&raw const link, &raw const target);
    }
}

planted::driver!(Planted);

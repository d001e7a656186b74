//! Recurses endlessly.
#![no_std]

use planted::{Defect, wdk_sys::*};

struct Planted;

static TOP: u8 = 0;

impl Defect for Planted {
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        #[allow(unconditional_recursion, reason = "this is the defect")]
        unsafe fn deeper(above: *const u8) -> u8 {
            let mut frame = [0_u8; 2048];
            let frame = core::hint::black_box(&raw mut frame).cast::<u8>();
            frame.write_volatile(above.read_volatile().wrapping_add(1));
            deeper(frame).wrapping_add(frame.read_volatile())
        }
        core::hint::black_box(deeper(&raw const TOP));
        false
    }
}

planted::driver!(Planted);

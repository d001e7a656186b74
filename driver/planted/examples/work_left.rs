//! Unloads while its work item runs.
#![no_std]

use planted::{Defect, kernel::*};

struct Planted;

impl Defect for Planted {
    unsafe fn stop() {
        unsafe extern "system" fn work(_parameter: *mut core::ffi::c_void) {
            let three_seconds = -30_000_000_i64;
            KeDelayExecutionThread(0, 0, &raw const three_seconds);
        }
        static ITEM: Object = Object::new();
        let item = ITEM.at().cast::<WorkItem>();
        (*item).routine = Some(work);
        ExQueueWorkItem(item, DELAYED_WORK_QUEUE);
    }
}

planted::driver!(Planted);

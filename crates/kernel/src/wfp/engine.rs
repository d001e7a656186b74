//! Whether the Base Filtering Engine runs: it starts long after a driver that Windows loads at its start.

use core::ffi::c_void;
use core::ptr::null_mut;

use wdk_sys::HANDLE;
use wfp_sys::{FWPM_SERVICE_STATE_, FwpmBfeStateGet0, FwpmBfeStateSubscribeChanges0, FwpmBfeStateUnsubscribeChanges0};

use crate::{
    status::{NtResult, NtStatus},
    wdf::{ControlDevice, DeviceEvents},
};

/// Tells when the engine starts to run. Dropping it ends that; the function does not run any more then. Create and drop at
/// PASSIVE_LEVEL, not in the function.
#[derive(Debug)]
pub struct EngineWatch(HANDLE);

// SAFETY: the handle may be used from any thread.
unsafe impl Send for EngineWatch {}

impl EngineWatch {
    /// Has `running` called at PASSIVE_LEVEL whenever the engine has started.
    ///
    /// # Errors
    /// The status of FwpmBfeStateSubscribeChanges0.
    pub fn new<E: DeviceEvents>(device: &ControlDevice<E>, running: fn()) -> NtResult<Self> {
        let mut handle = null_mut();
        // SAFETY: the device object lives until after this is dropped (the driver's contract, see `wdf::Driver`); the
        // context is a function of the image, which the callback turns back into one; the handle is written.
        let status = unsafe {
            FwpmBfeStateSubscribeChanges0(device.wdm_object(), Some(changed), running as *mut c_void, &raw mut handle)
        };
        NtStatus::check(status).map(|()| Self(handle))
    }

    /// Whether the engine runs now. IRQL <= DISPATCH_LEVEL.
    #[must_use]
    pub fn is_running(&self) -> bool {
        // SAFETY: takes nothing; the caller has subscribed, as the documentation demands.
        unsafe { FwpmBfeStateGet0() == FWPM_SERVICE_STATE_::FWPM_SERVICE_RUNNING }
    }
}

impl Drop for EngineWatch {
    fn drop(&mut self) {
        // SAFETY: subscribed in `new`, unsubscribed once. It fails only for a handle that is none.
        let _ = unsafe { FwpmBfeStateUnsubscribeChanges0(self.0) };
    }
}

unsafe extern "C" fn changed(context: *mut c_void, state: FWPM_SERVICE_STATE_::Type) {
    if state == FWPM_SERVICE_STATE_::FWPM_SERVICE_RUNNING {
        // SAFETY: the context is what `EngineWatch::new` passed, a `fn()`.
        let running: fn() = unsafe { core::mem::transmute(context) };
        running();
    }
}

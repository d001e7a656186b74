//! Work deferred to DISPATCH_LEVEL.

use core::{
    ptr::null_mut,
    sync::atomic::{AtomicPtr, Ordering},
};

use wdk_sys::{WDF_DPC_CONFIG, WDFDPC, WDFOBJECT, call_unsafe_wdf_function_binding};

use super::{ControlDevice, DeviceEvents, attributes};
use crate::status::{NtResult, NtStatus};

/// A DPC that runs one function. A static one works once [`Dpc::create`] has run.
#[derive(Debug)]
pub struct Dpc {
    handle: AtomicPtr<core::ffi::c_void>,
}

/// The function a DPC runs, as a type, because the framework's callback has no argument of ours.
pub trait Routine: 'static {
    /// Runs at DISPATCH_LEVEL, possibly on several processors at once.
    fn run();
}

impl Default for Dpc {
    fn default() -> Self {
        Self::new()
    }
}

impl Dpc {
    /// No DPC yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { handle: AtomicPtr::new(null_mut()) }
    }

    /// Creates the DPC as a child of `device`; deleting the device waits for it. IRQL = PASSIVE_LEVEL.
    ///
    /// # Errors
    /// The status of WdfDpcCreate.
    pub fn create<R: Routine, E: DeviceEvents>(&self, device: &ControlDevice<E>) -> NtResult<()> {
        let mut config = WDF_DPC_CONFIG {
            Size: size_of::<WDF_DPC_CONFIG>() as u32,
            EvtDpcFunc: Some(on_dpc::<R>),
            AutomaticSerialization: 0, // the device's callbacks run at PASSIVE_LEVEL; a DPC cannot join their lock
        };
        let mut attributes = attributes();
        attributes.ParentObject = device.handle() as WDFOBJECT;
        let mut dpc: WDFDPC = null_mut();
        // SAFETY: the structures are complete and outlive the call; the parent exists.
        let status = unsafe {
            call_unsafe_wdf_function_binding!(WdfDpcCreate, &raw mut config, &raw mut attributes, &raw mut dpc)
        };
        NtStatus::check(status)?;
        self.handle.store(dpc.cast(), Ordering::Release);
        Ok(())
    }

    /// Queues the function to run soon; does nothing if it is already queued, or without a DPC. Any IRQL.
    pub fn queue(&self) {
        let dpc = self.handle.load(Ordering::Acquire);
        if !dpc.is_null() {
            // SAFETY: the DPC exists until its device is deleted, and is cleared here before that. The result only says
            // whether it was already queued.
            let _ = unsafe { call_unsafe_wdf_function_binding!(WdfDpcEnqueue, dpc.cast()) };
        }
    }

    /// Waits for the DPC and clears it, before its device is deleted. IRQL = PASSIVE_LEVEL.
    pub fn forget(&self) {
        let dpc = self.handle.swap(null_mut(), Ordering::AcqRel);
        if !dpc.is_null() {
            // SAFETY: the DPC exists; waiting is allowed at PASSIVE_LEVEL. The result says whether it was queued.
            let _ = unsafe { call_unsafe_wdf_function_binding!(WdfDpcCancel, dpc.cast(), 1) };
        }
    }
}

unsafe extern "C" fn on_dpc<R: Routine>(_dpc: WDFDPC) {
    R::run();
}

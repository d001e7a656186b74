//! A manual queue: requests wait there until the driver takes them.

use core::{
    ptr::null_mut,
    sync::atomic::{AtomicPtr, Ordering},
};

use wdk_sys::{
    _WDF_IO_QUEUE_DISPATCH_TYPE, _WDF_TRI_STATE, WDF_IO_QUEUE_CONFIG, WDFQUEUE, WDFREQUEST,
    call_unsafe_wdf_function_binding,
};

use super::{ControlDevice, DeviceEvents, Request, attributes};
use crate::status::{NtResult, NtStatus};

/// A queue whose requests wait until they are taken; the framework cancels them when their caller exits or the device
/// is deleted. A static one works once [`ManualQueue::create`] has run.
#[derive(Debug)]
pub struct ManualQueue(AtomicPtr<core::ffi::c_void>);

impl Default for ManualQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl ManualQueue {
    /// No queue yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// Creates the queue as a child of `device`. IRQL = PASSIVE_LEVEL.
    ///
    /// # Errors
    /// The status of WdfIoQueueCreate.
    pub fn create<E: DeviceEvents>(&self, device: &ControlDevice<E>) -> NtResult<()> {
        let mut config = WDF_IO_QUEUE_CONFIG {
            Size: size_of::<WDF_IO_QUEUE_CONFIG>() as u32,
            DispatchType: _WDF_IO_QUEUE_DISPATCH_TYPE::WdfIoQueueDispatchManual,
            PowerManaged: _WDF_TRI_STATE::WdfUseDefault,
            ..WDF_IO_QUEUE_CONFIG::default()
        };
        let mut attributes = attributes();
        let mut queue: WDFQUEUE = null_mut();
        // SAFETY: the device exists; the structures are complete and outlive the call.
        let status = unsafe {
            call_unsafe_wdf_function_binding!(
                WdfIoQueueCreate,
                device.handle(),
                &raw mut config,
                &raw mut attributes,
                &raw mut queue
            )
        };
        NtStatus::check(status)?;
        self.0.store(queue.cast(), Ordering::Release);
        Ok(())
    }

    /// Clears the queue, before its device is deleted: from then on it holds nothing and accepts nothing.
    /// Any IRQL.
    pub fn forget(&self) {
        self.0.store(null_mut(), Ordering::Release);
    }

    fn handle(&self) -> Option<WDFQUEUE> {
        let queue = self.0.load(Ordering::Acquire);
        (!queue.is_null()).then(|| queue.cast())
    }

    /// Puts `request` in the queue; if that fails the request is completed with the status. IRQL <= DISPATCH_LEVEL.
    pub fn add(&self, request: Request) {
        let Some(queue) = self.handle() else { return request.complete(NtStatus::DEVICE_BUSY) };
        let raw = request.into_raw();
        // SAFETY: the request is ours and came from another queue of the same device; the queue exists.
        let status = unsafe { call_unsafe_wdf_function_binding!(WdfRequestForwardToIoQueue, raw, queue) };
        if let Err(status) = NtStatus::check(status) {
            // SAFETY: forwarding failed, so the request is still ours.
            unsafe { Request::own(raw) }.complete(status);
        }
    }

    /// Takes the oldest request. IRQL <= DISPATCH_LEVEL.
    pub fn take(&self) -> Option<Request> {
        let queue = self.handle()?;
        let mut request: WDFREQUEST = null_mut();
        // SAFETY: the queue exists; on success the framework gives us the request.
        let status =
            unsafe { call_unsafe_wdf_function_binding!(WdfIoQueueRetrieveNextRequest, queue, &raw mut request) };
        // SAFETY: as above.
        NtStatus::check(status).is_ok().then(|| unsafe { Request::own(request) })
    }
}

//! I/O queues: the [`core`] that decides, bound to requests, callbacks and locks.

mod core;
mod ddi;
mod dispatch;
#[cfg(test)]
mod tests;

use ::core::any::Any;
use ::core::ffi::c_void;
use ::core::sync::atomic::{AtomicBool, Ordering};
use ::core::time::Duration;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::abi::{QueueConfig, QueueStateCallback};
use super::activity::Activity;
use super::ddi::body;
use super::handle::Kind;
use super::lock::CallbackLock;
use super::object::{Body, Constraints, Object};
use super::request::{self, Request};
use super::violation::Violation;
use crate::machine::Machine;
use nt_abi::NtStatus;

use self::core::{Core, Dispatch};

pub(crate) use self::core::Item;
pub(crate) use ddi::{FUNCTIONS, create_for_files};
pub(crate) use dispatch::{dispatch, released};

/// What to do when a stop or purge is over, or a manual queue has something.
#[derive(Clone)]
pub(crate) enum Notice {
    /// Call the driver.
    Callback(QueueStateCallback, *mut c_void),
    /// Wake the thread that waits in a synchronous function.
    Signal(Arc<Signal>),
}

// SAFETY: the context pointer is the driver's; it is passed back, never dereferenced.
unsafe impl Send for Notice {}
// SAFETY: as above.
unsafe impl Sync for Notice {}

/// An event that a synchronous function waits for.
#[derive(Default)]
pub(crate) struct Signal {
    set: AtomicBool,
    changed: Activity,
}

impl Signal {
    fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.changed.notify();
    }

    fn wait(&self, deadline: Option<Instant>) -> bool {
        self.changed.wait_until(deadline, || self.set.load(Ordering::Acquire))
    }
}

/// `WDFQUEUE`.
pub(crate) struct Queue {
    device: Weak<Object>,
    core: Mutex<Core<Arc<Object>, Notice>>,
    config: Callbacks,
    default: AtomicBool,
    passive: bool,
    /// What `WdfObjectAcquireLock` takes: the device's lock with device scope, else the queue's own.
    presentation: Arc<CallbackLock>,
    /// Whether callbacks run under it.
    synchronized: bool,
    /// A worker thread or DPC will deliver.
    deferred: AtomicBool,
    /// Something happened since it began to.
    deferred_again: AtomicBool,
    deleted: Signal,
}

/// What of `WDF_IO_QUEUE_CONFIG` outlives creation.
pub(crate) struct Callbacks {
    allow_zero_length: bool,
    default: Option<super::abi::QueueRequestCallback>,
    read: Option<super::abi::QueueTransferCallback>,
    write: Option<super::abi::QueueTransferCallback>,
    control: Option<super::abi::QueueControlCallback>,
    canceled_on_queue: Option<super::abi::QueueRequestCallback>,
}

impl From<&QueueConfig> for Callbacks {
    fn from(config: &QueueConfig) -> Self {
        Self {
            allow_zero_length: config.allow_zero_length != 0,
            default: config.io_default,
            read: config.io_read,
            write: config.io_write,
            control: config.io_device_control,
            canceled_on_queue: config.io_canceled_on_queue,
        }
    }
}

impl Queue {
    fn lock(&self) -> Option<&CallbackLock> {
        self.synchronized.then_some(&*self.presentation)
    }

    /// The device it belongs to, while that exists.
    pub(crate) fn device(&self) -> Option<Arc<Object>> {
        self.device.upgrade()
    }

    /// Makes it the device's default queue, which the driver may not delete.
    pub(crate) fn set_default(&self) {
        self.default.store(true, Ordering::Release);
    }

    /// Whether its callbacks take a type of request.
    pub(crate) fn handles(&self, operation: request::Operation) -> bool {
        let specific = match operation {
            request::Operation::Create => false,
            request::Operation::Read(_) => self.config.read.is_some(),
            request::Operation::Write(_) => self.config.write.is_some(),
            request::Operation::Control { .. } => self.config.control.is_some(),
        };
        specific || self.config.default.is_some() || self.core.lock().dispatch() == Dispatch::Manual
    }
}

impl Body for Queue {
    fn kind(&self) -> Kind {
        Kind::Queue
    }

    fn passive_dispose(&self) -> bool {
        true
    }

    fn deletable(&self) -> bool {
        !self.default.load(Ordering::Acquire)
    }

    /// Purges, and waits for what the driver still owns. The real framework waits forever; here what the driver does
    /// not give back in time counts as lost, is reported, and is completed so that its caller goes on.
    fn dispose(&self, machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
        const PATIENCE: Duration = Duration::from_secs(2);
        let waiting = self.core.lock().purge(true, true, None).unwrap_or_default();
        cancel_all(machine, object, self, waiting)?;
        self.core.lock().dispose();
        dispatch::dispatch(machine, object)?;
        if !self.deleted.wait(Some(Instant::now() + PATIENCE)) {
            let kept = self.core.lock().abandon();
            for lost in kept {
                let operation = body::<Request>(&lost)?.operation();
                object.client().leaked(format!(
                    "{} {:?} ({operation:?}) was never completed: the driver owned it when {} {:?} was deleted",
                    lost.kind(),
                    lost.handle,
                    object.kind(),
                    object.handle
                ));
                request::complete_unowned(machine, &lost, NtStatus::CANCELLED)?;
            }
            dispatch::dispatch(machine, object)?;
        }
        if let Some(device) = self.device() {
            super::device::forget_queue(&device, object)?;
        }
        Ok(())
    }

    fn presentation_lock(&self) -> Option<Arc<CallbackLock>> {
        Some(Arc::clone(&self.presentation))
    }

    fn constraints(&self) -> Option<Constraints> {
        let lock = self.synchronized.then(|| Arc::clone(&self.presentation));
        Some(Constraints { passive: self.passive, lock })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Whether a queue is manual.
///
/// # Errors
/// A violation when the object is no queue.
pub(crate) fn is_manual(object: &Object) -> Result<bool, Box<Violation>> {
    Ok(body::<Queue>(object)?.core.lock().dispatch() == Dispatch::Manual)
}

/// A new request arrives from the I/O manager. A queue that does not accept fails it.
///
/// # Errors
/// A violation in a callback.
pub(crate) fn submit(machine: &Arc<Machine>, queue: &Arc<Object>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
    body::<Request>(object)?.entering(queue);
    if insert(machine, queue, object)? {
        return Ok(());
    }
    // wdfio.h says that such requests are completed with STATUS_CANCELLED; the framework's code (FxIoQueue) and this
    // say STATUS_INVALID_DEVICE_STATE.
    request::complete_unowned(machine, object, NtStatus::INVALID_DEVICE_STATE)
}

/// Appends a request and lets the queue deliver. Whether the queue accepted it.
///
/// # Errors
/// A violation in a callback.
pub(crate) fn insert(
    machine: &Arc<Machine>,
    queue: &Arc<Object>,
    object: &Arc<Object>,
) -> Result<bool, Box<Violation>> {
    {
        let mut core = body::<Queue>(queue)?.core.lock();
        if !core.accepts() {
            return Ok(false);
        }
        core.insert(Arc::clone(object));
    }
    if body::<Request>(object)?.is_cancelled() {
        cancel_waiting(machine, queue, object)?;
    }
    dispatch::dispatch(machine, queue)?;
    Ok(true)
}

/// Gives a request back to the head of its manual queue.
///
/// # Errors
/// A violation in a callback.
pub(crate) fn requeue(machine: &Arc<Machine>, queue: &Arc<Object>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
    let this = body::<Queue>(queue)?;
    let refused = this.core.lock().requeue(Arc::clone(object));
    if let Err(request) = refused {
        cancel_removed(machine, this, &request)?;
    } else if body::<Request>(object)?.is_cancelled() {
        cancel_waiting(machine, queue, object)?;
    }
    dispatch::dispatch(machine, queue)
}

/// A request that the driver marked cancelable was cancelled: its callback is to be called.
///
/// # Errors
/// A violation in a callback.
pub(crate) fn cancel_due(
    machine: &Arc<Machine>,
    queue: &Arc<Object>,
    object: &Arc<Object>,
) -> Result<(), Box<Violation>> {
    body::<Queue>(queue)?.core.lock().cancelled(Arc::clone(object));
    dispatch::dispatch_internal(machine, queue)
}

/// A request was cancelled that may wait in a queue; one that does not any more is the driver's to look at.
///
/// # Errors
/// A violation in a callback.
pub(crate) fn cancel_waiting(
    machine: &Arc<Machine>,
    queue: &Arc<Object>,
    object: &Arc<Object>,
) -> Result<(), Box<Violation>> {
    let this = body::<Queue>(queue)?;
    let removed = this.core.lock().remove_waiting(|other| Arc::ptr_eq(other, object));
    let Some(request) = removed else { return Ok(()) };
    cancel_removed(machine, this, &request)?;
    dispatch::dispatch_internal(machine, queue)
}

/// Cancels a request that was taken out of its queue: through `EvtIoCanceledOnQueue` when the driver has seen the
/// request before and wants to know, else at once.
fn cancel_removed(machine: &Arc<Machine>, queue: &Queue, object: &Arc<Object>) -> Result<(), Box<Violation>> {
    let request = body::<Request>(object)?;
    request.mark_cancelled();
    if queue.config.canceled_on_queue.is_some() && request.was_presented() {
        request.presented_cancelled();
        queue.core.lock().cancelled_on_queue(Arc::clone(object));
        return Ok(());
    }
    request::complete_unowned(machine, object, NtStatus::CANCELLED)
}

/// Cancels what a purge or a stop took out of a queue, and what the driver owns and marked cancelable.
fn cancel_all(
    machine: &Arc<Machine>,
    object: &Arc<Object>,
    queue: &Queue,
    waiting: Vec<Arc<Object>>,
) -> Result<(), Box<Violation>> {
    for request in &waiting {
        cancel_removed(machine, queue, request)?;
    }
    let owned = queue.core.lock().owned();
    for request in owned {
        if body::<Request>(&request)?.cancel_if_marked() {
            cancel_due(machine, object, &request)?;
        }
    }
    Ok(())
}

/// The file is being closed: cancels its requests that wait here.
///
/// # Errors
/// A violation in a callback.
pub(crate) fn flush_file(
    machine: &Arc<Machine>,
    queue: &Arc<Object>,
    file: crate::nt::io::FileId,
) -> Result<(), Box<Violation>> {
    let this = body::<Queue>(queue)?;
    loop {
        let of_file = |object: &Arc<Object>| object.get::<Request>().and_then(Request::file) == Some(file);
        let removed = this.core.lock().remove_waiting(of_file);
        let Some(request) = removed else { break };
        cancel_removed(machine, this, &request)?;
    }
    dispatch::dispatch(machine, queue)
}

/// Takes the first waiting request that matches for the driver. Reads and writes of no bytes are completed on the way
/// unless the queue wants them.
///
/// # Errors
/// The status for the driver, or a violation.
pub(crate) fn retrieve(
    machine: &Arc<Machine>,
    queue: &Arc<Object>,
    wanted: impl Fn(&Arc<Object>) -> bool,
) -> Result<Arc<Object>, super::violation::Fault> {
    let this = body::<Queue>(queue)?;
    loop {
        let object = this.core.lock().retrieve(&wanted)?;
        let request = body::<Request>(&object)?;
        if this.completes_empty(request) {
            request::complete_unowned(machine, &object, NtStatus::SUCCESS)?;
            this.core.lock().released(object.serial());
            continue;
        }
        request.presented();
        return Ok(object);
    }
}

impl Queue {
    fn completes_empty(&self, request: &Request) -> bool {
        let empty = matches!(request.operation(), request::Operation::Read(0) | request::Operation::Write(0));
        empty && !self.config.allow_zero_length
    }
}

//! Delivering a queue's events to the driver, where and when that is allowed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::abi::Handle;
use super::super::callback;
use super::super::ddi::body;
use super::super::kernel;
use super::super::object::Object;
use super::super::request::{self, Operation, Request};
use super::super::violation::Violation;
use super::core::Event;
use super::{Notice, Queue};
use crate::machine::Machine;
use crate::trace::Argument;
use crate::verifier::callback::At;
use nt_abi::Irql;
use nt_abi::NtStatus;

/// Delivers what there is, on this thread if it may run the callbacks, else on a worker thread or as a DPC.
///
/// # Errors
/// A violation in a callback.
pub(crate) fn dispatch(machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
    let queue = body::<Queue>(object)?;
    let above_passive = kernel::irql() > Irql::PASSIVE;
    if (queue.passive && above_passive) || queue.presentation.is_mine() {
        defer(machine, object, queue);
        return Ok(());
    }
    queue.core.lock().enter();
    loop {
        // The lock is released before anything is delivered.
        let event = queue.core.lock().next();
        let Some(event) = event else { return Ok(()) };
        if matches!(event, Event::Deleted) {
            queue.deleted.set();
            return Ok(());
        }
        deliver(machine, object, queue, event)?;
    }
}

/// The same unless a thread is delivering already, this one higher up its stack or another: that thread will see what
/// happened, and recursion stays bounded.
///
/// # Errors
/// A violation in a callback.
pub(crate) fn dispatch_internal(machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
    let active = body::<Queue>(object)?.core.lock().is_active();
    if active { Ok(()) } else { dispatch(machine, object) }
}

/// The driver owns a request of this queue no longer.
///
/// # Errors
/// A violation in a callback.
pub(crate) fn released(
    machine: &Arc<Machine>,
    queue: &Arc<Object>,
    request: &Arc<Object>,
) -> Result<(), Box<Violation>> {
    body::<Queue>(queue)?.core.lock().released(request.serial());
    dispatch_internal(machine, queue)
}

/// Leaves delivery to somebody who may: the framework does this when the caller runs above the queue's execution
/// level, or holds the lock that the callbacks need.
fn defer(machine: &Arc<Machine>, object: &Arc<Object>, queue: &Queue) {
    queue.deferred_again.store(true, Ordering::Release);
    if queue.deferred.swap(true, Ordering::AcqRel) {
        return;
    }
    let held = Arc::clone(object);
    if queue.passive {
        kernel::spawn_passive(machine, move |machine| deferred(machine, &held));
    } else {
        kernel::queue_dpc(move |machine| deferred(machine, &held));
    }
}

fn deferred(machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
    let queue = body::<Queue>(object)?;
    while queue.deferred_again.swap(false, Ordering::AcqRel) {
        dispatch(machine, object)?;
    }
    queue.deferred.store(false, Ordering::Release);
    // Whoever asked between the last look and the store found delivery still deferred.
    if queue.deferred_again.load(Ordering::Acquire) {
        defer(machine, object, queue);
    }
    Ok(())
}

fn deliver(
    machine: &Arc<Machine>,
    object: &Arc<Object>,
    queue: &Queue,
    event: Event<Arc<Object>, Notice>,
) -> Result<(), Box<Violation>> {
    let handle = object.handle;
    match event {
        Event::Present(request) => present(machine, object, queue, &request),
        Event::Cancel(request) => {
            let Some(cancel) = body::<Request>(&request)?.take_due_cancel() else { return Ok(()) };
            // SAFETY: the driver marked the request with this callback and owns it until it completes it.
            callback::locked(queue.lock(), &At("EvtRequestCancel", cancel as usize as u64), || unsafe {
                cancel(request.handle)
            })
        }
        Event::CanceledOnQueue(request) => {
            let Some(canceled) = queue.config.canceled_on_queue else { return Ok(()) };
            // SAFETY: the driver registered the callback; it owns the request from here on.
            callback::locked(queue.lock(), &At("EvtIoCanceledOnQueue", canceled as usize as u64), || unsafe {
                canceled(handle, request.handle)
            })
        }
        Event::Stopped(notice) => tell(queue, handle, &notice, "EvtIoQueueState (stopped)"),
        Event::Purged(notice) => tell(queue, handle, &notice, "EvtIoQueueState (purged)"),
        Event::Ready(notice) => tell(queue, handle, &notice, "EvtIoQueueState (ready)"),
        Event::Deleted => Ok(()),
    }
}

fn tell(queue: &Queue, handle: Handle, notice: &Notice, name: &str) -> Result<(), Box<Violation>> {
    match notice {
        Notice::Callback(state, context) => {
            // SAFETY: the driver registered the callback with this context.
            callback::locked(queue.lock(), &name, || unsafe { state(handle, *context) })
        }
        Notice::Signal(signal) => {
            signal.set();
            Ok(())
        }
    }
}

/// Gives a request to the driver's callback for its type, or to the default one; one that nobody takes fails.
fn present(
    machine: &Arc<Machine>,
    object: &Arc<Object>,
    queue: &Queue,
    request_object: &Arc<Object>,
) -> Result<(), Box<Violation>> {
    let request = body::<Request>(request_object)?;
    let (this, handle) = (object.handle, request_object.handle);
    let operation = request.operation();
    let config = &queue.config;
    let taken = queue.handles(operation);
    if !taken || queue.completes_empty(request) {
        let status = if taken { NtStatus::SUCCESS } else { NtStatus::INVALID_DEVICE_REQUEST };
        request::complete_unowned(machine, request_object, status)?;
        // This thread is delivering: it looks at the queue again when it comes back to its loop.
        queue.core.lock().released(request_object.serial());
        return Ok(());
    }
    request.presented();
    let lock = queue.lock();
    match (operation, config.read, config.write, config.control) {
        (Operation::Read(length), Some(read), ..) => {
            let describe = || presented(read as *const () as u64, handle, &[("length", length as u64)]);
            let name = At("EvtIoRead", read as usize as u64);
            // SAFETY: the driver registered the callback for this queue, and owns the request from here on.
            callback::locked_told(lock, &name, describe, || unsafe { read(this, handle, length) })
        }
        (Operation::Write(length), _, Some(write), _) => {
            let describe = || presented(write as *const () as u64, handle, &[("length", length as u64)]);
            let name = At("EvtIoWrite", write as usize as u64);
            // SAFETY: as above.
            callback::locked_told(lock, &name, describe, || unsafe { write(this, handle, length) })
        }
        (Operation::Control { code, input, output }, .., Some(control)) => {
            let describe = || {
                let more = [("output", output as u64), ("input", input as u64), ("code", u64::from(code))];
                presented(control as *const () as u64, handle, &more)
            };
            let name = At("EvtIoDeviceControl", control as usize as u64);
            // SAFETY: as above.
            callback::locked_told(lock, &name, describe, || unsafe { control(this, handle, output, input, code) })
        }
        _ => match config.default {
            // SAFETY: as above.
            Some(default) => callback::locked(lock, &At("EvtIoDefault", default as usize as u64), || unsafe {
                default(this, handle)
            }),
            None => Ok(()),
        },
    }
}

/// A request handed to the driver, for a trace.
fn presented(routine: u64, request: Handle, more: &[(&'static str, u64)]) -> (u64, Vec<Argument>) {
    let request = Argument::new("request", format_args!("{:#x}", request.0));
    let more = more.iter().map(|(name, value)| match *name {
        "code" => Argument::new(name, format_args!("{value:#x}")),
        _ => Argument::new(name, value),
    });
    (routine, std::iter::once(request).chain(more).collect())
}

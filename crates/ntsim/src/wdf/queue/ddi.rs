//! `WdfIoQueue...`.

use core::ffi::c_void;
use core::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use super::super::abi::{
    Handle, ObjectAttributes, QUEUE_CONFIG_SIZE_V1_7, QUEUE_CONFIG_SIZE_V1_9, QueueConfig, QueueStateCallback,
    RequestParameters,
};
use super::super::ddi::{self, Function, Globals};
use super::super::device;
use super::super::file::File;
use super::super::handle::Kind;
use super::super::lock::CallbackLock;
use super::super::object::{
    Allowed, Attributes, LEVEL_DISPATCH, LEVEL_INHERIT, LEVEL_PASSIVE, Object, SCOPE_DEVICE, SCOPE_INHERIT, SCOPE_QUEUE,
};
use super::super::request::Request;
use super::super::status;
use super::super::violation::{Fault, Violation};
use super::core::{Core, Dispatch};
use super::{Callbacks, Notice, Queue, Signal, cancel_all, dispatch, retrieve};
use crate::machine::Machine;
use nt_abi::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::dispatch("WdfIoQueueCreate", create as *const ()),
    Function::dispatch("WdfIoQueueGetState", get_state as *const ()),
    Function::dispatch("WdfIoQueueGetDevice", get_device as *const ()),
    Function::dispatch("WdfIoQueueStart", start as *const ()),
    Function::dispatch("WdfIoQueueStop", stop as *const ()),
    Function::passive("WdfIoQueueStopSynchronously", stop_synchronously as *const ()),
    Function::dispatch("WdfIoQueueStopAndPurge", stop_and_purge as *const ()),
    Function::passive("WdfIoQueueStopAndPurgeSynchronously", stop_and_purge_synchronously as *const ()),
    Function::dispatch("WdfIoQueuePurge", purge as *const ()),
    Function::passive("WdfIoQueuePurgeSynchronously", purge_synchronously as *const ()),
    Function::dispatch("WdfIoQueueDrain", drain as *const ()),
    Function::passive("WdfIoQueueDrainSynchronously", drain_synchronously as *const ()),
    Function::dispatch("WdfIoQueueReadyNotify", ready_notify as *const ()),
    Function::dispatch("WdfIoQueueRetrieveNextRequest", retrieve_next as *const ()),
    Function::dispatch("WdfIoQueueRetrieveRequestByFileObject", retrieve_by_file as *const ()),
    Function::dispatch("WdfIoQueueFindRequest", find as *const ()),
    Function::dispatch("WdfIoQueueRetrieveFoundRequest", retrieve_found as *const ()),
];

/// Reads a config of any released size; fields that it has not are zero.
///
/// # Safety
/// `config` points to a `WDF_IO_QUEUE_CONFIG` of the size its first field says.
unsafe fn read(config: *const QueueConfig) -> Result<QueueConfig, NtStatus> {
    // SAFETY: every form begins with its size.
    let size = unsafe { config.cast::<u32>().read_unaligned() };
    ddi::size(size, &[QUEUE_CONFIG_SIZE_V1_7, QUEUE_CONFIG_SIZE_V1_9, size_of::<QueueConfig>() as u32])?;
    let mut whole = core::mem::MaybeUninit::<QueueConfig>::zeroed();
    // SAFETY: the source has `size` bytes and the destination at least as many; zeros are valid for every field.
    unsafe {
        core::ptr::copy_nonoverlapping(config.cast::<u8>(), whole.as_mut_ptr().cast(), size as usize);
        Ok(whole.assume_init())
    }
}

/// What KMDF checks about a config, with the status of each refusal.
fn check(config: &QueueConfig) -> Result<(Dispatch, u32), NtStatus> {
    let dispatch = Dispatch::from_abi(config.dispatch_type).ok_or(NtStatus::INVALID_PARAMETER)?;
    let any = config.io_default.is_some()
        || config.io_read.is_some()
        || config.io_write.is_some()
        || config.io_device_control.is_some()
        || config.io_internal_device_control.is_some();
    if dispatch == Dispatch::Manual && any {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if dispatch != Dispatch::Manual && !any {
        return Err(status::WDF_NO_CALLBACK);
    }
    let limit = if config.size <= QUEUE_CONFIG_SIZE_V1_7 { u32::MAX } else { config.presented_requests };
    // Before 1.9 there was no number; since then it is for parallel queues, and not zero there.
    let counted = config.size > QUEUE_CONFIG_SIZE_V1_7;
    if counted && (dispatch == Dispatch::Parallel) != (limit != 0) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    Ok((dispatch, limit))
}

/// Execution level and synchronization scope of a queue, from its attributes and its device.
fn constrain(device: &Arc<Object>, attributes: &Attributes) -> Result<(bool, Arc<CallbackLock>, bool), Fault> {
    let of_device = ddi::body::<device::Device>(device)?;
    let passive = match attributes.execution_level {
        LEVEL_PASSIVE => true,
        LEVEL_DISPATCH => false,
        _ => of_device.passive(),
    };
    let scope = match attributes.synchronization_scope {
        0 | SCOPE_INHERIT => of_device.scope(),
        scope => scope,
    };
    if scope == SCOPE_DEVICE {
        if passive != of_device.passive() {
            return Err(NtStatus::INVALID_PARAMETER.into());
        }
        return Ok((passive, of_device.lock(), true));
    }
    Ok((passive, Arc::new(CallbackLock::new(passive)), scope == SCOPE_QUEUE))
}

fn new_queue(
    machine: &Arc<Machine>,
    device: &Arc<Object>,
    attributes: &Attributes,
    config: &QueueConfig,
) -> Result<Arc<Object>, Fault> {
    let (kind, limit) = check(config)?;
    let (passive, presentation, synchronized) = constrain(device, attributes)?;
    let body = Box::new(Queue {
        device: Arc::downgrade(device),
        core: Mutex::new(Core::new(kind, limit)),
        config: Callbacks::from(config),
        default: AtomicBool::new(false),
        passive,
        presentation,
        synchronized,
        deferred: AtomicBool::new(false),
        deferred_again: AtomicBool::new(false),
        deleted: Signal::default(),
    });
    let parent =
        if attributes.parent.is_null() { Arc::clone(device) } else { ddi::any_object(machine, attributes.parent)? };
    if parent.ancestor(Kind::Device).is_none_or(|other| !Arc::ptr_eq(&other, device)) {
        return Err(NtStatus::INVALID_DEVICE_REQUEST.into());
    }
    let object = Object::create(machine, device.client(), Some(&parent), attributes, body)?;
    ddi::body::<device::Device>(device)?.add_queue(&object);
    Ok(object)
}

/// The framework's own manual queue, for the create requests of a device with `EvtDeviceFileCreate`.
///
/// # Errors
/// `STATUS_INSUFFICIENT_RESOURCES`, `STATUS_DELETE_PENDING`.
pub(crate) fn create_for_files(machine: &Arc<Machine>, device: &Arc<Object>) -> Result<Arc<Object>, Fault> {
    // SAFETY: all zeros are a config without callbacks.
    let mut config: QueueConfig = unsafe { core::mem::zeroed() };
    config.size = size_of::<QueueConfig>() as u32;
    config.dispatch_type = 3;
    let attributes = Attributes { execution_level: LEVEL_INHERIT, ..Attributes::default() };
    new_queue(machine, device, &attributes, &config)
}

extern "win64" fn create(
    _: Globals,
    device: Handle,
    config: *const QueueConfig,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| {
        let device = ddi::object(machine, device, Kind::Device)?;
        ddi::not_null(config, "WdfIoQueueCreate", "Config")?;
        let allowed = Allowed { parent: true, execution_level: true, synchronization_scope: true };
        // SAFETY: a WDF_IO_QUEUE_CONFIG, and NULL or a WDF_OBJECT_ATTRIBUTES.
        let (config, attributes) = unsafe { (read(config)?, Attributes::read(attributes, allowed)?) };
        let of_device = ddi::body::<device::Device>(&device)?;
        if config.default_queue != 0 && of_device.default_queue().is_some() {
            return Err(NtStatus::UNSUCCESSFUL.into());
        }
        let queue = new_queue(machine, &device, &attributes, &config)?;
        if config.default_queue != 0 {
            of_device.set_default_queue(&queue);
            ddi::body::<Queue>(&queue)?.set_default();
        }
        if !out.is_null() {
            // SAFETY: not null.
            unsafe { out.write(queue.handle) };
        }
        Ok(())
    })
}

extern "win64" fn get_state(_: Globals, queue: Handle, waiting: *mut u32, owned: *mut u32) -> u32 {
    ddi::run(|machine| {
        let object = ddi::object(machine, queue, Kind::Queue)?;
        let (state, in_queue, in_driver) = ddi::body::<Queue>(&object)?.core.lock().state();
        // SAFETY: each is written only when it is not null.
        unsafe {
            if !waiting.is_null() {
                waiting.write(in_queue as u32);
            }
            if !owned.is_null() {
                owned.write(in_driver as u32);
            }
        }
        Ok(state)
    })
}

extern "win64" fn get_device(_: Globals, queue: Handle) -> Handle {
    ddi::run(|machine| {
        let object = ddi::object(machine, queue, Kind::Queue)?;
        Ok(ddi::body::<Queue>(&object)?.device().map_or(Handle::NULL, |device| device.handle))
    })
}

extern "win64" fn start(_: Globals, queue: Handle) {
    ddi::run(|machine| {
        let object = ddi::object(machine, queue, Kind::Queue)?;
        ddi::body::<Queue>(&object)?.core.lock().start();
        dispatch(machine, &object)
    });
}

/// What to do to a queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    StopAndPurge,
    Purge,
    Drain,
}

/// Begins to stop, purge or drain a queue; `notice` comes when it is quiet.
fn end(machine: &Arc<Machine>, queue: Handle, end: End, notice: Option<Notice>) -> Result<(), Box<Violation>> {
    let object = ddi::object(machine, queue, Kind::Queue)?;
    let this = ddi::body::<Queue>(&object)?;
    let cancel = matches!(end, End::StopAndPurge | End::Purge);
    let begun = match end {
        End::Stop | End::StopAndPurge => this.core.lock().stop(cancel, notice),
        // Clients before 1.11 could requeue what a purge had not caught.
        End::Purge | End::Drain => this.core.lock().purge(cancel, object.client().minor() >= 11, notice),
    };
    match begun {
        Ok(waiting) if cancel => cancel_all(machine, &object, this, waiting)?,
        Ok(_) => {}
        Err(NtStatus::DELETE_PENDING) => return Err(Violation::queue(queue, format!("WDFQUEUE {queue:?} is deleted"))),
        Err(_) => {
            let why = format!("WDFQUEUE {queue:?}: the end of an earlier stop, purge or drain is still awaited");
            return Err(Violation::queue(queue, why));
        }
    }
    dispatch(machine, &object)
}

fn end_with(queue: Handle, how: End, callback: Option<QueueStateCallback>, context: *mut c_void) {
    ddi::run(|machine| end(machine, queue, how, callback.map(|callback| Notice::Callback(callback, context))));
}

fn end_and_wait(queue: Handle, how: End) {
    ddi::run(|machine| {
        let object = ddi::object(machine, queue, Kind::Queue)?;
        if ddi::body::<Queue>(&object)?.presentation.is_mine() {
            let why = format!("WDFQUEUE {queue:?}: waits for its callbacks under the lock that they need");
            return Err(Violation::queue(queue, why));
        }
        let signal = Arc::new(Signal::default());
        end(machine, queue, how, Some(Notice::Signal(Arc::clone(&signal))))?;
        signal.wait(None);
        Ok(())
    });
}

extern "win64" fn stop(_: Globals, queue: Handle, callback: Option<QueueStateCallback>, context: *mut c_void) {
    end_with(queue, End::Stop, callback, context);
}

extern "win64" fn stop_synchronously(_: Globals, queue: Handle) {
    end_and_wait(queue, End::Stop);
}

extern "win64" fn stop_and_purge(
    _: Globals,
    queue: Handle,
    callback: Option<QueueStateCallback>,
    context: *mut c_void,
) {
    end_with(queue, End::StopAndPurge, callback, context);
}

extern "win64" fn stop_and_purge_synchronously(_: Globals, queue: Handle) {
    end_and_wait(queue, End::StopAndPurge);
}

extern "win64" fn purge(_: Globals, queue: Handle, callback: Option<QueueStateCallback>, context: *mut c_void) {
    end_with(queue, End::Purge, callback, context);
}

extern "win64" fn purge_synchronously(_: Globals, queue: Handle) {
    end_and_wait(queue, End::Purge);
}

extern "win64" fn drain(_: Globals, queue: Handle, callback: Option<QueueStateCallback>, context: *mut c_void) {
    end_with(queue, End::Drain, callback, context);
}

extern "win64" fn drain_synchronously(_: Globals, queue: Handle) {
    end_and_wait(queue, End::Drain);
}

extern "win64" fn ready_notify(
    _: Globals,
    queue: Handle,
    callback: Option<QueueStateCallback>,
    context: *mut c_void,
) -> NtStatus {
    ddi::status(|machine| {
        let object = ddi::object(machine, queue, Kind::Queue)?;
        let notice = callback.map(|callback| Notice::Callback(callback, context));
        ddi::body::<Queue>(&object)?.core.lock().ready_notify(notice)?;
        Ok(dispatch(machine, &object)?)
    })
}

/// Gives a waiting request that matches to the driver.
fn take(queue: Handle, out: *mut Handle, wanted: impl Fn(&Machine, &Arc<Object>) -> bool) -> NtStatus {
    ddi::status(|machine| {
        let object = ddi::object(machine, queue, Kind::Queue)?;
        ddi::not_null(out, "WdfIoQueueRetrieveRequest", "OutRequest")?;
        // SAFETY: not null.
        unsafe { out.write(Handle::NULL) };
        let request = retrieve(machine, &object, |request| wanted(machine, request))?;
        // SAFETY: not null.
        unsafe { out.write(request.handle) };
        Ok(())
    })
}

extern "win64" fn retrieve_next(_: Globals, queue: Handle, out: *mut Handle) -> NtStatus {
    take(queue, out, |_, _| true)
}

fn is_of_file(request: &Object, file: &Arc<Object>) -> bool {
    request.get::<Request>().and_then(Request::file_object).is_some_and(|other| Arc::ptr_eq(other, file))
}

extern "win64" fn retrieve_by_file(_: Globals, queue: Handle, file: Handle, out: *mut Handle) -> NtStatus {
    ddi::run(|machine| {
        let file = ddi::object(machine, file, Kind::File)?;
        ddi::body::<File>(&file)?;
        Ok(take(queue, out, |_, request| is_of_file(request, &file)))
    })
}

/// Finds without taking: the request gets a reference, which the driver drops.
extern "win64" fn find(
    _: Globals,
    queue: Handle,
    after: Handle,
    file: Handle,
    parameters: *mut RequestParameters,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| {
        let object = ddi::object(machine, queue, Kind::Queue)?;
        ddi::not_null(out, "WdfIoQueueFindRequest", "OutRequest")?;
        // SAFETY: not null.
        unsafe { out.write(Handle::NULL) };
        let this = ddi::body::<Queue>(&object)?;
        if this.core.lock().dispatch() != Dispatch::Manual {
            return Err(NtStatus::INVALID_DEVICE_REQUEST.into());
        }
        let after = match after {
            Handle::NULL => None,
            handle => Some(ddi::object(machine, handle, Kind::Request)?.serial()),
        };
        let file = match file {
            Handle::NULL => None,
            handle => Some(ddi::object(machine, handle, Kind::File)?),
        };
        let matches = |request: &Arc<Object>| file.as_ref().is_none_or(|file| is_of_file(request, file));
        let found = {
            let core = this.core.lock();
            let found = core.find(after, matches)?;
            // Under the lock: the request cannot be completed between being found and being referenced.
            found.reference();
            found
        };
        // SAFETY: the handle's address is not null; the parameters are written only when theirs is not.
        unsafe {
            if !parameters.is_null() {
                parameters.write_unaligned(ddi::body::<Request>(&found)?.operation().parameters());
            }
            out.write(found.handle);
        }
        Ok(())
    })
}

extern "win64" fn retrieve_found(_: Globals, queue: Handle, found: Handle, out: *mut Handle) -> NtStatus {
    ddi::run(|machine| {
        let found = ddi::object(machine, found, Kind::Request)?;
        let object = ddi::object(machine, queue, Kind::Queue)?;
        let manual = ddi::body::<Queue>(&object)?.core.lock().dispatch() == Dispatch::Manual;
        if !manual {
            return Ok(NtStatus::INVALID_DEVICE_REQUEST);
        }
        // A request that is not there any more was cancelled or retrieved meanwhile.
        Ok(match take(queue, out, |_, request| Arc::ptr_eq(request, &found)) {
            NtStatus::NO_MORE_ENTRIES => NtStatus::NOT_FOUND,
            status => status,
        })
    })
}

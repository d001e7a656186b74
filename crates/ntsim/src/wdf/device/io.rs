//! The device's side of the I/O manager: files are opened and closed, requests arrive and are cancelled.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::super::abi::{FILE_CLASS_NOT_REQUIRED, FILE_CLASS_OPTIONAL, Handle};
use super::super::callback;
use super::super::ddi::body;
use super::super::file::File;
use super::super::lock::CallbackLock;
use super::super::object::{self, Attributes, Object, SCOPE_DEVICE};
use super::super::queue;
use super::super::request::{self, CreateAnswer, Irp, Operation, Request};
use super::super::violation::{Fault, Violation};
use super::Device;
use crate::cpu;
use crate::machine::Machine;
use crate::nt::io::{DeviceBackend, FileId, IrpId, IrpRequest};
use nt_abi::NtStatus;

/// What the I/O manager holds of a device.
pub(crate) struct Backend {
    /// Weak: files that are being closed may outlive the device, and then its last reference must not be dropped
    /// outside the processor.
    device: Weak<Object>,
}

impl Backend {
    pub(crate) fn new(device: &Arc<Object>) -> Self {
        Self { device: Arc::downgrade(device) }
    }

    /// Runs `f` on the device; `gone` is the answer of one that was deleted.
    fn run<R>(&self, gone: R, f: impl FnOnce(&Arc<Machine>, &Arc<Object>, &Device) -> Result<R, Box<Violation>>) -> R {
        let Some(object) = self.device.upgrade() else { return gone };
        let result = cpu::with_machine(|machine| f(machine, &object, body(&object)?));
        result.unwrap_or_else(|violation| violation.bugcheck())
    }
}

impl DeviceBackend for Backend {
    fn create(&self, file: FileId) -> NtStatus {
        self.run(NtStatus::NO_SUCH_DEVICE, |machine, object, device| match open(machine, object, device, file) {
            Ok(()) => Ok(NtStatus::SUCCESS),
            Err(Fault::Status(status)) => Ok(status),
            Err(Fault::Violation(violation)) => Err(violation),
        })
    }

    fn cleanup(&self, file: FileId) {
        self.run((), |machine, _, device| {
            let cleanup = device.files.config.and_then(|config| config.cleanup);
            call_file(device, file, "EvtFileCleanup", cleanup)?;
            // What the driver does not own yet is cancelled here; what it owns was the callback's business.
            device.queues().iter().try_for_each(|queue| queue::flush_file(machine, queue, file))
        });
    }

    fn close(&self, file: FileId) {
        self.run((), |machine, object, device| {
            let close = device.files.config.and_then(|config| config.close);
            call_file(device, file, "EvtFileClose", close)?;
            forget_file(machine, object, device, file)
        });
    }

    fn submit(&self, irp: IrpRequest) {
        if self.device.strong_count() == 0 {
            irp.complete(NtStatus::NO_SUCH_DEVICE, 0);
            return;
        }
        self.run((), |machine, object, device| submit(machine, object, device, irp));
    }

    fn cancel(&self, irp: IrpId) {
        self.run((), |machine, _, device| {
            let request = device.requests.lock().get(&irp).and_then(Weak::upgrade);
            request.map_or(Ok(()), |request| request::cancel(machine, &request))
        });
    }
}

/// The callbacks of files run at PASSIVE_LEVEL; a device's scope binds them when its own callbacks do too.
fn file_lock(device: &Device) -> Option<&CallbackLock> {
    (device.scope == SCOPE_DEVICE && device.passive).then_some(&*device.lock)
}

fn call_file(
    device: &Device,
    file: FileId,
    name: &str,
    function: Option<unsafe extern "win64" fn(Handle)>,
) -> Result<(), Box<Violation>> {
    let Some(function) = function else { return Ok(()) };
    let handle = device.file(file).map_or(Handle::NULL, |object| object.handle);
    // SAFETY: the driver registered the callback; the file object lives until its close has returned.
    callback::locked(file_lock(device), &name, || unsafe { function(handle) })
}

/// IRP_MJ_CREATE.
fn open(machine: &Arc<Machine>, object: &Arc<Object>, device: &Device, file: FileId) -> Result<(), Fault> {
    if !device.initialized.load(Ordering::Acquire) || device.delete_pending.load(Ordering::Acquire) {
        return Err(NtStatus::NO_SUCH_DEVICE.into());
    }
    let class = device.files.config.map_or(FILE_CLASS_NOT_REQUIRED, |config| config.class & !FILE_CLASS_OPTIONAL);
    {
        let mut open = device.open.lock();
        if device.exclusive && !open.is_empty() {
            return Err(NtStatus::ACCESS_DENIED.into());
        }
        open.insert(file, None);
    }
    let answered = (|| {
        let mut file_object = None;
        if class != FILE_CLASS_NOT_REQUIRED {
            let body = Box::new(File::new(machine, object, device.wdm.address())?);
            // The level and scope of file callbacks are the device's; what the attributes say was checked.
            let attributes = Attributes { parent: Handle::NULL, ..device.files.attributes };
            let created = Object::create(machine, object.client(), Some(object), &attributes, body)?;
            device.open.lock().insert(file, Some(Arc::clone(&created)));
            file_object = Some(created);
        }
        ask(machine, object, device, file, file_object)
    })();
    if answered.is_err() {
        // No cleanup and no close follow a create that failed.
        forget_file(machine, object, device, file)?;
    }
    answered
}

/// Has the driver answer a create request, where it wants to; else every open succeeds.
fn ask(
    machine: &Arc<Machine>,
    object: &Arc<Object>,
    device: &Device,
    file: FileId,
    file_object: Option<Arc<Object>>,
) -> Result<(), Fault> {
    let callback = device.files.config.and_then(|config| config.create);
    let own_queue = device.route(Operation::Create.request_type());
    if callback.is_none() && own_queue.is_none() {
        return Ok(());
    }
    let answer = Arc::new(CreateAnswer::default());
    let handle = file_object.as_ref().map_or(Handle::NULL, |file| file.handle);
    let request = Request::new(machine, Operation::Create, Irp::Create(Arc::clone(&answer)), Some(file), file_object)
        .map_err(|(status, _)| status)?;
    let request =
        Object::create(machine, object.client(), Some(object), &device.request_attributes, Box::new(request))?;
    let create_queue = device.create_queue.lock().clone();
    match (own_queue, create_queue, callback) {
        (Some(queue), ..) => queue::submit(machine, &queue, &request)?,
        (None, Some(queue), Some(callback)) => {
            queue::submit(machine, &queue, &request)?;
            let presented = queue::retrieve(machine, &queue, |other| Arc::ptr_eq(other, &request))?;
            let (this, that) = (object.handle, presented.handle);
            // SAFETY: the driver registered the callback; it owns the request until it completes it.
            callback::locked(file_lock(device), &"EvtDeviceFileCreate", || unsafe { callback(this, that, handle) })?;
        }
        // Unreachable: a device with the callback has the framework's queue, and one of the two is there.
        (None, ..) => request::complete_unowned(machine, &request, NtStatus::SUCCESS)?,
    }
    answer.wait().ok().map_err(Fault::Status)
}

/// A file is closed, or was never opened: its object goes, and with the last file a device that waits to be deleted.
fn forget_file(
    machine: &Arc<Machine>,
    object: &Arc<Object>,
    device: &Device,
    file: FileId,
) -> Result<(), Box<Violation>> {
    let file_object = device.open.lock().get(&file).cloned().flatten();
    if let Some(file_object) = file_object {
        object::delete_subtree(machine, &file_object)?;
    }
    let last = {
        let mut open = device.open.lock();
        open.remove(&file);
        open.is_empty()
    };
    if last && device.delete_pending.swap(false, Ordering::AcqRel) {
        object::delete_subtree(machine, object)?;
    }
    Ok(())
}

/// IRP_MJ_READ, IRP_MJ_WRITE, IRP_MJ_DEVICE_CONTROL.
fn submit(
    machine: &Arc<Machine>,
    object: &Arc<Object>,
    device: &Device,
    irp: IrpRequest,
) -> Result<(), Box<Violation>> {
    let operation = Operation::from(irp.kind());
    let queue = device.route(operation.request_type());
    if queue.is_none() && device.in_caller.is_none() {
        irp.complete(NtStatus::INVALID_DEVICE_REQUEST, 0);
        return Ok(());
    }
    let (id, file) = (irp.id(), irp.file());
    let body = match Request::new(machine, operation, Irp::Io(irp), Some(file), device.file(file)) {
        Ok(body) => Box::new(body),
        Err((status, Irp::Io(irp))) => {
            irp.complete(status, 0);
            return Ok(());
        }
        Err((_, Irp::Create(_))) => return Ok(()),
    };
    // The body is dropped when this fails, and the I/O manager reports a lost request; there is no memory to do better.
    let created = Object::create(machine, object.client(), Some(object), &device.request_attributes, body);
    let Ok(request) = created else { return Ok(()) };
    {
        let mut requests = device.requests.lock();
        requests.insert(id, Arc::downgrade(&request));
        // Completed requests leave here when their number becomes noticeable.
        if requests.len().is_power_of_two() && requests.len() >= 64 {
            requests.retain(|_, request| request.strong_count() != 0);
        }
    }
    match (device.in_caller, queue) {
        (Some(callback), _) => {
            super::super::ddi::body::<Request>(&request)?.presented_in_caller();
            let (this, that) = (object.handle, request.handle);
            // SAFETY: the driver registered the callback; it owns the request until it queues or completes it.
            callback::unlocked(&"EvtIoInCallerContext", || unsafe { callback(this, that) })
        }
        (None, Some(queue)) => queue::submit(machine, &queue, &request),
        (None, None) => request::complete_unowned(machine, &request, NtStatus::INVALID_DEVICE_REQUEST),
    }
}

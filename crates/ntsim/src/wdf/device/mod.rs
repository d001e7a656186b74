//! Devices: the objects that I/O is sent to.
//!
//! There is no plug and play, so every device is a control device. It takes no I/O before
//! `WdfControlFinishInitializing`, and one that is deleted while files are open on it goes when the last is closed.

mod ddi;
mod init;
mod io;
#[cfg(test)]
mod tests;
mod wdm;

use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::abi::{FileConfig, Handle, request_type};
use super::ddi::body;
use super::handle::Kind;
use super::lock::CallbackLock;
use super::object::{
    Attributes, Body, Constraints, LEVEL_DISPATCH, LEVEL_PASSIVE, Object, SCOPE_DEVICE, SCOPE_INHERIT, SCOPE_NONE,
};
use super::violation::Violation;
use crate::machine::Machine;
use crate::nt::io::{FileId, IrpId};
use nt_abi::NtStatus;

pub(crate) use ddi::FUNCTIONS;
pub(crate) use init::{FUNCTIONS as INIT_FUNCTIONS, Init};

/// `EvtIoInCallerContext`: device, request.
pub(crate) type InCallerCallback = unsafe extern "win64" fn(Handle, Handle);

/// What a device does with files, from `WDF_FILEOBJECT_CONFIG`.
#[derive(Clone, Copy)]
pub(crate) struct Files {
    /// The driver's callbacks and file object class; `None` when it gave no configuration.
    pub(crate) config: Option<FileConfig>,
    /// Attributes of each `WDFFILEOBJECT`.
    pub(crate) attributes: Attributes,
}

/// `WDFDEVICE`.
pub(crate) struct Device {
    name: String,
    characteristics: AtomicUsize,
    exclusive: bool,
    wdm: wdm::DeviceObject,
    passive: bool,
    scope: u32,
    lock: Arc<CallbackLock>,
    files: Files,
    request_attributes: Attributes,
    in_caller: Option<InCallerCallback>,
    initialized: AtomicBool,
    /// Its name is in the object directory.
    registered: AtomicBool,
    delete_pending: AtomicBool,
    open: Mutex<HashMap<FileId, Option<Arc<Object>>>>,
    default_queue: Mutex<Option<Arc<Object>>>,
    /// The queue of each request type that has one of its own.
    routes: Mutex<[Option<Arc<Object>>; request_type::COUNT]>,
    /// The framework's queue for create requests.
    create_queue: Mutex<Option<Arc<Object>>>,
    queues: Mutex<Vec<Weak<Object>>>,
    /// Requests under way, for cancellation.
    requests: Mutex<HashMap<IrpId, Weak<Object>>>,
    links: Mutex<Vec<String>>,
}

impl Device {
    /// Whether its callbacks run at PASSIVE_LEVEL only.
    pub(crate) fn passive(&self) -> bool {
        self.passive
    }

    /// Its synchronization scope, resolved.
    pub(crate) fn scope(&self) -> u32 {
        self.scope
    }

    /// The lock of its synchronization scope.
    pub(crate) fn lock(&self) -> Arc<CallbackLock> {
        Arc::clone(&self.lock)
    }

    /// The queue for requests that no other is configured for.
    pub(crate) fn default_queue(&self) -> Option<Arc<Object>> {
        self.default_queue.lock().clone()
    }

    /// Makes a queue the default one.
    pub(crate) fn set_default_queue(&self, queue: &Arc<Object>) {
        *self.default_queue.lock() = Some(Arc::clone(queue));
    }

    /// A queue was created.
    pub(crate) fn add_queue(&self, queue: &Arc<Object>) {
        self.queues.lock().push(Arc::downgrade(queue));
    }

    fn queues(&self) -> Vec<Arc<Object>> {
        self.queues.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// The queue that a type of request goes to.
    fn route(&self, request_type: u32) -> Option<Arc<Object>> {
        let configured = self.routes.lock().get(request_type as usize).cloned().flatten();
        // Create requests go to a queue only when the driver says so.
        if configured.is_some() || request_type == request_type::CREATE { configured } else { self.default_queue() }
    }

    /// The framework's object of an open file.
    pub(crate) fn file(&self, file: FileId) -> Option<Arc<Object>> {
        self.open.lock().get(&file).cloned().flatten()
    }

    /// Removes its name: it cannot be opened any more.
    fn unname(&self, machine: &Machine) {
        if self.registered.swap(false, Ordering::AcqRel) {
            machine.io.unregister_device(&self.name);
        }
    }
}

impl Body for Device {
    fn kind(&self) -> Kind {
        Kind::Device
    }

    fn passive_dispose(&self) -> bool {
        true
    }

    /// With files open, the device goes when the last is closed, and its symbolic links with it: KMDF calls
    /// IoDeleteDevice at once (FxDevice::DeleteObject) and leaves the links to its destruction (FxDevice::Destroy).
    fn postpone_deletion(&self, machine: &Arc<Machine>) -> bool {
        let open = self.open.lock();
        if open.is_empty() {
            return false;
        }
        self.delete_pending.store(true, Ordering::Release);
        drop(open);
        self.unname(machine);
        true
    }

    fn dispose(&self, machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
        self.unname(machine);
        for link in self.links.lock().drain(..) {
            machine.io.delete_symlink(&link);
        }
        self.wdm.unlink(object.client().driver_object.load(Ordering::Acquire));
        // References to and fro end here.
        self.default_queue.lock().take();
        self.create_queue.lock().take();
        *self.routes.lock() = core::array::from_fn(|_| None);
        self.open.lock().clear();
        Ok(())
    }

    fn presentation_lock(&self) -> Option<Arc<CallbackLock>> {
        Some(self.lock())
    }

    fn constraints(&self) -> Option<Constraints> {
        let lock = (self.scope == SCOPE_DEVICE).then(|| self.lock());
        Some(Constraints { passive: self.passive, lock })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Execution level and synchronization scope of a device: its own, else the driver's, else dispatch and none.
fn constrain(driver: &super::driver::Driver, attributes: &Attributes) -> (bool, u32) {
    let inherited = driver.constraints().unwrap_or_default();
    let passive = match attributes.execution_level {
        LEVEL_PASSIVE => true,
        LEVEL_DISPATCH => false,
        _ => inherited.passive,
    };
    let scope = match attributes.synchronization_scope {
        0 | SCOPE_INHERIT => match driver.scope {
            0 | SCOPE_INHERIT => SCOPE_NONE,
            scope => scope,
        },
        scope => scope,
    };
    (passive, scope)
}

/// The address of a device's `DEVICE_OBJECT`.
///
/// # Errors
/// A violation when the object is no device.
pub(crate) fn device_object(device: &Object) -> Result<usize, Box<Violation>> {
    Ok(body::<Device>(device)?.wdm.address())
}

/// A queue of the device is being deleted.
///
/// # Errors
/// A violation when the object is no device.
pub(crate) fn forget_queue(device: &Object, queue: &Arc<Object>) -> Result<(), Box<Violation>> {
    let device = body::<Device>(device)?;
    let is_it = |other: &Arc<Object>| Arc::ptr_eq(other, queue);
    device.queues.lock().retain(|other| other.upgrade().is_some_and(|other| !is_it(&other)));
    for route in device.routes.lock().iter_mut() {
        if route.as_ref().is_some_and(is_it) {
            *route = None;
        }
    }
    Ok(())
}

/// Makes a device from what the driver described, names it, and links it into the driver object.
///
/// # Errors
/// `STATUS_OBJECT_NAME_COLLISION`, `STATUS_OBJECT_NAME_INVALID`, `STATUS_INSUFFICIENT_RESOURCES`.
fn create(
    machine: &Arc<Machine>,
    init: &Init,
    attributes: &Attributes,
) -> Result<Arc<Object>, super::violation::Fault> {
    static UNNAMED: AtomicUsize = AtomicUsize::new(1);
    let driver = init.client.driver().ok_or(NtStatus::INVALID_DEVICE_STATE)?;
    let (passive, scope) = constrain(body(&driver)?, attributes);
    // Without a name the object manager would generate one of this form.
    let name =
        init.name.clone().unwrap_or_else(|| format!("\\Device\\{:08x}", UNNAMED.fetch_add(1, Ordering::Relaxed)));
    let driver_object = init.client.driver_object.load(Ordering::Acquire);
    let device = Device {
        wdm: wdm::DeviceObject::new(machine, init, driver_object)?,
        name: name.clone(),
        characteristics: AtomicUsize::new(init.characteristics as usize),
        exclusive: init.exclusive,
        passive,
        scope,
        lock: Arc::new(CallbackLock::new(passive)),
        files: init.files,
        request_attributes: init.request_attributes,
        in_caller: init.in_caller,
        initialized: AtomicBool::new(false),
        registered: AtomicBool::new(false),
        delete_pending: AtomicBool::new(false),
        open: Mutex::new(HashMap::new()),
        default_queue: Mutex::new(None),
        routes: Mutex::new(core::array::from_fn(|_| None)),
        create_queue: Mutex::new(None),
        queues: Mutex::new(Vec::new()),
        requests: Mutex::new(HashMap::new()),
        links: Mutex::new(Vec::new()),
    };
    let object = Object::create(machine, &init.client, Some(&driver), attributes, Box::new(device))?;
    let backend = Arc::new(io::Backend::new(&object));
    let registered = machine.io.register_device(&name, &init.sddl, backend, init.client.name());
    let finished = registered.ok().map_err(Into::into).and_then(|()| {
        let device = body::<Device>(&object)?;
        device.registered.store(true, Ordering::Release);
        if init.files.config.is_some_and(|config| config.create.is_some()) {
            *device.create_queue.lock() = Some(super::queue::create_for_files(machine, &object)?);
        }
        device.wdm.link(driver_object);
        Ok(())
    });
    if let Err(fault) = finished {
        // A failed create calls no callback of the driver's attributes.
        object.discard(machine)?;
        if registered.is_success() {
            machine.io.unregister_device(&name);
        }
        return Err(fault);
    }
    Ok(object)
}

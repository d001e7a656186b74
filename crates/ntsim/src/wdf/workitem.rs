//! Work items: callbacks at PASSIVE_LEVEL on a system worker thread.

use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use super::abi::{Handle, ObjectAttributes, WorkItemConfig};
use super::activity::Activity;
use super::callback;
use super::ddi::{self, Function, Globals};
use super::handle::Kind;
use super::kernel;
use super::lock::CallbackLock;
use super::object::{Allowed, Attributes, Body, Object};
use super::status;
use super::violation::Violation;
use crate::machine::Machine;
use nt_abi::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::dispatch("WdfWorkItemCreate", create as *const ()),
    Function::dispatch("WdfWorkItemEnqueue", enqueue as *const ()),
    Function::dispatch("WdfWorkItemGetParentObject", get_parent as *const ()),
    Function::passive("WdfWorkItemFlush", flush as *const ()),
];

/// `WDFWORKITEM`.
struct WorkItem {
    callback: unsafe extern "win64" fn(Handle),
    lock: Option<Arc<CallbackLock>>,
    queued: AtomicBool,
    running: Activity,
}

impl WorkItem {
    fn wait(&self) {
        self.running.wait(|| !self.queued.load(Ordering::Acquire));
    }
}

impl Body for WorkItem {
    fn kind(&self) -> Kind {
        Kind::WorkItem
    }

    fn passive_dispose(&self) -> bool {
        true
    }

    /// A queued callback still runs; deletion waits for it, except in the callback itself.
    fn dispose(&self, _machine: &Arc<Machine>, _object: &Arc<Object>) -> Result<(), Box<Violation>> {
        if !self.running.is_mine() {
            self.wait();
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

extern "win64" fn create(
    globals: Globals,
    config: *const WorkItemConfig,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(config, "WdfWorkItemCreate", "Config")?;
        ddi::not_null(attributes, "WdfWorkItemCreate", "Attributes")?;
        ddi::not_null(out, "WdfWorkItemCreate", "WorkItem")?;
        // SAFETY: not null, and of these types.
        let (config, attributes) = unsafe { (config.read_unaligned(), Attributes::read(attributes, Allowed::PARENT)?) };
        ddi::size(config.size, &[size_of::<WorkItemConfig>() as u32])?;
        let callback = config.callback.ok_or(NtStatus::INVALID_PARAMETER)?;
        let parent = ddi::required_parent(machine, &attributes)?;
        if parent.ancestor(Kind::Device).is_none() {
            return Err(NtStatus::INVALID_DEVICE_REQUEST.into());
        }
        let constraints = parent.constraints();
        let lock = constraints.lock.filter(|_| config.automatic_serialization != 0);
        if lock.is_some() && !constraints.passive {
            // A spin lock would keep the callback from being what a work item is for.
            return Err(status::WDF_INCOMPATIBLE_EXECUTION_LEVEL.into());
        }
        let body = Box::new(WorkItem { callback, lock, queued: AtomicBool::new(false), running: Activity::default() });
        let object = Object::create(machine, &client, Some(&parent), &attributes, body)?;
        // SAFETY: not null.
        unsafe { out.write(object.handle) };
        Ok(())
    })
}

/// One that is queued already and has not begun is queued once.
extern "win64" fn enqueue(_: Globals, item: Handle) {
    ddi::run(|machine| {
        let object = ddi::object(machine, item, Kind::WorkItem)?;
        if ddi::body::<WorkItem>(&object)?.queued.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        kernel::spawn_passive(machine, move |_| {
            let item = ddi::body::<WorkItem>(&object)?;
            item.running.begin();
            item.queued.store(false, Ordering::Release);
            let handle = object.handle;
            // SAFETY: the driver registered the callback for this work item.
            let called = callback::locked(item.lock.as_deref(), &"EvtWorkItem", || unsafe { (item.callback)(handle) });
            item.running.end();
            called
        });
        Ok(())
    });
}

extern "win64" fn get_parent(_: Globals, item: Handle) -> Handle {
    ddi::run(|machine| {
        let object = ddi::object(machine, item, Kind::WorkItem)?;
        Ok(object.parent().map_or(Handle::NULL, |parent| parent.handle))
    })
}

extern "win64" fn flush(_: Globals, item: Handle) {
    ddi::run(|machine| {
        let object = ddi::object(machine, item, Kind::WorkItem)?;
        let item = ddi::body::<WorkItem>(&object)?;
        if item.running.is_mine() {
            return Err(Violation::verifier(
                object.handle,
                "WdfWorkItemFlush is called in the work item's own callback",
            ));
        }
        item.wait();
        Ok(())
    });
}

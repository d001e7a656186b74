//! DPC objects.

use core::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;

use super::abi::{DpcConfig, Handle, ObjectAttributes};
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
use nt_abi::Irql;
use nt_abi::NtStatus;

/// The functions of this room. `WdfDpcCancel` may wait at PASSIVE_LEVEL only.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::dispatch("WdfDpcCreate", create as *const ()),
    Function::any("WdfDpcEnqueue", enqueue as *const ()),
    Function::dispatch("WdfDpcCancel", cancel as *const ()),
    Function::any("WdfDpcGetParentObject", get_parent as *const ()),
];

/// `WDFDPC`.
struct Dpc {
    callback: unsafe extern "win64" fn(Handle),
    lock: Option<Arc<CallbackLock>>,
    /// The number of the queued call; a cancelled or begun one has none.
    queued: Mutex<(u64, bool)>,
    running: Activity,
}

impl Dpc {
    /// Whether it was queued.
    fn unqueue(&self) -> bool {
        core::mem::replace(&mut self.queued.lock().1, false)
    }

    fn begin(&self, number: u64) -> bool {
        let mut queued = self.queued.lock();
        let begins = *queued == (number, true);
        queued.1 &= !begins;
        if begins {
            self.running.begin();
        }
        begins
    }
}

impl Body for Dpc {
    fn kind(&self) -> Kind {
        Kind::Dpc
    }

    fn passive_dispose(&self) -> bool {
        true
    }

    fn dispose(&self, _machine: &Arc<Machine>, _object: &Arc<Object>) -> Result<(), Box<Violation>> {
        self.unqueue();
        self.running.wait(|| true);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

extern "win64" fn create(
    globals: Globals,
    config: *const DpcConfig,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(config, "WdfDpcCreate", "Config")?;
        ddi::not_null(attributes, "WdfDpcCreate", "Attributes")?;
        ddi::not_null(out, "WdfDpcCreate", "Dpc")?;
        // SAFETY: not null, and of these types.
        let (config, attributes) = unsafe { (config.read_unaligned(), Attributes::read(attributes, Allowed::PARENT)?) };
        ddi::size(config.size, &[size_of::<DpcConfig>() as u32])?;
        let callback = config.callback.ok_or(NtStatus::INVALID_PARAMETER)?;
        let parent = ddi::required_parent(machine, &attributes)?;
        if parent.ancestor(Kind::Device).is_none() {
            return Err(NtStatus::INVALID_DEVICE_REQUEST.into());
        }
        let constraints = parent.constraints();
        if config.automatic_serialization != 0 && constraints.passive {
            return Err(status::WDF_INCOMPATIBLE_EXECUTION_LEVEL.into());
        }
        let lock = constraints.lock.filter(|_| config.automatic_serialization != 0);
        let body = Box::new(Dpc { callback, lock, queued: Mutex::new((0, false)), running: Activity::default() });
        let object = Object::create(machine, &client, Some(&parent), &attributes, body)?;
        // SAFETY: not null.
        unsafe { out.write(object.handle) };
        Ok(())
    })
}

/// TRUE when it was not queued before.
extern "win64" fn enqueue(_: Globals, dpc: Handle) -> u8 {
    ddi::run(|machine| {
        let object = ddi::object(machine, dpc, Kind::Dpc)?;
        let number = {
            let mut queued = ddi::body::<Dpc>(&object)?.queued.lock();
            if queued.1 {
                return Ok(0);
            }
            *queued = (queued.0 + 1, true);
            queued.0
        };
        kernel::queue_dpc(move |_| {
            let dpc = ddi::body::<Dpc>(&object)?;
            if !dpc.begin(number) {
                return Ok(());
            }
            let handle = object.handle;
            // SAFETY: the driver registered the callback for this DPC.
            let called = callback::locked(dpc.lock.as_deref(), &"EvtDpcFunc", || unsafe { (dpc.callback)(handle) });
            dpc.running.end();
            called
        });
        Ok(1)
    })
}

/// TRUE when it was queued.
extern "win64" fn cancel(_: Globals, dpc: Handle, wait: u8) -> u8 {
    ddi::run(|machine| {
        let object = ddi::object(machine, dpc, Kind::Dpc)?;
        if wait != 0 && kernel::irql() > Irql::PASSIVE {
            return Err(kernel::irql_violation("WdfDpcCancel that waits", Irql::PASSIVE));
        }
        let dpc = ddi::body::<Dpc>(&object)?;
        let was_queued = dpc.unqueue();
        if wait != 0 {
            dpc.running.wait(|| true);
        }
        Ok(u8::from(was_queued))
    })
}

extern "win64" fn get_parent(_: Globals, dpc: Handle) -> Handle {
    ddi::run(|machine| {
        let object = ddi::object(machine, dpc, Kind::Dpc)?;
        Ok(object.parent().map_or(Handle::NULL, |parent| parent.handle))
    })
}

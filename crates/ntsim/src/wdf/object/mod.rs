//! Framework objects: reference counts, the tree of parents and children, context spaces, deletion.
//!
//! Life cycle (Microsoft, "Framework Object Life Cycle"; order of the steps from KMDF's own object state machine):
//! deleting an object disposes its subtree, children before parents and older children first, calling every
//! `EvtCleanupCallback`; then each object of the subtree, again children first, loses the reference that creation gave
//! it, and where that was the last one its `EvtDestroyCallback` is called, its handle becomes stale and its contexts
//! are freed. An object with more references lives on, disposed and without a parent, until they are released.

mod context;
mod ddi;
mod lifecycle;
#[cfg(test)]
mod tests;

use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::Client;
use super::abi::Handle;
use super::handle::Kind;
use super::lock::CallbackLock;
use super::violation::Violation;
use crate::machine::Machine;

pub(crate) use context::{
    Allowed, Attributes, Context, LEVEL_DISPATCH, LEVEL_INHERIT, LEVEL_PASSIVE, SCOPE_DEVICE, SCOPE_INHERIT,
    SCOPE_NONE, SCOPE_QUEUE, allocate_context, type_name,
};
pub(crate) use ddi::FUNCTIONS;
pub(crate) use lifecycle::{delete, delete_subtree, dispose, release};

/// What makes an object a queue, a timer, a request.
pub(crate) trait Body: Any + Send + Sync {
    /// The kind of handle it has.
    fn kind(&self) -> Kind;

    /// Whether its deletion has to wait for PASSIVE_LEVEL, because the framework waits for something in it or the
    /// driver asked for passive callbacks.
    fn passive_dispose(&self) -> bool {
        false
    }

    /// Whether `WdfObjectDelete` is allowed. Framework-made requests, file objects and default queues are the
    /// framework's to delete.
    fn deletable(&self) -> bool {
        true
    }

    /// Whether deletion has to wait for something that will itself delete the object; called when the driver deletes
    /// it.
    fn postpone_deletion(&self, _machine: &Arc<Machine>) -> bool {
        false
    }

    /// Called once at the start of the object's own disposal, after its children's, before its `EvtCleanupCallback`.
    ///
    /// # Errors
    /// A violation that was found.
    fn dispose(&self, _machine: &Arc<Machine>, _object: &Arc<Object>) -> Result<(), Box<Violation>> {
        Ok(())
    }

    /// The lock that `WdfObjectAcquireLock` takes, on the kinds that have one.
    fn presentation_lock(&self) -> Option<Arc<CallbackLock>> {
        None
    }

    /// What its driver callbacks are bound to, on the kinds that bind those of their descendants too.
    fn constraints(&self) -> Option<Constraints> {
        None
    }

    /// For downcasts.
    fn as_any(&self) -> &dyn Any;
}

/// Execution level and synchronization scope, resolved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Constraints {
    /// Callbacks run at PASSIVE_LEVEL only.
    pub(crate) passive: bool,
    /// The lock that synchronizes them, if any.
    pub(crate) lock: Option<Arc<CallbackLock>>,
}

/// How far deletion has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    /// In use.
    Alive,
    /// `EvtCleanupCallback` of the subtree is being called.
    Disposing,
    /// Cleaned up; references may keep it.
    Disposed,
    /// The last reference is dropped.
    Destroyed,
}

/// One framework object.
pub(crate) struct Object {
    /// The driver's name for it.
    pub(crate) handle: Handle,
    serial: u64,
    kind: Kind,
    client: Arc<Client>,
    stage: AtomicU8,
    delete_called: AtomicBool,
    references: AtomicU32,
    parent: Mutex<Weak<Object>>,
    children: Mutex<BTreeMap<u64, Arc<Object>>>,
    contexts: RwLock<Vec<Arc<Context>>>,
    body: Box<dyn Body>,
}

impl core::fmt::Debug for Object {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {:?} ({:?})", self.kind, self.handle, self.stage())
    }
}

impl Object {
    /// Creates an object under `parent` with one reference, its first context and a valid handle.
    ///
    /// # Errors
    /// `STATUS_DELETE_PENDING` when the parent is being deleted, `STATUS_INSUFFICIENT_RESOURCES` without memory for
    /// the context.
    pub(crate) fn create(
        machine: &Arc<Machine>,
        client: &Arc<Client>,
        parent: Option<&Arc<Self>>,
        attributes: &Attributes,
        body: Box<dyn Body>,
    ) -> Result<Arc<Self>, nt_abi::NtStatus> {
        let kind = body.kind();
        if machine.low_resources.fails(kind.name()) {
            return Err(nt_abi::NtStatus::INSUFFICIENT_RESOURCES);
        }
        let context = context::first_context(machine, client, attributes)?;
        let address = context.as_ref().map_or(0, |context| context.address());
        let (handle, serial) = machine.wdf.handles.reserve(kind);
        let object = Arc::new(Self {
            handle,
            serial,
            kind,
            client: Arc::clone(client),
            stage: AtomicU8::new(Stage::Alive as u8),
            delete_called: AtomicBool::new(false),
            references: AtomicU32::new(1),
            parent: Mutex::new(parent.map_or_else(Weak::new, Arc::downgrade)),
            children: Mutex::new(BTreeMap::new()),
            contexts: RwLock::new(context.into_iter().collect()),
            body,
        });
        if let Some(parent) = parent {
            let mut children = parent.children.lock();
            // Under the children's lock, which disposal takes after it has changed the stage: either disposal sees
            // this child or this child sees the disposal.
            if parent.stage() != Stage::Alive {
                return Err(nt_abi::NtStatus::DELETE_PENDING);
            }
            children.insert(serial, Arc::clone(&object));
        }
        if address != 0 {
            machine.wdf.contexts.insert(address, &object);
        }
        machine.wdf.handles.insert(serial, Arc::clone(&object));
        Ok(object)
    }

    /// Its kind.
    #[must_use]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// A number of its own; grows with creation.
    #[must_use]
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// The driver it belongs to.
    #[must_use]
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// How far its deletion has come.
    #[must_use]
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Alive,
            1 => Stage::Disposing,
            2 => Stage::Disposed,
            _ => Stage::Destroyed,
        }
    }

    fn advance(&self, from: Stage, to: Stage) -> bool {
        self.stage.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// References held, the one of creation included.
    #[must_use]
    pub(crate) fn references(&self) -> u32 {
        self.references.load(Ordering::Relaxed)
    }

    /// Takes a reference.
    pub(crate) fn reference(&self) {
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    /// The parent, while there is one.
    #[must_use]
    pub(crate) fn parent(&self) -> Option<Arc<Self>> {
        self.parent.lock().upgrade()
    }

    /// Its children, oldest first.
    #[must_use]
    pub(crate) fn children(&self) -> Vec<Arc<Self>> {
        self.children.lock().values().cloned().collect()
    }

    /// The nearest object of a kind among itself and its ancestors.
    #[must_use]
    pub(crate) fn ancestor(self: &Arc<Self>, kind: Kind) -> Option<Arc<Self>> {
        let mut object = Arc::clone(self);
        loop {
            if object.kind == kind {
                return Some(object);
            }
            object = object.parent()?;
        }
    }

    /// Deletes an object whose creation failed: the driver never saw it and hears nothing of it.
    ///
    /// # Errors
    /// A violation found on the way.
    pub(crate) fn discard(self: &Arc<Self>, machine: &Arc<Machine>) -> Result<(), Box<Violation>> {
        for context in self.contexts.read().iter() {
            context.forget_callbacks();
        }
        delete_subtree(machine, self)
    }

    /// What binds the callbacks of objects below it: its own constraints or those of the nearest ancestor with any.
    #[must_use]
    pub(crate) fn constraints(self: &Arc<Self>) -> Constraints {
        let mut object = Arc::clone(self);
        loop {
            if let Some(constraints) = object.body.constraints() {
                return constraints;
            }
            match object.parent() {
                Some(parent) => object = parent,
                None => return Constraints::default(),
            }
        }
    }

    /// What makes it the kind it is.
    #[must_use]
    pub(crate) fn body(&self) -> &dyn Body {
        &*self.body
    }

    /// Its body as a concrete type, when it is of that type.
    #[must_use]
    pub(crate) fn get<B: Body>(&self) -> Option<&B> {
        self.body.as_any().downcast_ref()
    }
}

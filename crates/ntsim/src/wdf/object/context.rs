//! Context spaces: typed memory that a driver attaches to an object, with callbacks for its end.

use core::ffi::CStr;
use core::mem::size_of;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::Client;
use super::super::abi::{ContextType, ObjectAttributes, ObjectCallback};
use super::super::kernel::Allocation;
use super::super::status;
use super::super::violation::Fault;
use super::{Handle, Object, Stage};
use crate::machine::Machine;
use nt_abi::NtStatus;

/// `WDF_OBJECT_ATTRIBUTES` as given, or what its absence means.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attributes {
    /// Called when the object is disposed.
    pub(crate) cleanup: Option<ObjectCallback>,
    /// Called when its last reference is dropped.
    pub(crate) destroy: Option<ObjectCallback>,
    /// `WDF_EXECUTION_LEVEL`; 0 when no attributes were given.
    pub(crate) execution_level: u32,
    /// `WDF_SYNCHRONIZATION_SCOPE`; 0 when no attributes were given.
    pub(crate) synchronization_scope: u32,
    /// The parent the driver wants.
    pub(crate) parent: Handle,
    /// Address of the context's type, its identity; 0 for none.
    pub(crate) context_type: usize,
    /// Bytes of context.
    pub(crate) context_size: usize,
}

/// What an object allows in its attributes (`FX_VALIDATE_OPTION_...`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// A parent may be named.
    pub(crate) parent: bool,
    /// An execution level other than the inherited may be named.
    pub(crate) execution_level: bool,
    /// A synchronization scope other than the inherited may be named.
    pub(crate) synchronization_scope: bool,
}

impl Allowed {
    /// Only a parent.
    pub(crate) const PARENT: Self = Self { parent: true, execution_level: false, synchronization_scope: false };
    /// Only callbacks and a context.
    pub(crate) const NOTHING: Self = Self { parent: false, execution_level: false, synchronization_scope: false };
    /// Level and scope, no parent.
    pub(crate) const CONSTRAINTS: Self = Self { parent: false, execution_level: true, synchronization_scope: true };
}

/// `WdfExecutionLevelInheritFromParent`.
pub(crate) const LEVEL_INHERIT: u32 = 1;
/// `WdfExecutionLevelPassive`.
pub(crate) const LEVEL_PASSIVE: u32 = 2;
/// `WdfExecutionLevelDispatch`.
pub(crate) const LEVEL_DISPATCH: u32 = 3;
/// `WdfSynchronizationScopeInheritFromParent`.
pub(crate) const SCOPE_INHERIT: u32 = 1;
/// `WdfSynchronizationScopeDevice`.
pub(crate) const SCOPE_DEVICE: u32 = 2;
/// `WdfSynchronizationScopeQueue`.
pub(crate) const SCOPE_QUEUE: u32 = 3;
/// `WdfSynchronizationScopeNone`.
pub(crate) const SCOPE_NONE: u32 = 4;

impl Attributes {
    /// Reads and validates what a driver passed; NULL is no attributes.
    ///
    /// # Errors
    /// `STATUS_INFO_LENGTH_MISMATCH` for another size; `STATUS_WDF_PARENT_ASSIGNMENT_NOT_ALLOWED`,
    /// `STATUS_WDF_EXECUTION_LEVEL_INVALID` and `STATUS_WDF_SYNCHRONIZATION_SCOPE_INVALID` for what `allowed` forbids
    /// or no enumeration has; `STATUS_INVALID_PARAMETER` for a context size without a type.
    ///
    /// # Safety
    /// `attributes` is null or points to a `WDF_OBJECT_ATTRIBUTES` whose type information, if any, is readable.
    pub(crate) unsafe fn read(attributes: *const ObjectAttributes, allowed: Allowed) -> Result<Self, NtStatus> {
        if attributes.is_null() {
            return Ok(Self::default());
        }
        // SAFETY: not null, so the caller vouches for it.
        let given = unsafe { attributes.read_unaligned() };
        if given.size as usize != size_of::<ObjectAttributes>() {
            return Err(NtStatus::INFO_LENGTH_MISMATCH);
        }
        if !given.parent.is_null() && !allowed.parent {
            return Err(status::WDF_PARENT_ASSIGNMENT_NOT_ALLOWED);
        }
        let level = given.execution_level;
        if !(LEVEL_INHERIT..=LEVEL_DISPATCH).contains(&level) || (level != LEVEL_INHERIT && !allowed.execution_level) {
            return Err(status::WDF_EXECUTION_LEVEL_INVALID);
        }
        let scope = given.synchronization_scope;
        if !(SCOPE_INHERIT..=SCOPE_NONE).contains(&scope) || (scope != SCOPE_INHERIT && !allowed.synchronization_scope)
        {
            return Err(status::WDF_SYNCHRONIZATION_SCOPE_INVALID);
        }
        let mut context_size = 0;
        if given.context_type.is_null() {
            if given.context_size_override != 0 {
                return Err(NtStatus::INVALID_PARAMETER);
            }
        } else {
            // SAFETY: the caller vouches for the type information.
            let kind = unsafe { given.context_type.read_unaligned() };
            if kind.size as usize != size_of::<ContextType>() {
                return Err(NtStatus::INFO_LENGTH_MISMATCH);
            }
            context_size = match given.context_size_override {
                0 => kind.context_size,
                larger if larger < kind.context_size => return Err(NtStatus::INVALID_PARAMETER),
                larger => larger,
            };
        }
        Ok(Self {
            cleanup: given.cleanup,
            destroy: given.destroy,
            execution_level: level,
            synchronization_scope: scope,
            parent: given.parent,
            context_type: given.context_type as usize,
            context_size,
        })
    }
}

/// One context of an object. One without a type only carries callbacks.
pub(crate) struct Context {
    type_address: usize,
    memory: Option<Allocation>,
    /// Each callback is taken out when it is called, so none is called twice.
    callbacks: Mutex<(Option<ObjectCallback>, Option<ObjectCallback>)>,
}

impl Context {
    /// Where its memory begins; 0 when it has none.
    #[must_use]
    pub(crate) fn address(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.address())
    }

    /// Neither callback will be called.
    pub(crate) fn forget_callbacks(&self) {
        *self.callbacks.lock() = (None, None);
    }

    pub(crate) fn take_cleanup(&self) -> Option<ObjectCallback> {
        self.callbacks.lock().0.take()
    }

    pub(crate) fn take_destroy(&self) -> Option<ObjectCallback> {
        self.callbacks.lock().1.take()
    }
}

/// The name of a context type, for messages.
///
/// # Safety
/// `address` is 0 or the address of a `WDF_OBJECT_CONTEXT_TYPE_INFO` with a readable name.
#[must_use]
pub(crate) unsafe fn type_name(address: usize) -> String {
    if address == 0 {
        return "no type".to_owned();
    }
    // SAFETY: the caller vouches for the structure.
    let name = unsafe { (*(address as *const ContextType)).name };
    if name.is_null() {
        return "an unnamed type".to_owned();
    }
    // SAFETY: the caller vouches for the name, a C string by the structure's definition.
    unsafe { CStr::from_ptr(name.cast()) }.to_string_lossy().into_owned()
}

/// # Errors
/// `STATUS_INSUFFICIENT_RESOURCES`.
pub(crate) fn new_context(
    machine: &Arc<Machine>,
    client: &Client,
    attributes: &Attributes,
) -> Result<Arc<Context>, NtStatus> {
    // A type of size 0 still gives a context that can be found; the pointer must then not be null.
    let memory = match attributes.context_type {
        0 => None,
        _ => {
            let memory = Allocation::zeroed(machine, client.tag(), attributes.context_size.max(1));
            Some(memory.ok_or(NtStatus::INSUFFICIENT_RESOURCES)?)
        }
    };
    Ok(Arc::new(Context {
        type_address: attributes.context_type,
        memory,
        callbacks: Mutex::new((attributes.cleanup, attributes.destroy)),
    }))
}

/// The first context of a new object, when the attributes ask for one.
///
/// # Errors
/// `STATUS_INSUFFICIENT_RESOURCES`.
pub(crate) fn first_context(
    machine: &Arc<Machine>,
    client: &Client,
    attributes: &Attributes,
) -> Result<Option<Arc<Context>>, NtStatus> {
    if attributes.context_type == 0 && attributes.cleanup.is_none() && attributes.destroy.is_none() {
        return Ok(None);
    }
    new_context(machine, client, attributes).map(Some)
}

/// Adds a context to an object and returns its address.
///
/// # Errors
/// `STATUS_OBJECT_NAME_EXISTS` (with the address of the context that is there) as `Ok`'s status, since it is a
/// success code; `STATUS_OBJECT_NAME_INVALID` without a type; `STATUS_DELETE_PENDING` on an object being deleted.
pub(crate) fn allocate_context(
    machine: &Arc<Machine>,
    object: &Arc<Object>,
    attributes: &Attributes,
) -> Result<(NtStatus, usize), Fault> {
    if attributes.context_type == 0 {
        return Err(NtStatus::OBJECT_NAME_INVALID.into());
    }
    if machine.low_resources.fails("WdfObjectAllocateContext") {
        return Err(NtStatus::INSUFFICIENT_RESOURCES.into());
    }
    let context = new_context(machine, object.client(), attributes)?;
    let address = context.address();
    {
        let mut contexts = object.contexts.write();
        if let Some(there) = contexts.iter().find(|c| c.type_address == attributes.context_type) {
            return Ok((NtStatus::OBJECT_NAME_EXISTS, there.address()));
        }
        if object.stage() != Stage::Alive {
            return Err(NtStatus::DELETE_PENDING.into());
        }
        contexts.push(context);
    }
    machine.wdf.contexts.insert(address, object);
    Ok((NtStatus::SUCCESS, address))
}

impl Object {
    /// The address of its context of a type; 0 when it has none.
    #[must_use]
    pub(crate) fn context(&self, type_address: usize) -> usize {
        self.contexts.read().iter().find(|c| c.type_address == type_address).map_or(0, |c| c.address())
    }

    pub(crate) fn contexts(&self) -> Vec<Arc<Context>> {
        self.contexts.read().clone()
    }

    /// The context types it has, for messages.
    #[must_use]
    pub(crate) fn context_types(&self) -> Vec<usize> {
        self.contexts.read().iter().map(|c| c.type_address).filter(|t| *t != 0).collect()
    }
}

//! Deletion: dispose the subtree, then release it.

use core::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::super::abi::ObjectCallback;
use super::super::callback;
use super::super::kernel;
use super::super::violation::Violation;
use super::{Object, Stage};
use crate::machine::Machine;
use nt_abi::Irql;

/// `WdfObjectDelete` as a driver may call it.
///
/// # Errors
/// A violation when the object is not the driver's to delete, or was deleted before.
pub(crate) fn delete(machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
    if !object.body().deletable() {
        return Err(Violation::object(
            object.handle,
            format!("WdfObjectDelete of {} {:?}, which only the framework deletes", object.kind(), object.handle),
        ));
    }
    if object.body().postpone_deletion(machine) {
        return Ok(());
    }
    delete_subtree(machine, object)
}

/// Deletes an object and everything below it. Above PASSIVE_LEVEL the whole deletion is handed to a system thread when
/// something in the subtree has to be deleted at PASSIVE_LEVEL.
///
/// # Errors
/// A violation when it was deleted before, or one found on the way.
pub(crate) fn delete_subtree(machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
    if object.delete_called.swap(true, Ordering::AcqRel) {
        return Err(Violation::object(
            object.handle,
            format!("{} {:?} is deleted a second time", object.kind(), object.handle),
        ));
    }
    if let Some(parent) = object.parent() {
        // Under the children's lock: a parent that is being deleted has taken this object over, disposes and releases
        // it in its own time; any other one forgets it here.
        let mut children = parent.children.lock();
        if parent.stage() != Stage::Alive {
            return Ok(());
        }
        children.remove(&object.serial);
        drop(children);
        *object.parent.lock() = Weak::new();
    }
    at_passive_if_needed(machine, object, |machine, object| {
        dispose(machine, object)?;
        release_subtree(machine, object)
    })
}

/// Drops a reference; the last one destroys the object.
///
/// # Errors
/// A violation when the object was not deleted: `WdfObjectDereference` is not a way to delete.
pub(crate) fn release(machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
    let before = object.references.fetch_sub(1, Ordering::AcqRel);
    if before == 0 {
        return Err(Violation::object(
            object.handle,
            format!("{} {:?} is dereferenced more often than referenced", object.kind(), object.handle),
        ));
    }
    if before > 1 {
        return Ok(());
    }
    if object.stage() < Stage::Disposed {
        return Err(Violation::object(
            object.handle,
            format!("{} {:?} loses its last reference without being deleted", object.kind(), object.handle),
        ));
    }
    at_passive_if_needed(machine, object, destroy)
}

type Step = fn(&Arc<Machine>, &Arc<Object>) -> Result<(), Box<Violation>>;

fn at_passive_if_needed(machine: &Arc<Machine>, object: &Arc<Object>, step: Step) -> Result<(), Box<Violation>> {
    if kernel::irql() > Irql::PASSIVE && needs_passive(object) {
        let object = Arc::clone(object);
        object.client().deferral_begins();
        kernel::spawn_passive(machine, move |machine| {
            let result = step(machine, &object);
            object.client().deferral_ends();
            result
        });
        return Ok(());
    }
    step(machine, object)
}

fn needs_passive(object: &Object) -> bool {
    object.body.passive_dispose() || object.children().iter().any(|child| needs_passive(child))
}

/// Calls `EvtCleanupCallback` in the subtree, children first; once.
///
/// # Errors
/// A violation found on the way.
pub(crate) fn dispose(machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
    if !object.advance(Stage::Alive, Stage::Disposing) {
        return Ok(());
    }
    for child in object.children() {
        dispose(machine, &child)?;
    }
    object.body.dispose(machine, object)?;
    cleanup(object)?;
    object.advance(Stage::Disposing, Stage::Disposed);
    Ok(())
}

fn cleanup(object: &Object) -> Result<(), Box<Violation>> {
    for context in object.contexts() {
        if let Some(cleanup) = context.take_cleanup() {
            call(cleanup, object, "EvtCleanupCallback")?;
        }
    }
    Ok(())
}

fn call(function: ObjectCallback, object: &Object, name: &str) -> Result<(), Box<Violation>> {
    let handle = object.handle;
    // SAFETY: the driver registered the function for this object; the handle is still valid.
    callback::unlocked(&format_args!("{name} of {} {handle:?}", object.kind), || unsafe { function(handle) })
}

/// Drops the reference of creation in the subtree, children first.
fn release_subtree(machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
    let children = core::mem::take(&mut *object.children.lock());
    for child in children.into_values() {
        *child.parent.lock() = Weak::new();
        child.delete_called.store(true, Ordering::Release);
        release_subtree(machine, &child)?;
    }
    release(machine, object)
}

fn destroy(machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
    if !object.advance(Stage::Disposed, Stage::Destroyed) {
        return Ok(());
    }
    for context in object.contexts() {
        if let Some(cleanup) = context.take_cleanup() {
            call(cleanup, object, "EvtCleanupCallback")?;
        }
        if let Some(destroy) = context.take_destroy() {
            call(destroy, object, "EvtDestroyCallback")?;
        }
    }
    machine.wdf.handles.remove(object.serial);
    for context in object.contexts.write().drain(..) {
        machine.wdf.contexts.remove(context.address());
    }
    Ok(())
}

//! `WdfObject...`: the functions every kind of object has.

use core::any::Any;
use core::ffi::c_void;
use std::sync::Arc;

use super::super::abi::{Handle, ObjectAttributes};
use super::super::ddi::{self, Function, Globals};
use super::super::handle::Kind;
use super::super::violation::{Fault, Violation};
use super::{Allowed, Attributes, Body, Object, allocate_context, delete, release};
use nt_abi::NtStatus;

/// The functions of this room. `wdfobject.h` gives the context and reference functions no highest IRQL.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::dispatch("WdfObjectCreate", create as *const ()),
    Function::dispatch("WdfObjectDelete", delete_object as *const ()),
    Function::dispatch("WdfObjectQuery", query as *const ()),
    Function::any("WdfObjectGetTypedContextWorker", get_typed_context as *const ()),
    Function::any("WdfObjectAllocateContext", allocate as *const ()),
    Function::any("WdfObjectContextGetObject", context_get_object as *const ()),
    Function::any("WdfObjectReferenceActual", reference as *const ()),
    Function::any("WdfObjectDereferenceActual", dereference as *const ()),
];

struct General;

impl Body for General {
    fn kind(&self) -> Kind {
        Kind::Object
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

extern "win64" fn create(globals: Globals, attributes: *const ObjectAttributes, out: *mut Handle) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(out, "WdfObjectCreate", "Object")?;
        // SAFETY: the driver passes NULL or a WDF_OBJECT_ATTRIBUTES.
        let attributes = unsafe { Attributes::read(attributes, Allowed::PARENT)? };
        let parent = ddi::parent_or_driver(machine, &client, &attributes)?;
        let object = Object::create(machine, &client, Some(&parent), &attributes, Box::new(General))?;
        // SAFETY: not null; WdfObjectCreate writes a handle there.
        unsafe { out.write(object.handle) };
        Ok(())
    })
}

extern "win64" fn delete_object(_: Globals, handle: Handle) {
    ddi::run(|machine| delete(machine, &ddi::any_object(machine, handle)?));
}

/// Interfaces of an object by GUID: no object of KMDF answers to any that a driver could name.
extern "win64" fn query(_: Globals, handle: Handle, _: *const c_void, _: u32, _: *mut c_void) -> NtStatus {
    ddi::status(|machine| {
        ddi::any_object(machine, handle)?;
        Err(Fault::Status(NtStatus::NOT_FOUND))
    })
}

extern "win64" fn get_typed_context(_: Globals, handle: Handle, kind: *const c_void) -> usize {
    ddi::run(|machine| Ok(ddi::any_object(machine, handle)?.context(kind as usize)))
}

extern "win64" fn allocate(
    _: Globals,
    handle: Handle,
    attributes: *const ObjectAttributes,
    out: *mut usize,
) -> NtStatus {
    ddi::run(|machine| {
        let object = ddi::any_object(machine, handle)?;
        ddi::not_null(attributes, "WdfObjectAllocateContext", "ContextAttributes")?;
        // Clients before KMDF 1.11 could name a parent here; it had no effect then either.
        let allowed = if object.client().minor() < 11 { Allowed::PARENT } else { Allowed::NOTHING };
        // SAFETY: not null, so a WDF_OBJECT_ATTRIBUTES.
        let added = unsafe { Attributes::read(attributes, allowed) }
            .map_err(Fault::from)
            .and_then(|attributes| allocate_context(machine, &object, &attributes));
        match added {
            Ok((status, address)) => {
                if !out.is_null() {
                    // SAFETY: not null; the function writes a pointer there.
                    unsafe { out.write(address) };
                }
                Ok(status)
            }
            Err(Fault::Status(status)) => Ok(status),
            Err(Fault::Violation(violation)) => Err(violation),
        }
    })
}

extern "win64" fn context_get_object(_: Globals, context: usize) -> Handle {
    ddi::run(|machine| {
        let object = machine.wdf.contexts.get(context);
        object.map(|object| object.handle).ok_or_else(|| {
            let why = format!("WdfObjectContextGetObject: {context:#x} is not the start of a context of any object");
            Violation::handle_like(context as u64, why)
        })
    })
}

extern "win64" fn reference(_: Globals, handle: Handle, _tag: *const c_void, _line: i32, _file: *const u8) {
    ddi::run(|machine| {
        let object = ddi::any_object(machine, handle)?;
        object.reference();
        Ok(())
    });
}

extern "win64" fn dereference(_: Globals, handle: Handle, _tag: *const c_void, _line: i32, _file: *const u8) {
    ddi::run(|machine| {
        let object: Arc<Object> = ddi::any_object(machine, handle)?;
        release(machine, &object)
    });
}

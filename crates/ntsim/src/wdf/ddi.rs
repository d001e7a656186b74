//! What every framework function begins and ends with.

use std::sync::Arc;

use super::Client;
use super::abi::{DriverGlobals, Handle};
use super::handle::Kind;
use super::object::{Attributes, Body, Object};
use super::violation::{Fault, Violation};
use crate::cpu;
use crate::machine::Machine;
use nt_abi::Irql;
use nt_abi::NtStatus;

/// The first argument of every framework function.
pub(crate) type Globals = *const DriverGlobals;

/// A function of the framework's table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    /// Its name, which gives its index.
    pub(crate) name: &'static str,
    /// The highest IRQL that its annotation in the headers allows.
    pub(crate) max_irql: Irql,
    /// `extern "win64"`.
    pub(crate) entry: *const (),
}

// SAFETY: the pointer is the address of a function; it is only ever called.
unsafe impl Sync for Function {}

impl Function {
    /// Callable at PASSIVE_LEVEL only.
    pub(crate) const fn passive(name: &'static str, entry: *const ()) -> Self {
        Self { name, max_irql: Irql::PASSIVE, entry }
    }

    /// Callable up to DISPATCH_LEVEL.
    pub(crate) const fn dispatch(name: &'static str, entry: *const ()) -> Self {
        Self { name, max_irql: Irql::DISPATCH, entry }
    }

    /// Callable at any IRQL.
    pub(crate) const fn any(name: &'static str, entry: *const ()) -> Self {
        Self { name, max_irql: Irql::HIGH, entry }
    }
}

/// Runs a framework function; a violation halts the machine here, where nothing is held any more.
pub(crate) fn run<R>(function: impl FnOnce(&Arc<Machine>) -> Result<R, Box<Violation>>) -> R {
    match cpu::with_machine(function) {
        Ok(result) => result,
        Err(violation) => violation.bugcheck(),
    }
}

/// The same for a function that returns NTSTATUS.
pub(crate) fn status(function: impl FnOnce(&Arc<Machine>) -> Result<(), Fault>) -> NtStatus {
    run(|machine| match function(machine) {
        Ok(()) => Ok(NtStatus::SUCCESS),
        Err(Fault::Status(status)) => Ok(status),
        Err(Fault::Violation(violation)) => Err(violation),
    })
}

/// The driver that a call comes from.
///
/// # Errors
/// A violation when the globals are not the ones a bind gave out.
pub(crate) fn client(machine: &Machine, globals: Globals) -> Result<Arc<Client>, Box<Violation>> {
    machine.wdf.client(globals as usize).ok_or_else(|| {
        Violation::verifier(
            Handle(globals as u64),
            "the call's DriverGlobals are not those that WdfVersionBind gave to any loaded driver",
        )
    })
}

/// The live object behind a handle of any kind.
///
/// # Errors
/// WDF_VIOLATION 0x5 for anything else.
pub(crate) fn any_object(machine: &Machine, handle: Handle) -> Result<Arc<Object>, Box<Violation>> {
    machine.wdf.handles.get(handle).map_err(|invalid| Violation::handle(handle, "WDFOBJECT", invalid))
}

/// The live object behind a handle of one kind.
///
/// # Errors
/// WDF_VIOLATION 0x5 for anything else.
pub(crate) fn object(machine: &Machine, handle: Handle, kind: Kind) -> Result<Arc<Object>, Box<Violation>> {
    let object = machine.wdf.handles.get(handle).map_err(|invalid| Violation::handle(handle, kind.name(), invalid))?;
    if object.kind() == kind { Ok(object) } else { Err(Violation::kind(handle, kind.name(), object.kind())) }
}

/// The body of an object whose kind says which type it is.
///
/// # Errors
/// WDF_VIOLATION 0x5 when it is another one.
pub(crate) fn body<B: Body>(object: &Object) -> Result<&B, Box<Violation>> {
    object.get().ok_or_else(|| Violation::kind(object.handle, core::any::type_name::<B>(), object.kind()))
}

/// The parent that the attributes name, or the driver object.
///
/// # Errors
/// WDF_VIOLATION 0x5 when the parent is no object; `STATUS_INVALID_DEVICE_STATE` before `WdfDriverCreate`.
pub(crate) fn parent_or_driver(
    machine: &Machine,
    client: &Client,
    attributes: &Attributes,
) -> Result<Arc<Object>, Fault> {
    if attributes.parent.is_null() {
        client.driver().ok_or(Fault::Status(NtStatus::INVALID_DEVICE_STATE))
    } else {
        Ok(any_object(machine, attributes.parent)?)
    }
}

/// The parent that the attributes must name.
///
/// # Errors
/// `STATUS_WDF_PARENT_NOT_SPECIFIED` without one, WDF_VIOLATION 0x5 when it is no object.
pub(crate) fn required_parent(machine: &Machine, attributes: &Attributes) -> Result<Arc<Object>, Fault> {
    if attributes.parent.is_null() {
        return Err(super::status::WDF_PARENT_NOT_SPECIFIED.into());
    }
    Ok(any_object(machine, attributes.parent)?)
}

/// Refuses a null pointer argument.
///
/// # Errors
/// WDF_VIOLATION 0x4.
pub(crate) fn not_null<T>(pointer: *const T, function: &str, parameter: &str) -> Result<(), Box<Violation>> {
    if pointer.is_null() { Err(Violation::null(function, parameter)) } else { Ok(()) }
}

/// Checks the `Size` field of a structure.
///
/// # Errors
/// `STATUS_INFO_LENGTH_MISMATCH` when it is not one of the released sizes.
pub(crate) fn size(given: u32, released: &[u32]) -> Result<(), NtStatus> {
    if released.contains(&given) { Ok(()) } else { Err(NtStatus::INFO_LENGTH_MISMATCH) }
}

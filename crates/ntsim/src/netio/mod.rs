//! NETIO.SYS: the Network Module Registrar (NMR), which attaches clients and providers of a network programming
//! interface (NPI) to each other.
//!
//! "Network Module Registrar" of the WDK documentation and the pages of the functions; layouts: netioddk.h, x64. The
//! system registers no modules here: no WSK provider (WskRegister is absent) and no IP helper, so only modules of
//! drivers are attached.

#![allow(non_snake_case, reason = "exports have their Windows names")]

mod nmr;

use crate::cpu::{self, code};
use crate::export::exports;
use core::ffi::c_void;
pub use nmr::Registrar;
use nmr::{Module, Side, table};
use nt_abi::NtStatus;

exports! {
    "NETIO.SYS";
    NmrRegisterProvider: PASSIVE,
    NmrDeregisterProvider: DISPATCH,
    NmrWaitForProviderDeregisterComplete: PASSIVE,
    NmrProviderDetachClientComplete: DISPATCH,
    NmrRegisterClient: PASSIVE,
    NmrDeregisterClient: DISPATCH,
    NmrWaitForClientDeregisterComplete: PASSIVE,
    NmrClientDetachProviderComplete: DISPATCH,
    NmrClientAttachProvider: PASSIVE,
}

/// Stops the machine for an invalid handle.
fn stranger(function: &str, handle: u64) -> ! {
    let why = format!("{function} was given {handle:#x}, which is not a valid NMR handle");
    cpu::bugcheck(code::PAGE_FAULT_IN_NONPAGED_AREA, [handle, 0, 0, 0], why)
}

/// Registers a module, and offers it to its counterparts before it returns.
///
/// # Safety
/// `characteristics` stays as it is while the module is registered; `out` is the driver's to write.
unsafe fn register(
    side: Side,
    characteristics: *const table::Characteristics,
    context: u64,
    out: *mut u64,
) -> NtStatus {
    let by = cpu::caller();
    // SAFETY: the caller's promise.
    let sized = unsafe { usize::from((*characteristics).length) >= size_of::<table::Characteristics>() };
    if !sized {
        return NtStatus::INVALID_PARAMETER;
    }
    if cpu::with_machine(|machine| machine.low_resources.fails("NmrRegister")) {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    // SAFETY: the caller's promise.
    let module = unsafe { Module::read(side, characteristics, context, by) };
    let handle = cpu::with_machine(|machine| machine.nmr.add(module));
    // The handle is written before the first callback, which may use it. SAFETY: the caller's promise.
    unsafe { out.write(handle) };
    nmr::introduce(handle);
    NtStatus::SUCCESS
}

fn deregister(side: Side, handle: u64, function: &str) -> NtStatus {
    if !nmr::part(side, handle) {
        stranger(function, handle);
    }
    NtStatus::PENDING
}

/// Waits until every binding of a module that is being deregistered has ended.
fn wait(side: Side, handle: u64, function: &str) -> NtStatus {
    let known = cpu::with_machine(|machine| {
        machine.nmr.is_leaving(side, handle) && {
            machine.dispatcher.wait_until(machine, || machine.nmr.is_alone(handle));
            machine.nmr.forget(handle);
            true
        }
    });
    if !known {
        stranger(function, handle);
    }
    NtStatus::SUCCESS
}

unsafe extern "win64" fn NmrRegisterProvider(
    characteristics: *const table::Characteristics,
    context: u64,
    out: *mut u64,
) -> NtStatus {
    // SAFETY: the page demands NPI_PROVIDER_CHARACTERISTICS that stay in place while the provider is registered, and a
    // variable for the handle; `register` checks the length.
    unsafe { register(Side::Provider, characteristics, context, out) }
}

unsafe extern "win64" fn NmrRegisterClient(
    characteristics: *const table::Characteristics,
    context: u64,
    out: *mut u64,
) -> NtStatus {
    // SAFETY: the page demands NPI_CLIENT_CHARACTERISTICS that stay in place while the client is registered, and a
    // variable for the handle; `register` checks the length.
    unsafe { register(Side::Client, characteristics, context, out) }
}

extern "win64" fn NmrDeregisterProvider(handle: u64) -> NtStatus {
    deregister(Side::Provider, handle, "NmrDeregisterProvider")
}

extern "win64" fn NmrDeregisterClient(handle: u64) -> NtStatus {
    deregister(Side::Client, handle, "NmrDeregisterClient")
}

extern "win64" fn NmrWaitForProviderDeregisterComplete(handle: u64) -> NtStatus {
    wait(Side::Provider, handle, "NmrWaitForProviderDeregisterComplete")
}

extern "win64" fn NmrWaitForClientDeregisterComplete(handle: u64) -> NtStatus {
    wait(Side::Client, handle, "NmrWaitForClientDeregisterComplete")
}

extern "win64" fn NmrProviderDetachClientComplete(binding: u64) {
    if !nmr::detached(Side::Provider, binding) {
        stranger("NmrProviderDetachClientComplete", binding);
    }
}

extern "win64" fn NmrClientDetachProviderComplete(binding: u64) {
    if !nmr::detached(Side::Client, binding) {
        stranger("NmrClientDetachProviderComplete", binding);
    }
}

/// Only the client's ClientAttachProvider may call it, for the binding that was passed to it.
unsafe extern "win64" fn NmrClientAttachProvider(
    binding: u64,
    client_context: u64,
    client_dispatch: *const c_void,
    provider_context: *mut u64,
    provider_dispatch: *mut *const c_void,
) -> NtStatus {
    // SAFETY: the page demands variables for the provider's binding context and dispatch table; the binding is checked.
    let attached =
        unsafe { nmr::attach(binding, client_context, client_dispatch, provider_context, provider_dispatch) };
    attached.unwrap_or_else(|| stranger("NmrClientAttachProvider", binding))
}

#[cfg(test)]
mod tests;

//! Injection.

use crate::cpu;
use crate::fwpkclnt::inject::{CompletionFn, InjectionPath, InjectionRequest};
use core::ffi::c_void;
use filter_engine::layers::LayerId;
use nt_abi::NetBufferList;
use nt_abi::NtStatus;
use nt_abi::fwp::{FwpsTransportSendParams1, consts};
use std::net::IpAddr;

/// # Safety
/// As the injection functions' pages demand: the list and what it leads to are live, unchanged until the completion,
/// and the driver's again from then on; the completion function is an FWPS_INJECT_COMPLETE0.
unsafe fn inject(request: InjectionRequest) -> NtStatus {
    if crate::fwpkclnt::scarce("an injection") {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    cpu::with_machine(|machine| {
        let stack = machine.wfp.stack.load();
        // SAFETY: the caller's promise.
        unsafe { machine.wfp.injections.inject(&***stack, request) }
    })
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsInjectionHandleCreate0(family: u16, flags: u32, out: *mut u64) -> NtStatus {
    if out.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    if crate::fwpkclnt::scarce("FwpsInjectionHandleCreate0") {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    match cpu::with_machine(|machine| machine.wfp.injections.create(family, flags)) {
        Ok(handle) => {
            // SAFETY: checked for null; the page makes `injectionHandle` the driver's variable for the result. The
            // driver frees the handle with FwpsInjectionHandleDestroy0.
            unsafe { out.write(handle) };
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) extern "win64" fn FwpsInjectionHandleDestroy0(handle: u64) -> NtStatus {
    cpu::with_machine(|machine| machine.wfp.injections.destroy(handle))
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsQueryPacketInjectionState0(
    handle: u64,
    list: *const NetBufferList,
    context: *mut u64,
) -> u32 {
    // SAFETY: the page demands a live list; null is handled. The chain of parents is only read.
    let (state, injected) = cpu::with_machine(|machine| unsafe { machine.wfp.injections.state(handle, list) });
    // SAFETY: the page makes `injectionContext` optional: null, which is checked, or a HANDLE to write.
    if let Some(context) = unsafe { context.as_mut() } {
        *context = injected;
    }
    state as u32
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsInjectNetworkSendAsync0(
    handle: u64,
    injection_context: u64,
    _flags: u32,
    compartment: u32,
    list: *mut NetBufferList,
    completion: Option<CompletionFn>,
    context: *mut c_void,
) -> NtStatus {
    let path = InjectionPath::NetworkSend { compartment };
    // SAFETY: FwpsInjectNetworkSendAsync0 demands what `inject` does. Null lists and completion functions and stale
    // handles are refused; after the completion the driver frees the list.
    unsafe { inject(InjectionRequest { handle, injection_context, path, list, completion, context }) }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsInjectNetworkReceiveAsync0(
    handle: u64,
    injection_context: u64,
    _flags: u32,
    compartment: u32,
    interface: u32,
    sub_interface: u32,
    list: *mut NetBufferList,
    completion: Option<CompletionFn>,
    context: *mut c_void,
) -> NtStatus {
    let path = InjectionPath::NetworkReceive { compartment, interface, sub_interface };
    // SAFETY: FwpsInjectNetworkReceiveAsync0 demands what `inject` does. Null lists and completion functions and stale
    // handles are refused; after the completion the driver frees the list.
    unsafe { inject(InjectionRequest { handle, injection_context, path, list, completion, context }) }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsInjectForwardAsync0(
    handle: u64,
    injection_context: u64,
    _flags: u32,
    family: u16,
    compartment: u32,
    interface: u32,
    list: *mut NetBufferList,
    completion: Option<CompletionFn>,
    context: *mut c_void,
) -> NtStatus {
    let path = InjectionPath::Forward { family, compartment, interface };
    // SAFETY: FwpsInjectForwardAsync0 demands what `inject` does. Null lists and completion functions and stale handles
    // are refused; after the completion the driver frees the list.
    unsafe { inject(InjectionRequest { handle, injection_context, path, list, completion, context }) }
}

/// # Safety
/// `send` is null or parameters of this version.
unsafe fn transport_send(
    endpoint: u64,
    send: *const FwpsTransportSendParams1,
    family: u16,
    compartment: u32,
    version: u32,
) -> InjectionPath {
    let (mut remote, mut scope, mut header) = (None, 0, Vec::new());
    if !send.is_null() {
        // SAFETY: the caller's promise; of version 0 only the members it has are read, each by itself.
        unsafe {
            let address = (&raw const (*send).remote_address).read();
            scope = (&raw const (*send).remote_scope_id).read();
            // The address is in network order, as on the wire.
            remote = match (address.is_null(), family) {
                (true, _) => None,
                (false, consts::AF_INET6) => Some(IpAddr::from(address.cast::<[u8; 16]>().read())),
                (false, _) => Some(IpAddr::from(address.cast::<[u8; 4]>().read())),
            };
            if version == 1 {
                let start = (&raw const (*send).header_include_header).read();
                let length = (&raw const (*send).header_include_header_length).read();
                if !start.is_null() {
                    header = core::slice::from_raw_parts(start, length as usize).to_vec();
                }
            }
        }
    }
    InjectionPath::TransportSend { endpoint, family, compartment, remote, scope, header }
}

macro_rules! transport_sends {
    ($($name:ident = $version:literal),*) => {$(
        #[allow(non_snake_case, reason = "the export's name")]
        pub(super) unsafe extern "win64" fn $name(
            handle: u64,
            injection_context: u64,
            endpoint: u64,
            _flags: u32,
            send: *const FwpsTransportSendParams1,
            family: u16,
            compartment: u32,
            list: *mut NetBufferList,
            completion: Option<CompletionFn>,
            context: *mut c_void,
        ) -> NtStatus {
            // SAFETY: the page demands null or FWPS_TRANSPORT_SEND_PARAMS of this version, which are copied, and for
            // the list what `inject` does. Null lists and completion functions and stale handles are refused; after the
            // completion the driver frees the list.
            unsafe {
                let path = transport_send(endpoint, send, family, compartment, $version);
                inject(InjectionRequest { handle, injection_context, path, list, completion, context })
            }
        }
    )*};
}
transport_sends!(FwpsInjectTransportSendAsync0 = 0, FwpsInjectTransportSendAsync1 = 1);

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsInjectTransportReceiveAsync0(
    handle: u64,
    injection_context: u64,
    _reserved: *mut c_void,
    _flags: u32,
    family: u16,
    compartment: u32,
    interface: u32,
    sub_interface: u32,
    list: *mut NetBufferList,
    completion: Option<CompletionFn>,
    context: *mut c_void,
) -> NtStatus {
    let path = InjectionPath::TransportReceive { family, compartment, interface, sub_interface };
    // SAFETY: FwpsInjectTransportReceiveAsync0 demands what `inject` does. Null lists and completion functions and
    // stale handles are refused; after the completion the driver frees the list.
    unsafe { inject(InjectionRequest { handle, injection_context, path, list, completion, context }) }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) unsafe extern "win64" fn FwpsStreamInjectAsync0(
    handle: u64,
    injection_context: u64,
    _flags: u32,
    flow: u64,
    callout_id: u32,
    layer: u16,
    flags: u32,
    list: *mut NetBufferList,
    length: usize,
    completion: Option<CompletionFn>,
    context: *mut c_void,
) -> NtStatus {
    if completion.is_none() {
        return NtStatus::FWP_NULL_POINTER;
    }
    // An end needs its direction with it, and only an end needs no data (FwpsStreamInjectAsync0 documentation).
    let directions = [
        (consts::FWPS_STREAM_FLAG_RECEIVE, consts::FWPS_STREAM_FLAG_RECEIVE_DISCONNECT),
        (consts::FWPS_STREAM_FLAG_SEND, consts::FWPS_STREAM_FLAG_SEND_DISCONNECT),
    ];
    let ends = directions.iter().any(|(_, end)| flags & end != 0);
    let lost = directions.iter().any(|(direction, end)| flags & end != 0 && flags & direction == 0);
    if lost || directions.iter().all(|(direction, _)| flags & direction == 0) || (list.is_null() && !ends) {
        return NtStatus::FWP_INVALID_PARAMETER;
    }
    let path = InjectionPath::Stream { flow, callout_id, layer: LayerId(layer), flags, length };
    // SAFETY: FwpsStreamInjectAsync0 demands what `inject` does. A null list is refused above unless the data ends the
    // stream, as are null completion functions; after the completion the driver frees the list.
    unsafe { inject(InjectionRequest { handle, injection_context, path, list, completion, context }) }
}

#[allow(non_snake_case, reason = "the export's name")]
pub(super) extern "win64" fn FwpsStreamContinue0(flow: u64, callout_id: u32, layer: u16, flags: u32) -> NtStatus {
    cpu::with_machine(|machine| machine.wfp.stack.load().stream_continue(flow, callout_id, LayerId(layer), flags))
}

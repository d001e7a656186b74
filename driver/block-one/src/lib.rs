//! Blocks IPv4 connections to 203.0.113.66: a minimal callout driver on `wdk-sys` and `wfp-sys`.
//!
//! Its callout is at ALE_AUTH_CONNECT_V4. The filter that calls it belongs to a session that the driver keeps open, and
//! goes away with it. tests/block_one.rs runs it.
#![no_std]

use core::{
    ffi::c_void,
    ptr::{null, null_mut},
    sync::atomic::{AtomicPtr, AtomicU32, Ordering::SeqCst},
};

use kmdf_entry as _; // FxDriverEntry, where no kit supplies it
use wdk_panic as _;
use wdk_sys::{
    _WDF_DRIVER_INIT_FLAGS::WdfDriverInitNonPnpDriver, GUID, NTSTATUS, PCUNICODE_STRING, PDRIVER_OBJECT,
    STATUS_INSUFFICIENT_RESOURCES, STATUS_SUCCESS, UNICODE_STRING, WDF_DRIVER_CONFIG, WDFDRIVER,
    call_unsafe_wdf_function_binding,
};
use wfp_sys::{guid, layers::Layer, *};

/// The address as the filter engine passes it to a callout: in host order.
const BLOCKED: u32 = u32::from_be_bytes([203, 0, 113, 66]);
/// The index of the remote address in a classify at ALE_AUTH_CONNECT_V4 (48); looked up at compile time.
const REMOTE_ADDRESS: u16 = Layer::with_id(48).unwrap().field("IP_REMOTE_ADDRESS").unwrap();
/// The callout's key.
const KEY: GUID = guid::of(0x3f0b_5d2c_9a41_4c52_8e0d_6b1c_2f70_1001);
const RPC_C_AUTHN_WINNT: u32 = 10;

static NAME: [u16; 10] = utf16(b"block-one\0");
/// Only the system may open the device, which exists because WFP needs a device object.
static SDDL: [u16; 15] = utf16(b"D:P(A;;GA;;;SY)");

static CALLOUT: AtomicU32 = AtomicU32::new(0);
static ENGINE: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

#[unsafe(export_name = "DriverEntry")]
unsafe extern "system" fn driver_entry(object: PDRIVER_OBJECT, path: PCUNICODE_STRING) -> NTSTATUS {
    // SAFETY: the kernel's own arguments, at PASSIVE_LEVEL.
    let started = unsafe { start(object, path) };
    started.map_or_else(
        |status| {
            stop();
            status
        },
        |()| STATUS_SUCCESS,
    )
}

/// # Safety
/// For DriverEntry, with its arguments.
unsafe fn start(object: PDRIVER_OBJECT, path: PCUNICODE_STRING) -> Result<(), NTSTATUS> {
    let mut config = WDF_DRIVER_CONFIG {
        Size: size_of::<WDF_DRIVER_CONFIG>() as u32,
        EvtDriverUnload: Some(unload),
        DriverInitFlags: WdfDriverInitNonPnpDriver as u32,
        ..WDF_DRIVER_CONFIG::default()
    };
    let (mut driver, mut device): (WDFDRIVER, _) = (null_mut(), null_mut());
    let length = size_of_val(&SDDL) as u16;
    let sddl = UNICODE_STRING { Length: length, MaximumLength: length, Buffer: SDDL.as_ptr().cast_mut() };
    // SAFETY: called in the framework's order, at PASSIVE_LEVEL, with structures that outlive each call.
    let wdm_device = unsafe {
        let driver_at = &raw mut driver;
        check(call_unsafe_wdf_function_binding!(
            WdfDriverCreate,
            object,
            path,
            null_mut(),
            &raw mut config,
            driver_at
        ))?;
        let mut init = call_unsafe_wdf_function_binding!(WdfControlDeviceInitAllocate, driver, &raw const sddl);
        if init.is_null() {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        let made = call_unsafe_wdf_function_binding!(WdfDeviceCreate, &raw mut init, null_mut(), &raw mut device);
        if made < 0 {
            call_unsafe_wdf_function_binding!(WdfDeviceInitFree, init);
            return Err(made);
        }
        call_unsafe_wdf_function_binding!(WdfControlFinishInitializing, device);
        call_unsafe_wdf_function_binding!(WdfDeviceWdmGetDeviceObject, device)
    };

    let functions = FWPS_CALLOUT3 {
        calloutKey: KEY,
        classifyFn: Some(classify),
        notifyFn: Some(notify),
        ..FWPS_CALLOUT3::default()
    };
    let mut id = 0;
    // SAFETY: the structure is copied; the functions live until `stop` has unregistered them.
    check(unsafe { FwpsCalloutRegister3(wdm_device.cast(), &raw const functions, &raw mut id) })?;
    CALLOUT.store(id, SeqCst);

    let session = FWPM_SESSION0 { flags: FWPM_SESSION_FLAG_DYNAMIC, ..FWPM_SESSION0::default() };
    let mut engine = null_mut();
    // SAFETY: as for all Fwpm functions below: the structures are copied before the call returns.
    check(unsafe { FwpmEngineOpen0(null(), RPC_C_AUTHN_WINNT, null_mut(), &raw const session, &raw mut engine) })?;
    ENGINE.store(engine, SeqCst);
    let display = FWPM_DISPLAY_DATA0 { name: NAME.as_ptr().cast_mut(), description: null_mut() };
    let callout = FWPM_CALLOUT0 {
        calloutKey: KEY,
        displayData: display,
        applicableLayer: guid::FWPM_LAYER_ALE_AUTH_CONNECT_V4,
        ..FWPM_CALLOUT0::default()
    };
    // SAFETY: as above.
    check(unsafe { FwpmCalloutAdd0(engine, &raw const callout, null_mut(), null_mut()) })?;
    let mut filter = FWPM_FILTER0 {
        displayData: display,
        layerKey: guid::FWPM_LAYER_ALE_AUTH_CONNECT_V4,
        subLayerKey: guid::FWPM_SUBLAYER_UNIVERSAL,
        ..FWPM_FILTER0::default()
    };
    filter.action.type_ = FWP_ACTION_CALLOUT_UNKNOWN;
    filter.action.__bindgen_anon_1.calloutKey = KEY;
    // SAFETY: as above.
    check(unsafe { FwpmFilterAdd0(engine, &raw const filter, null_mut(), null_mut()) })
}

unsafe extern "C" fn unload(_driver: WDFDRIVER) {
    stop();
}

/// Removes what `start` made; the framework deletes the device. PASSIVE_LEVEL.
fn stop() {
    let (engine, callout) = (ENGINE.swap(null_mut(), SeqCst), CALLOUT.swap(0, SeqCst));
    if !engine.is_null() {
        // SAFETY: the session's handle, closed once: its filter and callout go away with it.
        let _ = unsafe { FwpmEngineClose0(engine) };
    }
    if callout != 0 {
        // SAFETY: takes a number; no flow has a context, so the callout cannot be busy.
        let _ = unsafe { FwpsCalloutUnregisterById0(callout) };
    }
}

/// IRQL <= DISPATCH_LEVEL.
unsafe extern "C" fn classify(
    values: *const FWPS_INCOMING_VALUES0,
    _metadata: *const FWPS_INCOMING_METADATA_VALUES0,
    _layer_data: *mut c_void,
    _context: *const c_void,
    _filter: *const FWPS_FILTER3,
    _flow_context: u64,
    out: *mut FWPS_CLASSIFY_OUT0,
) {
    // SAFETY: the engine's pointers, valid until this returns, and nobody else has `out`.
    let (values, out) = unsafe { (&*values, &mut *out) };
    // A classify has the fields of the running Windows, which may have fewer than the headers.
    if out.rights & FWPS_RIGHT_ACTION_WRITE == 0 || values.valueCount <= u32::from(REMOTE_ADDRESS) {
        return;
    }
    // SAFETY: one of that many values.
    let address = unsafe { (*values.incomingValue.add(REMOTE_ADDRESS.into())).value };
    // SAFETY: the type says which member is in use.
    if address.type_ == FWP_DATA_TYPE_::FWP_UINT32 && unsafe { address.__bindgen_anon_1.uint32 } == BLOCKED {
        out.actionType = FWP_ACTION_BLOCK;
        out.rights &= !FWPS_RIGHT_ACTION_WRITE;
    } else {
        out.actionType = FWP_ACTION_CONTINUE;
    }
}

unsafe extern "C" fn notify(_: FWPS_CALLOUT_NOTIFY_TYPE, _: *const GUID, _: *mut FWPS_FILTER3) -> NTSTATUS {
    STATUS_SUCCESS
}

fn check(status: NTSTATUS) -> Result<(), NTSTATUS> {
    if status < 0 { Err(status) } else { Ok(()) }
}

const fn utf16<const N: usize>(ascii: &[u8; N]) -> [u16; N] {
    let (mut units, mut at) = ([0; N], 0);
    while at < N {
        units[at] = ascii[at] as u16;
        at += 1;
    }
    units
}

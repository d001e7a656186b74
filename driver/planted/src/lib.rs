//! Small drivers with one defect each, which show that every check of ntsim can fire (`crates/ntsim/tests/planted.rs`).
//!
//! They are the examples of this package. All share the callout driver here: a control device with one queue, one
//! callout, and an unload routine that releases everything. An example is a [`Defect`], which runs its own code at one
//! point of that life cycle; `clean` adds none.
//!
//! They are never installed on a machine and are useless there: they are wrong on purpose, hence the `unsafe`
//! everywhere.
#![no_std]

pub mod kernel;

use core::{
    ffi::c_void,
    ptr::null_mut,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
};

use kmdf_entry as _; // FxDriverEntry
use wdk_panic as _;
pub use wdk_sys;
use wdk_sys::{
    _WDF_DEVICE_IO_TYPE, _WDF_DRIVER_INIT_FLAGS, _WDF_EXECUTION_LEVEL, _WDF_IO_QUEUE_DISPATCH_TYPE,
    _WDF_SYNCHRONIZATION_SCOPE, GUID, NTSTATUS, PCUNICODE_STRING, PDRIVER_OBJECT, PWDFDEVICE_INIT, UNICODE_STRING,
    WDF_DRIVER_CONFIG, WDF_IO_QUEUE_CONFIG, WDF_OBJECT_ATTRIBUTES, WDFDEVICE, WDFDRIVER, WDFOBJECT, WDFQUEUE,
    WDFREQUEST, call_unsafe_wdf_function_binding,
};
pub use wfp_sys;
use wfp_sys::{
    FWPS_CALLOUT_NOTIFY_TYPE, FWPS_CALLOUT3, FWPS_CLASSIFY_OUT0, FWPS_FILTER3, FWPS_INCOMING_METADATA_VALUES0,
    FWPS_INCOMING_VALUES0, FwpsCalloutRegister3, FwpsCalloutUnregisterById0,
};

/// STATUS_SUCCESS.
pub const SUCCESS: NTSTATUS = 0;

/// The arguments of one classify call.
#[allow(missing_docs, reason = "the fields are the parameters of classifyFn")]
#[derive(Clone, Copy, Debug)]
pub struct Classify {
    pub values: *const FWPS_INCOMING_VALUES0,
    pub metadata: *const FWPS_INCOMING_METADATA_VALUES0,
    pub layer_data: *mut c_void,
    pub context: *const c_void,
    pub filter: *const FWPS_FILTER3,
    pub flow_context: u64,
    pub out: *mut FWPS_CLASSIFY_OUT0,
}

/// The points of a driver's life cycle where a defect can be planted. Methods that are not overridden are correct.
///
/// # Safety of the implementations They claim none.
pub trait Defect: 'static {
    /// Whether the callout has a flowDeleteFn.
    const FLOW_DELETE: bool = true;
    /// Whether unload unregisters the callout.
    const UNREGISTERS: bool = true;

    /// The end of DriverEntry: device and callout exist. PASSIVE_LEVEL.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn start() {}

    /// The beginning of the unload routine. PASSIVE_LEVEL.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn stop() {}

    /// An IOCTL; PASSIVE_LEVEL. Returns true if it dealt with the request; otherwise the caller completes it.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn control(_queue: WDFQUEUE, _request: WDFREQUEST) -> bool {
        false
    }

    /// A classify call, at or below DISPATCH_LEVEL; nothing is decided unless this writes a verdict.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn classify(_call: &Classify) {}
}

/// Makes the driver of a [`Defect`].
#[macro_export]
macro_rules! driver {
    ($defect:ty) => {
        #[unsafe(export_name = "DriverEntry")]
        unsafe extern "system" fn driver_entry(
            object: $crate::wdk_sys::PDRIVER_OBJECT,
            path: $crate::wdk_sys::PCUNICODE_STRING,
        ) -> $crate::wdk_sys::NTSTATUS {
            unsafe { $crate::enter::<$defect>(object, path) }
        }
    };
}

static DEVICE: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
static CALLOUT: AtomicU32 = AtomicU32::new(0);
/// Counted after a defect's code has run: its last call is then not a tail call, and the driver is on the stack when
/// that call goes wrong.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// The key of the callout of every planted driver.
const CALLOUT_KEY: GUID = GUID { Data1: 0x706c_616e, Data2: 0x7465, Data3: 0x6400, Data4: *b"callout\0" };

/// The control device.
pub fn device() -> WDFDEVICE {
    DEVICE.load(Ordering::Acquire).cast()
}

/// The callout's run-time id.
pub fn callout() -> u32 {
    CALLOUT.load(Ordering::Acquire)
}

/// A kernel string over UTF-16 units that outlive it.
#[must_use]
pub const fn counted(units: &'static [u16]) -> UNICODE_STRING {
    let bytes = (units.len() * 2) as u16;
    UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: units.as_ptr().cast_mut() }
}

/// ASCII as UTF-16.
#[must_use]
pub const fn wide<const N: usize>(ascii: &[u8; N]) -> [u16; N] {
    let mut units = [0; N];
    let mut at = 0;
    while at < N {
        units[at] = ascii[at] as u16;
        at += 1;
    }
    units
}

const fn attributes() -> WDF_OBJECT_ATTRIBUTES {
    WDF_OBJECT_ATTRIBUTES {
        Size: size_of::<WDF_OBJECT_ATTRIBUTES>() as u32,
        EvtCleanupCallback: None,
        EvtDestroyCallback: None,
        ExecutionLevel: _WDF_EXECUTION_LEVEL::WdfExecutionLevelPassive,
        SynchronizationScope: _WDF_SYNCHRONIZATION_SCOPE::WdfSynchronizationScopeInheritFromParent,
        ParentObject: null_mut(),
        ContextSizeOverride: 0,
        ContextTypeInfo: core::ptr::null(),
    }
}

/// DriverEntry: see [`driver!`].
///
/// # Safety
/// For the entry point, with its arguments.
pub unsafe fn enter<D: Defect>(object: PDRIVER_OBJECT, path: PCUNICODE_STRING) -> NTSTATUS {
    let mut config = WDF_DRIVER_CONFIG {
        Size: size_of::<WDF_DRIVER_CONFIG>() as u32,
        EvtDriverDeviceAdd: None,
        EvtDriverUnload: Some(unload::<D>),
        DriverInitFlags: _WDF_DRIVER_INIT_FLAGS::WdfDriverInitNonPnpDriver as u32,
        DriverPoolTag: kernel::TAG,
    };
    let mut driver: WDFDRIVER = null_mut();
    let status =
        call_unsafe_wdf_function_binding!(WdfDriverCreate, object, path, null_mut(), &raw mut config, &raw mut driver);
    if status < 0 {
        return status;
    }
    let status = make_device::<D>(driver);
    if status < 0 {
        return status;
    }
    let callout = FWPS_CALLOUT3 {
        calloutKey: CALLOUT_KEY,
        flags: 0,
        classifyFn: Some(classify::<D>),
        notifyFn: Some(notify),
        flowDeleteFn: if D::FLOW_DELETE { Some(flow_delete) } else { None },
    };
    let wdm = call_unsafe_wdf_function_binding!(WdfDeviceWdmGetDeviceObject, device());
    let mut id = 0;
    let status = FwpsCalloutRegister3(wdm.cast(), &raw const callout, &raw mut id);
    if status < 0 {
        return status;
    }
    CALLOUT.store(id, Ordering::Release);
    D::start();
    call_unsafe_wdf_function_binding!(WdfControlFinishInitializing, device());
    SUCCESS
}

unsafe fn make_device<D: Defect>(driver: WDFDRIVER) -> NTSTATUS {
    static NAME: [u16; 15] = wide(b"\\Device\\Planted");
    static LINK: [u16; 19] = wide(b"\\DosDevices\\Planted");
    static SDDL: [u16; 27] = wide(b"D:P(A;;GA;;;SY)(A;;GA;;;BA)");
    let (name, link, sddl) = (counted(&NAME), counted(&LINK), counted(&SDDL));
    let mut init: PWDFDEVICE_INIT =
        call_unsafe_wdf_function_binding!(WdfControlDeviceInitAllocate, driver, &raw const sddl);
    if init.is_null() {
        return 0xC000_009A_u32 as NTSTATUS; // STATUS_INSUFFICIENT_RESOURCES
    }
    call_unsafe_wdf_function_binding!(WdfDeviceInitSetIoType, init, _WDF_DEVICE_IO_TYPE::WdfDeviceIoBuffered);
    let status = call_unsafe_wdf_function_binding!(WdfDeviceInitAssignName, init, &raw const name);
    if status < 0 {
        return status;
    }
    let mut object_attributes = attributes();
    let mut device: WDFDEVICE = null_mut();
    let status =
        call_unsafe_wdf_function_binding!(WdfDeviceCreate, &raw mut init, &raw mut object_attributes, &raw mut device);
    if status < 0 {
        return status;
    }
    DEVICE.store(device.cast(), Ordering::Release);
    let status = call_unsafe_wdf_function_binding!(WdfDeviceCreateSymbolicLink, device, &raw const link);
    if status < 0 {
        return status;
    }
    let mut config = WDF_IO_QUEUE_CONFIG {
        Size: size_of::<WDF_IO_QUEUE_CONFIG>() as u32,
        DispatchType: _WDF_IO_QUEUE_DISPATCH_TYPE::WdfIoQueueDispatchSequential,
        DefaultQueue: 1,
        EvtIoDeviceControl: Some(control::<D>),
        ..WDF_IO_QUEUE_CONFIG::default()
    };
    let mut object_attributes = attributes();
    let mut queue: WDFQUEUE = null_mut();
    call_unsafe_wdf_function_binding!(
        WdfIoQueueCreate,
        device,
        &raw mut config,
        &raw mut object_attributes,
        &raw mut queue
    )
}

unsafe extern "C" fn unload<D: Defect>(_driver: WDFDRIVER) {
    D::stop();
    if D::UNREGISTERS {
        let _ = FwpsCalloutUnregisterById0(callout());
    }
    call_unsafe_wdf_function_binding!(WdfObjectDelete, device() as WDFOBJECT);
}

unsafe extern "C" fn control<D: Defect>(
    queue: WDFQUEUE,
    request: WDFREQUEST,
    _output_length: usize,
    _input_length: usize,
    _code: u32,
) {
    if !D::control(queue, request) {
        call_unsafe_wdf_function_binding!(WdfRequestComplete, request, SUCCESS);
    }
    CALLS.fetch_add(1, Ordering::Relaxed);
}

unsafe extern "C" fn classify<D: Defect>(
    values: *const FWPS_INCOMING_VALUES0,
    metadata: *const FWPS_INCOMING_METADATA_VALUES0,
    layer_data: *mut c_void,
    context: *const c_void,
    filter: *const FWPS_FILTER3,
    flow_context: u64,
    out: *mut FWPS_CLASSIFY_OUT0,
) {
    D::classify(&Classify { values, metadata, layer_data, context, filter, flow_context, out });
    CALLS.fetch_add(1, Ordering::Relaxed);
}

unsafe extern "C" fn notify(
    _kind: FWPS_CALLOUT_NOTIFY_TYPE,
    _key: *const GUID,
    _filter: *mut FWPS_FILTER3,
) -> NTSTATUS {
    SUCCESS
}

unsafe extern "C" fn flow_delete(_layer: u16, _callout: u32, _flow_context: u64) {}

//! The structures that cross the boundary between a driver and the framework, x64.
//!
//! Layouts: the KMDF headers 1.15 to 1.33 (microsoft/Windows-Driver-Frameworks, src/publicinc), which agree in all of
//! them unless a comment says otherwise. Every size and every offset that the framework reads is asserted below, so a
//! slip here does not compile.

use core::ffi::c_void;
use core::mem::{offset_of, size_of};

pub(crate) use nt_abi::UnicodeString;

/// A framework handle (`WDFOBJECT` and every type derived from it) as a driver holds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub(crate) struct Handle(pub(crate) u64);

impl Handle {
    /// The null handle.
    pub(crate) const NULL: Self = Self(0);

    /// Whether the handle is null.
    #[must_use]
    pub(crate) const fn is_null(self) -> bool {
        self.0 == 0
    }
}

impl core::fmt::Debug for Handle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// `WDF_VERSION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) build: u32,
}

/// `WDF_BIND_INFO`, the only form before the 1.25 stub.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct BindInfo {
    pub(crate) size: u32,
    pub(crate) component: *const u16,
    pub(crate) version: Version,
    pub(crate) function_count: u32,
    pub(crate) function_table: *mut *const (),
    pub(crate) module: *mut c_void,
}

/// `WDF_BIND_INFO2`: a [`BindInfo`] whose size says there is more.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct BindInfo2 {
    pub(crate) v1: BindInfo,
    pub(crate) minimum_version_required: *const u32,
    pub(crate) client_version_higher_than_framework: *mut u8,
    pub(crate) function_count: *mut u32,
    pub(crate) structure_count: *mut u32,
    pub(crate) structure_table: *mut c_void,
}

/// `WDF_DRIVER_GLOBALS`, the first argument of every framework call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct DriverGlobals {
    pub(crate) driver: Handle,
    pub(crate) driver_flags: u32,
    pub(crate) driver_tag: u32,
    pub(crate) driver_name: [u8; 32],
    pub(crate) displace_driver_unload: u8,
}

/// `EVT_WDF_OBJECT_CONTEXT_CLEANUP` and `EVT_WDF_OBJECT_CONTEXT_DESTROY`.
pub(crate) type ObjectCallback = unsafe extern "win64" fn(Handle);

/// `WDF_OBJECT_ATTRIBUTES`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct ObjectAttributes {
    pub(crate) size: u32,
    pub(crate) cleanup: Option<ObjectCallback>,
    pub(crate) destroy: Option<ObjectCallback>,
    pub(crate) execution_level: u32,
    pub(crate) synchronization_scope: u32,
    pub(crate) parent: Handle,
    pub(crate) context_size_override: usize,
    pub(crate) context_type: *const ContextType,
}

/// `WDF_OBJECT_CONTEXT_TYPE_INFO`; its address is its identity.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct ContextType {
    pub(crate) size: u32,
    pub(crate) name: *const u8,
    pub(crate) context_size: usize,
    pub(crate) unique_type: *const ContextType,
    pub(crate) get_unique_type: Option<unsafe extern "win64" fn() -> *const ContextType>,
}

/// `WDF_DRIVER_CONFIG`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct DriverConfig {
    pub(crate) size: u32,
    pub(crate) device_add: *const c_void,
    pub(crate) unload: Option<unsafe extern "win64" fn(Handle)>,
    pub(crate) init_flags: u32,
    pub(crate) pool_tag: u32,
}

/// `WdfDriverInitNonPnpDriver`.
pub(crate) const DRIVER_INIT_NON_PNP: u32 = 1;
/// `WdfDriverInitNoDispatchOverride`.
pub(crate) const DRIVER_INIT_NO_DISPATCH_OVERRIDE: u32 = 2;

/// `WDF_DRIVER_VERSION_AVAILABLE_PARAMS`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct VersionAvailable {
    pub(crate) size: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// `EVT_WDF_IO_QUEUE_IO_DEFAULT`, `..._CANCELED_ON_QUEUE` and `..._RESUME`.
pub(crate) type QueueRequestCallback = unsafe extern "win64" fn(Handle, Handle);
/// `EVT_WDF_IO_QUEUE_IO_READ` and `..._WRITE`: queue, request, length.
pub(crate) type QueueTransferCallback = unsafe extern "win64" fn(Handle, Handle, usize);
/// `EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL`: queue, request, output length, input length, code.
pub(crate) type QueueControlCallback = unsafe extern "win64" fn(Handle, Handle, usize, usize, u32);
/// `EVT_WDF_IO_QUEUE_STATE`: queue, context.
pub(crate) type QueueStateCallback = unsafe extern "win64" fn(Handle, *mut c_void);

/// `WDF_IO_QUEUE_CONFIG`. The 1.9 form ends before `driver`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct QueueConfig {
    pub(crate) size: u32,
    pub(crate) dispatch_type: u32,
    pub(crate) power_managed: u32,
    pub(crate) allow_zero_length: u8,
    pub(crate) default_queue: u8,
    pub(crate) io_default: Option<QueueRequestCallback>,
    pub(crate) io_read: Option<QueueTransferCallback>,
    pub(crate) io_write: Option<QueueTransferCallback>,
    pub(crate) io_device_control: Option<QueueControlCallback>,
    pub(crate) io_internal_device_control: Option<QueueControlCallback>,
    pub(crate) io_stop: *const c_void,
    pub(crate) io_resume: *const c_void,
    pub(crate) io_canceled_on_queue: Option<QueueRequestCallback>,
    pub(crate) presented_requests: u32,
    pub(crate) driver: Handle,
}

/// Bytes of `WDF_IO_QUEUE_CONFIG` in the 1.9 headers (before `Driver` was added in 1.11).
pub(crate) const QUEUE_CONFIG_SIZE_V1_9: u32 = offset_of!(QueueConfig, driver) as u32;
/// Bytes of `WDF_IO_QUEUE_CONFIG` up to 1.7, before the number of presented requests.
pub(crate) const QUEUE_CONFIG_SIZE_V1_7: u32 = offset_of!(QueueConfig, presented_requests) as u32;

/// `EVT_WDF_DEVICE_FILE_CREATE`: device, request, file object.
pub(crate) type FileCreateCallback = unsafe extern "win64" fn(Handle, Handle, Handle);
/// `EVT_WDF_FILE_CLEANUP` and `EVT_WDF_FILE_CLOSE`.
pub(crate) type FileCallback = unsafe extern "win64" fn(Handle);

/// `WDF_FILEOBJECT_CONFIG`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct FileConfig {
    pub(crate) size: u32,
    pub(crate) create: Option<FileCreateCallback>,
    pub(crate) close: Option<FileCallback>,
    pub(crate) cleanup: Option<FileCallback>,
    pub(crate) auto_forward: u32,
    pub(crate) class: u32,
}

/// `WdfFileObjectNotRequired`.
pub(crate) const FILE_CLASS_NOT_REQUIRED: u32 = 1;
/// `WdfFileObjectWdfCannotUseFsContexts`, the largest class.
pub(crate) const FILE_CLASS_CANNOT_USE_FS_CONTEXTS: u32 = 4;
/// `WdfFileObjectCanBeOptional`, a flag beside the class.
pub(crate) const FILE_CLASS_OPTIONAL: u32 = 0x8000_0000;

/// `WDF_WORKITEM_CONFIG`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct WorkItemConfig {
    pub(crate) size: u32,
    pub(crate) callback: Option<unsafe extern "win64" fn(Handle)>,
    pub(crate) automatic_serialization: u8,
}

/// `WDF_TIMER_CONFIG`. `tolerable_delay` came with 1.9, `high_resolution` with 1.13.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct TimerConfig {
    pub(crate) size: u32,
    pub(crate) callback: Option<unsafe extern "win64" fn(Handle)>,
    pub(crate) period: u32,
    pub(crate) automatic_serialization: u8,
    pub(crate) tolerable_delay: u32,
    /// `UseHighResolutionTimer` is in a union aligned to 8 bytes.
    pub(crate) alignment: u32,
    pub(crate) high_resolution: u8,
}

/// Bytes of `WDF_TIMER_CONFIG` in the 1.7 headers.
pub(crate) const TIMER_CONFIG_SIZE_V1_7: u32 = 24;
/// Bytes of `WDF_TIMER_CONFIG` in the 1.9 and 1.11 headers.
pub(crate) const TIMER_CONFIG_SIZE_V1_11: u32 = 32;

/// `WDF_DPC_CONFIG`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct DpcConfig {
    pub(crate) size: u32,
    pub(crate) callback: Option<unsafe extern "win64" fn(Handle)>,
    pub(crate) automatic_serialization: u8,
}

/// `WDF_REQUEST_PARAMETERS`. The four words are a union; [`RequestParameters::control`] and its neighbours write it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct RequestParameters {
    pub(crate) size: u16,
    pub(crate) minor_function: u8,
    pub(crate) kind: u32,
    pub(crate) parameters: [u64; 4],
}

impl RequestParameters {
    /// `Parameters.Read` and `Parameters.Write`: length, key, device offset.
    #[must_use]
    pub(crate) const fn transfer(kind: u32, length: usize, key: u32, offset: u64) -> Self {
        Self {
            size: SIZE_OF_REQUEST_PARAMETERS,
            minor_function: 0,
            kind,
            parameters: [length as u64, key as u64, offset, 0],
        }
    }

    /// `Parameters.DeviceIoControl`.
    #[must_use]
    pub(crate) const fn control(kind: u32, output: usize, input: usize, code: u32, type3_input: u64) -> Self {
        Self {
            size: SIZE_OF_REQUEST_PARAMETERS,
            minor_function: 0,
            kind,
            parameters: [output as u64, input as u64, code as u64, type3_input],
        }
    }

    /// A request without parameters that a driver of this simulation can ask for (create, and whatever is to come).
    #[must_use]
    pub(crate) const fn other(kind: u32) -> Self {
        Self { size: SIZE_OF_REQUEST_PARAMETERS, minor_function: 0, kind, parameters: [0; 4] }
    }
}

const SIZE_OF_REQUEST_PARAMETERS: u16 = size_of::<RequestParameters>() as u16;

/// `WDF_IO_TYPE_CONFIG`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct IoTypeConfig {
    pub(crate) size: u32,
    pub(crate) read_write: u32,
    pub(crate) device_control: u32,
    pub(crate) direct_threshold: u32,
}

/// `WDFMEMORY_OFFSET` and the other structures of requests sent to I/O targets are absent: there are no I/O targets.
/// `WDF_REQUEST_TYPE` values that reach a driver here.
pub(crate) mod request_type {
    /// `WdfRequestTypeCreate`, equal to `IRP_MJ_CREATE`.
    pub(crate) const CREATE: u32 = 0;
    /// `WdfRequestTypeRead`.
    pub(crate) const READ: u32 = 3;
    /// `WdfRequestTypeWrite`.
    pub(crate) const WRITE: u32 = 4;
    /// `WdfRequestTypeDeviceControl`.
    pub(crate) const DEVICE_CONTROL: u32 = 14;
    /// `WdfRequestTypeDeviceControlInternal`.
    pub(crate) const INTERNAL_DEVICE_CONTROL: u32 = 15;
    /// One more than the largest major function code.
    pub(crate) const COUNT: usize = 28;
}

/// Asserts the size of a structure and the offsets of the named fields.
macro_rules! layout {
    ($type:ty, $size:literal; $($field:ident @ $offset:literal),* $(,)?) => {
        const _: () = assert!(size_of::<$type>() == $size);
        $(const _: () = assert!(offset_of!($type, $field) == $offset);)*
    };
}

layout!(Version, 12; major @ 0, minor @ 4, build @ 8);
layout!(BindInfo, 48; size @ 0, component @ 8, version @ 16, function_count @ 28, function_table @ 32, module @ 40);
layout!(BindInfo2, 88; v1 @ 0, minimum_version_required @ 48, client_version_higher_than_framework @ 56,
    function_count @ 64, structure_count @ 72, structure_table @ 80);
layout!(DriverGlobals, 56; driver @ 0, driver_flags @ 8, driver_tag @ 12, driver_name @ 16, displace_driver_unload @ 48);
layout!(ObjectAttributes, 56; size @ 0, cleanup @ 8, destroy @ 16, execution_level @ 24, synchronization_scope @ 28,
    parent @ 32, context_size_override @ 40, context_type @ 48);
layout!(ContextType, 40; size @ 0, name @ 8, context_size @ 16, unique_type @ 24, get_unique_type @ 32);
layout!(DriverConfig, 32; size @ 0, device_add @ 8, unload @ 16, init_flags @ 24, pool_tag @ 28);
layout!(VersionAvailable, 12; size @ 0, major @ 4, minor @ 8);
layout!(QueueConfig, 96; size @ 0, dispatch_type @ 4, power_managed @ 8, allow_zero_length @ 12, default_queue @ 13,
    io_default @ 16, io_read @ 24, io_write @ 32, io_device_control @ 40, io_internal_device_control @ 48, io_stop @ 56,
    io_resume @ 64, io_canceled_on_queue @ 72, presented_requests @ 80, driver @ 88);
layout!(FileConfig, 40; size @ 0, create @ 8, close @ 16, cleanup @ 24, auto_forward @ 32, class @ 36);
layout!(WorkItemConfig, 24; size @ 0, callback @ 8, automatic_serialization @ 16);
layout!(TimerConfig, 40; size @ 0, callback @ 8, period @ 16, automatic_serialization @ 20, tolerable_delay @ 24,
    high_resolution @ 32);
layout!(DpcConfig, 24; size @ 0, callback @ 8, automatic_serialization @ 16);
layout!(RequestParameters, 40; size @ 0, minor_function @ 2, kind @ 4, parameters @ 8);
layout!(IoTypeConfig, 16; size @ 0, read_write @ 4, device_control @ 8, direct_threshold @ 12);

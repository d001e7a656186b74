//! A driver made of test functions: it binds, creates its driver object and calls the framework through the table,
//! exactly as a loaded one does, but lives in the test.

use core::ffi::c_void;
use core::mem::size_of;
use core::ptr;
use std::sync::Arc;

use super::abi::{
    BindInfo, ContextType, DRIVER_INIT_NON_PNP, DriverConfig, DriverGlobals, FileConfig, Handle, ObjectAttributes,
    QueueConfig, UnicodeString, Version,
};
use super::bind;
use super::table;
use crate::cpu::{self, Bugcheck};
use crate::machine::Machine;
use nt_abi::Irql;
use nt_abi::NtStatus;

/// Calls a function of the table: `wdf!(rig, WdfObjectDelete(object: Handle) -> ())`.
macro_rules! wdf {
    ($rig:expr, $name:ident($($arg:expr => $kind:ty),* $(,)?) -> $result:ty) => {{
        type Function = extern "win64" fn(*const $crate::wdf::abi::DriverGlobals, $($kind),*) -> $result;
        // SAFETY: the types are those of the function's signature in the headers.
        let function: Function = unsafe { core::mem::transmute($crate::wdf::table::entry(stringify!($name))) };
        function($rig.globals, $($arg),*)
    }};
}
pub(crate) use wdf;

/// A UTF-16 string with the `UNICODE_STRING` that describes it.
pub(crate) struct Wide {
    units: Vec<u16>,
    string: UnicodeString,
}

impl Wide {
    pub(crate) fn new(text: &str) -> Box<Self> {
        let units: Vec<u16> = text.encode_utf16().collect();
        let bytes = (units.len() * 2) as u16;
        let mut wide = Box::new(Self {
            units,
            string: UnicodeString { length: bytes, maximum_length: bytes, buffer: ptr::null_mut() },
        });
        wide.string.buffer = wide.units.as_mut_ptr();
        wide
    }

    pub(crate) fn get(&self) -> *const UnicodeString {
        &raw const self.string
    }
}

/// `WDF_OBJECT_ATTRIBUTES_INIT`.
pub(crate) fn attributes() -> ObjectAttributes {
    ObjectAttributes {
        size: size_of::<ObjectAttributes>() as u32,
        cleanup: None,
        destroy: None,
        execution_level: 1,
        synchronization_scope: 1,
        parent: Handle::NULL,
        context_size_override: 0,
        context_type: ptr::null(),
    }
}

/// A context type; its address is its identity.
pub(crate) struct Type(pub(crate) ContextType);

// SAFETY: the pointers are to constants.
unsafe impl Sync for Type {}

/// Declares a context type of a size (`WDF_DECLARE_CONTEXT_TYPE`).
pub(crate) const fn context_type(name: &'static core::ffi::CStr, size: usize) -> Type {
    Type(ContextType {
        size: size_of::<ContextType>() as u32,
        name: name.as_ptr().cast(),
        context_size: size,
        unique_type: ptr::null(),
        get_unique_type: None,
    })
}

/// `WDF_IO_QUEUE_CONFIG_INIT`: 1 sequential, 2 parallel, 3 manual.
pub(crate) fn queue_config(dispatch_type: u32) -> QueueConfig {
    // SAFETY: zeros are valid for every field.
    let mut config: QueueConfig = unsafe { core::mem::zeroed() };
    config.size = size_of::<QueueConfig>() as u32;
    config.dispatch_type = dispatch_type;
    config.power_managed = 2;
    config.presented_requests = if dispatch_type == 2 { u32::MAX } else { 0 };
    config
}

/// `WDF_FILEOBJECT_CONFIG_INIT`.
pub(crate) fn file_config() -> FileConfig {
    FileConfig {
        size: size_of::<FileConfig>() as u32,
        create: None,
        close: None,
        cleanup: None,
        auto_forward: 2,
        class: super::abi::FILE_CLASS_CANNOT_USE_FS_CONTEXTS,
    }
}

/// The part of a `DRIVER_OBJECT` that the framework touches.
#[repr(C, align(16))]
struct DriverObject([u8; 0x150]);

/// One test driver on a machine of its own.
pub(crate) struct Rig {
    pub(crate) machine: Arc<Machine>,
    pub(crate) globals: *const DriverGlobals,
    pub(crate) driver: Handle,
    object: Box<DriverObject>,
    extension: Box<DriverExtension>,
}

/// The part of a `DRIVER_EXTENSION` that the framework touches: DriverObject, AddDevice.
type DriverExtension = [usize; 2];

// SAFETY: the pointers are only handed to the framework, which is what concurrent tests make concurrent.
unsafe impl Send for Rig {}
// SAFETY: as above.
unsafe impl Sync for Rig {}

extern "win64" fn unload_nothing(_: Handle) {}

pub(crate) const SDDL: &str = "D:P(A;;GA;;;SY)(A;;GA;;;BA)";

impl Rig {
    /// What the routines of the driver object are before the framework sets them.
    const BEFORE: usize = 0x1111;

    /// A driver built for KMDF 1.15 whose `EvtDriverUnload` does nothing.
    pub(crate) fn new() -> Self {
        Self::with(15, 444, Some(unload_nothing))
    }

    pub(crate) fn with(minor: u32, functions: u32, unload: Option<unsafe extern "win64" fn(Handle)>) -> Self {
        let mut rig = Self {
            machine: Machine::new(),
            globals: ptr::null(),
            driver: Handle::NULL,
            object: Box::new(DriverObject([0; 0x150])),
            extension: Box::new([0, Self::BEFORE]),
        };
        let extension = ptr::from_mut(&mut *rig.extension) as usize;
        rig.set_field(0x30, extension);
        rig.set_field(0x68, Self::BEFORE);
        let (mut globals, mut driver) = (ptr::null(), Handle::NULL);
        let path = Wide::new(r"\Registry\Machine\System\CurrentControlSet\Services\Testee");
        rig.run(|| {
            let (status, bound, _table) = bind_as(rig.object_address(), &path, minor, functions);
            assert_eq!(status, NtStatus::SUCCESS);
            globals = bound;
            let config = DriverConfig {
                size: size_of::<DriverConfig>() as u32,
                device_add: ptr::null(),
                unload,
                init_flags: DRIVER_INIT_NON_PNP,
                pool_tag: 0,
            };
            let with = Calls { globals };
            let created = wdf!(with, WdfDriverCreate(
                rig.object_address() => *mut c_void,
                path.get() => *const UnicodeString,
                ptr::null() => *const ObjectAttributes,
                &raw const config => *const DriverConfig,
                &raw mut driver => *mut Handle,
            ) -> NtStatus);
            assert_eq!(created, NtStatus::SUCCESS);
        })
        .unwrap();
        rig.globals = globals;
        rig.driver = driver;
        rig
    }

    pub(crate) fn object_address(&self) -> *mut c_void {
        ptr::from_ref(&*self.object).cast_mut().cast()
    }

    /// A pointer in the driver object.
    pub(crate) fn field(&self, offset: usize) -> usize {
        // SAFETY: within the object; the framework wrote through its address, so it is read afresh.
        unsafe { self.object_address().cast::<u8>().add(offset).cast::<usize>().read_volatile() }
    }

    fn set_field(&mut self, offset: usize, value: usize) {
        self.object.0[offset..][..8].copy_from_slice(&value.to_ne_bytes());
    }

    /// `AddDevice` of the driver object's extension.
    pub(crate) fn add_device(&self) -> usize {
        // SAFETY: the rig's own; the framework writes to it through its address, so it is read afresh.
        unsafe { (&raw const self.extension[1]).read_volatile() }
    }

    /// Runs driver code at PASSIVE_LEVEL.
    pub(crate) fn run<R>(&self, f: impl FnOnce() -> R) -> Result<R, Bugcheck> {
        cpu::enter(&self.machine, Irql::PASSIVE, f)
    }

    /// Runs driver code that breaks a rule: the sentence of the WDF_VIOLATION and its first parameter.
    pub(crate) fn violation<R>(&self, f: impl FnOnce() -> R) -> (u64, String) {
        match self.run(f) {
            Ok(_) => panic!("no violation"),
            Err(bugcheck) => {
                assert_eq!(bugcheck.code, 0x10D, "{bugcheck}");
                (bugcheck.parameters[0], bugcheck.why)
            }
        }
    }

    /// Creates and starts a control device; `describe` says the rest about it.
    pub(crate) fn device(&self, name: &str, describe: impl FnOnce(Handle)) -> Handle {
        self.device_with(name, attributes(), describe)
    }

    pub(crate) fn device_with(
        &self,
        name: &str,
        attributes: ObjectAttributes,
        describe: impl FnOnce(Handle),
    ) -> Handle {
        let (status, device) = self.try_device(name, attributes, describe);
        assert_eq!(status, NtStatus::SUCCESS);
        device
    }

    pub(crate) fn try_device(
        &self,
        name: &str,
        attributes: ObjectAttributes,
        describe: impl FnOnce(Handle),
    ) -> (NtStatus, Handle) {
        let (sddl, name) = (Wide::new(SDDL), Wide::new(name));
        let mut init = wdf!(self, WdfControlDeviceInitAllocate(
            self.driver => Handle, sddl.get() => *const UnicodeString) -> Handle);
        assert!(!init.is_null());
        let named = wdf!(self, WdfDeviceInitAssignName(init => Handle, name.get() => *const UnicodeString) -> NtStatus);
        assert_eq!(named, NtStatus::SUCCESS);
        describe(init);
        let mut device = Handle::NULL;
        let status = wdf!(self, WdfDeviceCreate(
            &raw mut init => *mut Handle,
            &raw const attributes => *const ObjectAttributes,
            &raw mut device => *mut Handle,
        ) -> NtStatus);
        if status.is_success() {
            assert!(init.is_null(), "the init is used up");
        } else {
            wdf!(self, WdfDeviceInitFree(init => Handle) -> ());
        }
        (status, device)
    }

    /// `WdfControlFinishInitializing`.
    pub(crate) fn finish(&self, device: Handle) {
        wdf!(self, WdfControlFinishInitializing(device => Handle) -> ());
    }

    /// Creates a queue that must come to be.
    pub(crate) fn queue(&self, device: Handle, config: &QueueConfig) -> Handle {
        let (status, queue) = self.try_queue(device, config, attributes());
        assert_eq!(status, NtStatus::SUCCESS);
        queue
    }

    pub(crate) fn try_queue(
        &self,
        device: Handle,
        config: &QueueConfig,
        attributes: ObjectAttributes,
    ) -> (NtStatus, Handle) {
        let mut queue = Handle::NULL;
        let status = wdf!(self, WdfIoQueueCreate(
            device => Handle,
            ptr::from_ref(config) => *const QueueConfig,
            &raw const attributes => *const ObjectAttributes,
            &raw mut queue => *mut Handle,
        ) -> NtStatus);
        (status, queue)
    }

    /// `WdfObjectCreate`.
    pub(crate) fn object(&self, attributes: ObjectAttributes) -> Handle {
        let mut object = Handle::NULL;
        let status = wdf!(self, WdfObjectCreate(
            &raw const attributes => *const ObjectAttributes, &raw mut object => *mut Handle) -> NtStatus);
        assert_eq!(status, NtStatus::SUCCESS);
        object
    }

    /// `WdfObjectDelete`.
    pub(crate) fn delete(&self, object: Handle) {
        wdf!(self, WdfObjectDelete(object => Handle) -> ());
    }

    /// What the I/O manager does to unload: `DriverUnload`, then the stub's unbind. What was left behind.
    pub(crate) fn unload(&self) -> Result<Vec<String>, Bugcheck> {
        self.run(|| {
            let unload = self.field(0x68);
            assert_ne!(unload, 0, "DriverUnload is set");
            // SAFETY: the framework's DriverUnload.
            let unload: extern "win64" fn(*mut c_void) = unsafe { core::mem::transmute(unload) };
            unload(self.object_address());
            assert_eq!(unbind(self.globals), NtStatus::SUCCESS);
        })?;
        assert_eq!(self.machine.threads.join_within(core::time::Duration::from_secs(5)), 0);
        Ok(self.machine.wdf.take_leaks("testee"))
    }
}

/// What [`wdf!`] needs before there is a rig.
pub(crate) struct Calls {
    pub(crate) globals: *const DriverGlobals,
}

/// `WdfVersionBind` with the first form of the bind information.
pub(crate) fn bind_as(
    driver_object: *mut c_void,
    path: &Wide,
    minor: u32,
    functions: u32,
) -> (NtStatus, *const DriverGlobals, Vec<*const ()>) {
    let component: Vec<u16> = "KmdfLibrary\0".encode_utf16().collect();
    let mut table = vec![ptr::null(); functions.max(1) as usize];
    let mut info = BindInfo {
        size: size_of::<BindInfo>() as u32,
        component: component.as_ptr(),
        version: Version { major: 1, minor, build: 0 },
        function_count: functions,
        function_table: table.as_mut_ptr(),
        module: ptr::null_mut(),
    };
    let mut globals = ptr::null();
    let status = bind_raw(driver_object, path.get(), &raw mut info, &raw mut globals);
    (status, globals, table)
}

/// `WdfVersionBind` through the export table.
pub(crate) fn bind_raw(
    driver_object: *mut c_void,
    path: *const UnicodeString,
    info: *mut BindInfo,
    globals: *mut *const DriverGlobals,
) -> NtStatus {
    type Bind =
        extern "win64" fn(*mut c_void, *const UnicodeString, *mut BindInfo, *mut *const DriverGlobals) -> NtStatus;
    // SAFETY: the export's signature.
    let bind: Bind = unsafe { core::mem::transmute(export("WdfVersionBind")) };
    bind(driver_object, path, info, globals)
}

/// `WdfVersionUnbind`.
pub(crate) fn unbind(globals: *const DriverGlobals) -> NtStatus {
    type Unbind = extern "win64" fn(*const UnicodeString, *mut BindInfo, *const DriverGlobals) -> NtStatus;
    // SAFETY: the export's signature.
    let unbind: Unbind = unsafe { core::mem::transmute(export("WdfVersionUnbind")) };
    unbind(ptr::null(), ptr::null_mut(), globals)
}

fn export(name: &str) -> *const () {
    let export = bind::EXPORTS.iter().find(|export| export.name == name).expect("an export of WDFLDR.SYS");
    match export.entry {
        crate::export::Entry::Function(entry) | crate::export::Entry::Variable(entry) => entry,
    }
}

/// The address in a table slot, for tests that look at tables.
pub(crate) fn slot(name: &str) -> *const () {
    table::entry(name)
}

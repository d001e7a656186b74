//! The interface of WDFLDR.SYS to the entry point of a framework driver.
//!
//! No header of the WDK declares these: they are between Microsoft's entry point library and the loader, and published
//! with its source (microsoft/Windows-Driver-Frameworks, `fxldr.h`). This is the form of KMDF before 1.25; from then on
//! the bind information has more members.
#![allow(non_snake_case, reason = "the names are those of C")]

use core::{ffi::c_void, mem::offset_of};

use wdk_sys::{NTSTATUS, PDRIVER_OBJECT, PUNICODE_STRING, PWDF_DRIVER_GLOBALS, ULONG, WCHAR, WDFFUNC};

/// WDF_VERSION: the framework's version that a driver was built for.
#[repr(C)]
pub(crate) struct Version {
    pub(crate) Major: ULONG,
    pub(crate) Minor: ULONG,
    pub(crate) Build: ULONG,
}

/// WDF_BIND_INFO: a driver's request to the loader.
#[repr(C)]
pub(crate) struct BindInfo {
    /// Size of this structure, in bytes.
    pub(crate) Size: ULONG,
    /// The library's name, `KmdfLibrary`.
    pub(crate) Component: *mut WCHAR,
    pub(crate) Version: Version,
    /// How many functions the table of that version has; the loader accepts no other number.
    pub(crate) FuncCount: ULONG,
    /// The driver's variable that will point to the table.
    pub(crate) FuncTable: *mut *const WDFFUNC,
    /// For the loader's use; null initially.
    pub(crate) Module: *mut c_void,
}

unsafe extern "system" {
    pub(crate) fn WdfVersionBind(
        DriverObject: PDRIVER_OBJECT,
        RegistryPath: PUNICODE_STRING,
        BindInfo: *mut BindInfo,
        ComponentGlobals: *mut PWDF_DRIVER_GLOBALS,
    ) -> NTSTATUS;
    pub(crate) fn WdfVersionUnbind(
        RegistryPath: PUNICODE_STRING,
        BindInfo: *mut BindInfo,
        ComponentGlobals: PWDF_DRIVER_GLOBALS,
    ) -> NTSTATUS;
}

const _: () = {
    assert!(size_of::<Version>() == 12);
    assert!(size_of::<BindInfo>() == 48);
    assert!(offset_of!(BindInfo, Component) == 8);
    assert!(offset_of!(BindInfo, Version) == 16);
    assert!(offset_of!(BindInfo, FuncCount) == 28);
    assert!(offset_of!(BindInfo, FuncTable) == 32);
    assert!(offset_of!(BindInfo, Module) == 40);
};

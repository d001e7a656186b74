//! Binds to the framework, and unbinds at unload.

use core::{
    cell::UnsafeCell,
    ptr::{null, null_mut},
};

use wdk_sys::{
    _WDFFUNCENUM::WdfFunctionTableNumEntries, DRIVER_OBJECT, NTSTATUS, PCUNICODE_STRING, PDRIVER_OBJECT,
    PDRIVER_UNLOAD, PUNICODE_STRING, PWDF_DRIVER_GLOBALS, ULONG, UNICODE_STRING, USHORT, WCHAR, WDFFUNC,
    ntddk::RtlCopyUnicodeString,
};

use crate::loader::{BindInfo, Version, WdfVersionBind, WdfVersionUnbind};

/// A variable that the framework's loader and this module write, never at the same time.
#[repr(transparent)]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: written only by FxDriverEntry, by the loader calls in it and by the unload routine. The kernel runs the entry
// point before anything else in the image, and the unload routine after everything else, each on one thread.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }
    const fn get(&self) -> *mut T {
        self.0.get()
    }
}

/// The driver's globals, set by the loader. Every call into the framework passes them.
// SAFETY: the framework's headers declare a variable of this name and type, and nothing else defines it.
#[unsafe(export_name = "WdfDriverGlobals")]
static DRIVER_GLOBALS: Shared<PWDF_DRIVER_GLOBALS> = Shared::new(null_mut());

/// The framework's function table, set by the loader. Every call into the framework goes through it.
// SAFETY: as for DRIVER_GLOBALS; the name carries the framework's version.
#[unsafe(export_name = "WdfFunctions_01015")]
static FUNCTIONS: Shared<*const WDFFUNC> = Shared::new(null());

/// Longest registry path that is kept, in UTF-16 units; the same as in Microsoft's library.
const PATH_UNITS: usize = 260;

static PATH_BUFFER: Shared<[WCHAR; PATH_UNITS]> = Shared::new([0; PATH_UNITS]);

/// The driver's registry path, kept because unbinding needs it again.
static PATH: Shared<UNICODE_STRING> = Shared::new(UNICODE_STRING {
    Length: 0,
    MaximumLength: (PATH_UNITS * size_of::<WCHAR>()) as USHORT,
    Buffer: PATH_BUFFER.get().cast(),
});

/// `KmdfLibrary`: the framework's name with its loader.
static COMPONENT: Shared<[WCHAR; 12]> = Shared::new({
    let ascii = b"KmdfLibrary\0";
    let mut wide = [0; 12];
    let mut unit = 0;
    while unit < wide.len() {
        wide[unit] = ascii[unit] as WCHAR;
        unit += 1;
    }
    wide
});

/// What this driver requests: KMDF 1.15 with its 444 functions.
static BIND_INFO: Shared<BindInfo> = Shared::new(BindInfo {
    Size: size_of::<BindInfo>() as ULONG,
    Component: COMPONENT.get().cast(),
    Version: Version { Major: 1, Minor: 15, Build: 0 },
    FuncCount: WdfFunctionTableNumEntries as ULONG,
    FuncTable: FUNCTIONS.get(),
    Module: null_mut(),
});

/// The framework's unload routine, which runs before ours.
static FRAMEWORK_UNLOAD: Shared<PDRIVER_UNLOAD> = Shared::new(None);

unsafe extern "system" {
    fn DriverEntry(driver: PDRIVER_OBJECT, registry_path: PCUNICODE_STRING) -> NTSTATUS;
}

/// Entry point of the image: binds to the framework, runs `DriverEntry`, and arranges to unbind at unload.
///
/// # Safety
/// Called by the kernel once, at PASSIVE_LEVEL, with its driver object and registry path.
// SAFETY: nothing else in the image has this name; the linker is given it as the entry point.
#[unsafe(no_mangle)]
unsafe extern "system" fn FxDriverEntry(driver: PDRIVER_OBJECT, registry_path: PUNICODE_STRING) -> NTSTATUS {
    if driver.is_null() {
        // Loaded as a library of another driver: there is no framework to bind to.
        // SAFETY: the caller's arguments are passed on as they came.
        return unsafe { DriverEntry(driver, registry_path) };
    }
    // SAFETY: PATH owns its buffer, and the kernel's registry path is valid during this call.
    unsafe { RtlCopyUnicodeString(PATH.get(), registry_path) };
    // SAFETY: the driver object is the kernel's, all other arguments are this module's statics; PASSIVE_LEVEL.
    let status = unsafe { WdfVersionBind(driver, PATH.get(), BIND_INFO.get(), DRIVER_GLOBALS.get()) };
    if status < 0 {
        return status;
    }
    // SAFETY: bound, so the driver may call the framework; the arguments are passed on as they came.
    let status = unsafe { DriverEntry(driver, registry_path) };
    if status < 0 {
        unbind();
        return status;
    }
    // SAFETY: the loader set the globals when it bound this driver; the driver object is valid and only this thread
    // touches it during the entry point.
    unsafe {
        if (**DRIVER_GLOBALS.get()).DisplaceDriverUnload != 0 {
            *FRAMEWORK_UNLOAD.get() = (*driver).DriverUnload;
            (*driver).DriverUnload = Some(unload);
        }
    }
    status
}

/// Unloads the framework's side of the driver, then unbinds.
unsafe extern "C" fn unload(driver: *mut DRIVER_OBJECT) {
    // SAFETY: written once, in the entry point, before the kernel could call this.
    if let Some(framework_unload) = unsafe { *FRAMEWORK_UNLOAD.get() } {
        // SAFETY: the routine that the framework put into this driver object, called as the kernel would.
        unsafe { framework_unload(driver) };
    }
    unbind();
}

fn unbind() {
    // SAFETY: called once after a successful bind, at PASSIVE_LEVEL, with what was bound.
    // The status does not matter: the image is unloaded either way.
    let _ = unsafe { WdfVersionUnbind(PATH.get(), BIND_INFO.get(), *DRIVER_GLOBALS.get()) };
}

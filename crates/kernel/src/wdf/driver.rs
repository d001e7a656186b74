//! The driver object.

use core::{ffi::c_void, ptr::null_mut};

use wdk_sys::{
    _WDF_DRIVER_INIT_FLAGS, PCUNICODE_STRING, PDRIVER_OBJECT, PFN_WDF_DRIVER_UNLOAD, UNICODE_STRING, WDF_DRIVER_CONFIG,
    WDFDRIVER, WDFKEY, call_unsafe_wdf_function_binding,
    ntddk::{IoRegisterBootDriverReinitialization, RtlInitUnicodeString},
};

use super::attributes;
use crate::{
    status::{NtResult, NtStatus},
    text::Utf16,
    utf16,
};

/// KEY_QUERY_VALUE (winnt.h).
const KEY_QUERY_VALUE: u32 = 1;

/// The framework's driver object, alive from DriverEntry to the end of the unload callback.
///
/// # Contract of a driver
/// The image is unmapped when the unload callback returns (or when the entry point fails). Before that the driver must
/// have unregistered every callout ([`crate::wfp::Callouts`]) and deleted its device ([`super::ControlDevice`]): both
/// wait until no callback of theirs runs.
#[derive(Debug)]
pub struct Driver(WDFDRIVER);

impl Driver {
    /// Creates the framework's driver object for a non-PnP driver. IRQL = PASSIVE_LEVEL.
    ///
    /// # Errors
    /// The status of WdfDriverCreate.
    ///
    /// # Safety
    /// The pointers are those that the I/O manager passed to DriverEntry, which has not returned yet; called once.
    pub unsafe fn create(
        object: PDRIVER_OBJECT,
        registry_path: PCUNICODE_STRING,
        unload: PFN_WDF_DRIVER_UNLOAD,
    ) -> NtResult<Self> {
        let mut config = WDF_DRIVER_CONFIG {
            Size: size_of::<WDF_DRIVER_CONFIG>() as u32,
            EvtDriverDeviceAdd: None,
            EvtDriverUnload: unload,
            DriverInitFlags: _WDF_DRIVER_INIT_FLAGS::WdfDriverInitNonPnpDriver as u32,
            DriverPoolTag: u32::from_ne_bytes(*b"Slce"),
        };
        let mut driver: WDFDRIVER = null_mut();
        // SAFETY: the caller vouches for the pointers; the configuration is complete and outlives the call.
        let status = unsafe {
            call_unsafe_wdf_function_binding!(
                WdfDriverCreate,
                object,
                registry_path,
                null_mut(),
                &raw mut config,
                &raw mut driver
            )
        };
        NtStatus::check(status)?;
        Ok(Self(driver))
    }

    pub(super) const fn handle(&self) -> WDFDRIVER {
        self.0
    }

    /// Whether Windows loads the driver with the kernel, before the disk has a file system (SERVICE_BOOT_START).
    /// IRQL = PASSIVE_LEVEL.
    ///
    /// # Errors
    /// The service's key cannot be read.
    pub fn is_boot_start(&self) -> NtResult<bool> {
        /// SERVICE_BOOT_START (winnt.h), the service's `Start`.
        const BOOT_START: u32 = 0;
        let mut path = UNICODE_STRING::default();
        // SAFETY: the driver object exists, and keeps the path, which ends with a NUL, as long as it does; the string's
        // header is written. PASSIVE_LEVEL.
        unsafe {
            let registry_path = call_unsafe_wdf_function_binding!(WdfDriverGetRegistryPath, self.0);
            RtlInitUnicodeString(&raw mut path, registry_path);
        }
        let mut key: WDFKEY = null_mut();
        let mut attributes = attributes();
        // SAFETY: no parent: the path is absolute. The structures outlive the call, which opens a key that is closed below.
        let status = unsafe {
            call_unsafe_wdf_function_binding!(
                WdfRegistryOpenKey,
                null_mut(),
                &raw const path,
                KEY_QUERY_VALUE,
                &raw mut attributes,
                &raw mut key
            )
        };
        NtStatus::check(status)?;
        Ok(number(key, utf16!("Start"))? == Some(BOOT_START))
    }

    /// Has `routine` called once, at PASSIVE_LEVEL, when all boot devices have been started and the system's disk can be
    /// read. Only for a driver for which [`Self::is_boot_start`] is true, while Windows starts, and at the end of a start
    /// that succeeds. IRQL = PASSIVE_LEVEL.
    pub fn when_booted(&self, routine: fn()) {
        unsafe extern "C" fn booted(_driver: PDRIVER_OBJECT, context: *mut c_void, _count: u32) {
            // SAFETY: the context is what is passed below, a `fn()`.
            let routine: fn() = unsafe { core::mem::transmute(context) };
            routine();
        }
        // SAFETY: the driver object exists, and with it that of the I/O manager, which forgets the routine when it is
        // unloaded; the routine is a function of the image. PASSIVE_LEVEL.
        unsafe {
            let object = call_unsafe_wdf_function_binding!(WdfDriverWdmGetDriverObject, self.0);
            IoRegisterBootDriverReinitialization(object, Some(booted), routine as *mut c_void);
        }
    }

    /// A REG_DWORD of the service's Parameters key; None when there is none. IRQL = PASSIVE_LEVEL.
    ///
    /// # Errors
    /// The key or the value cannot be read, or is of another type: what it says is not known.
    pub fn parameter<const N: usize>(&self, name: &'static Utf16<N>) -> NtResult<Option<u32>> {
        let mut key: WDFKEY = null_mut();
        let mut attributes = attributes();
        // SAFETY: the driver object exists; the structures outlive the call, which opens a key that is closed below.
        let status = unsafe {
            call_unsafe_wdf_function_binding!(
                WdfDriverOpenParametersRegistryKey,
                self.0,
                KEY_QUERY_VALUE,
                &raw mut attributes,
                &raw mut key
            )
        };
        NtStatus::check(status)?;
        number(key, name)
    }
}

/// A REG_DWORD of an open key, which is closed.
fn number<const N: usize>(key: WDFKEY, name: &'static Utf16<N>) -> NtResult<Option<u32>> {
    let name = name.as_unicode_string();
    let mut value = 0;
    // SAFETY: the key is open; the name is read and the value written during the call.
    let status =
        unsafe { call_unsafe_wdf_function_binding!(WdfRegistryQueryULong, key, &raw const name, &raw mut value) };
    // SAFETY: the caller has opened it, and it is closed once.
    unsafe { call_unsafe_wdf_function_binding!(WdfRegistryClose, key) };
    match NtStatus::check(status) {
        Ok(()) => Ok(Some(value)),
        Err(NtStatus::OBJECT_NAME_NOT_FOUND) => Ok(None),
        Err(status) => Err(status),
    }
}

/// Makes `DriverEntry` and the unload callback from two safe functions: `start: fn(&Driver) -> NtResult<()>` and `stop:
/// fn()`, both at PASSIVE_LEVEL.
///
/// When `start` fails it must have undone its work; the driver is then not loaded and `stop` is not called.
#[macro_export]
macro_rules! driver {
    (start: $start:path, stop: $stop:path) => {
        /// The driver's entry point, called by the framework's own (FxDriverEntry).
        ///
        /// # Safety
        /// For the I/O manager only.
        #[unsafe(export_name = "DriverEntry")]
        pub unsafe extern "system" fn driver_entry(
            object: $crate::raw::PDRIVER_OBJECT,
            registry_path: $crate::raw::PCUNICODE_STRING,
        ) -> $crate::raw::NTSTATUS {
            unsafe extern "C" fn unload(_driver: $crate::raw::WDFDRIVER) {
                $stop();
            }
            // SAFETY: called once by the I/O manager with its own pointers.
            let driver = unsafe { $crate::wdf::Driver::create(object, registry_path, Some(unload)) };
            match driver.and_then(|driver| $start(&driver)) {
                Ok(()) => $crate::NtStatus::SUCCESS.raw(),
                Err(status) => status.raw(),
            }
        }
    };
}

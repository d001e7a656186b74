//! The driver object.

use core::ptr::null_mut;

use wdk_sys::{
    _WDF_DRIVER_INIT_FLAGS, PCUNICODE_STRING, PDRIVER_OBJECT, PFN_WDF_DRIVER_UNLOAD, WDF_DRIVER_CONFIG, WDFDRIVER,
    WDFKEY, call_unsafe_wdf_function_binding,
};

use super::attributes;
use crate::{
    status::{NtResult, NtStatus},
    text::Utf16,
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

    /// A REG_DWORD of the service's Parameters key; None when there is none. IRQL = PASSIVE_LEVEL.
    #[must_use]
    pub fn parameter<const N: usize>(&self, name: &'static Utf16<N>) -> Option<u32> {
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
        NtStatus::check(status).ok()?;
        let name = name.as_unicode_string();
        let mut value = 0;
        // SAFETY: the key is open; the name is read and the value written during the call.
        let status =
            unsafe { call_unsafe_wdf_function_binding!(WdfRegistryQueryULong, key, &raw const name, &raw mut value) };
        // SAFETY: opened above, closed once.
        unsafe { call_unsafe_wdf_function_binding!(WdfRegistryClose, key) };
        NtStatus::check(status).ok().map(|()| value)
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

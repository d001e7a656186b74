//! The enumerations of the Base Filtering Engine: handles, pages, and what frees them.

use super::engine::free;
use super::{check, fwpuclnt};
use sluice_host::HostResult;
use std::ptr::{null, null_mut};
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::NetworkManagement::WindowsFilteringPlatform as wfp;
use windows_sys::core::GUID;

/// How many objects one call asks for.
const PAGE: u32 = 128;

/// An open enumeration.
struct Enumeration {
    engine: HANDLE,
    handle: HANDLE,
    destroy: unsafe fn(HANDLE, HANDLE) -> u32,
}

impl Drop for Enumeration {
    fn drop(&mut self) {
        // SAFETY: the handle is from the enumeration's create function on this engine, which its session keeps open, and
        // is closed only here, by the function that belongs to it.
        unsafe { (self.destroy)(self.engine, self.handle) };
    }
}

/// What one call of an enumeration allocated.
struct Page<T> {
    entries: *mut *mut T,
    count: u32,
}

impl<T> Drop for Page<T> {
    fn drop(&mut self) {
        free(&mut self.entries.cast());
    }
}

/// The page function of an enumeration of `T`.
type Next<T> = unsafe fn(HANDLE, HANDLE, u32, *mut *mut *mut T, *mut u32) -> u32;

impl Enumeration {
    /// Shows every object to `each`.
    ///
    /// # Safety
    /// `next` is the page function that belongs to this enumeration.
    unsafe fn run<T>(&self, operation: &str, next: Next<T>, each: &mut dyn FnMut(&T)) -> HostResult<()> {
        loop {
            let mut page = Page { entries: null_mut(), count: 0 };
            // SAFETY: engine and enumeration are open; `page` outlives the call and frees what the call allocates.
            let result = unsafe { next(self.engine, self.handle, PAGE, &raw mut page.entries, &raw mut page.count) };
            check(operation, result)?;
            if page.count == 0 || page.entries.is_null() {
                return Ok(());
            }
            // SAFETY: the call returned `count` pointers at `entries`, each to an object that lives until this page is
            // dropped, at the end of this round.
            let entries = unsafe { std::slice::from_raw_parts(page.entries, page.count as usize) };
            for entry in entries {
                // SAFETY: as above.
                if let Some(object) = unsafe { entry.as_ref() } {
                    each(object);
                }
            }
        }
    }
}

/// Declares an enumeration of all objects of one kind.
macro_rules! enumerations {
    ($($(#[$doc:meta])* fn $name:ident($kind:ident): $create:ident, $next:ident, $destroy:ident;)*) => {
        $(
            $(#[$doc])*
            pub(super) fn $name(engine: HANDLE, mut each: impl FnMut(&wfp::$kind)) -> HostResult<()> {
                let mut handle = null_mut();
                // SAFETY: the engine is open; a null template asks for every object; `handle` outlives the call.
                let result = unsafe { fwpuclnt::$create(engine, null(), &raw mut handle) };
                check(stringify!($create), result)?;
                let enumeration = Enumeration { engine, handle, destroy: fwpuclnt::$destroy };
                // SAFETY: the functions of one row belong together.
                unsafe { enumeration.run(stringify!($next), fwpuclnt::$next, &mut each) }
            }
        )*
    };
}

enumerations! {
    /// Every layer.
    fn layers(FWPM_LAYER0): FwpmLayerCreateEnumHandle0, FwpmLayerEnum0, FwpmLayerDestroyEnumHandle0;
    /// Every provider.
    fn providers(FWPM_PROVIDER0): FwpmProviderCreateEnumHandle0, FwpmProviderEnum0, FwpmProviderDestroyEnumHandle0;
    /// Every sublayer.
    fn sublayers(FWPM_SUBLAYER0): FwpmSubLayerCreateEnumHandle0, FwpmSubLayerEnum0, FwpmSubLayerDestroyEnumHandle0;
    /// Every callout.
    fn callouts(FWPM_CALLOUT0): FwpmCalloutCreateEnumHandle0, FwpmCalloutEnum0, FwpmCalloutDestroyEnumHandle0;
    /// Every filter.
    fn filters(FWPM_FILTER0): FwpmFilterCreateEnumHandle0, FwpmFilterEnum0, FwpmFilterDestroyEnumHandle0;
    /// Every recorded net event.
    fn net_events(FWPM_NET_EVENT2): FwpmNetEventCreateEnumHandle0, FwpmNetEventEnum2, FwpmNetEventDestroyEnumHandle0;
}

/// The boot-time filters of a layer.
pub(super) fn boot_filters(engine: HANDLE, layer: &GUID, mut each: impl FnMut(&wfp::FWPM_FILTER0)) -> HostResult<()> {
    let template = wfp::FWPM_FILTER_ENUM_TEMPLATE0 {
        layerKey: *layer,
        enumType: wfp::FWP_FILTER_ENUM_OVERLAPPING,
        flags: wfp::FWP_FILTER_ENUM_FLAG_BOOTTIME_ONLY,
        actionMask: u32::MAX, // any action
        ..Default::default()
    };
    let mut handle = null_mut();
    // SAFETY: the engine is open; the template names a layer and no conditions, and with `handle` outlives the call.
    let result = unsafe { fwpuclnt::FwpmFilterCreateEnumHandle0(engine, &raw const template, &raw mut handle) };
    check("FwpmFilterCreateEnumHandle0", result)?;
    let enumeration = Enumeration { engine, handle, destroy: fwpuclnt::FwpmFilterDestroyEnumHandle0 };
    // SAFETY: the functions belong together.
    unsafe { enumeration.run("FwpmFilterEnum0", fwpuclnt::FwpmFilterEnum0, &mut each) }
}

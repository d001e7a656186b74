//! The Base Filtering Engine.

use super::convert::{Arena, guid};
use super::{check, enumerate, events, fwpuclnt, listing};
use sluice_host::listing::{ENGINE_OPTIONS, ListedEvent, Listing};
use sluice_host::{Callout, Engine, Filter, FilterEntry, Guid, HostResult, Provider, Sublayer, code};
use std::ptr::{null, null_mut};
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::NetworkManagement::WindowsFilteringPlatform as wfp;
use windows_sys::Win32::System::Rpc::RPC_C_AUTHN_DEFAULT;
use windows_sys::core::GUID;

/// An open session.
pub(super) struct Session(HANDLE);

impl Session {
    pub(super) fn open() -> HostResult<Self> {
        let mut handle = null_mut();
        // SAFETY: null names mean this machine, the caller's identity and a session of defaults, which is not dynamic;
        // `handle` outlives the call.
        let result =
            unsafe { fwpuclnt::FwpmEngineOpen0(null(), RPC_C_AUTHN_DEFAULT as u32, null(), null(), &raw mut handle) };
        check("FwpmEngineOpen0", result)?;
        Ok(Self(handle))
    }

    fn delete(&self, operation: &str, call: unsafe fn(HANDLE, *const GUID) -> u32, key: Guid) -> HostResult<()> {
        let key = guid(key);
        // SAFETY: `call` is one of the Fwpm*DeleteByKey0 functions, which want an open engine and a key to read.
        check(operation, unsafe { call(self.0, &raw const key) })
    }
}

impl Session {
    /// An object by its key, read before it is freed; `None` when there is none.
    fn get<O, T>(
        &self,
        operation: &str,
        call: unsafe fn(HANDLE, *const GUID, *mut *mut O) -> u32,
        key: Guid,
        read: impl FnOnce(&O) -> T,
    ) -> HostResult<Option<T>> {
        let key = guid(key);
        let mut object: *mut O = null_mut();
        // SAFETY: `call` is one of the Fwpm*GetByKey0 functions, which want an open engine, a key to read and room for a
        // pointer.
        match check(operation, unsafe { call(self.0, &raw const key, &raw mut object) }) {
            Err(error) if code::is_absent(error.code) => return Ok(None),
            result => result?,
        }
        // SAFETY: the call succeeded: `object` points to one, with what it points to, until it is freed below.
        let value = unsafe { object.as_ref() }.map(read);
        free(&mut object.cast());
        Ok(value)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the handle came from FwpmEngineOpen0 and is closed only here.
        unsafe { fwpuclnt::FwpmEngineClose0(self.0) };
    }
}

impl Engine for Session {
    fn begin(&mut self) -> HostResult<()> {
        // SAFETY: the engine is open; 0 asks for a read/write transaction.
        check("FwpmTransactionBegin0", unsafe { fwpuclnt::FwpmTransactionBegin0(self.0, 0) })
    }

    fn commit(&mut self) -> HostResult<()> {
        // SAFETY: the engine is open.
        check("FwpmTransactionCommit0", unsafe { fwpuclnt::FwpmTransactionCommit0(self.0) })
    }

    fn abort(&mut self) -> HostResult<()> {
        // SAFETY: the engine is open.
        check("FwpmTransactionAbort0", unsafe { fwpuclnt::FwpmTransactionAbort0(self.0) })
    }

    fn add_provider(&mut self, provider: &Provider) -> HostResult<()> {
        let mut arena = Arena::default();
        let provider = arena.provider(provider)?;
        // SAFETY: the engine is open; `arena` keeps what the structure points to beyond the call; a null descriptor
        // asks for the default one.
        check("FwpmProviderAdd0", unsafe { fwpuclnt::FwpmProviderAdd0(self.0, &raw const provider, null_mut()) })
    }

    fn add_sublayer(&mut self, sublayer: &Sublayer) -> HostResult<()> {
        let mut arena = Arena::default();
        let sublayer = arena.sublayer(sublayer)?;
        // SAFETY: as in add_provider.
        check("FwpmSubLayerAdd0", unsafe { fwpuclnt::FwpmSubLayerAdd0(self.0, &raw const sublayer, null_mut()) })
    }

    fn add_callout(&mut self, callout: &Callout) -> HostResult<u32> {
        let mut arena = Arena::default();
        let callout = arena.callout(callout)?;
        let mut id = 0;
        // SAFETY: as in add_provider; `id` outlives the call.
        let result = unsafe { fwpuclnt::FwpmCalloutAdd0(self.0, &raw const callout, null_mut(), &raw mut id) };
        check("FwpmCalloutAdd0", result).map(|()| id)
    }

    fn add_filter(&mut self, filter: &Filter) -> HostResult<u64> {
        let mut arena = Arena::default();
        let filter = arena.filter(filter)?;
        let mut id = 0;
        // SAFETY: as in add_provider; `id` outlives the call.
        let result = unsafe { fwpuclnt::FwpmFilterAdd0(self.0, &raw const filter, null_mut(), &raw mut id) };
        check("FwpmFilterAdd0", result).map(|()| id)
    }

    fn delete_provider(&mut self, key: Guid) -> HostResult<()> {
        self.delete("FwpmProviderDeleteByKey0", fwpuclnt::FwpmProviderDeleteByKey0, key)
    }

    fn delete_sublayer(&mut self, key: Guid) -> HostResult<()> {
        self.delete("FwpmSubLayerDeleteByKey0", fwpuclnt::FwpmSubLayerDeleteByKey0, key)
    }

    fn delete_callout(&mut self, key: Guid) -> HostResult<()> {
        self.delete("FwpmCalloutDeleteByKey0", fwpuclnt::FwpmCalloutDeleteByKey0, key)
    }

    fn delete_filter(&mut self, key: Guid) -> HostResult<()> {
        self.delete("FwpmFilterDeleteByKey0", fwpuclnt::FwpmFilterDeleteByKey0, key)
    }

    fn provider(&mut self, key: Guid) -> HostResult<Option<Provider>> {
        self.get("FwpmProviderGetByKey0", fwpuclnt::FwpmProviderGetByKey0, key, listing::provider)
    }

    fn sublayer(&mut self, key: Guid) -> HostResult<Option<Sublayer>> {
        self.get("FwpmSubLayerGetByKey0", fwpuclnt::FwpmSubLayerGetByKey0, key, listing::sublayer)
    }

    fn callout(&mut self, key: Guid) -> HostResult<Option<Callout>> {
        self.get("FwpmCalloutGetByKey0", fwpuclnt::FwpmCalloutGetByKey0, key, listing::callout)
    }

    fn filters(&mut self, provider: Option<Guid>) -> HostResult<Vec<FilterEntry>> {
        // All filters, of which ours are picked here: a template would also have to name one layer.
        let mut filters = Vec::new();
        enumerate::filters(self.0, |filter| {
            let entry = listing::entry(filter);
            filters.extend((provider.is_none() || entry.provider == provider).then_some(entry));
        })?;
        Ok(filters)
    }

    fn boot_filters(&mut self, layer: Guid) -> HostResult<Vec<FilterEntry>> {
        let mut filters = Vec::new();
        enumerate::boot_filters(self.0, &guid(layer), |filter| filters.push(listing::entry(filter)))?;
        Ok(filters)
    }

    fn list(&mut self) -> HostResult<Listing> {
        let mut listing = Listing::default();
        enumerate::layers(self.0, |layer| listing.layers.push(listing::layer(layer)))?;
        enumerate::providers(self.0, |provider| listing.providers.push((listing::provider(provider), provider.flags)))?;
        enumerate::sublayers(self.0, |sublayer| listing.sublayers.push(listing::sublayer(sublayer)))?;
        enumerate::callouts(self.0, |callout| listing.callouts.push(listing::listed_callout(callout)))?;
        enumerate::filters(self.0, |filter| listing.filters.push(listing::filter(filter)))?;
        Ok(listing)
    }

    fn net_events(&mut self) -> HostResult<Vec<ListedEvent>> {
        let mut events = Vec::new();
        enumerate::net_events(self.0, |event| events.push(events::event(event)))?;
        Ok(events)
    }

    fn options(&mut self) -> HostResult<Vec<(u32, u32)>> {
        let mut options = Vec::new();
        for (option, ..) in ENGINE_OPTIONS {
            let mut value: *mut wfp::FWP_VALUE0 = null_mut();
            // SAFETY: the engine is open; `value` outlives the call.
            let result =
                unsafe { fwpuclnt::FwpmEngineGetOption0(self.0, option as wfp::FWPM_ENGINE_OPTION, &raw mut value) };
            match check("FwpmEngineGetOption0", result) {
                // An option that this Windows does not have.
                Err(error) if error.code == code::ERROR_INVALID_PARAMETER => continue,
                result => result?,
            }
            // SAFETY: the call succeeded: `value` points to a value until it is freed below.
            if let Some(found) = unsafe { value.as_ref() }
                && found.r#type == wfp::FWP_UINT32
            {
                // SAFETY: the type says that this member is set.
                options.push((option, unsafe { found.Anonymous.uint32 }));
            }
            free(&mut value.cast());
        }
        Ok(options)
    }
}

/// Frees what an Fwpm function allocated.
pub(super) fn free(memory: &mut *mut core::ffi::c_void) {
    // SAFETY: the callers pass memory that an Fwpm function returned and that they do not use afterwards; null is
    // allowed.
    unsafe { fwpuclnt::FwpmFreeMemory0(memory) };
}

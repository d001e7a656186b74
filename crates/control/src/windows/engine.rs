//! The Base Filtering Engine.

use super::convert::{Arena, action_back, guid, guid_back, weight_back};
use super::{check, fwpuclnt};
use sluice_host::{Callout, Engine, Filter, FilterEntry, Guid, HostResult, Provider, Sublayer, code};
use std::ptr::{null, null_mut};
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::NetworkManagement::WindowsFilteringPlatform as wfp;
use windows_sys::Win32::System::Rpc::RPC_C_AUTHN_DEFAULT;
use windows_sys::core::{GUID, PWSTR};

/// How many filters one call of the enumeration asks for.
const PAGE: u32 = 128;

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
        let read = |object: &wfp::FWPM_PROVIDER0| Provider {
            key: guid_back(&object.providerKey),
            // SAFETY: the names are null or NUL-terminated strings of the object.
            name: unsafe { text(object.displayData.name) },
            // SAFETY: as above.
            description: unsafe { text(object.displayData.description) },
            persistent: object.flags & wfp::FWPM_PROVIDER_FLAG_PERSISTENT != 0,
            // SAFETY: as above.
            service: (!object.serviceName.is_null()).then(|| unsafe { text(object.serviceName) }),
        };
        self.get("FwpmProviderGetByKey0", fwpuclnt::FwpmProviderGetByKey0, key, read)
    }

    fn sublayer(&mut self, key: Guid) -> HostResult<Option<Sublayer>> {
        let read = |object: &wfp::FWPM_SUBLAYER0| Sublayer {
            key: guid_back(&object.subLayerKey),
            // SAFETY: the names are null or NUL-terminated strings of the object.
            name: unsafe { text(object.displayData.name) },
            // SAFETY: as above.
            description: unsafe { text(object.displayData.description) },
            persistent: object.flags & wfp::FWPM_SUBLAYER_FLAG_PERSISTENT != 0,
            // SAFETY: providerKey is null or points to a GUID of the object.
            provider: unsafe { object.providerKey.as_ref() }.map(guid_back),
            weight: object.weight,
        };
        self.get("FwpmSubLayerGetByKey0", fwpuclnt::FwpmSubLayerGetByKey0, key, read)
    }

    fn callout(&mut self, key: Guid) -> HostResult<Option<Callout>> {
        let read = |object: &wfp::FWPM_CALLOUT0| Callout {
            key: guid_back(&object.calloutKey),
            // SAFETY: the names are null or NUL-terminated strings of the object.
            name: unsafe { text(object.displayData.name) },
            // SAFETY: as above.
            description: unsafe { text(object.displayData.description) },
            persistent: object.flags & wfp::FWPM_CALLOUT_FLAG_PERSISTENT != 0,
            // SAFETY: providerKey is null or points to a GUID of the object.
            provider: unsafe { object.providerKey.as_ref() }.map(guid_back),
            layer: guid_back(&object.applicableLayer),
        };
        self.get("FwpmCalloutGetByKey0", fwpuclnt::FwpmCalloutGetByKey0, key, read)
    }

    fn filters(&mut self, provider: Option<Guid>) -> HostResult<Vec<FilterEntry>> {
        // All filters, of which ours are picked here: a template would also have to name one layer.
        let mut enumeration = Enumeration::open(self.0)?;
        let mut filters = Vec::new();
        while let Some(page) = enumeration.next_page()? {
            filters.extend(page.entries().filter(|filter| provider.is_none() || filter.provider == provider));
        }
        Ok(filters)
    }
}

/// An enumeration of all filters.
struct Enumeration {
    engine: HANDLE,
    handle: HANDLE,
}

impl Enumeration {
    fn open(engine: HANDLE) -> HostResult<Self> {
        let mut handle = null_mut();
        // SAFETY: the engine is open; a null template asks for every filter; `handle` outlives the call.
        let result = unsafe { fwpuclnt::FwpmFilterCreateEnumHandle0(engine, null(), &raw mut handle) };
        check("FwpmFilterCreateEnumHandle0", result)?;
        Ok(Self { engine, handle })
    }

    fn next_page(&mut self) -> HostResult<Option<Page>> {
        let mut page = Page { entries: null_mut(), count: 0 };
        // SAFETY: engine and enumeration are open; `page` outlives the call and frees what the call allocates.
        let result = unsafe {
            fwpuclnt::FwpmFilterEnum0(self.engine, self.handle, PAGE, &raw mut page.entries, &raw mut page.count)
        };
        check("FwpmFilterEnum0", result)?;
        Ok((page.count > 0).then_some(page))
    }
}

impl Drop for Enumeration {
    fn drop(&mut self) {
        // SAFETY: from FwpmFilterCreateEnumHandle0 on this engine, which its session keeps open, and closed only here.
        unsafe { fwpuclnt::FwpmFilterDestroyEnumHandle0(self.engine, self.handle) };
    }
}

/// What one call of the enumeration allocated.
struct Page {
    entries: *mut *mut wfp::FWPM_FILTER0,
    count: u32,
}

impl Page {
    fn entries(&self) -> impl Iterator<Item = FilterEntry> {
        // SAFETY: FwpmFilterEnum0 returned `count` pointers at `entries`, each to a filter, and they live until this
        // page is dropped, which the iterator's borrow prevents.
        unsafe { std::slice::from_raw_parts(self.entries, self.count as usize) }.iter().map(|&filter| {
            // SAFETY: as above; providerKey is null or points to a GUID of the same allocation, the name is null or a
            // NUL-terminated string of it, and weight and action have the members that their types say.
            unsafe {
                let filter = &*filter;
                FilterEntry {
                    key: guid_back(&filter.filterKey),
                    id: filter.filterId,
                    name: text(filter.displayData.name),
                    layer: guid_back(&filter.layerKey),
                    provider: filter.providerKey.as_ref().map(guid_back),
                    sublayer: guid_back(&filter.subLayerKey),
                    flags: filter.flags,
                    weight: weight_back(&filter.weight),
                    conditions: filter.numFilterConditions,
                    action: action_back(&filter.action),
                }
            }
        })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        free(&mut self.entries.cast());
    }
}

/// Frees what an Fwpm function allocated.
pub(super) fn free(memory: &mut *mut core::ffi::c_void) {
    // SAFETY: the callers pass memory that an Fwpm function returned and that they do not use afterwards; null is
    // allowed.
    unsafe { fwpuclnt::FwpmFreeMemory0(memory) };
}

/// The text at `start`.
///
/// # Safety
/// `start` is null or points to a NUL-terminated string.
unsafe fn text(start: PWSTR) -> String {
    if start.is_null() {
        return String::new();
    }
    // SAFETY: the caller says that the string ends with a NUL, and the walk stops there.
    unsafe {
        let length = (0..).take_while(|&at| *start.add(at) != 0).count();
        String::from_utf16_lossy(std::slice::from_raw_parts(start, length))
    }
}

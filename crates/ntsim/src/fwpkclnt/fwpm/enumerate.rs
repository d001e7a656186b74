//! Enumerations: `FwpmXCreateEnumHandle0`, `FwpmXEnum0`, `FwpmXDestroyEnumHandle0`.
//!
//! A handle sees the objects as they were when it was made. A filter template with conditions (fully contained,
//! overlapping) is refused; its other members are supported.

use super::{Handle, marshal, null, put, session, status};
use crate::cpu;
use filter_engine::bfe::{Lifetime, Objects, Provider, StoredCallout, StoredFilter, Sublayer};
use filter_engine::{BfeError, BfeResult};
use nt_abi::NtStatus;
use nt_abi::fwp::arena::Arena;
use nt_abi::fwp::{
    FwpmCallout0, FwpmCalloutEnumTemplate0, FwpmFilter0, FwpmFilterEnumTemplate0, FwpmProvider0, FwpmSublayer0,
    FwpmSublayerEnumTemplate0, consts,
};
use parking_lot::Mutex;
use sluice_host::Guid;
use std::collections::VecDeque;
use std::sync::Arc;

/// The objects that are left to enumerate.
#[derive(Debug)]
pub(super) enum Enumeration {
    Providers(Mutex<VecDeque<Provider>>),
    Sublayers(Mutex<VecDeque<Sublayer>>),
    Callouts(Mutex<VecDeque<StoredCallout>>),
    Filters(Mutex<VecDeque<Arc<StoredFilter>>>),
}

/// Makes an enumeration handle.
///
/// # Safety
/// `out` is null or writable.
unsafe fn create(
    engine: Handle,
    out: *mut Handle,
    select: impl FnOnce(&Objects) -> BfeResult<Enumeration>,
) -> NtStatus {
    status((|| {
        if out.is_null() {
            return Err(null("enumHandle"));
        }
        let enumeration = select(&session(engine)?.objects())?;
        let handle = cpu::with_machine(|machine| machine.wfp.clients.enumerations.add(enumeration));
        // SAFETY: the caller's promise.
        unsafe { put(out, handle as Handle, "enumHandle") }
    })())
}

fn destroy(engine: Handle, handle: Handle) -> NtStatus {
    status(session(engine).and_then(|_| {
        let found = cpu::with_machine(|machine| machine.wfp.clients.enumerations.remove(handle as u64));
        found.map(drop).ok_or_else(|| invalid(handle))
    }))
}

fn invalid(handle: Handle) -> BfeError {
    BfeError::new(filter_engine::error::FWP_INVALID_ENUMERATOR, format!("enumeration handle {handle:p}"))
}

/// Returns an array of pointers to the next objects.
///
/// # Safety
/// `entries` and `returned` are null or writable.
unsafe fn next<T, R: Copy>(
    list: &Mutex<VecDeque<T>>,
    requested: u32,
    entries: *mut *mut *mut R,
    returned: *mut u32,
    build: impl Fn(&mut Arena, &T) -> R,
) -> BfeResult<()> {
    if entries.is_null() || returned.is_null() {
        return Err(null("entries or numEntriesReturned"));
    }
    let batch: Vec<T> = {
        let mut list = list.lock();
        let count = list.len().min(requested as usize);
        list.drain(..count).collect()
    };
    let mut arena = Arena::default();
    let pointers: Vec<*mut R> = batch
        .iter()
        .map(|object| {
            let raw = build(&mut arena, object);
            arena.put(raw)
        })
        .collect();
    let count = pointers.len() as u32;
    // FwpmFreeMemory0 gets the address of the array itself.
    let array = if pointers.is_empty() {
        core::ptr::null_mut()
    } else {
        let array = arena.put_slice(&pointers);
        cpu::with_machine(|machine| machine.wfp.clients.memory.lock().insert(array as usize, arena));
        array
    };
    // SAFETY: the caller's promise.
    unsafe {
        entries.write(array);
        returned.write(count);
    }
    Ok(())
}

fn by_owner(wanted: Option<Guid>, owner: Option<Guid>) -> bool {
    wanted.is_none_or(|wanted| owner == Some(wanted))
}

/// # Safety
/// `template` is null or a template whose conditions are as many as it says.
unsafe fn select_filters(objects: &Objects, template: *const FwpmFilterEnumTemplate0) -> BfeResult<Enumeration> {
    // SAFETY: the caller's promise.
    let template = unsafe { template.as_ref() };
    let Some(template) = template else {
        return Ok(Enumeration::Filters(Mutex::new(objects.filters.values().cloned().collect())));
    };
    if template.num_filter_conditions != 0 || !template.provider_context_template.is_null() {
        let what = "a filter template with conditions or a provider context template";
        return Err(BfeError::new(NtStatus::NOT_SUPPORTED, what));
    }
    // SAFETY: the caller's promise: the keys are null or GUIDs.
    let (provider, callout) = unsafe { (template.provider_key.as_ref(), template.callout_key.as_ref()) };
    let (provider, callout) = (provider.map(|key| Guid::from(*key)), callout.map(|key| Guid::from(*key)));
    let layer = Guid::from(template.layer_key);
    let boot_only = template.flags & consts::FWP_FILTER_ENUM_FLAG_BOOTTIME_ONLY != 0;
    let with_boot = boot_only || template.flags & consts::FWP_FILTER_ENUM_FLAG_INCLUDE_BOOTTIME != 0;
    let wanted = |f: &&Arc<StoredFilter>| {
        let boot = f.lifetime == Lifetime::BootTime;
        f.filter.layer == layer
            && by_owner(provider, f.filter.provider)
            && callout.is_none_or(|key| f.filter.action_key == key)
            // 0xFFFFFFFF means any action (FWPM_FILTER_ENUM_TEMPLATE0 documentation).
            && (template.action_mask == u32::MAX || f.filter.action & template.action_mask != 0)
            && if boot_only { boot } else { with_boot || !boot }
    };
    let mut found: Vec<Arc<StoredFilter>> = objects.filters.values().filter(wanted).cloned().collect();
    if template.flags & consts::FWP_FILTER_ENUM_FLAG_SORTED != 0 {
        found.sort_by(|a, b| b.effective_weight.cmp(&a.effective_weight).then(a.id.cmp(&b.id)));
    }
    Ok(Enumeration::Filters(Mutex::new(found.into())))
}

macro_rules! enumerations {
    ($($create:ident($template:ty), $enumerate:ident -> $raw:ty, $destroy:ident:
        $variant:ident by $select:expr, as $build:expr;)*) => {$(
        #[allow(non_snake_case, reason = "the export's name")]
        pub(super) unsafe extern "win64" fn $create(
            engine: Handle,
            template: *const $template,
            out: *mut Handle,
        ) -> NtStatus {
            // SAFETY: the documented contract of the import.
            unsafe { create(engine, out, |objects| $select(objects, template)) }
        }

        #[allow(non_snake_case, reason = "the export's name")]
        pub(super) unsafe extern "win64" fn $enumerate(
            engine: Handle,
            handle: Handle,
            requested: u32,
            entries: *mut *mut *mut $raw,
            returned: *mut u32,
        ) -> NtStatus {
            status(session(engine).and_then(|_| {
                let found = cpu::with_machine(|machine| machine.wfp.clients.enumerations.get(handle as u64));
                match found.as_deref() {
                    // SAFETY: the documented contract of the import.
                    Some(Enumeration::$variant(list)) => unsafe { next(list, requested, entries, returned, $build) },
                    _ => Err(invalid(handle)),
                }
            }))
        }

        #[allow(non_snake_case, reason = "the export's name")]
        pub(super) extern "win64" fn $destroy(engine: Handle, handle: Handle) -> NtStatus {
            destroy(engine, handle)
        }
    )*};
}

enumerations! {
    FwpmProviderCreateEnumHandle0(core::ffi::c_void), FwpmProviderEnum0 -> FwpmProvider0, FwpmProviderDestroyEnumHandle0:
        Providers by select_providers, as marshal::provider;
    FwpmSubLayerCreateEnumHandle0(FwpmSublayerEnumTemplate0), FwpmSubLayerEnum0 -> FwpmSublayer0,
    FwpmSubLayerDestroyEnumHandle0:
        Sublayers by select_sublayers, as marshal::sublayer;
    FwpmCalloutCreateEnumHandle0(FwpmCalloutEnumTemplate0), FwpmCalloutEnum0 -> FwpmCallout0, FwpmCalloutDestroyEnumHandle0:
        Callouts by select_callouts, as marshal::callout;
    FwpmFilterCreateEnumHandle0(FwpmFilterEnumTemplate0), FwpmFilterEnum0 -> FwpmFilter0, FwpmFilterDestroyEnumHandle0:
        Filters by select_filters, as |arena: &mut Arena, filter: &Arc<StoredFilter>| marshal::filter(arena, filter);
}

/// A provider template selects nothing.
///
/// # Safety
/// None is needed: the template is not read.
unsafe fn select_providers(objects: &Objects, _template: *const core::ffi::c_void) -> BfeResult<Enumeration> {
    let all = objects.providers.values().map(|stored| stored.object.clone());
    Ok(Enumeration::Providers(Mutex::new(all.collect())))
}

/// # Safety
/// `template` is null or a template.
unsafe fn select_sublayers(objects: &Objects, template: *const FwpmSublayerEnumTemplate0) -> BfeResult<Enumeration> {
    // SAFETY: the caller's promise.
    let provider = unsafe { template.as_ref().and_then(|template| template.provider_key.as_ref()) };
    let provider = provider.map(|key| Guid::from(*key));
    let wanted = objects.sublayers.values().filter(|s| by_owner(provider, s.object.provider));
    Ok(Enumeration::Sublayers(Mutex::new(wanted.map(|stored| stored.object.clone()).collect())))
}

/// # Safety
/// `template` is null or a template.
unsafe fn select_callouts(objects: &Objects, template: *const FwpmCalloutEnumTemplate0) -> BfeResult<Enumeration> {
    // SAFETY: the caller's promise.
    let template = unsafe { template.as_ref() };
    // SAFETY: the caller's promise.
    let provider = template.and_then(|template| unsafe { template.provider_key.as_ref() }).map(|key| Guid::from(*key));
    let layer = template.map(|template| Guid::from(template.layer_key)).filter(|layer| *layer != Guid(0));
    let wanted = objects.callouts.values().filter(|callout| {
        let object = &callout.stored.object;
        by_owner(provider, object.provider) && layer.is_none_or(|layer| object.layer == layer)
    });
    Ok(Enumeration::Callouts(Mutex::new(wanted.cloned().collect())))
}

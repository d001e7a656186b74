//! The objects that make the Base Filtering Engine ask the driver: one provider, one sublayer, and a callout with its
//! filter for every place in [`sluice_protocol::object::CALLOUTS`].
//!
//! All are persistent, so they outlive a restart of the machine. The driver may not be loaded, before its start or when it
//! does not load: on a machine that fails open the filters carry FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED, and it
//! then has an unfiltered network instead of none; on one that fails closed ([`Fail`]) they block. The provider names no service: at its start BFE skips the persistent objects
//! of a provider whose service is not auto-start (FwpmProviderAdd0, remarks), and a driver loaded later would then
//! never be asked.

mod closed;
pub(crate) mod field;
mod inspect;

pub(crate) use closed::IS_LOOPBACK;
pub use closed::{Fail, MAX_MANAGEMENT, Prefix};
pub use inspect::{Change, Foreign, Inspection, inspect};
pub(crate) use inspect::{FILTER_INDEXED, spoken};

use crate::native;
use sluice_host::{
    Callout, Engine, Filter, FilterAction, FilterEntry, Guid, Host, HostError, HostResult, Provider, Sublayer, Weight,
    code,
};
use sluice_protocol::object::{self, CALLOUTS, CalloutObject, Role};

/// FWPM_FILTER_FLAG_PERSISTENT (fwpmtypes.h).
pub(crate) const FILTER_PERSISTENT: u32 = 0x01;
/// FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED.
const FILTER_PERMIT_IF_CALLOUT_UNREGISTERED: u32 = 0x10;

/// The provider's key.
pub const PROVIDER: Guid = Guid(object::PROVIDER);
/// The sublayer's key.
pub const SUBLAYER: Guid = Guid(object::SUBLAYER);

/// Our provider.
#[must_use]
pub fn provider() -> Provider {
    Provider {
        key: PROVIDER,
        name: object::NAME.to_owned(),
        description: "Asks sluice.sys about connections and packets".to_owned(),
        persistent: true,
        service: None,
    }
}

/// Our sublayer.
#[must_use]
pub fn sublayer() -> Sublayer {
    Sublayer {
        key: SUBLAYER,
        name: object::NAME.to_owned(),
        description: "The filters that call sluice.sys".to_owned(),
        persistent: true,
        provider: Some(PROVIDER),
        weight: object::SUBLAYER_WEIGHT,
    }
}

/// The callout of one place.
#[must_use]
pub fn callout(place: &CalloutObject) -> Callout {
    Callout {
        key: Guid(place.callout),
        name: name(place),
        description: "Implemented by sluice.sys".to_owned(),
        persistent: true,
        provider: Some(PROVIDER),
        layer: Guid(place.layer),
    }
}

/// The filter that calls it, for everything at its layer.
#[must_use]
pub fn filter(place: &CalloutObject, fail: &Fail) -> Filter {
    let key = Guid(place.callout);
    // The flag is for actions that can block; BFE refuses it on an inspection, which is skipped without its callout.
    let (action, without_callout) = match place.role {
        Role::Decide if fail.blocks_at(place) => (FilterAction::CalloutUnknown(key), 0),
        Role::Decide => (FilterAction::CalloutUnknown(key), FILTER_PERMIT_IF_CALLOUT_UNREGISTERED),
        Role::Observe => (FilterAction::CalloutInspection(key), 0),
    };
    Filter {
        key: Some(Guid(place.filter)),
        name: name(place),
        description: "Asks sluice.sys".to_owned(),
        flags: FILTER_PERSISTENT | without_callout,
        provider: Some(PROVIDER),
        layer: Guid(place.layer),
        sublayer: SUBLAYER,
        weight: Weight::Auto,
        conditions: Vec::new(),
        action,
    }
}

fn name(place: &CalloutObject) -> String {
    format!("{} {}", object::NAME, place.name)
}

/// The layer's name for a key, if we use the layer.
#[must_use]
pub fn layer_name(layer: Guid) -> Option<&'static str> {
    CALLOUTS.iter().find(|place| place.layer == layer.0).map(|place| place.name)
}

/// Ensures that all our objects exist, in one transaction, and returns the filters.
///
/// # Errors
/// BFE refused; nothing has changed.
pub fn write(host: &dyn Host, fail: &Fail) -> HostResult<Vec<FilterEntry>> {
    let mut engine = host.open_engine()?;
    transaction(&mut *engine, |engine| {
        // The driver takes over from filters that decided without it.
        native::remove(engine)?;
        let removed = remove(engine, true)?;
        add(engine, fail, &removed.kept)
    })
}

/// Removes all our objects in one transaction, those of `load --native` too, and returns how many there were.
///
/// # Errors
/// BFE refused; nothing has changed.
pub fn clear(host: &dyn Host) -> HostResult<usize> {
    let mut engine = host.open_engine()?;
    transaction(&mut *engine, |engine| {
        let without_driver = native::remove(engine)?.objects();
        remove(engine, false).map(|removed| removed.count + without_driver)
    })
}

/// Removes all our filters and no other object, in one transaction, and returns how many there were.
///
/// # Errors
/// BFE refused; nothing has changed.
pub(crate) fn remove_filters(host: &dyn Host) -> HostResult<usize> {
    let mut engine = host.open_engine()?;
    transaction(&mut *engine, |engine| {
        let filters = ours(engine)?;
        filters.iter().try_for_each(|filter| engine.delete_filter(filter.key))?;
        Ok(filters.len())
    })
}

/// The existing objects under our keys, and filters of our provider; not those of `load --native`.
///
/// # Errors
/// BFE refused.
pub fn remains(host: &dyn Host) -> HostResult<Vec<String>> {
    let mut engine = host.open_engine()?;
    let mut remains: Vec<String> =
        ours(&mut *engine)?.iter().map(|entry| format!("the filter {}", entry.key)).collect();
    for place in &CALLOUTS {
        remains.extend(engine.callout(Guid(place.callout))?.map(|_| format!("the callout {}", place.name)));
    }
    remains.extend(engine.sublayer(SUBLAYER)?.map(|_| "the sublayer".to_owned()));
    remains.extend(engine.provider(PROVIDER)?.map(|_| "the provider".to_owned()));
    Ok(remains)
}

/// The filters of our provider, and those under our keys, whoever owns them.
fn ours(engine: &mut dyn Engine) -> HostResult<Vec<FilterEntry>> {
    let mut filters = all(engine)?;
    filters
        .retain(|entry| entry.provider == Some(PROVIDER) || CALLOUTS.iter().any(|place| place.filter == entry.key.0));
    Ok(filters)
}

/// All filters, and the boot-time filters where ours can be.
fn all(engine: &mut dyn Engine) -> HostResult<Vec<FilterEntry>> {
    let mut filters = engine.filters(None)?;
    for place in CALLOUTS.iter().filter(|place| closed::is_gate(place)) {
        filters.extend(engine.boot_filters(Guid(place.layer))?);
    }
    Ok(filters)
}

/// Runs `body` in a transaction: committed when it succeeds, aborted when it fails.
pub(crate) fn transaction<T>(
    engine: &mut dyn Engine,
    body: impl FnOnce(&mut dyn Engine) -> HostResult<T>,
) -> HostResult<T> {
    engine.begin()?;
    match body(engine).and_then(|value| engine.commit().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(error) => {
            // If this fails too, closing the engine aborts.
            let _ = engine.abort();
            Err(error)
        }
    }
}

/// What [`remove`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many objects were there and were deleted.
    pub count: usize,
    /// Objects that stayed because something else refers to them.
    pub kept: Vec<Guid>,
}

/// Deletes our objects, every filter of our provider, whichever build added it, and what is under our filters' keys,
/// whoever put it there. A missing object is not an error. Runs inside the caller's transaction.
///
/// # Errors
/// BFE refused; an object in use is refused only when `keep_in_use` is false.
pub fn remove(engine: &mut dyn Engine, keep_in_use: bool) -> HostResult<Removed> {
    let mut removed = Removed::default();
    let mut count = |key: Guid, result: HostResult<()>| match result {
        Ok(()) => {
            removed.count += 1;
            Ok(())
        }
        Err(error) if code::is_absent(error.code) => Ok(()),
        Err(error) if keep_in_use && error.code == code::FWP_E_IN_USE => {
            removed.kept.push(key);
            Ok(())
        }
        Err(error) => Err(error),
    };
    for filter in ours(engine)? {
        count(filter.key, engine.delete_filter(filter.key))?;
    }
    for place in &CALLOUTS {
        let key = Guid(place.callout);
        count(key, engine.delete_callout(key))?;
    }
    count(SUBLAYER, engine.delete_sublayer(SUBLAYER))?;
    count(PROVIDER, engine.delete_provider(PROVIDER))?;
    Ok(removed)
}

/// Adds our objects except those in `kept`, and returns the filters with their run-time ids. Runs inside the caller's
/// transaction.
///
/// # Errors
/// BFE refused one; the message names it.
pub fn add(engine: &mut dyn Engine, fail: &Fail, kept: &[Guid]) -> HostResult<Vec<FilterEntry>> {
    if !kept.contains(&PROVIDER) {
        engine.add_provider(&provider()).map_err(naming("the provider"))?;
    }
    if !kept.contains(&SUBLAYER) {
        engine.add_sublayer(&sublayer()).map_err(naming("the sublayer"))?;
    }
    let mut filters = Vec::with_capacity(CALLOUTS.len());
    for place in &CALLOUTS {
        let callout = callout(place);
        if !kept.contains(&callout.key) {
            engine.add_callout(&callout).map_err(naming(place.name))?;
        }
        for filter in [filter(place, fail)].into_iter().chain(fail.filters(place)) {
            let id = engine.add_filter(&filter).map_err(naming(place.name))?;
            filters.push(FilterEntry::of(&filter, id));
        }
    }
    Ok(filters)
}

fn naming(what: &str) -> impl FnOnce(HostError) -> HostError {
    move |error| HostError { message: format!("{what}: {}", error.message), ..error }
}

//! What a machine has of a policy's own filters, and whether that is all and unchanged.

use crate::objects::{FILTER_INDEXED, spoken};
use serde::Serialize;
use sluice_host::{Engine, Filter, FilterEntry, Guid, HostResult};
use sluice_protocol::object::native;
use std::collections::BTreeMap;

/// The filters that `load --native` added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NativeState {
    /// The policy's file, when it was loaded and by whom.
    pub policy: String,
    /// How many filters there are.
    pub filters: usize,
    /// By the layer's name without FWPM_LAYER_, how many.
    pub layers: BTreeMap<String, usize>,
    /// What is not as it was added. Empty when everything is.
    pub changed: Vec<String>,
}

/// The mark of a set of filters, which their sublayer's description carries: how many there are, and a hash of what they
/// say. It finds what somebody has changed since; it is no signature.
pub(super) fn mark(filters: &[Filter]) -> String {
    mark_of(filters.iter().map(|filter| FilterEntry::of(filter, 0)).collect())
}

fn mark_of(mut filters: Vec<FilterEntry>) -> String {
    filters.sort_unstable_by_key(|filter| filter.key);
    let mut text = String::new();
    for filter in &mut filters {
        let conditions = spoken(&filter.conditions);
        let FilterEntry { key, layer, provider, sublayer, flags, weight, action, id: _, name: _, conditions: _ } =
            filter;
        let flags = *flags & !FILTER_INDEXED;
        text += &format!("{key} {layer} {provider:?} {sublayer} {flags} {weight:?} {action:?} {conditions:?}\n");
    }
    format!("{} filters, {:016x}", filters.len(), xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}

/// The filters of the provider or in the sublayer.
pub(super) fn ours(engine: &mut dyn Engine) -> HostResult<Vec<FilterEntry>> {
    let mut filters = engine.filters(None)?;
    filters
        .retain(|filter| filter.provider == Some(Guid(native::PROVIDER)) || filter.sublayer == Guid(native::SUBLAYER));
    Ok(filters)
}

/// What there is; `None` without any of it.
///
/// # Errors
/// The Base Filtering Engine refused the query.
pub fn state(engine: &mut dyn Engine) -> HostResult<Option<NativeState>> {
    let (provider, sublayer) = (engine.provider(Guid(native::PROVIDER))?, engine.sublayer(Guid(native::SUBLAYER))?);
    let filters = ours(engine)?;
    if provider.is_none() && sublayer.is_none() && filters.is_empty() {
        return Ok(None);
    }
    let mut changed = Vec::new();
    if provider.is_none() {
        changed.push("the provider is missing".to_owned());
    }
    match &sublayer {
        None => changed.push("the sublayer is missing".to_owned()),
        Some(sublayer) => {
            let is = mark_of(filters.clone());
            if sublayer.description != is {
                changed.push(format!("the filters are {is}, and were added as {}", sublayer.description));
            }
            let should = sluice_protocol::object::SUBLAYER_WEIGHT;
            if sublayer.weight != should {
                changed.push(format!("the sublayer's weight is {} instead of {should}", sublayer.weight));
            }
        }
    }
    let mut layers = BTreeMap::new();
    for filter in &filters {
        let name = crate::objects::layer_name(filter.layer).map_or_else(|| filter.layer.to_string(), str::to_owned);
        *layers.entry(name).or_default() += 1;
    }
    let policy = provider.map_or_else(|| "unknown".to_owned(), |provider| provider.description);
    Ok(Some(NativeState { policy, filters: filters.len(), layers, changed }))
}

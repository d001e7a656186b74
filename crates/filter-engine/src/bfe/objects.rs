//! The management objects: providers, sublayers, callouts, provider contexts and filters, as BFE keeps them.

use crate::CompiledFilter;
use crate::callout::CalloutSlot;
use crate::condition::{Condition, ConditionValue};
use crate::layers::LayerId;
use nt_abi::fwp::consts;
use sluice_host::{self as host, FilterAction, Guid, Weight};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A session with BFE, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// An object's lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until the session that added it closes.
    Dynamic(SessionId),
    /// Until BFE stops.
    Static,
    /// Across restarts of BFE and of the machine (`*_FLAG_PERSISTENT`).
    Persistent,
    /// Enforced from boot until BFE starts (`FWPM_FILTER_FLAG_BOOTTIME`); refers to nothing BFE keeps.
    BootTime,
    /// Built in; cannot be deleted.
    BuiltIn,
}

/// `FWPM_DISPLAY_DATA0`. A name is required of every object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisplayData {
    /// name.
    pub name: Option<String>,
    /// description.
    pub description: Option<String>,
}

impl DisplayData {
    /// Both given.
    #[must_use]
    pub fn new(name: &str, description: &str) -> Self {
        let description = (!description.is_empty()).then(|| description.to_owned());
        Self { name: Some(name.to_owned()), description }
    }
}

/// `FWPM_PROVIDER0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// providerKey.
    pub key: Guid,
    /// displayData.
    pub display: DisplayData,
    /// `FWPM_PROVIDER_FLAG_*`.
    pub flags: u32,
    /// providerData.
    pub data: Vec<u8>,
    /// serviceName.
    pub service: Option<String>,
}

/// `FWPM_SUBLAYER0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sublayer {
    /// subLayerKey.
    pub key: Guid,
    /// displayData.
    pub display: DisplayData,
    /// `FWPM_SUBLAYER_FLAG_*`.
    pub flags: u32,
    /// providerKey.
    pub provider: Option<Guid>,
    /// providerData.
    pub data: Vec<u8>,
    /// weight.
    pub weight: u16,
}

/// `FWPM_CALLOUT0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callout {
    /// calloutKey.
    pub key: Guid,
    /// displayData.
    pub display: DisplayData,
    /// `FWPM_CALLOUT_FLAG_*`, without REGISTERED, which the driver's registration sets.
    pub flags: u32,
    /// providerKey.
    pub provider: Option<Guid>,
    /// providerData.
    pub data: Vec<u8>,
    /// applicableLayer.
    pub layer: Guid,
}

/// `FWPM_PROVIDER_CONTEXT0` to 3 of the types that hold a plain buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderContext {
    /// providerContextKey.
    pub key: Guid,
    /// displayData.
    pub display: DisplayData,
    /// `FWPM_PROVIDER_CONTEXT_FLAG_*`.
    pub flags: u32,
    /// providerKey.
    pub provider: Option<Guid>,
    /// providerData.
    pub data: Vec<u8>,
    /// dataBuffer (type FWPM_GENERAL_CONTEXT).
    pub buffer: Vec<u8>,
}

/// A filter's context for its callout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterContext {
    /// rawContext.
    Raw(u64),
    /// providerContextKey.
    Provider(Guid),
}

/// `FWPM_FILTER0`, as it is added.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// filterKey; when zero, BFE makes one.
    pub key: Guid,
    /// displayData.
    pub display: DisplayData,
    /// `FWPM_FILTER_FLAG_*`.
    pub flags: u32,
    /// providerKey.
    pub provider: Option<Guid>,
    /// providerData.
    pub data: Vec<u8>,
    /// layerKey.
    pub layer: Guid,
    /// subLayerKey; zero means the layer's default sublayer.
    pub sublayer: Guid,
    /// weight.
    pub weight: Weight,
    /// filterCondition.
    pub conditions: Vec<Condition>,
    /// `FWP_ACTION_*`.
    pub action: u32,
    /// The callout of a callout action, or filterType.
    pub action_key: Guid,
    /// rawContext or providerContextKey.
    pub context: FilterContext,
}

impl From<&host::Provider> for Provider {
    fn from(p: &host::Provider) -> Self {
        Self {
            key: p.key,
            display: DisplayData::new(&p.name, &p.description),
            flags: if p.persistent { consts::FWPM_PROVIDER_FLAG_PERSISTENT } else { 0 },
            data: Vec::new(),
            service: p.service.clone(),
        }
    }
}

impl From<&host::Sublayer> for Sublayer {
    fn from(s: &host::Sublayer) -> Self {
        Self {
            key: s.key,
            display: DisplayData::new(&s.name, &s.description),
            flags: if s.persistent { consts::FWPM_SUBLAYER_FLAG_PERSISTENT } else { 0 },
            provider: s.provider,
            data: Vec::new(),
            weight: s.weight,
        }
    }
}

impl From<&host::Callout> for Callout {
    fn from(c: &host::Callout) -> Self {
        Self {
            key: c.key,
            display: DisplayData::new(&c.name, &c.description),
            flags: if c.persistent { consts::FWPM_CALLOUT_FLAG_PERSISTENT } else { 0 },
            provider: c.provider,
            data: Vec::new(),
            layer: c.layer,
        }
    }
}

impl From<&host::Filter> for Filter {
    fn from(f: &host::Filter) -> Self {
        let (action, action_key) = match f.action {
            FilterAction::Permit => (consts::FWP_ACTION_PERMIT, Guid(0)),
            FilterAction::Block => (consts::FWP_ACTION_BLOCK, Guid(0)),
            FilterAction::CalloutTerminating(key) => (consts::FWP_ACTION_CALLOUT_TERMINATING, key),
            FilterAction::CalloutInspection(key) => (consts::FWP_ACTION_CALLOUT_INSPECTION, key),
            FilterAction::CalloutUnknown(key) => (consts::FWP_ACTION_CALLOUT_UNKNOWN, key),
        };
        let condition = |c: &host::Condition| Condition {
            field: c.field,
            match_type: c.match_type,
            value: ConditionValue::from(&c.value),
        };
        Self {
            key: f.key.unwrap_or(Guid(0)),
            display: DisplayData::new(&f.name, &f.description),
            flags: f.flags,
            provider: f.provider,
            data: Vec::new(),
            layer: f.layer,
            sublayer: f.sublayer,
            weight: f.weight,
            conditions: f.conditions.iter().map(condition).collect(),
            action,
            action_key,
            context: FilterContext::Raw(0),
        }
    }
}

/// An object in the store, with what BFE added.
#[derive(Clone, Debug)]
pub struct Stored<T> {
    /// The object as it was added.
    pub object: T,
    /// Its lifetime.
    pub lifetime: Lifetime,
    /// Its place in the order of all additions.
    pub order: u64,
}

/// A filter in the store.
#[derive(Clone, Debug)]
pub struct StoredFilter {
    /// filterId.
    pub id: u64,
    /// The filter, with the key and the sublayer that BFE filled in.
    pub filter: Filter,
    /// Its lifetime.
    pub lifetime: Lifetime,
    /// The layer's run-time id.
    pub layer: LayerId,
    /// effectiveWeight.
    pub effective_weight: u64,
    /// The compiled filter.
    pub(crate) compiled: Arc<CompiledFilter>,
}

/// A callout in the store.
#[derive(Clone, Debug)]
pub struct StoredCallout {
    /// The object.
    pub stored: Stored<Callout>,
    /// Its run-time side.
    pub slot: Arc<CalloutSlot>,
}

/// All objects in BFE. Cloning shares the tables until a clone changes them.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// By providerKey.
    pub providers: Arc<BTreeMap<Guid, Stored<Provider>>>,
    /// By subLayerKey.
    pub sublayers: Arc<BTreeMap<Guid, Stored<Sublayer>>>,
    /// By calloutKey.
    pub callouts: Arc<BTreeMap<Guid, StoredCallout>>,
    /// By providerContextKey.
    pub contexts: Arc<BTreeMap<Guid, Stored<ProviderContext>>>,
    /// By filterId.
    pub filters: Arc<BTreeMap<u64, Arc<StoredFilter>>>,
    /// filterId by filterKey.
    pub filter_ids: Arc<HashMap<Guid, u64>>,
}

impl Objects {
    /// A filter by its key.
    #[must_use]
    pub fn filter(&self, key: Guid) -> Option<&Arc<StoredFilter>> {
        self.filters.get(self.filter_ids.get(&key)?)
    }
}

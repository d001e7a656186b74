//! Whether the objects under our keys in BFE are the ones we added.
//!
//! A key proves nothing about an object: whoever may write to BFE can add a permit under the key of our filter, or a
//! heavier filter beside it in our sublayer. So every member that matters is compared.

use super::{Fail, PROVIDER, SUBLAYER, all, callout, filter, layer_name, provider, sublayer};
use serde::Serialize;
use sluice_host::{Condition, Engine, Filter, FilterAction, FilterEntry, Guid, HostResult};
use sluice_protocol::object::CALLOUTS;
use std::fmt::{self, Display};

/// FWPM_FILTER_FLAG_INDEXED: BFE sets it by itself.
pub(crate) const FILTER_INDEXED: u32 = 0x40;

/// How the name of a filter begins.
const FILTER: &str = "the filter";

/// What [`inspect`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The filters under our keys and of our provider, in the order of the layers.
    pub filters: Vec<FilterEntry>,
    /// Objects of ours that are missing.
    pub missing: Vec<String>,
    /// Objects under our keys that differ from what we add, and filters of our provider that this build does not know.
    pub changed: Vec<Change>,
    /// Filters in our sublayer that are not ours: they decide before, or instead of, the driver.
    pub foreign: Vec<Foreign>,
}

/// An object that differs from what we add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The object.
    pub object: String,
    /// Which member, its value, and the expected value.
    pub what: String,
}

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)
    }
}

/// Somebody else's filter in our sublayer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Foreign {
    /// filterId.
    pub id: u64,
    /// filterKey.
    pub key: Guid,
    /// displayData.name.
    pub name: String,
    /// The layer, without FWPM_LAYER_ where we know it.
    pub layer: String,
    /// What it does.
    pub action: String,
    /// providerKey.
    pub provider: Option<Guid>,
}

impl Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, layer, action, .. } = self;
        write!(f, "filter {id} `{name}` at {layer} is in our sublayer and is not ours; its action: {action}")
    }
}

impl Inspection {
    /// Whether everything of ours is present and as expected. Foreign filters do not count: they are not ours to
    /// repair.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.missing.is_empty() && self.changed.is_empty()
    }

    /// Whether it is as `disable` leaves it: nothing but filters is missing, and all of them are.
    #[must_use]
    pub fn disabled(&self) -> bool {
        let filters = self.missing.iter().all(|what| what.starts_with(FILTER));
        self.filters.is_empty() && self.changed.is_empty() && !self.missing.is_empty() && filters
    }

    fn compare<T: PartialEq + fmt::Debug>(&mut self, object: &str, member: &str, is: &T, should: &T) {
        if is != should {
            let what = format!("{member} is {is:?} instead of {should:?}");
            self.changed.push(Change { object: object.to_owned(), what });
        }
    }
}

/// Compares all our objects with those of a machine that fails this way.
///
/// # Errors
/// BFE refused the query.
pub fn inspect(engine: &mut dyn Engine, fail: &Fail) -> HostResult<Inspection> {
    let mut found = Inspection::default();
    match engine.provider(PROVIDER)? {
        None => found.missing.push("the provider".to_owned()),
        Some(is) => {
            let should = provider();
            found.compare("the provider", "persistent", &is.persistent, &should.persistent);
            found.compare("the provider", "serviceName", &is.service, &should.service);
        }
    }
    match engine.sublayer(SUBLAYER)? {
        None => found.missing.push("the sublayer".to_owned()),
        Some(is) => {
            let should = sublayer();
            found.compare("the sublayer", "persistent", &is.persistent, &should.persistent);
            found.compare("the sublayer", "providerKey", &is.provider, &should.provider);
            found.compare("the sublayer", "weight", &is.weight, &should.weight);
        }
    }
    for place in &CALLOUTS {
        let object = format!("the callout {}", place.name);
        match engine.callout(Guid(place.callout))? {
            None => found.missing.push(object),
            Some(is) => {
                let should = callout(place);
                found.compare(&object, "persistent", &is.persistent, &should.persistent);
                found.compare(&object, "providerKey", &is.provider, &should.provider);
                found.compare(&object, "applicableLayer", &is.layer, &should.layer);
            }
        }
    }
    let all = all(engine)?;
    let expected: Vec<(String, Filter)> = CALLOUTS
        .iter()
        .flat_map(|place| {
            let others = fail.filters(place).into_iter().map(|filter| (format!("{FILTER} {}", filter.name), filter));
            [(format!("{FILTER} {}", place.name), filter(place, fail))].into_iter().chain(others)
        })
        .collect();
    for (object, should) in &expected {
        match all.iter().find(|entry| Some(entry.key) == should.key) {
            None => found.missing.push(object.clone()),
            Some(is) => {
                found.compare(object, "action", &action(is.action), &action(Some(should.action)));
                found.compare(object, "layerKey", &is.layer, &should.layer);
                found.compare(object, "subLayerKey", &is.sublayer, &should.sublayer);
                found.compare(object, "providerKey", &is.provider, &should.provider);
                found.compare(object, "flags", &(is.flags & !FILTER_INDEXED), &should.flags);
                found.compare(object, "weight", &is.weight, &Some(should.weight));
                let conditions: Vec<_> = should.conditions.iter().cloned().map(Some).collect();
                if spoken(&is.conditions) != spoken(&conditions) {
                    let (is, should) = (is.conditions.len(), conditions.len());
                    let what =
                        format!("filterCondition is not as added: {is} conditions, of which there should be {should}");
                    found.changed.push(Change { object: object.clone(), what });
                }
                found.filters.push(is.clone());
            }
        }
    }
    for entry in all.iter().filter(|entry| expected.iter().all(|(_, should)| should.key != Some(entry.key))) {
        if entry.provider == Some(PROVIDER) {
            let (object, what) = (format!("{FILTER} {}", entry.key), "this build adds no such filter".to_owned());
            found.changed.push(Change { object, what });
            found.filters.push(entry.clone());
        } else if entry.sublayer == SUBLAYER {
            found.foreign.push(Foreign {
                id: entry.id,
                key: entry.key,
                name: entry.name.clone(),
                layer: layer_name(entry.layer).map_or_else(|| entry.layer.to_string(), str::to_owned),
                action: action(entry.action),
                provider: entry.provider,
            });
        }
    }
    Ok(found)
}

/// What conditions say: neither their order on different fields nor that of alternatives means anything.
pub(crate) fn spoken(conditions: &[Option<Condition>]) -> Vec<String> {
    let mut all: Vec<String> = conditions.iter().map(|one| format!("{one:?}")).collect();
    all.sort_unstable();
    all
}

fn action(action: Option<FilterAction>) -> String {
    match action {
        Some(FilterAction::Permit) => "permit".to_owned(),
        Some(FilterAction::Block) => "block".to_owned(),
        Some(
            FilterAction::CalloutTerminating(callout)
            | FilterAction::CalloutInspection(callout)
            | FilterAction::CalloutUnknown(callout),
        ) => format!("callout {callout}"),
        None => "another".to_owned(),
    }
}

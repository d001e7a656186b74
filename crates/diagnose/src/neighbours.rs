//! What is wrong with the filters of a machine, ours among them: sublayers that win over one, filters of products that
//! are gone, filters that can never match.

use crate::Key;
use crate::platform::Platform;
use crate::query::{layer, understood};
use crate::record::{Action, Filter};
use filter_engine::explain::contradiction;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// What kind it is: `rival`, `orphan`, `unregistered`, `contradiction` or `shadowed`.
    pub kind: &'static str,
    /// What.
    pub what: String,
    /// What to do about it.
    pub mend: String,
    /// The filters.
    pub filters: Vec<u64>,
}

/// The most filters that a warning names in its text.
const MOST_NAMED: usize = 6;

fn numbers(filters: &[u64]) -> String {
    let shown: Vec<String> = filters.iter().take(MOST_NAMED).map(u64::to_string).collect();
    match filters.len() {
        0 | 1 => format!("filter {}", shown.join("")),
        count if count > MOST_NAMED => format!("filters {} and {} more", shown.join(", "), count - MOST_NAMED),
        _ => format!("filters {}", shown.join(", ")),
    }
}

/// Looks for all of these. `ours` is the provider of our filters; `service_exists` says whether the machine has a service,
/// where that can be known. What belongs to Windows itself is left out.
#[must_use]
pub fn warnings(platform: &Platform, ours: &Key, service_exists: &dyn Fn(&str) -> Option<bool>) -> Vec<Warning> {
    let mut found = rivals(platform, ours);
    found.extend(orphans(platform, service_exists));
    found.extend(unregistered(platform, ours));
    found.extend(contradictions(platform));
    found.extend(shadowed(platform));
    found
}

/// Whether a filter is of Windows itself: its provider has a name in the headers.
fn is_windows(filter: &Filter) -> bool {
    filter
        .provider
        .as_ref()
        .is_some_and(|key| key.guid().is_none_or(|key| filter_engine::names::name_of(key).is_some()))
}

fn owner(platform: &Platform, filter: &Filter) -> String {
    filter.provider.as_ref().map_or_else(|| "no provider".to_owned(), |key| platform.provider_name(key))
}

/// Heavier sublayers with filters that decide where ours do, so that ours cannot change it: a block, a hard permit, or a
/// callout, which may be either.
fn rivals(platform: &Platform, ours: &Key) -> Vec<Warning> {
    let decides = |filter: &Filter| match filter.action {
        Action::Block | Action::CalloutTerminating | Action::CalloutUnknown => true,
        Action::Permit => filter.has("CLEAR_ACTION_RIGHT"),
        Action::CalloutInspection | Action::Other(_) => false,
    };
    let is_ours = |filter: &Filter| filter.provider.as_ref() == Some(ours);
    let mut places: HashMap<&Key, &Key> = HashMap::new();
    for filter in platform.filters.iter().filter(|filter| is_ours(filter) && decides(filter)) {
        places.insert(&filter.layer, &filter.sublayer);
    }
    let mut rivals: BTreeMap<(std::cmp::Reverse<u16>, &Key, String), Vec<&Filter>> = BTreeMap::new();
    for filter in platform.filters.iter().filter(|filter| !is_ours(filter) && !is_windows(filter) && decides(filter)) {
        let weight = |key: &Key| platform.sublayer(key).map(|sublayer| sublayer.weight);
        let Some((own, rival)) =
            places.get(&filter.layer).and_then(|own| Some((weight(own)?, weight(&filter.sublayer)?)))
        else {
            continue;
        };
        if rival > own {
            let key = (std::cmp::Reverse(rival), &filter.sublayer, owner(platform, filter));
            rivals.entry(key).or_default().push(filter);
        }
    }
    rivals
        .into_iter()
        .map(|((weight, sublayer, owner), filters)| {
            let mut layers: Vec<String> = filters.iter().map(|filter| filter.layer.short()).collect();
            layers.sort();
            layers.dedup();
            let count = |wanted: &dyn Fn(&Filter) -> bool| filters.iter().filter(|filter| wanted(filter)).count();
            let (blocks, permits) =
                (count(&|one| one.action == Action::Block), count(&|one| one.action == Action::Permit));
            let callouts = count(&|one| one.action.asks_callout());
            let kinds = [(blocks, "block"), (permits, "permit for good"), (callouts, "ask a callout")];
            let kinds: Vec<String> =
                kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
            let filters: Vec<u64> = filters.iter().map(|filter| filter.id).collect();
            Warning {
                kind: "rival",
                what: format!(
                    "sublayer {} (weight {}) of {owner} is evaluated before ours at {}: {} ({})",
                    platform.sublayer_name(sublayer),
                    weight.0,
                    layers.join(", "),
                    numbers(&filters),
                    kinds.join(", ")
                ),
                mend: "what it decides for good, our driver cannot change: `sluice explain` shows it for a flow"
                    .to_owned(),
                filters,
            }
        })
        .collect()
}

/// Filters by a key, with the owner's name.
fn by_owner(platform: &Platform, wanted: impl Fn(&Filter) -> bool) -> BTreeMap<String, Vec<&Filter>> {
    let mut found: BTreeMap<String, Vec<&Filter>> = BTreeMap::new();
    for filter in platform.filters.iter().filter(|filter| !is_windows(filter) && wanted(filter)) {
        found.entry(owner(platform, filter)).or_default().push(filter);
    }
    found
}

/// Filters of providers whose service is not there.
fn orphans(platform: &Platform, service_exists: &dyn Fn(&str) -> Option<bool>) -> Vec<Warning> {
    platform
        .providers
        .iter()
        .filter_map(|provider| {
            let service = provider.service.as_deref().filter(|service| !service.is_empty())?;
            let disabled = provider.flags.iter().any(|flag| flag == "FWPM_PROVIDER_FLAG_DISABLED");
            let why = match service_exists(service) {
                Some(true) => return None,
                Some(false) => format!("its service {service} does not exist"),
                None if disabled => {
                    format!("Windows has disabled it, because its service {service} does not start by itself")
                }
                None => return None,
            };
            let of = |filter: &&Filter| filter.provider.as_ref() == Some(&provider.key);
            let filters: Vec<u64> = platform.filters.iter().filter(of).map(|filter| filter.id).collect();
            (!filters.is_empty()).then(|| Warning {
                kind: "orphan",
                what: format!("{} of {}: {why}", numbers(&filters), platform.provider_name(&provider.key)),
                mend: "the product seems to be gone: install it again and remove it by its own uninstaller".to_owned(),
                filters,
            })
        })
        .collect()
}

/// Filters that block because no driver has registered their callout.
fn unregistered(platform: &Platform, ours: &Key) -> Vec<Warning> {
    let absent = |filter: &Filter| {
        filter.provider.as_ref() != Some(ours)
            && matches!(filter.action, Action::CalloutTerminating | Action::CalloutUnknown)
            && !filter.has("PERMIT_IF_CALLOUT_UNREGISTERED")
            && filter
                .callout
                .as_ref()
                .and_then(|key| platform.callout(key))
                .is_some_and(|callout| !callout.registered())
    };
    by_owner(platform, absent)
        .into_iter()
        .map(|(owner, filters)| {
            let filters: Vec<u64> = filters.iter().map(|filter| filter.id).collect();
            Warning {
                kind: "unregistered",
                what: format!(
                    "{} of {owner} block what they match, because no driver has registered their callout",
                    numbers(&filters)
                ),
                mend: format!("start the driver of {owner}, or remove the product"),
                filters,
            }
        })
        .collect()
}

/// Filters whose conditions exclude each other.
fn contradictions(platform: &Platform) -> Vec<Warning> {
    platform
        .filters
        .iter()
        .filter(|filter| !is_windows(filter))
        .filter_map(|filter| {
            let conditions: Vec<_> = filter.conditions.iter().map(understood).collect();
            let at = contradiction(layer(&filter.layer)?, &conditions)?;
            let condition = filter.conditions.get(at)?;
            Some(Warning {
                kind: "contradiction",
                what: format!(
                    "filter {} `{}` of {} can never match: no {} meets its conditions, {condition} among them",
                    filter.id,
                    filter.name,
                    owner(platform, filter),
                    condition.field.short()
                ),
                mend: "conditions on one field are alternatives only where they follow each other".to_owned(),
                filters: vec![filter.id],
            })
        })
        .collect()
}

/// Filters that are never asked, because a heavier one of their sublayer decides about everything, or about exactly
/// the same.
fn shadowed(platform: &Platform) -> Vec<Warning> {
    let mut groups: HashMap<(&Key, &Key), Vec<&Filter>> = HashMap::new();
    for filter in &platform.filters {
        groups.entry((&filter.layer, &filter.sublayer)).or_default().push(filter);
    }
    let mut found: BTreeMap<(u64, String), Vec<u64>> = BTreeMap::new();
    for filters in groups.values_mut() {
        // Without a weight, or with the same, the order is not known.
        filters.retain(|filter| filter.weight.is_some());
        filters.sort_by_key(|filter| std::cmp::Reverse(filter.weight));
        let mut all: Option<&Filter> = None;
        let mut seen: HashMap<Vec<String>, &Filter> = HashMap::new();
        for filter in filters.iter() {
            let conditions: Vec<String> = filter.conditions.iter().map(ToString::to_string).collect();
            let heavier = |one: &&Filter| one.weight > filter.weight;
            let by = all.filter(heavier).or_else(|| seen.get(&conditions).copied().filter(heavier));
            if let Some(by) = by
                && !is_windows(filter)
            {
                found.entry((by.id, owner(platform, filter))).or_default().push(filter.id);
            }
            if matches!(filter.action, Action::Permit | Action::Block) {
                if conditions.is_empty() && all.is_none() {
                    all = Some(filter);
                }
                seen.entry(conditions).or_insert(filter);
            }
        }
    }
    found
        .into_iter()
        .map(|((by, owner), filters)| Warning {
            kind: "shadowed",
            what: format!("{} of {owner} can never decide: filter {by} of the same sublayer is heavier and matches all that they do", numbers(&filters)),
            mend: format!("`sluice filters --id {by}` shows the heavier one"),
            filters,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Condition, Provider, Sublayer, Value};
    use filter_engine::condition::ConditionValue;
    use sluice_host::Guid;

    const OURS: Key = Key::Guid(Guid(1));

    fn filter(id: u64, provider: u128, sublayer: u128, weight: u64, action: Action) -> Filter {
        Filter {
            id,
            key: Guid(id.into()).into(),
            name: format!("f{id}"),
            description: String::new(),
            flags: Vec::new(),
            provider: Some(Guid(provider).into()),
            layer: Key::parse("FWPM_LAYER_ALE_AUTH_CONNECT_V4"),
            sublayer: Guid(sublayer).into(),
            weight: Some(weight),
            conditions: Vec::new(),
            action,
            callout: None,
        }
    }

    fn protocol(number: u8) -> Condition {
        Condition {
            field: Key::parse("FWPM_CONDITION_IP_PROTOCOL"),
            match_type: "FWP_MATCH_EQUAL".into(),
            value: Value::Known(ConditionValue::Uint8(number)),
        }
    }

    fn platform(filters: Vec<Filter>) -> Platform {
        let provider = |key: u128, name: &str| Provider {
            key: Guid(key).into(),
            name: name.into(),
            description: String::new(),
            flags: Vec::new(),
            service: (key == 2).then(|| "gone".into()),
        };
        let sublayer = |key: u128, weight| Sublayer {
            key: Guid(key).into(),
            name: format!("s{key}"),
            description: String::new(),
            flags: Vec::new(),
            provider: None,
            weight,
        };
        let platform = Platform {
            providers: vec![provider(1, "ours"), provider(2, "theirs")],
            sublayers: vec![sublayer(10, 100), sublayer(20, 200), sublayer(30, 50)],
            filters,
            ..Platform::default()
        };
        platform.indexed()
    }

    fn kinds(filters: Vec<Filter>, exists: Option<bool>) -> Vec<(&'static str, Vec<u64>)> {
        let found = warnings(&platform(filters), &OURS, &|_| exists);
        found.into_iter().map(|warning| (warning.kind, warning.filters)).collect()
    }

    #[test]
    fn only_a_heavier_sublayer_that_decides_for_good_is_a_rival() {
        let ours = || filter(1, 1, 10, 5, Action::CalloutUnknown);
        let hard =
            Filter { flags: vec!["FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT".into()], ..filter(3, 2, 20, 4, Action::Permit) };
        let soft = filter(4, 2, 20, 3, Action::Permit);
        let lighter = filter(5, 2, 30, 3, Action::Block);
        let looks = filter(6, 2, 20, 9, Action::CalloutInspection);
        assert_eq!(
            kinds(vec![ours(), filter(2, 2, 20, 5, Action::CalloutTerminating), looks], Some(true)),
            [("rival", vec![2])]
        );
        assert_eq!(kinds(vec![ours(), hard], Some(true)), [("rival", vec![3])]);
        assert_eq!(kinds(vec![ours(), soft, lighter], Some(true)), []);
    }

    #[test]
    fn filters_of_a_service_that_is_gone_are_orphans() {
        let theirs = || vec![filter(2, 2, 30, 5, Action::Block)];
        assert_eq!(kinds(theirs(), Some(false)), [("orphan", vec![2])]);
        assert_eq!(kinds(theirs(), Some(true)), []);
        assert_eq!(kinds(theirs(), None), [], "nobody knows");
    }

    #[test]
    fn what_can_never_match_or_never_decide_is_found() {
        let with = |id, weight, action, conditions: &[u8]| {
            let conditions = conditions.iter().map(|number| protocol(*number)).collect();
            Filter { conditions, ..filter(id, 1, 10, weight, action) }
        };
        let port = Condition {
            field: Key::parse("FWPM_CONDITION_IP_REMOTE_PORT"),
            value: Value::Known(ConditionValue::Uint16(1)),
            ..protocol(0)
        };
        let never = Filter { conditions: vec![protocol(6), port, protocol(17)], ..filter(2, 1, 10, 1, Action::Block) };
        assert_eq!(kinds(vec![never], None), [("contradiction", vec![2])]);
        let same =
            vec![with(3, 9, Action::Permit, &[6]), with(4, 8, Action::Block, &[6]), with(5, 7, Action::Block, &[17])];
        assert_eq!(kinds(same, None), [("shadowed", vec![4])]);
        let all =
            vec![with(6, 9, Action::Permit, &[]), with(7, 8, Action::Block, &[6]), with(8, 9, Action::Block, &[6])];
        assert_eq!(kinds(all, None), [("shadowed", vec![7])], "equal weights have no known order");
        let callout = vec![with(9, 9, Action::CalloutUnknown, &[]), with(10, 8, Action::Block, &[6])];
        assert_eq!(kinds(callout, None), [], "a callout may leave it to others");
    }
}

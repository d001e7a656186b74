//! A policy as filters of Windows, as far as these can say it.
//!
//! The filters of a layer keep the policy's order: the first rule's are the heaviest, the default's the lightest, each
//! with a weight of its own (FWP_UINT64: the Base Filtering Engine takes it as it is). Within a filter several conditions
//! on one field are alternatives, which is what a list in a rule is. A rule that is too long for one filter becomes
//! several with the same action.

use super::conditions::{self, Group};
use super::essential;
use crate::objects::FILTER_PERSISTENT;
use serde::Serialize;
use sluice_host::{Condition, Filter, FilterAction, Guid, Weight};
use sluice_policy::model::{Action, Defaults, Policy, Rule};
use sluice_policy::{CompileOptions, Direction, resolved_applications};
use sluice_protocol::object::{self, Layer, Point, native};
use std::path::PathBuf;

/// FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT (fwpmtypes.h): a permit is hard.
const CLEAR_ACTION_RIGHT: u32 = 0x08;
/// At most this many alternatives on one field are in one filter.
pub const MOST_ALTERNATIVES: usize = 512;
/// At most this many filters are made of a policy, and at most this many conditions.
pub const MOST_FILTERS: usize = 4_096;
/// See [`MOST_FILTERS`].
pub const MOST_CONDITIONS: usize = 65_536;

/// The heaviest filter's weight; each one after it weighs one less.
const HEAVIEST: u64 = 1 << 32;

/// Where each direction is decided: at the layers of connections, or of packets that are passed on; `None` is left to the
/// driver. A direction that is not here would make its rules vanish.
const PLACES: [(Direction, Option<Point>); Direction::ALL.len()] = [
    (Direction::Outbound, Some(Point::Connect)),
    (Direction::Inbound, Some(Point::Accept)),
    (Direction::Forward, Some(Point::Forward)),
    (Direction::Listen, None),
    (Direction::Bind, None),
];
/// Why a direction without a place is left out.
const OF_THE_DRIVER: &str = "says who may have a port, which only the driver decides";

/// A rule that no filter can express.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name.
    pub rule: String,
    /// The policy file.
    pub file: PathBuf,
    /// The line on which it begins.
    pub line: usize,
    /// `permit`, `block` or `drop`.
    pub action: &'static str,
    /// Why.
    pub reason: String,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rule, file, line, action, reason } = self;
        write!(f, "{}:{line}: `{rule}` ({action}) {reason}", file.display())
    }
}

/// What a policy becomes.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// The filters, in the order of their weights.
    pub filters: Vec<Filter>,
    /// How many rules they express.
    pub rules: usize,
    /// Rules that they do not express: what these permit is decided by the rules after them.
    pub left: Vec<LeftOut>,
    /// What else differs from the same policy in the driver.
    pub notes: Vec<String>,
    conditions: usize,
}

impl Translation {
    /// The rules left out that would block or drop: without them the rest may permit more than the policy.
    pub fn opened(&self) -> impl Iterator<Item = &LeftOut> {
        self.left.iter().filter(|left| left.action != Action::Permit.word())
    }
}

/// Translates a policy whose interfaces have been resolved, with its programs as `options` resolve them.
#[must_use]
pub fn translate(policy: &Policy, options: &CompileOptions<'_>) -> Translation {
    let applications = resolved_applications(policy, options);
    let mut made = Translation::default();
    for (index, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| rule.enabled) {
        let line = policy.line_of(index).unwrap_or_default();
        match made.filters_of(policy, rule, &applications[index], line) {
            Ok(filters) => {
                made.rules += 1;
                filters.into_iter().for_each(|filter| made.push(filter));
            }
            Err(reason) => made.left.push(LeftOut {
                rule: rule.name.clone(),
                file: policy.path.clone(),
                line,
                action: rule.action.word(),
                reason,
            }),
        }
    }
    made.defaults(policy);
    made.notes = notes(policy);
    made
}

impl Translation {
    /// The filters of a rule at every layer.
    fn filters_of(
        &self,
        policy: &Policy,
        rule: &Rule,
        applications: &[Vec<u8>],
        line: usize,
    ) -> Result<Vec<Filter>, String> {
        if PLACES.iter().any(|(direction, place)| place.is_none() && rule.is_for(*direction)) {
            return Err(OF_THE_DRIVER.to_owned());
        }
        let embedded = policy.defaults.embedded_ipv4;
        let mut found = Vec::new();
        let (mut filters, mut conditions) = (0usize, 0usize);
        for (direction, ip_version, layer) in layers().filter(|(direction, ..)| rule.is_for(*direction)) {
            let Some(groups) = conditions::of(rule, applications, direction, ip_version, embedded)? else { continue };
            let parts = |group: &Group| group.len().div_ceil(MOST_ALTERNATIVES);
            let all: usize = groups.iter().map(parts).product();
            // A part of a group stands in as many filters as the other groups have parts.
            let each = |group: &Group| group.len().saturating_mul(all / parts(group));
            filters = filters.saturating_add(all);
            conditions = groups.iter().map(each).fold(conditions, usize::saturating_add);
            found.push((layer, groups));
        }
        if self.filters.len() + filters > MOST_FILTERS || self.conditions + conditions > MOST_CONDITIONS {
            return Err(format!(
                "makes {filters} filters with {conditions} conditions, and with those before it there can be \
                 {MOST_FILTERS} and {MOST_CONDITIONS}: shorten its lists"
            ));
        }
        let description = format!("{}:{line}", policy.path.display());
        let filter = |layer, conditions| Filter {
            flags: FILTER_PERSISTENT | if rule.action == Action::Permit && rule.hard { CLEAR_ACTION_RIGHT } else { 0 },
            conditions,
            ..bare(layer, format!("rule `{}`", rule.name), description.clone(), rule.action)
        };
        let split = |(layer, groups): (Guid, Vec<Group>)| {
            product(&groups).into_iter().map(move |conditions| (layer, conditions))
        };
        Ok(found.into_iter().flat_map(split).map(|(layer, conditions)| filter(layer, conditions)).collect())
    }

    /// What no rule decides: essential traffic first.
    fn defaults(&mut self, policy: &Policy) {
        let description = policy.path.display().to_string();
        for (direction, ip_version, layer) in layers() {
            let action = policy.defaults.of(direction);
            let kept = policy.defaults.essential && action != Action::Permit && direction != Direction::Forward;
            for (essential, groups) in kept.then(|| essential::conditions(ip_version)).into_iter().flatten() {
                let name = format!("essential: {}", essential.name());
                let bare = bare(layer, name, description.clone(), Action::Permit);
                self.push(Filter { conditions: groups.concat(), ..bare });
            }
            let name = format!("default of {}", direction.word());
            self.push(bare(layer, name, description.clone(), action));
        }
        for direction in PLACES.iter().filter(|(_, place)| place.is_none()).map(|(direction, _)| *direction) {
            // Without a filter everything passes there.
            let action = policy.defaults.of(direction);
            if action != Action::Permit {
                self.left.push(LeftOut {
                    rule: format!("default of {}", direction.word()),
                    file: policy.path.clone(),
                    line: 1,
                    action: action.word(),
                    reason: OF_THE_DRIVER.to_owned(),
                });
            }
        }
    }

    /// Adds the next lighter filter.
    fn push(&mut self, filter: Filter) {
        let number = self.filters.len() as u32;
        self.conditions += filter.conditions.len();
        let (key, weight) = (Some(Guid(native::filter(number))), Weight::Exact(HEAVIEST - u64::from(number)));
        self.filters.push(Filter { key, weight, ..filter });
    }
}

/// Every layer at which a direction is decided, with its IP version.
fn layers() -> impl Iterator<Item = (Direction, u8, Guid)> {
    PLACES
        .into_iter()
        .filter_map(|(direction, point)| Some((direction, object::layer(point?))))
        .flat_map(|(direction, Layer { v4, v6, .. })| [(direction, 4, Guid(v4.key)), (direction, 6, Guid(v6.key))])
}

/// A filter that matches everything.
fn bare(layer: Guid, name: String, description: String, action: Action) -> Filter {
    Filter {
        key: None,
        name: format!("{} native, {name}", object::NAME),
        description,
        flags: FILTER_PERSISTENT,
        provider: Some(Guid(native::PROVIDER)),
        layer,
        sublayer: Guid(native::SUBLAYER),
        weight: Weight::Auto,
        conditions: Vec::new(),
        action: match action {
            Action::Permit => FilterAction::Permit,
            // A rule that asks is left out, or refused with its policy.
            Action::Block | Action::Drop | Action::Ask(_) => FilterAction::Block,
        },
    }
}

/// The conditions of the filters that together are all of the groups: a part of each group in each.
fn product(groups: &[Group]) -> Vec<Vec<Condition>> {
    groups.iter().fold(vec![Vec::new()], |made, group| {
        let extended = |before: &Vec<Condition>| {
            group.chunks(MOST_ALTERNATIVES).map(|part| [before, part].concat()).collect::<Vec<_>>()
        };
        made.iter().flat_map(extended).collect()
    })
}

/// What filters do in another way than the driver.
fn notes(policy: &Policy) -> Vec<String> {
    let rules = || policy.rules.iter().filter(|rule| rule.enabled);
    // All by name: a new default does not compile until it is a filter, or noted.
    // Those of ports are left out, aloud.
    let Defaults {
        outbound,
        inbound,
        forward,
        listen: _,
        bind: _,
        log,
        essential: _,
        embedded_ipv4: _,
        shared_permit: _,
    } = policy.defaults;
    let defaults = [outbound, inbound, forward];
    let mut notes = Vec::new();
    if rules().any(|rule| rule.action == Action::Drop) || defaults.contains(&Action::Drop) {
        notes.push("`drop` is `block` here: only the driver keeps closed ports from answering".to_owned());
    }
    if rules().any(|rule| matches!(rule.action, Action::Block | Action::Drop) && !rule.hard) {
        notes.push("a soft block is hard here, as every filter's block is".to_owned());
    }
    if rules().any(|rule| rule.log) || log {
        notes.push("`log` has no effect: there are no events without the driver; Windows records what is dropped (`sluice netevents`)".to_owned());
    }
    notes
}

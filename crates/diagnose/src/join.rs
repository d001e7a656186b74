//! Events and the filters that they name.

use crate::platform::Platform;
use crate::query::{layer, understood};
use crate::record::{Ends, Filter, NetEvent};
use crate::traffic::Traffic;
use filter_engine::explain::Matching;
use serde::Serialize;

/// What the filter with an event's filterId is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "why")]
pub enum Identity {
    /// As far as can be told, the one that decided: it is at the event's layer, and nothing that the event tells is
    /// against its conditions.
    ThisOne,
    /// Another, which got the number later or belongs to another machine: what is against it.
    Another(String),
    /// There is no filter with this number: it was deleted, or the state is of another time or machine.
    Gone,
    /// The event names no filter, or 0.
    Unnamed,
}

/// Finds the filter that an event names, and whether it can be the one.
#[must_use]
pub fn filter_of<'p>(platform: &'p Platform, event: &NetEvent) -> (Option<&'p Filter>, Identity) {
    let Some(id) = event.filter_id.filter(|id| *id != 0) else { return (None, Identity::Unnamed) };
    let Some(filter) = platform.filter(id) else { return (None, Identity::Gone) };
    match against(platform, filter, event) {
        Some(why) => (Some(filter), Identity::Another(why)),
        None => (Some(filter), Identity::ThisOne),
    }
}

/// What shows that a filter did not decide about an event.
fn against(platform: &Platform, filter: &Filter, event: &NetEvent) -> Option<String> {
    if let Some(key) = event.layer_id.and_then(|id| platform.layer_key(id))
        && key != filter.layer
    {
        return Some(format!("it is at {}, and the event at {}", filter.layer.short(), key.short()));
    }
    if filter.action == crate::record::Action::CalloutInspection {
        return Some("its callout only inspects, and decides nothing".to_owned());
    }
    if event.kind.is_drop() && filter.action == crate::record::Action::Permit {
        return Some("it permits, and the event is a drop".to_owned());
    }
    let layer = layer(&filter.layer)?;
    let traffic = Traffic::of_event(event);
    let mut sides = vec![traffic.clone()];
    if event.ends == Ends::SourceDestination {
        sides.push(traffic.reversed());
    }
    let conditions: Vec<_> = filter.conditions.iter().map(understood).collect();
    let mut failing = None;
    for side in sides {
        match side.facts(layer).matching(conditions.iter().map(Option::as_ref)) {
            Matching::No { condition } => failing = Some(condition),
            Matching::Yes | Matching::Unknown { .. } => return None,
        }
    }
    let condition = filter.conditions.get(failing?)?;
    let field = condition.field.clone();
    let more = filter.conditions.iter().filter(|other| other.field == field).count() - 1;
    let more = if more > 0 { format!(" (and {more} alternatives)") } else { String::new() };
    Some(format!("its condition {condition}{more} does not hold for this traffic"))
}

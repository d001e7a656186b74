//! Finds rules that can never match or change nothing, lists that overlap where it matters, paths that are no program's,
//! tunnels that pass unnoticed, rules about ports that are passed by, and policies that cut their machine off.

mod anywhere;
mod cut_off;
mod idle;
mod paths;
mod tunnels;

use crate::{
    diagnostic::{Diagnostic, Severity},
    flow::Direction,
    model::{AddressSet, List, NumberSet, Policy, Rule, SidBuf, names::Scope, program::fold},
};
use std::{collections::HashSet, sync::Arc};

/// The most rules for which each is compared with all before it; beyond that, each is compared with this many before
/// it.
const PAIRS: usize = 4000;

/// What is questionable about a policy as a whole. A rule is shadowed when one earlier rule matches everything it could
/// match; several that do so together are not noticed.
#[must_use]
pub fn lint(policy: &Policy) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    shadowed(policy, &mut found);
    idle::idle(policy, &mut found);
    paths::variables(policy, &mut found);
    overlapping(policy, &mut found);
    tunnels::passing(policy, &mut found);
    cut_off::cut_off(policy, &mut found);
    anywhere::missed(policy, &mut found);
    found
}

fn warning(policy: &Policy, span: std::ops::Range<usize>, message: String) -> Diagnostic {
    Diagnostic::new(Severity::Warning, &policy.path, &policy.text, span).message(message)
}

fn shadowed(policy: &Policy, found: &mut Vec<Diagnostic>) {
    for (index, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| rule.enabled) {
        let earlier = policy.rules[..index].iter().rev().take(PAIRS).filter(|one| one.enabled);
        // A rule with a schedule is inactive at times.
        let by =
            earlier.filter(|one| one.schedule.is_none() || one.schedule == rule.schedule).find(|one| covers(one, rule));
        if let Some(by) = by {
            let same = if by.action == rule.action { ", with the same action" } else { "" };
            let message = format!(
                "rule `{}` can never match: rule `{}` comes first and matches everything it could{same}",
                rule.name, by.name
            );
            let help =
                if same.is_empty() { "move the narrower rule up, or remove it" } else { "remove one of the two" };
            found.push(warning(policy, rule.span.clone(), message).key(format!("rule[{index}]")).help(help));
        }
    }
}

/// Whether every flow that `rule` matches is matched by `by`.
fn covers(by: &Rule, rule: &Rule) -> bool {
    let numbers = |own: &Option<NumberSet>, other: &Option<NumberSet>| match (own, other) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(own), Some(other)) => own.covers(other),
    };
    let addresses = |own: &Option<Arc<AddressSet>>, other: &Option<Arc<AddressSet>>| match (own, other) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(own), Some(other)) => Arc::ptr_eq(own, other) || own.covers(other),
    };
    let identities = |own: &Option<Vec<SidBuf>>, other: &Option<Vec<SidBuf>>| match (own, other) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(own), Some(other)) => other.iter().all(|one| own.contains(one)),
    };
    // All fields by name: a new condition does not compile until it is compared.
    let Rule {
        name: _,
        note: _,
        action: _,
        hard: _,
        log: _,
        enabled: _,
        direction: _,
        protocols,
        remote,
        local,
        remote_ports,
        local_ports,
        applications: _,
        users,
        groups,
        services,
        packages,
        interfaces,
        aliases,
        names: _,
        undecidable_matches,
        schedule: _,
        expectations: _,
        span: _,
    } = by;
    let directions = Direction::ALL.into_iter().all(|one| by.is_for(one) || !rule.is_for(one));
    // What cannot be read of a forwarded packet.
    let asks = protocols.is_some() || remote_ports.is_some() || local_ports.is_some();
    let unreadable =
        rule.direction != Some(Direction::Forward) || !rule.undecidable_matches || *undecidable_matches || !asks;
    directions
        && unreadable
        && numbers(protocols, &rule.protocols)
        && numbers(remote_ports, &rule.remote_ports)
        && numbers(local_ports, &rule.local_ports)
        && numbers(interfaces, &rule.interfaces)
        && (interfaces.is_none() || rule.aliases.iter().all(|alias| aliases.iter().any(|own| own.value == alias.value)))
        && applications_cover(by, rule)
        && identities(users, &rule.users)
        && identities(groups, &rule.groups)
        && identities(services, &rule.services)
        && identities(packages, &rule.packages)
        && names_cover(by, rule)
        && addresses(remote, &rule.remote)
        && addresses(local, &rule.local)
}

fn applications_cover(by: &Rule, rule: &Rule) -> bool {
    match (&by.applications, &rule.applications) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(own), Some(other)) => other.iter().all(|path| {
            own.iter().any(|one| {
                let (one, path) = (fold(&one.value), fold(&path.value));
                one == path || one.strip_suffix('*').is_some_and(|directory| path.starts_with(directory))
            })
        }),
    }
}

fn names_cover(by: &Rule, rule: &Rule) -> bool {
    match (&by.names, &rule.names) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(own), Some(other)) => {
            let undecidable = by.undecidable_matches || !rule.undecidable_matches;
            // Exceptions are not considered.
            if own.has_exceptions() && !Arc::ptr_eq(own, other) {
                return false;
            }
            // Large lists are compared only with themselves.
            let small = own.len() * other.len() <= 100_000;
            let same = Arc::ptr_eq(own, other);
            undecidable
                && (same
                    || small
                        && other.iter().all(|(name, scope)| match scope {
                            Scope::Exact => own.contains(name),
                            Scope::Below => below_covered(own, name),
                            Scope::Both => own.contains(name) && below_covered(own, name),
                        }))
        }
    }
}

/// Whether everything below `name` is in the set.
fn below_covered(set: &crate::model::NameSet, name: &str) -> bool {
    set.iter().any(|(entry, scope)| {
        let at_or_above = name == entry || name.strip_suffix(entry).is_some_and(|rest| rest.ends_with('.'));
        scope != Scope::Exact && at_or_above
    })
}

/// Lists with common entries that are used by rules with different verdicts: the order of the rules decides for those.
fn overlapping(policy: &Policy, found: &mut Vec<Diagnostic>) {
    for (index, list) in policy.lists.iter().enumerate() {
        for other in &policy.lists[..index] {
            if !disputed(policy, list, other) {
                continue;
            }
            let (common, what) = match (&list.addresses, &other.addresses, &list.names, &other.names) {
                (Some(own), Some(other), ..) => (common_ranges(own, other), "address ranges"),
                (_, _, Some(own), Some(other)) => {
                    let known: HashSet<&str> = other.iter().map(|(name, _)| name).collect();
                    (own.iter().filter(|(name, _)| known.contains(name)).count(), "names")
                }
                _ => (0, ""),
            };
            if common > 0 {
                let message = format!(
                    "lists `{}` and `{}` have {common} {what} in common and are used by rules with different verdicts",
                    other.name, list.name
                );
                let help = "the first rule decides for those";
                found.push(warning(policy, list.span.clone(), message).key(format!("list.{}", list.name)).help(help));
            }
        }
    }
}

fn disputed(policy: &Policy, list: &List, other: &List) -> bool {
    let same =
        |a: Option<&Arc<AddressSet>>, b: Option<&Arc<AddressSet>>| a.zip(b).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
    let uses = |rule: &Rule, list: &List| {
        let names = rule.names.as_ref().zip(list.names.as_ref()).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
        let list = list.addresses.as_ref();
        names || same(rule.remote.as_ref(), list) || same(rule.local.as_ref(), list)
    };
    let verdicts = |list: &List| -> Vec<_> {
        policy.rules.iter().filter(|rule| uses(rule, list)).map(|rule| rule.action.verdict()).collect()
    };
    let own = verdicts(list);
    verdicts(other).iter().any(|verdict| own.iter().any(|one| one != verdict))
}

fn common_ranges(a: &AddressSet, b: &AddressSet) -> usize {
    let four = a.v4.ranges().iter().filter(|range| overlaps(&b.v4, **range)).count();
    four + a.v6.ranges().iter().filter(|range| overlaps(&b.v6, **range)).count()
}

fn overlaps<A: crate::model::address::AddressBits>(
    set: &crate::model::address::Ranges<A>,
    (low, high): (A, A),
) -> bool {
    let after = set.ranges().partition_point(|range| range.1 < low);
    set.ranges().get(after).is_some_and(|range| range.0 <= high)
}

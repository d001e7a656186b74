//! Which flows two policies decide differently.
//!
//! For every pair of rules (defaults included) whose conditions can hold together and whose verdicts differ, flows are
//! made from the edges of what both match and decided by both images. So every reported difference is real; one that
//! shows only far from edges may be missed.

use crate::{
    compile::{CompileOptions, compile},
    diagnostic::Errors,
    flow::{Decision, Direction},
    image::Image,
    model::{AddressSet, FlowSpec, NumberSet, Policy, Rule, SidBuf, names::Scope},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Flows with the same change.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// The rule that decides in the first policy; none for its default.
    pub old_rule: Option<String>,
    /// What it says.
    pub old: Decision,
    /// The rule that decides in the second policy.
    pub new_rule: Option<String>,
    /// What it says.
    pub new: Decision,
    /// An example flow.
    pub example: FlowSpec,
    /// How many of the flows tried changed in this way.
    pub flows: usize,
}

/// The most rules whose pairs are all tried; in larger policies, only pairs with rules that differ.
const ALL_PAIRS: usize = 1500;
/// Flows tried per pair.
const TRIES: usize = 32;

/// Compares two policies.
///
/// # Errors
/// One of them does not compile.
pub fn diff(old: &Policy, new: &Policy, options: &CompileOptions<'_>) -> Result<Vec<Change>, Errors> {
    let image = |policy: &Policy| -> Result<Image<Vec<u8>>, Errors> {
        let bytes = compile(policy, options)?;
        Image::validate(bytes).map_err(|error| Errors {
            diagnostics: vec![
                crate::Diagnostic::new(crate::Severity::Error, &policy.path, &policy.text, 0..0)
                    .message(error.to_string()),
            ],
        })
    };
    let (old_image, new_image) = (image(old)?, image(new)?);
    let mut changes: BTreeMap<(Option<u32>, Option<u32>, bool), Change> = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut try_flow = |flow: FlowSpec| {
        if !seen.insert(flow.clone()) {
            return;
        }
        let decided = flow.with(options.application, |one| (old_image.decide(one), new_image.decide(one)));
        let Ok((before, after)) = decided else { return };
        if (before.verdict, before.silent, before.hard) == (after.verdict, after.silent, after.hard) {
            return;
        }
        let inbound = flow.direction == Direction::Inbound;
        let name =
            |image: &Image<Vec<u8>>, rule: Option<u32>| rule.and_then(|rule| image.rule_name(rule)).map(str::to_owned);
        let change = changes.entry((before.rule, after.rule, inbound)).or_insert_with(|| Change {
            old_rule: name(&old_image, before.rule),
            old: before,
            new_rule: name(&new_image, after.rule),
            new: after,
            example: flow.clone(),
            flows: 0,
        });
        change.flows += 1;
        if oddness(&flow) < oddness(&change.example) {
            change.example = flow;
        }
    };
    let everything: [Option<&Rule>; 1] = [None];
    let same = |a: &Rule, b: &Rule| format!("{a:?}").split("span:").next() == format!("{b:?}").split("span:").next();
    let all = old.rules.len().max(new.rules.len()) <= ALL_PAIRS;
    let differing = |own: &'_ Policy, other: &Policy| -> Vec<usize> {
        let at = |index: usize| other.rules.get(index);
        (0..own.rules.len())
            .filter(|&index| all || at(index).is_none_or(|rule| !same(&own.rules[index], rule)))
            .collect()
    };
    let (old_rules, new_rules) = (differing(old, new), differing(new, old));
    for first in everything.into_iter().chain(old_rules.iter().map(|index| Some(&old.rules[*index]))) {
        for second in [None].into_iter().chain(new_rules.iter().map(|index| Some(&new.rules[*index]))) {
            let worth = match (first, second) {
                (Some(a), Some(b)) => (a.action, a.hard) != (b.action, b.hard),
                _ => true,
            };
            if worth {
                witnesses(first, second, &mut try_flow);
            }
        }
    }
    Ok(changes.into_values().collect())
}

/// How unusual a flow is: the plainest of many is shown.
fn oddness(flow: &FlowSpec) -> usize {
    let protocol = match flow.protocol {
        6 => 0,
        17 => 1,
        _ => 2,
    };
    let named = [flow.application.is_some(), !flow.users.is_empty(), flow.interface.is_some()];
    protocol + named.into_iter().filter(|one| *one).count() + usize::from(flow.local.0 == flow.remote.0)
}

/// Flows from the edges of what both rules match.
fn witnesses(first: Option<&Rule>, second: Option<&Rule>, give: &mut impl FnMut(FlowSpec)) {
    let rules: Vec<&Rule> = [first, second].into_iter().flatten().collect();
    let sets = |get: fn(&Rule) -> Option<&NumberSet>, usual: &[u64]| -> Vec<u64> {
        let sets: Vec<&NumberSet> = rules.iter().filter_map(|rule| get(rule)).collect();
        let edges = sets.iter().flat_map(|set| set.ranges().iter().take(8).flat_map(|range| [range.0, range.1]));
        edges.chain(usual.iter().copied()).filter(|value| sets.iter().all(|set| set.contains(*value))).take(6).collect()
    };
    let directions: Vec<Direction> = [Direction::Outbound, Direction::Inbound]
        .into_iter()
        .filter(|direction| rules.iter().all(|rule| rule.direction.is_none_or(|one| one == *direction)))
        .collect();
    let protocols = sets(|rule| rule.protocols.as_ref(), &[6, 17, 1, 58, 47]);
    let remote_ports = sets(|rule| rule.remote_ports.as_ref(), &[443, 50000, 0]);
    let local_ports = sets(|rule| rule.local_ports.as_ref(), &[50000, 443, 8]);
    let remotes = addresses(rules.iter().filter_map(|rule| rule.remote.as_deref()).collect(), 9);
    let locals = addresses(rules.iter().filter_map(|rule| rule.local.as_deref()).collect(), 5);
    let mut applications: Vec<Option<String>> = rules
        .iter()
        .flat_map(|rule| rule.applications.iter().flatten())
        .map(|path| Some(inside(&path.value)))
        .collect();
    let mut users: Vec<Vec<SidBuf>> = rules.iter().flat_map(|rule| identities(rule)).map(|one| vec![one]).collect();
    // An owner with every identity that both rules require.
    users.push(rules.iter().flat_map(|rule| first_identities(rule)).collect());
    users.push(Vec::new());
    let interfaces: Vec<Option<u64>> =
        sets(|rule| rule.interfaces.as_ref(), &[6 << 48]).into_iter().map(Some).chain([None]).collect();
    let names: Vec<Option<Option<String>>> = rules
        .iter()
        .filter_map(|rule| rule.names.as_ref())
        .flat_map(|set| set.iter().take(4))
        .map(|(name, scope)| Some(Some(if scope == Scope::Below { format!("www.{name}") } else { name.to_owned() })))
        .chain([None, Some(None)])
        .collect();
    applications.push(None);
    for v4 in [true, false] {
        let family =
            |all: &[IpAddr]| -> Vec<IpAddr> { all.iter().copied().filter(|one| one.is_ipv4() == v4).collect() };
        let (remotes, locals) = (family(&remotes), family(&locals));
        for step in 0..TRIES {
            // Edges of different conditions must occur in every combination: the choice for one must not determine
            // another.
            let pick = |length: usize, of: u64| {
                let mixed = (step as u64 * 13 + of).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
                (length > 0).then(|| mixed as usize % length)
            };
            let (Some(direction), Some(protocol), Some(remote), Some(local), Some(remote_port), Some(local_port)) = (
                pick(directions.len(), 0),
                pick(protocols.len(), 1),
                pick(remotes.len(), 2),
                pick(locals.len(), 3),
                pick(remote_ports.len(), 4),
                pick(local_ports.len(), 5),
            ) else {
                break;
            };
            let any = |length: usize, of: u64| pick(length, of).unwrap_or(0);
            let protocol = protocols[protocol] as u8;
            // Ports without a condition become an echo request's type and code for ICMP.
            let icmp = |ports: u16, asked: bool, usual: u16| {
                if matches!(protocol, 1 | 58) && !asked { usual } else { ports }
            };
            let (own_asked, other_asked) = (
                rules.iter().any(|rule| rule.local_ports.is_some()),
                rules.iter().any(|rule| rule.remote_ports.is_some()),
            );
            let echo = if protocol == 1 { 8 } else { 128 };
            give(FlowSpec {
                direction: directions[direction],
                protocol,
                local: (locals[local], icmp(local_ports[local_port] as u16, own_asked, echo)),
                remote: (remotes[remote], icmp(remote_ports[remote_port] as u16, other_asked, 0)),
                application: applications[any(applications.len(), 6)].clone(),
                users: users[any(users.len(), 7)].clone(),
                interface: interfaces[any(interfaces.len(), 8)],
                remote_name: names[any(names.len(), 9)].clone(),
            });
        }
    }
}

/// The sets of identities that a rule requires.
fn asked(rule: &Rule) -> impl Iterator<Item = &Vec<SidBuf>> {
    // All fields by name: a new condition does not compile until witnesses for it are made.
    let Rule {
        name: _,
        note: _,
        action: _,
        hard: _,
        log: _,
        enabled: _,
        direction: _,
        protocols: _,
        remote: _,
        local: _,
        remote_ports: _,
        local_ports: _,
        applications: _,
        users,
        groups,
        services,
        packages,
        interfaces: _,
        names: _,
        undecidable_matches: _,
        schedule: _,
        expectations: _,
        span: _,
    } = rule;
    [users, groups, services, packages].into_iter().flatten()
}

fn identities(rule: &Rule) -> impl Iterator<Item = SidBuf> {
    asked(rule).flatten().cloned()
}

fn first_identities(rule: &Rule) -> impl Iterator<Item = SidBuf> {
    asked(rule).filter_map(|set| set.first()).cloned()
}

/// A program a pattern matches.
fn inside(pattern: &str) -> String {
    pattern.strip_suffix('*').map_or_else(|| pattern.to_owned(), |directory| format!("{directory}program.exe"))
}

/// Addresses from the edges of all sets; hosts of that number in the documentation networks come first.
fn addresses(sets: Vec<&AddressSet>, host: u8) -> Vec<IpAddr> {
    let six = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into());
    let usual = [IpAddr::V4(Ipv4Addr::new(198, 51, 100, host)), IpAddr::V6(six)];
    let four = sets.iter().flat_map(|set| set.v4.ranges().iter().take(16)).flat_map(|range| [range.0, range.1]);
    let six = sets.iter().flat_map(|set| set.v6.ranges().iter().take(16)).flat_map(|range| [range.0, range.1]);
    let edges = four.map(|bits| IpAddr::V4(bits.into())).chain(six.map(|bits| IpAddr::V6(bits.into())));
    usual.into_iter().chain(edges).filter(|address| sets.iter().all(|set| set.contains(*address))).collect()
}

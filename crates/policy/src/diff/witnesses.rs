//! Flows to try: from the edges of what rules match.

use crate::{
    flow::{Direction, unspecified},
    model::{AddressSet, FlowSpec, NumberSet, Rule, SidBuf, names::Scope},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What alone listens.
const TCP: u8 = 6;

/// Flows tried for a pair, of each family.
const TRIES: usize = 32;

/// Flows from the edges of what both rules match.
pub(super) fn witnesses(first: Option<&Rule>, second: Option<&Rule>, give: &mut impl FnMut(FlowSpec)) {
    let rules: Vec<&Rule> = [first, second].into_iter().flatten().collect();
    let sets = |get: fn(&Rule) -> Option<&NumberSet>, usual: &[u64]| -> Vec<u64> {
        let sets: Vec<&NumberSet> = rules.iter().filter_map(|rule| get(rule)).collect();
        let edges = sets.iter().flat_map(|set| set.ranges().iter().take(8).flat_map(|range| [range.0, range.1]));
        edges.chain(usual.iter().copied()).filter(|value| sets.iter().all(|set| set.contains(*value))).take(6).collect()
    };
    let directions: Vec<Direction> =
        Direction::ALL.into_iter().filter(|direction| rules.iter().all(|rule| rule.is_for(*direction))).collect();
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
            let direction = directions[direction];
            // Of what is forwarded nothing is known but its headers; and of what a program asks for no other side.
            let known = direction != Direction::Forward;
            let other = !direction.is_local();
            let protocol = if direction == Direction::Listen { TCP } else { protocol };
            give(FlowSpec {
                direction,
                protocol,
                local: (locals[local], icmp(local_ports[local_port] as u16, own_asked, echo)),
                remote: if other {
                    (remotes[remote], icmp(remote_ports[remote_port] as u16, other_asked, 0))
                } else {
                    (unspecified(locals[local]), 0)
                },
                application: applications[any(applications.len(), 6)].clone().filter(|_| known),
                users: if known { users[any(users.len(), 7)].clone() } else { Vec::new() },
                interface: interfaces[any(interfaces.len(), 8)].filter(|_| known && other),
                remote_name: names[any(names.len(), 9)].clone().filter(|_| known && other),
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
        aliases: _,
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
pub(crate) fn inside(pattern: &str) -> String {
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

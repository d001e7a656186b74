//! Protocols that carry whole packets: the packets inside are not decided, so a policy that blocks the rest must not
//! let them pass unnoticed.

use super::{covers, warning};
use crate::{
    diagnostic::Diagnostic,
    file::BUILT_IN,
    flow::{Direction, Verdict},
    model::{Action, AddressSet, NumberSet, Policy, Rule, address::AddressCollector},
};
use std::fmt;

/// A way to carry packets in packets.
#[derive(Clone, Copy, Debug)]
enum Tunnel {
    /// An IP protocol.
    Protocol(u8, &'static str),
    /// UDP to one port.
    Udp(u16, &'static str),
}

/// Numbers from IANA's lists of protocols and ports; Teredo's port is RFC 4380's.
const TUNNELS: [Tunnel; 7] = [
    Tunnel::Protocol(4, "ipip"),
    Tunnel::Protocol(41, "ipv6"),
    Tunnel::Protocol(47, "gre"),
    Tunnel::Protocol(50, "esp"),
    Tunnel::Protocol(51, "ah"),
    Tunnel::Protocol(115, "l2tp"),
    Tunnel::Udp(3544, "Teredo"),
];

const TCP: u64 = 6;
const UDP: u64 = 17;

impl Tunnel {
    /// `rule`, for this tunnel alone.
    fn of(self, rule: &Rule) -> Rule {
        let one = |number: u64| Some(NumberSet::from_ranges(vec![(number, number)]));
        match self {
            Self::Protocol(number, _) => Rule { protocols: one(number.into()), ..rule.clone() },
            Self::Udp(port, _) => Rule { protocols: one(UDP), remote_ports: one(port.into()), ..rule.clone() },
        }
    }

    /// Whether a rule matches it without naming it.
    fn slips_through(self, rule: &Rule) -> bool {
        let any_port = rule.remote_ports.is_none() && rule.local_ports.is_none();
        match (self, &rule.protocols) {
            (_, None) => any_port,
            (Self::Protocol(..), Some(_)) => false,
            (Self::Udp(..), Some(protocols)) => any_port && protocols.contains(UDP),
        }
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(number, name) => write!(f, "{name} ({number})"),
            Self::Udp(port, name) => write!(f, "{name} (UDP {port})"),
        }
    }
}

/// Warns of permits that let tunnels pass without naming them, where TCP and UDP are blocked by default.
pub(super) fn passing(policy: &Policy, found: &mut Vec<Diagnostic>) {
    for (direction, default) in
        [(Direction::Outbound, policy.defaults.outbound), (Direction::Inbound, policy.defaults.inbound)]
    {
        let everything = Rule { action: default, direction: Some(direction), ..Rule::everything() };
        let blocked = |protocol: u64| {
            let protocols = Some(NumberSet::from_ranges(vec![(protocol, protocol)]));
            let all = Rule { protocols, ..everything.clone() };
            decider(policy, policy.rules.len(), &all).map_or(default, |rule| rule.action).verdict() == Verdict::Block
        };
        if !blocked(TCP) || !blocked(UDP) {
            continue;
        }
        let permits = |rule: &Rule| {
            let applies = rule.direction.is_none_or(|one| one == direction) && rule.enabled;
            applies && rule.action == Action::Permit && speaks_of_anybody(rule)
        };
        let mut slipping = (0..policy.rules.len())
            .filter(|index| permits(&policy.rules[*index]))
            .filter(|index| TUNNELS.iter().any(|tunnel| tunnel.slips_through(&policy.rules[*index])));
        // One warning, however many rules are written alike.
        while let Some(index) = slipping.next() {
            let rule = Rule { direction: Some(direction), ..policy.rules[index].clone() };
            let passing = passing_by(policy, index, &rule);
            if passing.is_empty() {
                continue;
            }
            let what = match slipping.count() {
                0 => format!("rule `{}` lets", rule.name),
                more => format!("rule `{}`, and {more} more that name no protocol, let", rule.name),
            };
            warn(policy, &passing, (rule.span.clone(), format!("rule[{index}]")), &what, found);
            break;
        }
        if default == Action::Permit {
            let passing = passing_by(policy, policy.rules.len(), &everything);
            let what = format!("the default for {} flows lets", direction.word());
            warn(policy, &passing, (0..0, "default".to_owned()), &what, found);
        }
    }
}

/// The tunnels that `rule`, at `index`, lets pass.
fn passing_by(policy: &Policy, index: usize, rule: &Rule) -> Vec<String> {
    let reaches = |tunnel: &&Tunnel| tunnel.slips_through(rule) && decider(policy, index, &tunnel.of(rule)).is_none();
    TUNNELS.iter().filter(reaches).map(ToString::to_string).collect()
}

/// One warning for both directions.
fn warn(
    policy: &Policy,
    passing: &[String],
    (span, key): (std::ops::Range<usize>, String),
    what: &str,
    found: &mut Vec<Diagnostic>,
) {
    let same = format!("{what} tunnels pass");
    if passing.is_empty() || found.iter().any(|one| one.message.starts_with(&same)) {
        return;
    }
    let message = format!(
        "{same}: {}; what they carry is not decided, and TCP and UDP are blocked by default",
        passing.join(", ")
    );
    let help = "say which `protocol` is meant, or block these in a rule before";
    found.push(warning(policy, span, message).key(key).help(help));
}

/// The first rule before `index` that matches everything `rule` does.
fn decider<'p>(policy: &'p Policy, index: usize, rule: &Rule) -> Option<&'p Rule> {
    policy.rules[..index].iter().filter(|one| one.enabled && one.schedule.is_none()).find(|one| covers(one, rule))
}

/// Whether a rule applies to any owner, and to machines outside the local network.
fn speaks_of_anybody(rule: &Rule) -> bool {
    let Rule { applications, users, groups, services, packages, interfaces, names, remote, .. } = rule;
    let anybody = applications.is_none()
        && [users, groups, services, packages].iter().all(|identities| identities.is_none())
        && interfaces.is_none()
        && names.is_none();
    anybody && remote.as_ref().is_none_or(|remote| !near().covers(remote))
}

/// The addresses of the local network.
fn near() -> AddressSet {
    let mut near = AddressCollector::default();
    for (_, entries) in BUILT_IN {
        entries
            .iter()
            .filter_map(|entry| crate::model::address::parse_range(entry).ok())
            .for_each(|range| near.add(range));
    }
    near.finish()
}

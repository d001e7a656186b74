//! Which endpoints a policy speaks of, and what it says of a connection to each.

use crate::objects::Prefix;
use serde::Serialize;
use sluice_policy::model::address::AddressBits;
use sluice_policy::model::{Decider, FlowSpec, Policy, Rule};
use sluice_policy::{CompileOptions, Direction, Errors, Fact, Verdict, depends_on, possible};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// At most this many endpoints are taken from a policy.
pub const MOST_ENDPOINTS: usize = 64;
/// The port of a rule that names none.
const HTTPS: u16 = 443;
/// TCP.
const TCP: u8 = 6;

/// An endpoint to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Its address and port, by TCP.
    pub remote: SocketAddr,
    /// Where it comes from: `given`, a rule, or an expectation with its line.
    pub from: String,
    /// Whether the caller allows a connection to it.
    pub allowed: bool,
    /// `permit` or `block`; none where that depends on what is not known here.
    pub expected: Option<&'static str>,
    /// What decides, or what it depends on.
    pub by: String,
}

/// The endpoints that the caller gives, then those of expectations, then one of each IP version for each rule that names
/// addresses; each with what the policy says of a connection by `program`.
///
/// # Errors
/// The policy does not compile.
pub fn plan(
    policy: &Policy,
    options: &CompileOptions<'_>,
    program: Option<&str>,
    given: &[SocketAddr],
    allowed: &[Prefix],
) -> Result<Vec<Endpoint>, Errors> {
    let mut seen = BTreeSet::new();
    let mut endpoints = Vec::new();
    let given = given.iter().map(|remote| (*remote, "given".to_owned(), true));
    let of_policy = of_expectations(policy).chain(of_rules(policy)).take(MOST_ENDPOINTS).map(|(remote, from)| {
        let allowed = allowed.iter().any(|prefix| prefix.contains(remote.ip()));
        (remote, from, allowed)
    });
    for (remote, from, allowed) in given.chain(of_policy) {
        if seen.insert(remote) {
            let (expected, by) = expected(policy, options, program, remote)?;
            endpoints.push(Endpoint { remote, from, allowed, expected, by });
        }
    }
    Ok(endpoints)
}

/// What the policy says of a connection to `remote`.
fn expected(
    policy: &Policy,
    options: &CompileOptions<'_>,
    program: Option<&str>,
    remote: SocketAddr,
) -> Result<(Option<&'static str>, String), Errors> {
    // Its own address and port are chosen by the system when it connects.
    let local: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let flow = FlowSpec {
        direction: Direction::Outbound,
        protocol: TCP,
        local: (local, 0),
        remote: (remote.ip(), remote.port()),
        application: program.map(str::to_owned),
        users: Vec::new(),
        interface: None,
        remote_name: None,
    };
    let outcomes = possible(policy, options, &flow)?;
    let depends = depends_on(&outcomes);
    let Some(first) = outcomes.first().filter(|_| depends.is_empty()) else {
        let facts: Vec<&str> = depends.iter().map(|fact: &Fact| fact.name()).collect();
        return Ok((None, format!("depends on {}", facts.join(" and "))));
    };
    if let Some(rule) = policy.rules.iter().find(|rule| asks_for_its_own_side(rule)) {
        return Ok((None, format!("rule `{}` asks for a local address or port", rule.name)));
    }
    if first.decision.asks.is_some() {
        return Ok((None, format!("depends on who answers rule `{}`", first.rule.as_deref().unwrap_or_default())));
    }
    let verdict = if first.decision.verdict == Verdict::Permit { "permit" } else { "block" };
    Ok((Some(verdict), Decider::of(&first.decision, first.rule.as_deref()).to_string()))
}

/// Whether an outbound rule's local address or port may decide, which is not known before the connection.
fn asks_for_its_own_side(rule: &Rule) -> bool {
    rule.enabled
        && rule.is_for(Direction::Outbound)
        && (rule.local.is_some() || rule.local_ports.is_some())
        && is_tcp(rule)
}

fn is_tcp(rule: &Rule) -> bool {
    rule.protocols.as_ref().is_none_or(|set| set.contains(TCP.into()))
}

/// Of the policy's own tests, those of a connection.
fn of_expectations(policy: &Policy) -> impl Iterator<Item = (SocketAddr, String)> {
    let all = policy.expectations.iter().chain(policy.rules.iter().flat_map(|rule| &rule.expectations));
    all.filter_map(|expectation| {
        let FlowSpec { direction, protocol, remote: (address, port), .. } = expectation.flow;
        let connects = direction == Direction::Outbound && protocol == TCP && port != 0 && is_a_host(address);
        let what = || format!("the expectation of {}", expectation.flow);
        connects.then(|| (SocketAddr::new(address, port), what()))
    })
}

/// For each rule about connections to some addresses, the first of each IP version.
fn of_rules(policy: &Policy) -> impl Iterator<Item = (SocketAddr, String)> {
    let rules = policy.rules.iter().filter(|rule| rule.enabled && rule.is_for(Direction::Outbound) && is_tcp(rule));
    rules.flat_map(|rule| {
        let set = rule.remote.as_deref();
        let v4 = set.and_then(|set| first(set.v4.ranges())).map(|one| IpAddr::from(Ipv4Addr::from_bits(one)));
        let v6 = set.and_then(|set| first(set.v6.ranges())).map(|one| IpAddr::from(Ipv6Addr::from_bits(one)));
        let port = match rule.remote_ports.as_ref().and_then(|set| set.ranges().first()) {
            Some(&(low, high)) => {
                if (low..=high).contains(&HTTPS.into()) {
                    HTTPS
                } else {
                    low.max(1) as u16
                }
            }
            None => HTTPS,
        };
        let from = format!("rule `{}`", rule.name);
        [v4, v6]
            .into_iter()
            .flatten()
            .filter(|address| is_a_host(*address))
            .map(move |address| (SocketAddr::new(address, port), from.clone()))
    })
}

/// The first address that can be a host's: of a network the one after the network's own.
fn first<A: AddressBits>(ranges: &[(A, A)]) -> Option<A> {
    let &(low, high) = ranges.first()?;
    if low == high { Some(low) } else { low.after().filter(|next| *next <= high).or(Some(low)) }
}

fn is_a_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || broadcast)
}

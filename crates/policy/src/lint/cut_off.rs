//! Policies that cut their machine off: no name is resolved, no address is had, or whoever administers it from afar is
//! shut out by the policy he loads.
//!
//! Whether there is a way is found by deciding flows: the plainest one, and one made of every rule that could permit it.

use super::warning;
use crate::{
    compile::CompileOptions,
    diagnostic::Diagnostic,
    diff::{essential, inside},
    flow::{Direction, Verdict},
    model::{AddressSet, Decider, Expectation, FlowSpec, Policy, Rule, SidBuf, program::fold},
    reference::Reference,
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The program that asks for names on Windows.
const RESOLVER: &str = r"c:\windows\system32\svchost.exe";
/// Rules that are made into a flow; there may be thousands that permit the like.
const TRIES: usize = 16;

/// What a machine is reached by, or reaches others by.
struct Service {
    name: &'static str,
    direction: Direction,
    protocol: u8,
    port: u16,
}

const NAMES: Service = Service { name: "name resolution", direction: Direction::Outbound, protocol: 17, port: 53 };
const REMOTE: [Service; 4] = [
    Service { name: "RDP (TCP 3389)", direction: Direction::Inbound, protocol: 6, port: 3389 },
    Service { name: "SSH (TCP 22)", direction: Direction::Inbound, protocol: 6, port: 22 },
    Service { name: "WinRM (TCP 5985)", direction: Direction::Inbound, protocol: 6, port: 5985 },
    Service { name: "WinRM (TCP 5986)", direction: Direction::Inbound, protocol: 6, port: 5986 },
];

pub(super) fn cut_off(policy: &Policy, found: &mut Vec<Diagnostic>) {
    let options = CompileOptions { application: &|path| Ok(on_drive_c(path)), key: [0; 16], at: None };
    let reference = Reference::new(policy, &options);
    let decide = |flow: &FlowSpec| {
        flow.with(options.application, |flow| reference.decide(flow)).expect("its program is a path of any machine")
    };
    let closed = |service: &Service| {
        let permitted = |flow: &FlowSpec| {
            let decision = decide(flow);
            decision.verdict == Verdict::Permit || decision.asks.is_some()
        };
        let open = service.plain().iter().any(permitted)
            || policy.rules.iter().filter_map(|rule| service.flow_of(rule)).take(TRIES).any(|flow| permitted(&flow));
        (!open && !service.is_meant_closed(policy)).then(|| {
            let decision = decide(&service.plain()[0]);
            decision.rule.and_then(|rule| policy.rules.get(rule as usize)).map(|rule| (decision.rule, rule))
        })
    };
    let mut warn = |message: String, by: Option<(Option<u32>, &Rule)>, default: &str, help: &str| {
        let (span, key) = match by {
            Some((number, rule)) => (rule.span.clone(), format!("rule[{}]", number.unwrap_or(0))),
            None => (0..0, default.to_owned()),
        };
        found.push(warning(policy, span, message).key(key).help(help));
    };

    if let Some(by) = closed(&NAMES) {
        let decider = by.map_or(Decider::Default, |(_, rule)| Decider::Rule(rule.name.clone()));
        let message = format!("no name is resolved: {decider} blocks what Windows asks name servers, UDP to port 53");
        let help = r"permit it to `C:\Windows\System32\svchost.exe`, or expect it to be blocked (`[[expect]]`)";
        warn(message, by, "default.outbound", help);
    }
    // Rules that shut one way are named; the default is only when it leaves none.
    let shut: Vec<_> = REMOTE.iter().filter_map(|service| Some((service, closed(service)?))).collect();
    for (service, by) in &shut {
        if let Some((_, rule)) = by {
            let message = format!("rule `{}` shuts out who administers the machine by {}", rule.name, service.name);
            let help = "loaded over such a session, it ends it: permit it before, or expect it to be blocked";
            warn(message, *by, "", help);
        }
    }
    if shut.len() == REMOTE.len() && shut.iter().all(|(_, by)| by.is_none()) {
        let names: Vec<&str> = REMOTE.iter().map(|service| service.name).collect();
        let message = format!("nobody administers the machine from afar: the default blocks {}", names.join(", "));
        let help = "permit the one that is used, or expect it to be blocked (`[[expect]]`)";
        warn(message, None, "default.inbound", help);
    }
    if !policy.defaults.essential {
        let kinds = essential().into_iter().filter(|(_, flow)| decide(flow).verdict == Verdict::Block);
        let kinds: BTreeSet<&str> = kinds.map(|(kind, _)| kind.name()).collect();
        if !kinds.is_empty() {
            let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
            let message = format!("without the exception for essential traffic no rule permits all of: {kinds}");
            warn(message, None, "default.essential", "permit it, or leave `essential = false` out");
        }
    }
}

impl Service {
    fn flow(&self, remote: IpAddr, local: IpAddr) -> FlowSpec {
        let far = 50_000;
        let outbound = self.direction == Direction::Outbound;
        let (own, other) = if outbound { (far, self.port) } else { (self.port, far) };
        let users = ["S-1-5-20", "S-1-5-11", "S-1-5-6"].iter().filter_map(|sid| SidBuf::parse(sid));
        FlowSpec {
            direction: self.direction,
            protocol: self.protocol,
            local: (local, own),
            remote: (remote, other),
            application: outbound.then(|| RESOLVER.to_owned()),
            users: if outbound { users.chain(SidBuf::of_service("Dnscache")).collect() } else { Vec::new() },
            interface: None,
            remote_name: None,
        }
    }

    /// The flows that nothing special is known of.
    fn plain(&self) -> [FlowSpec; 2] {
        let four = |last| IpAddr::V4(Ipv4Addr::new(198, 51, 100, last));
        let six = |last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
        [self.flow(four(9), four(5)), self.flow(six(9), six(5))]
    }

    /// A flow that `rule` may permit, if there is one that serves.
    fn flow_of(&self, rule: &Rule) -> Option<FlowSpec> {
        let ports = if self.direction == Direction::Outbound { &rule.remote_ports } else { &rule.local_ports };
        let other_ports = if self.direction == Direction::Outbound { &rule.local_ports } else { &rule.remote_ports };
        let has = |set: &Option<crate::model::NumberSet>, value| set.as_ref().is_none_or(|set| set.contains(value));
        let serves = rule.enabled
            && rule.action.may_permit()
            && rule.direction.is_none_or(|direction| direction == self.direction)
            && has(&rule.protocols, self.protocol.into())
            && has(ports, self.port.into());
        if !serves {
            return None;
        }
        let [four, six] = self.plain();
        let usual = [&four, &six].map(|flow| (flow.remote.0, flow.local.0));
        let first = |set: &Option<std::sync::Arc<AddressSet>>, four: bool, usual: IpAddr| match set {
            None => Some(usual),
            Some(set) if four => set.v4.ranges().iter().map(|range| IpAddr::V4(range.1.into())).find(is_of_others),
            Some(set) => set.v6.ranges().iter().map(|range| IpAddr::V6(range.1.into())).find(is_of_others),
        };
        let (remote, local) = usual.into_iter().find_map(|(remote, local)| {
            Some((first(&rule.remote, remote.is_ipv4(), remote)?, first(&rule.local, local.is_ipv4(), local)?))
        })?;
        let mut flow = self.flow(remote, local);
        if let Some((low, _)) = other_ports.as_ref().and_then(|set| set.ranges().first().copied()) {
            let end = if self.direction == Direction::Outbound { &mut flow.local.1 } else { &mut flow.remote.1 };
            *end = low as u16;
        }
        if let Some(programs) = &rule.applications
            && !programs.iter().any(|program| is_resolver(&program.value))
        {
            // Any program may be served; one that may send to every port does not ask for others.
            if self.direction == Direction::Outbound && ports.is_none() {
                return None;
            }
            flow.application = programs.first().map(|program| inside(&program.value));
        }
        let asked = [&rule.users, &rule.groups, &rule.services, &rule.packages];
        flow.users.extend(asked.into_iter().flatten().filter_map(|set| set.first()).cloned());
        flow.interface = rule.interfaces.as_ref().and_then(|set| set.ranges().first()).map(|range| range.0.max(1));
        Some(flow)
    }

    /// Whether the policy's author says that it shall be blocked.
    fn is_meant_closed(&self, policy: &Policy) -> bool {
        let mut all = policy.expectations.iter().chain(policy.rules.iter().flat_map(|rule| &rule.expectations));
        all.any(|Expectation { flow, verdict, rule, .. }| {
            let port = if self.direction == Direction::Outbound { flow.remote.1 } else { flow.local.1 };
            let blocks = |name: &String| {
                policy.rules.iter().any(|rule| rule.name == *name && rule.action.verdict() == Verdict::Block)
            };
            let decider_blocks = match (verdict, rule) {
                (Some(action), _) => action.verdict() == Verdict::Block,
                (None, Some(Decider::Rule(name))) => blocks(name),
                (None, _) => false,
            };
            decider_blocks && (flow.direction, flow.protocol, port) == (self.direction, self.protocol, self.port)
        })
    }
}

fn is_of_others(address: &IpAddr) -> bool {
    !address.is_loopback() && !address.is_multicast() && !address.is_unspecified()
}

/// Whether a path, or one that stands for all below, is the resolver's.
fn is_resolver(path: &str) -> bool {
    let path = fold(&on_drive_c(path));
    path == RESOLVER || path.strip_suffix('*').is_some_and(|folder| RESOLVER.starts_with(folder))
}

/// A path as it would be on a machine whose drives and volumes are all `c:`.
fn on_drive_c(path: &str) -> String {
    let folded = fold(path);
    let behind = |prefix: &str| folded.strip_prefix(prefix);
    let rest = match folded.as_bytes() {
        [_, b':', ..] => Some(folded[2..].to_owned()),
        _ => behind("%systemroot%")
            .or_else(|| behind("%windir%"))
            .map(|rest| format!("\\windows{rest}"))
            .or_else(|| behind("%programfiles%").map(|rest| format!("\\program files{rest}")))
            .or_else(|| behind(r"\device\harddiskvolume").and_then(|rest| Some(rest[rest.find('\\')?..].to_owned()))),
    };
    rest.map_or(folded.clone(), |rest| format!("c:{rest}"))
}

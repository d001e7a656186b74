//! The meaning of a policy, rule by rule. The compiled image must decide the same; explanations and tests use this.

use crate::{
    compile::{CompileOptions, resolved_applications},
    essential::Essential,
    flow::{AppId, Decision, Flow, Headers, Name, embedded_ipv4},
    model::{Action, AddressSet, NumberSet, Policy, Rule},
};
use core::net::Ipv4Addr;
use serde::Serialize;

/// A policy that decides by trying one rule after the other.
#[derive(Debug)]
pub struct Reference<'p> {
    policy: &'p Policy,
    /// By rule: the UTF-16LE bytes of its programs; directories end in a backslash.
    applications: Vec<Vec<Vec<u8>>>,
    active: Vec<bool>,
}

/// The result of trying a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// Its index in the file.
    pub rule: u32,
    /// Its name.
    pub name: String,
    /// The outcome.
    pub outcome: Outcome,
    /// Why it did not match: every condition that does not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// The outcome of trying a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It matches and decides.
    Decides,
    /// A condition does not hold.
    DoesNotMatch,
    /// It would match with the right name, which is not known yet.
    WaitsForName,
    /// It is disabled or out of its schedule.
    Inactive,
}

/// Every rule that was tried, in order, and the decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Up to and including the rule that decides.
    pub tried: Vec<Tried>,
    /// The IPv4 address inside the remote one that rules saw too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedded: Option<Ipv4Addr>,
    /// The decision.
    pub decision: Decision,
}

impl<'p> Reference<'p> {
    /// Prepares a policy with the programs resolved and schedules evaluated by `options`.
    #[must_use]
    pub fn new(policy: &'p Policy, options: &CompileOptions<'_>) -> Self {
        let applications = resolved_applications(policy, options);
        let active = policy.rules.iter().map(|rule| rule.active(&policy.schedules, options.at)).collect();
        Self { policy, applications, active }
    }

    /// Decides a flow.
    #[must_use]
    pub fn decide(&self, flow: &Flow<'_>) -> Decision {
        let mut waiting = Waiting::default();
        for (index, rule) in self.policy.rules.iter().enumerate() {
            if !self.active[index] || !self.conditions_hold(index, flow) {
                continue;
            }
            match name_holds(rule, flow) {
                Some(true) => return decision(rule.action, rule.hard, rule.log, Some(index as u32), waiting),
                Some(false) => {}
                None => waiting.add(rule.action),
            }
        }
        self.default(flow, waiting)
    }

    /// The IPv4 address inside the remote one, where the policy asks for it.
    fn embedded(&self, flow: &Flow<'_>) -> Option<Ipv4Addr> {
        embedded_ipv4(flow.remote).filter(|_| self.policy.defaults.embedded_ipv4)
    }

    fn default(&self, flow: &Flow<'_>, waiting: Waiting) -> Decision {
        let defaults = self.policy.defaults;
        let essential = if defaults.essential { Essential::of(flow) } else { None };
        let action = if essential.is_some() { Action::Permit } else { defaults.of(flow.direction) };
        Decision { essential, ..decision(action, action != Action::Permit, defaults.log, None, waiting) }
    }

    /// Decides a flow and explains for every rule up to the deciding one why it did or did not match.
    #[must_use]
    pub fn explain(&self, flow: &Flow<'_>) -> Explanation {
        let decision = self.decide(flow);
        let last = decision.rule.map_or(self.policy.rules.len(), |rule| rule as usize + 1);
        let tried = (0..last).map(|index| self.tried(index, flow, decision.rule)).collect();
        Explanation { tried, embedded: self.embedded(flow), decision }
    }

    fn tried(&self, index: usize, flow: &Flow<'_>, decider: Option<u32>) -> Tried {
        let rule = &self.policy.rules[index];
        let mut reasons = Vec::new();
        let outcome = if decider == Some(index as u32) {
            Outcome::Decides
        } else if !self.active[index] {
            reasons.push(if rule.enabled { "out of its schedule" } else { "disabled" }.to_owned());
            Outcome::Inactive
        } else {
            self.reasons(index, flow, &mut reasons);
            if reasons.is_empty() && name_holds(rule, flow).is_none() {
                Outcome::WaitsForName
            } else {
                if name_holds(rule, flow) != Some(true) {
                    reasons.push(name_reason(flow));
                }
                Outcome::DoesNotMatch
            }
        };
        Tried { rule: index as u32, name: rule.name.clone(), outcome, reasons }
    }

    /// All conditions except the name.
    fn conditions_hold(&self, index: usize, flow: &Flow<'_>) -> bool {
        let mut unmet = false;
        self.judge(index, flow, &mut |holds, _| unmet |= !holds);
        !unmet
    }

    fn application_holds(&self, index: usize, program: AppId<'_>) -> bool {
        let path = program.path();
        self.applications[index]
            .iter()
            .any(|wanted| path == &wanted[..] || (wanted.ends_with(&[b'\\', 0]) && path.starts_with(wanted)))
    }

    fn reasons(&self, index: usize, flow: &Flow<'_>, reasons: &mut Vec<String>) {
        self.judge(index, flow, &mut |holds, reason| {
            if !holds {
                reasons.push(reason());
            }
        });
    }

    /// Reports for every condition except the name whether it holds, and if not, why.
    fn judge(&self, index: usize, flow: &Flow<'_>, require: &mut dyn FnMut(bool, &dyn Fn() -> String)) {
        // All fields by name: a new condition does not compile until it is judged.
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
            applications,
            users,
            groups,
            services,
            packages,
            interfaces,
            aliases: _,
            names: _,
            undecidable_matches,
            schedule: _,
            expectations: _,
            span: _,
        } = &self.policy.rules[index];
        require(self.policy.rules[index].is_for(flow.direction), &|| format!("the flow is {}", flow.direction.word()));
        let within = |set: &Option<NumberSet>, value: u64| set.as_ref().is_none_or(|set| set.contains(value));
        let unreadable = |set: &Option<NumberSet>| set.is_none() || *undecidable_matches;
        if flow.headers == Headers::NoProtocol {
            require(unreadable(protocols), &|| "the protocol cannot be read".to_owned());
        } else {
            require(within(protocols, flow.protocol.into()), &|| {
                format!("protocol {} is not among its protocols", flow.protocol)
            });
        }
        let inside = self.embedded(flow);
        for (set, address, side) in [(remote, flow.remote, "remote"), (local, flow.local, "local")] {
            // What is inside the remote address has no local one beside it.
            let inside = inside.filter(|_| side == "remote" && local.is_none());
            let among =
                |set: &AddressSet| set.contains(address) || inside.is_some_and(|inside| set.contains(inside.into()));
            require(set.as_deref().is_none_or(among), &|| {
                let nor = inside.map_or(String::new(), |inside| format!(", nor is {inside} inside it"));
                format!("{side} address {address} is not among its addresses{nor}")
            });
        }
        for (set, port, side) in [(remote_ports, flow.remote_port, "remote"), (local_ports, flow.local_port, "local")] {
            let icmp = matches!(flow.protocol, 1 | 58);
            let what = match (icmp, side) {
                (true, "remote") => "ICMP code".to_owned(),
                (true, _) => "ICMP type".to_owned(),
                (false, side) => format!("{side} port"),
            };
            if flow.headers == Headers::Whole {
                require(within(set, port.into()), &|| format!("{what} {port} is not among its values"));
            } else {
                require(unreadable(set), &|| format!("the {what} cannot be read"));
            }
        }
        if applications.is_some() {
            let reason = if flow.application.is_none() { "the program is not known" } else { "it is another program" };
            let holds = flow.application.is_some_and(|program| self.application_holds(index, program));
            require(holds, &|| reason.to_owned());
        }
        let known = flow.user.is_some() || flow.others.is_some();
        for (asked, what) in [(users, "user"), (groups, "group"), (services, "service"), (packages, "package")] {
            let Some(asked) = asked else { continue };
            let mut holds = false;
            flow.identities(&mut |sid| holds |= asked.iter().any(|one| one.bytes() == sid.0));
            let reason = if known { format!("it is another {what}") } else { format!("the {what} is not known") };
            require(holds, &|| reason.clone());
        }
        if let Some(set) = interfaces {
            let reason =
                if flow.interface.is_none() { "the interface is not known" } else { "it is another interface" };
            require(flow.interface.is_some_and(|luid| set.contains(luid)), &|| reason.to_owned());
        }
    }
}

/// Whether the name is among the rule's; `None` while the name is not known.
fn name_holds(rule: &Rule, flow: &Flow<'_>) -> Option<bool> {
    let Some(names) = &rule.names else { return Some(true) };
    match flow.name {
        Name::Unknown => {
            if flow.carries_a_name() {
                None
            } else {
                Some(false)
            }
        }
        Name::Undecidable => Some(rule.undecidable_matches),
        Name::Known(name) => {
            let name = name.strip_suffix(b".").unwrap_or(name).to_ascii_lowercase();
            Some(std::str::from_utf8(&name).is_ok_and(|name| names.contains(name)))
        }
    }
}

fn name_reason(flow: &Flow<'_>) -> String {
    match flow.name {
        Name::Unknown if flow.carries_a_name() => "the name is not known yet".to_owned(),
        Name::Unknown => "only TCP and UDP carry a name".to_owned(),
        Name::Undecidable => "the name is undecidable".to_owned(),
        Name::Known(name) => format!("`{}` is not among its names", String::from_utf8_lossy(name)),
    }
}

/// What would match with the right name, and comes before what decides.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    any: bool,
    permits: bool,
}

impl Waiting {
    fn add(&mut self, action: Action) {
        self.any = true;
        self.permits |= action.may_permit();
    }
}

fn decision(action: Action, hard: bool, log: bool, rule: Option<u32>, waiting: Waiting) -> Decision {
    let verdict = action.verdict();
    let needs_name = if action.may_permit() { waiting.any } else { waiting.permits };
    Decision {
        verdict,
        asks: if let Action::Ask(ask) = action { Some(ask.within) } else { None },
        hard,
        silent: action == Action::Drop,
        rule,
        essential: None,
        over_budget: false,
        log,
        needs_name,
    }
}

//! What a decision depends on when not everything is known of a flow.
//!
//! A fact that is not known (program, owner, interface, name, moment) is tried with what the rules ask for, one rule after
//! the other: each outcome comes with a flow that was decided so by the image.

use crate::{
    compile::{CompileOptions, compile},
    diagnostic::Errors,
    diff::inside,
    essential::Essential,
    flow::Decision,
    image::Image,
    model::{FlowSpec, Moment, Policy, Rule, SidBuf, names::Scope, schedule},
};
use serde::Serialize;

/// Something that may be known of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fact {
    /// The program.
    Program,
    /// Who it runs as: user, groups, services, package.
    Owner,
    /// The interface.
    Interface,
    /// The name that the content asks for.
    Name,
    /// The moment that schedules are judged by.
    Time,
}

impl Fact {
    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Program => "the program",
            Self::Owner => "the owner",
            Self::Interface => "the interface",
            Self::Name => "the name",
            Self::Time => "the time",
        }
    }
}

/// One of the things that may become of a flow.
#[derive(Clone, Debug, Serialize)]
pub struct Possible {
    /// What is decided.
    pub decision: Decision,
    /// The name of the rule that decides, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// A flow for which it is so; the first outcome's is the flow as it is known.
    pub flow: FlowSpec,
    /// The moment at which it is so, where that matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The facts that are assumed for it.
    pub assumed: Vec<Fact>,
}

/// Flows made of one rule.
const TRIES: usize = 16;
/// Moments looked at.
const MOMENTS: usize = 32;

/// Everything that can become of `flow`, by deciders: the first is what becomes of it as far as it is known. A flow that
/// all come to the same verdict about does not depend on what is not known.
///
/// # Errors
/// The policy does not compile, or the flow's program is none.
pub fn possible(policy: &Policy, options: &CompileOptions<'_>, flow: &FlowSpec) -> Result<Vec<Possible>, Errors> {
    let failed = |message: String| Errors {
        diagnostics: vec![
            crate::Diagnostic::new(crate::Severity::Error, &policy.path, &policy.text, 0..0).message(message),
        ],
    };
    let mut found: Vec<Possible> = Vec::new();
    for at in std::iter::once(options.at).chain(moments(policy, options.at)) {
        let options = CompileOptions { application: options.application, key: options.key, at };
        let image = Image::validate(compile(policy, &options)?).map_err(|error| failed(error.to_string()))?;
        let decide = |flow: &FlowSpec| flow.with(options.application, |flow| image.decide(flow));
        // The first flow is judged by what is known.
        let time = at.filter(|_| !found.is_empty());
        let mut note = |flow: FlowSpec, decision: Decision, mut assumed: Vec<Fact>| {
            assumed.extend(time.map(|_| Fact::Time));
            let decider = |one: &Decision| (one.rule, one.essential.is_some());
            if !found.iter().any(|one| decider(&one.decision) == decider(&decision)) {
                let rule = decision.rule.and_then(|rule| image.rule_name(rule)).map(str::to_owned);
                found.push(Possible { decision, rule, flow, at: time.map(|at| at.to_string()), assumed });
            }
        };
        note(flow.clone(), decide(flow).map_err(failed)?, Vec::new());
        for (index, rule) in policy.rules.iter().enumerate() {
            for (witness, assumed) in witnesses(rule, flow) {
                let Ok(decision) = decide(&witness) else { continue };
                if decision.rule == Some(index as u32) {
                    note(witness, decision, assumed);
                    break;
                }
            }
        }
        // Of one kind of essential traffic it matters whose it is.
        let of_system = decide(flow).is_ok_and(|known| known.essential == Some(Essential::Dhcp));
        if of_system && flow.users.is_empty() {
            let of_user = FlowSpec { users: SidBuf::parse("S-1-5-11").into_iter().collect(), ..flow.clone() };
            note(of_user.clone(), decide(&of_user).map_err(failed)?, vec![Fact::Owner]);
        }
    }
    Ok(found)
}

/// The facts that the verdict depends on: what is assumed for outcomes that are not the first's. None where all come to
/// the same.
#[must_use]
pub fn depends_on(possible: &[Possible]) -> Vec<Fact> {
    let said = |one: &Possible| (one.decision.verdict, one.decision.asks, one.decision.silent, one.decision.hard);
    let others = possible.iter().filter(|one| said(one) != said(&possible[0]));
    let mut facts: Vec<Fact> = others.flat_map(|one| one.assumed.iter().copied()).collect();
    facts.sort_unstable();
    facts.dedup();
    facts
}

/// When rules begin or end to take part; none where the moment is known or does not matter.
fn moments(policy: &Policy, known: Option<Moment>) -> Vec<Option<Moment>> {
    let first = Moment { day: 0, minute: 0 };
    let mut moments = Vec::new();
    let mut next = Some(first).filter(|_| known.is_none());
    while let Some(at) = next
        && moments.len() < MOMENTS
        && let Some(minutes) = schedule::next_change(policy, at)
    {
        let then = at.after(minutes);
        if moments.contains(&Some(then)) {
            break;
        }
        moments.push(Some(then));
        next = Some(then);
    }
    moments
}

/// Flows that a rule may match: what is not known of `flow` is as the rule asks.
fn witnesses(rule: &Rule, flow: &FlowSpec) -> Vec<(FlowSpec, Vec<Fact>)> {
    let applications: Vec<&str> = match (&flow.application, &rule.applications) {
        (None, Some(programs)) => programs.iter().map(|program| program.value.as_str()).collect(),
        _ => Vec::new(),
    };
    let asked = [&rule.users, &rule.groups, &rule.services, &rule.packages];
    let users: Vec<SidBuf> = match flow.users[..] {
        [] => asked.into_iter().flatten().filter_map(|set| set.first()).cloned().collect(),
        _ => Vec::new(),
    };
    let interfaces: Vec<u64> = match (flow.interface, &rule.interfaces) {
        (None, Some(set)) => set.ranges().iter().map(|range| range.0.max(1)).collect(),
        _ => Vec::new(),
    };
    let names: Vec<Option<String>> = match (&flow.remote_name, &rule.names) {
        (None, Some(set)) => {
            let name = |(name, scope): (&str, Scope)| match scope {
                Scope::Below => format!("www.{name}"),
                Scope::Exact | Scope::Both => name.to_owned(),
            };
            let undecidable = rule.undecidable_matches.then_some(None);
            set.iter().take(TRIES).map(|entry| Some(name(entry))).chain(undecidable).collect()
        }
        _ => Vec::new(),
    };
    let mut facts = Vec::new();
    let asks = [
        (Fact::Program, !applications.is_empty()),
        (Fact::Owner, !users.is_empty()),
        (Fact::Interface, !interfaces.is_empty()),
        (Fact::Name, !names.is_empty()),
    ];
    facts.extend(asks.into_iter().filter(|(_, asks)| *asks).map(|(fact, _)| fact));
    if facts.is_empty() {
        return Vec::new();
    }
    let tries = [applications.len(), interfaces.len(), names.len()].map(|count| count.max(1)).iter().product::<usize>();
    let made = (0..tries.min(TRIES)).map(|step| {
        // Every combination of the first few.
        let (program, rest) = (step % applications.len().max(1), step / applications.len().max(1));
        let (interface, rest) = (rest % interfaces.len().max(1), rest / interfaces.len().max(1));
        let mut one = flow.clone();
        if let Some(path) = applications.get(program) {
            one.application = Some(inside(path));
        }
        if !users.is_empty() {
            one.users.clone_from(&users);
        }
        one.interface = interfaces.get(interface).copied().or(one.interface);
        if let Some(name) = names.get(rest) {
            one.remote_name = Some(name.clone());
        }
        (one, facts.clone())
    });
    made.collect()
}

//! From rules to bytes.
//!
//! Conditions become sets; sets that overlap become classes; rules become combinations of classes, spread over layers.
//! Every step is ordered by the policy alone, so that the same policy, key and moment give the same bytes everywhere.

mod addresses;
mod classes;
mod identifiers;
mod layers;
mod names;
mod places;
mod ports;
mod resolve;
mod v4;
mod v6;
mod writer;

use crate::{
    diagnostic::{Diagnostic, Errors, Severity},
    flow::Direction,
    image::layout::*,
    model::{Action, Moment, NumberSet, Policy, Rule},
};
use layers::{Item, Placed};
use resolve::{ANY, Conditions, Resolved, Spaces};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};
use writer::Writer;

pub(crate) use resolve::{resolved_applications, utf16};

/// What compiling needs beside the policy.
pub struct CompileOptions<'a> {
    /// Turns a program's path as a policy writes it into the NT path the kernel reports; of `...\*`, the path before
    /// the `\*` is passed. What it returns is brought into lower case.
    pub application: &'a dyn Fn(&str) -> Result<String, String>,
    /// The key of the image's hashes: drawn anew for every image that is used, fixed where bytes must be reproducible.
    pub key: [u8; 16],
    /// The moment rules with a schedule are judged by; without one, all schedules are active.
    pub at: Option<Moment>,
}

impl fmt::Debug for CompileOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is a secret of the machine the image is loaded on.
        f.debug_struct("CompileOptions").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Compiles a policy. The same policy, key and moment give the same bytes everywhere.
///
/// # Errors
/// What cannot be resolved or does not fit into an image, by rule.
pub fn compile(policy: &Policy, options: &CompileOptions<'_>) -> Result<Vec<u8>, Errors> {
    let whole = |message: String| Errors {
        diagnostics: vec![Diagnostic::new(Severity::Error, &policy.path, &policy.text, 0..0).message(message)],
    };
    let mut writer = Writer::default();
    let spaces = Spaces::of(policy, options)?;
    let resolved = spaces.write(options.key, &mut writer.parts).map_err(whole)?;
    let (deciding, waiting) = items(policy, &spaces, &resolved);
    let mut usable = [true; CLASSED];
    for (classes, port) in resolved.ports.iter().zip([Dimension::RemotePortClass, Dimension::LocalPortClass]) {
        usable[port as usize] = !classes.is_empty();
    }
    let placed = layers::place(deciding, waiting, &resolved.spaces, usable, policy.rules.len(), &mut writer.parts)
        .map_err(whole)?;
    let in_use = |dimension: Dimension| placed.slots().iter().any(|slot| slot.dimension == dimension as u8);
    if in_use(Dimension::RemotePortClass) {
        writer.parts.remote_ports = ports::pages(&resolved.ports[0]);
    }
    if in_use(Dimension::LocalPortClass) {
        writer.parts.local_ports = ports::pages(&resolved.ports[1]);
    }
    write_rules(policy, &spaces, &resolved, &placed, &mut writer);
    let defaults = [policy.defaults.outbound, policy.defaults.inbound]
        .map(|action| flags(action, action != Action::Permit, policy.defaults.log));
    writer.finish(defaults, options.key, &placed, [resolved.undecidable, resolved.name_depths]).map_err(whole)
}

/// The active rules that can match at all, and those of them that wait for a name, as if they did not ask for it.
fn items(policy: &Policy, spaces: &Spaces, resolved: &Resolved) -> (Vec<Item>, Vec<Item>) {
    let held: Vec<BTreeSet<u32>> = resolved.spaces[..CONDITIONED]
        .iter()
        .map(|space| space.combinations.iter().flatten().copied().collect())
        .collect();
    let (mut deciding, mut waiting) = (Vec::new(), Vec::new());
    for conditions in &spaces.rules {
        // A set without a class holds nothing.
        if conditions.sets.iter().zip(&held).any(|(set, held)| *set != ANY && !held.contains(set)) {
            continue;
        }
        let rule = &policy.rules[conditions.rule as usize];
        let item = Item {
            rule: conditions.rule,
            sets: conditions.sets,
            signature: signature(rule),
            checks: !conditions.numbers.is_empty(),
        };
        deciding.push(item);
        if rule.names.is_some() {
            let mut open = item;
            open.sets[Dimension::Name as usize] = ANY;
            waiting.push(open);
        }
    }
    (deciding, waiting)
}

/// What a rule asks of ports, protocol and direction, as far as single ranges say it.
fn signature(rule: &Rule) -> Signature {
    let ports = |set: &Option<NumberSet>| match set.as_ref().map(NumberSet::ranges) {
        Some([(low, high)]) => (*low as u16, *high as u16),
        _ => (0, u16::MAX),
    };
    let protocol = match rule.protocols.as_ref().map(NumberSet::ranges) {
        Some([(low, high)]) if low == high => Some(*low as u8),
        _ => None,
    };
    let direction = match rule.direction {
        None => SIGNATURE_OUTBOUND | SIGNATURE_INBOUND,
        Some(Direction::Outbound) => SIGNATURE_OUTBOUND,
        Some(Direction::Inbound) => SIGNATURE_INBOUND,
    };
    Signature {
        remote_port: ports(&rule.remote_ports),
        local_port: ports(&rule.local_ports),
        protocol: protocol.unwrap_or(0),
        flags: direction | if protocol.is_none() { SIGNATURE_ANY_PROTOCOL } else { 0 },
    }
}

/// Writes every rule, with those conditions that neither its place nor its signature implies.
fn write_rules(policy: &Policy, spaces: &Spaces, resolved: &Resolved, placed: &Placed, writer: &mut Writer) {
    let left =
        |conditions: &Conditions, dimension: usize| placed.unchecked[conditions.rule as usize] & 1 << dimension != 0;
    let members: Vec<BTreeMap<u32, NumberSet>> = (0..CONDITIONED)
        .map(|dimension| {
            let rules = spaces.rules.iter().filter(|rule| left(rule, dimension));
            resolved.spaces[dimension].members(&rules.map(|rule| rule.sets[dimension]).collect())
        })
        .collect();
    let mut active = spaces.rules.iter().peekable();
    for (index, rule) in policy.rules.iter().enumerate() {
        let mut conditions: Vec<(u8, &NumberSet)> = Vec::new();
        if let Some(own) = active.next_if(|conditions| conditions.rule as usize == index) {
            let classed = members.iter().enumerate().filter(|(dimension, _)| left(own, *dimension));
            conditions.extend(classed.map(|(dimension, members)| (dimension as u8, &members[&own.sets[dimension]])));
            conditions.extend(own.numbers.iter().map(|(dimension, set)| (*dimension as u8, set)));
        }
        writer.rule(&rule.name, flags(rule.action, rule.hard, rule.log), &conditions);
    }
}

fn flags(action: Action, hard: bool, log: bool) -> u8 {
    let mut flags = match action {
        Action::Permit => RULE_PERMIT,
        Action::Block => 0,
        Action::Drop => RULE_SILENT,
    };
    if hard {
        flags |= RULE_HARD;
    }
    if log {
        flags |= RULE_LOG;
    }
    flags
}

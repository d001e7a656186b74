//! From rules to bytes.

mod writer;

use crate::{
    diagnostic::{Diagnostic, Errors, Severity},
    image::layout::*,
    model::{AddressSet, Moment, NumberSet, Policy, Rule, address::AddressBits},
};
use std::{collections::BTreeMap, fmt};
use writer::Writer;

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
    let mut diagnostics = Vec::new();
    let mut paths: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let mut users: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let mut resolved = Vec::new();
    for rule in &policy.rules {
        let mut ids = Vec::new();
        for path in rule.applications.iter().flatten() {
            match (options.application)(&path.value) {
                Ok(path) => {
                    let next = paths.len() as u32 + 2;
                    ids.push(u64::from(*paths.entry(utf16(&path)).or_insert(next)));
                }
                Err(error) => diagnostics.push(
                    Diagnostic::new(Severity::Error, &policy.path, &policy.text, path.span.clone())
                        .message(format!("the program `{}` cannot be found: {error}", path.value))
                        .key(format!("rule `{}`", rule.name)),
                ),
            }
        }
        if rule.names.is_some() {
            diagnostics.push(
                Diagnostic::new(Severity::Error, &policy.path, &policy.text, rule.span.clone())
                    .message("`remote-name` cannot be compiled yet")
                    .key(format!("rule `{}`", rule.name)),
            );
        }
        for user in rule.users.iter().flatten() {
            let next = users.len() as u32 + 2;
            users.entry(user.bytes().to_vec()).or_insert(next);
        }
        resolved.push(ids);
    }
    if !diagnostics.is_empty() {
        return Err(Errors { diagnostics });
    }

    let mut writer = Writer::default();
    for (rule, ids) in policy.rules.iter().zip(&resolved) {
        let active = rule.active(&policy.schedules, options.at);
        let mut conditions = Vec::new();
        if active {
            conditions = rule_conditions(rule, ids, &users);
        }
        let index = writer.rule(&rule.name, flags(rule.action, rule.hard, rule.log), &conditions);
        if active {
            entries(&mut writer, rule, index, !conditions.is_empty());
        }
    }
    writer.identifiers(&paths, &users);
    let hard = |action: crate::model::Action| action != crate::model::Action::Permit;
    let defaults = [policy.defaults.outbound, policy.defaults.inbound]
        .map(|action| flags(action, hard(action), policy.defaults.log));
    writer.finish(defaults, options.key).map_err(|message| Errors {
        diagnostics: vec![Diagnostic::new(Severity::Error, &policy.path, &policy.text, 0..0).message(message)],
    })
}

fn flags(action: crate::model::Action, hard: bool, log: bool) -> u8 {
    use crate::model::Action;
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

/// The UTF-16LE bytes of a path in lower case.
pub(crate) fn utf16(path: &str) -> Vec<u8> {
    path.chars().map(lower).collect::<String>().encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// One letter's lower case where that is one letter, as the file system folds names.
fn lower(letter: char) -> char {
    let mut folded = letter.to_lowercase();
    match (folded.next(), folded.next()) {
        (Some(one), None) => one,
        _ => letter,
    }
}

/// The conditions that do not fit into an entry.
fn rule_conditions(rule: &Rule, applications: &[u64], users: &BTreeMap<Vec<u8>, u32>) -> Vec<(Dimension, NumberSet)> {
    let mut conditions = Vec::new();
    let points = |ids: &mut dyn Iterator<Item = u64>| NumberSet::from_ranges(ids.map(|id| (id, id)).collect());
    if rule.protocols.as_ref().is_some_and(|set| single(set).is_none()) {
        conditions.push((Dimension::Protocol, rule.protocols.clone().unwrap_or_default()));
    }
    for (dimension, ports) in [(Dimension::RemotePort, &rule.remote_ports), (Dimension::LocalPort, &rule.local_ports)] {
        if let Some(set) = ports
            && set.ranges().len() != 1
        {
            conditions.push((dimension, set.clone()));
        }
    }
    if rule.applications.is_some() {
        conditions.push((Dimension::Application, points(&mut applications.iter().copied())));
    }
    if let Some(wanted) = &rule.users {
        let mut ids = wanted.iter().filter_map(|user| users.get(user.bytes())).map(|&id| u64::from(id));
        conditions.push((Dimension::User, points(&mut ids)));
    }
    if let Some(set) = &rule.interfaces {
        conditions.push((Dimension::Interface, set.clone()));
    }
    conditions
}

fn single(set: &NumberSet) -> Option<u8> {
    match set.ranges() {
        [(low, high)] if low == high => u8::try_from(*low).ok(),
        _ => None,
    }
}

fn entries(writer: &mut Writer, rule: &Rule, index: u32, conditions: bool) {
    let ports = |set: &Option<NumberSet>| match set.as_ref().map(NumberSet::ranges) {
        Some([(low, high)]) => (*low as u16, *high as u16),
        _ => (0, u16::MAX),
    };
    let protocol = rule.protocols.as_ref().and_then(single);
    let tail = EntryTail {
        remote_port: ports(&rule.remote_ports),
        local_port: ports(&rule.local_ports),
        remote_length: 0,
        local_length: 0,
        protocol: protocol.unwrap_or(0),
        flags: if protocol.is_none() { ENTRY_ANY_PROTOCOL } else { 0 } | if conditions { ENTRY_CONDITIONS } else { 0 },
        rule: index,
    };
    let prefixes = |set: &Option<std::sync::Arc<AddressSet>>| match set {
        Some(set) => (set.v4.prefixes().collect(), set.v6.prefixes().collect()),
        None => (vec![(0, 0)], vec![(0, 0)]),
    };
    let (remote4, remote6): (Vec<(u32, u8)>, Vec<(u128, u8)>) = prefixes(&rule.remote);
    let (local4, local6): (Vec<(u32, u8)>, Vec<(u128, u8)>) = prefixes(&rule.local);
    for direction in 0..2 {
        if rule.direction.is_some_and(|only| only as usize != direction) {
            continue;
        }
        cross(&remote4, &local4, tail, |remote, local, tail| {
            writer.entries4[direction].push(Entry4 { remote, local, tail })
        });
        cross(&remote6, &local6, tail, |remote, local, tail| {
            writer.entries6[direction].push(Entry6 { remote, local, tail })
        });
    }
}

fn cross<A: AddressBits>(remote: &[(A, u8)], local: &[(A, u8)], tail: EntryTail, mut add: impl FnMut(A, A, EntryTail)) {
    for &(remote, remote_length) in remote {
        for &(local, local_length) in local {
            add(remote, local, EntryTail { remote_length, local_length, ..tail });
        }
    }
}

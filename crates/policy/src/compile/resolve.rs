//! From the conditions of rules to sets, and from sets to the tables that tell a flow's classes.

use super::{
    CompileOptions, addresses,
    classes::{Classes, Numbering},
    identifiers::{self, Identifiers},
    names, ports, v4, v6,
};
use crate::{
    diagnostic::{Diagnostic, Errors, Severity},
    image::layout::{CLASSED, Dimension, Parts},
    model::{AddressSet, NameSet, NumberSet, Policy, Rule},
};
use std::{collections::HashMap, hash::Hash, sync::Arc};

/// What stands for no condition of a rule in a dimension.
pub(super) const ANY: u32 = u32::MAX;

/// The sets of a policy's active rules, each kept once.
#[derive(Default)]
pub(super) struct Spaces {
    remote: Interned<Arc<AddressSet>>,
    local: Interned<Arc<AddressSet>>,
    applications: Interned<Identifiers>,
    users: Interned<Identifiers>,
    names: Interned<(Arc<NameSet>, bool)>,
    remote_ports: Interned<NumberSet>,
    local_ports: Interned<NumberSet>,
    pub(super) rules: Vec<Conditions>,
}

/// An active rule's conditions.
pub(super) struct Conditions {
    /// Its place in the policy.
    pub(super) rule: u32,
    /// Its set in each classed dimension, or [`ANY`].
    pub(super) sets: [u32; CLASSED],
    /// What a signature cannot say: several ranges of ports, several protocols, interfaces.
    pub(super) numbers: Vec<(Dimension, NumberSet)>,
}

/// What the rules' conditions came to.
pub(super) struct Resolved {
    /// The classes of each classed dimension.
    pub(super) spaces: [Numbering; CLASSED],
    /// The classes of ports, by their first and last ports.
    pub(super) ports: [ports::Classes; 2],
    /// The class of names that cannot be told.
    pub(super) undecidable: u32,
    /// How many labels listed names have.
    pub(super) name_depths: u32,
}

/// Values that are kept once, in the order they came.
struct Interned<T> {
    numbers: HashMap<T, u32>,
    values: Vec<T>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    fn number(&mut self, value: &T) -> u32 {
        if let Some(&known) = self.numbers.get(value) {
            return known;
        }
        let number = self.values.len() as u32;
        self.values.push(value.clone());
        self.numbers.insert(value.clone(), number);
        number
    }
}

/// Lists shared by rules are told by their place in memory before their contents are looked at.
#[derive(Default)]
struct Places(HashMap<usize, u32>);

impl Places {
    fn number<T, K: Clone + Eq + Hash>(
        &mut self,
        shared: &Arc<T>,
        interned: &mut Interned<K>,
        key: impl Fn() -> K,
    ) -> u32 {
        *self.0.entry(Arc::as_ptr(shared).cast::<()>() as usize).or_insert_with(|| interned.number(&key()))
    }
}

impl Spaces {
    /// Collects the sets of the rules that take part at `options.at`.
    pub(super) fn of(policy: &Policy, options: &CompileOptions<'_>) -> Result<Self, Errors> {
        let mut spaces = Self::default();
        let mut diagnostics = Vec::new();
        let mut places: [Places; 4] = Default::default();
        for (index, rule) in policy.rules.iter().enumerate() {
            if !rule.active(&policy.schedules, options.at) {
                continue;
            }
            let mut sets = [ANY; CLASSED];
            let mut put = |dimension: Dimension, number: u32| sets[dimension as usize] = number;
            let [remotes, locals, names, undecidable] = &mut places;
            if let Some(set) = &rule.remote {
                put(Dimension::Remote, remotes.number(set, &mut spaces.remote, || Arc::clone(set)));
            }
            if let Some(set) = &rule.local {
                put(Dimension::Local, locals.number(set, &mut spaces.local, || Arc::clone(set)));
            }
            if let Some(set) = &rule.names {
                let places = if rule.undecidable_matches { undecidable } else { names };
                let key = || (Arc::clone(set), rule.undecidable_matches);
                put(Dimension::Name, places.number(set, &mut spaces.names, key));
            }
            if rule.applications.is_some() {
                let set = applications(policy, rule, options, &mut diagnostics);
                put(Dimension::Application, spaces.applications.number(&set));
            }
            if let Some(users) = &rule.users {
                let set = users.iter().map(|user| user.bytes().to_vec()).collect();
                put(Dimension::User, spaces.users.number(&set));
            }
            if let Some(ports) = &rule.remote_ports {
                put(Dimension::RemotePortClass, spaces.remote_ports.number(ports));
            }
            if let Some(ports) = &rule.local_ports {
                put(Dimension::LocalPortClass, spaces.local_ports.number(ports));
            }
            spaces.rules.push(Conditions { rule: index as u32, sets, numbers: numbers(rule) });
        }
        if diagnostics.is_empty() { Ok(spaces) } else { Err(Errors { diagnostics }) }
    }

    /// Writes the tables that tell a flow's classes, but for those of ports.
    pub(super) fn write(&self, key: [u8; 16], parts: &mut Parts) -> Result<Resolved, String> {
        let remote = address_maps(&self.remote.values, &mut parts.remote4, &mut parts.remote6)?;
        let local = address_maps(&self.local.values, &mut parts.local4, &mut parts.local6)?;
        let applications = identifiers::applications(&self.applications.values, key, parts);
        let users = identifiers::users(&self.users.values, key, parts);
        let named: Vec<(&NameSet, bool)> = self.names.values.iter().map(|(set, flag)| (&**set, *flag)).collect();
        let names = names::compile(&named, key, parts)?;
        let (remote_classes, remote_ports) = ports::classes(&self.remote_ports.values);
        let (local_classes, local_ports) = ports::classes(&self.local_ports.values);
        Ok(Resolved {
            spaces: [remote, local, applications, users, names.numbering, remote_ports, local_ports],
            ports: [remote_classes, local_classes],
            undecidable: names.undecidable,
            name_depths: names.depths,
        })
    }
}

/// Writes the maps of both families; they share their classes.
fn address_maps(sets: &[Arc<AddressSet>], out4: &mut Vec<u8>, out6: &mut Vec<u8>) -> Result<Numbering, String> {
    let mut classes = Classes::default();
    let four: Vec<_> = sets.iter().map(|set| &set.v4).collect();
    let six: Vec<_> = sets.iter().map(|set| &set.v6).collect();
    let mut four = v4::Space::new(&four, &mut classes);
    let mut six = addresses::segments(&six, &mut classes);
    let numbering = classes.finish();
    four.renumber(&numbering.classes);
    six.iter_mut().for_each(|segment| segment.class = numbering.classes[segment.class as usize]);
    *out4 = four.map()?;
    drop(four);
    *out6 = v6::map(six)?;
    Ok(numbering)
}

/// Ports, protocols and interfaces that are more than an entry holds.
fn numbers(rule: &Rule) -> Vec<(Dimension, NumberSet)> {
    let mut numbers = Vec::new();
    let several = |set: &&NumberSet| set.ranges().len() != 1;
    for (dimension, set) in [(Dimension::RemotePort, &rule.remote_ports), (Dimension::LocalPort, &rule.local_ports)] {
        numbers.extend(set.as_ref().filter(several).map(|set| (dimension, set.clone())));
    }
    let single = |set: &NumberSet| matches!(set.ranges(), [(low, high)] if low == high);
    numbers.extend(rule.protocols.clone().filter(|set| !single(set)).map(|set| (Dimension::Protocol, set)));
    numbers.extend(rule.interfaces.clone().map(|set| (Dimension::Interface, set)));
    numbers
}

fn applications(
    policy: &Policy,
    rule: &Rule,
    options: &CompileOptions<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Identifiers {
    let mut set = Identifiers::new();
    for path in rule.applications.iter().flatten() {
        let (inner, end) = match path.value.strip_suffix("\\*") {
            Some(directory) => (directory, "\\"),
            None => (path.value.as_str(), ""),
        };
        match (options.application)(inner) {
            Ok(resolved) => {
                // No document says in which case the kernel's own traffic is reported.
                if resolved.eq_ignore_ascii_case("system") {
                    set.insert("System".encode_utf16().flat_map(u16::to_le_bytes).collect());
                }
                set.insert(utf16(&(resolved + end)));
            }
            Err(error) => diagnostics.push(
                Diagnostic::new(Severity::Error, &policy.path, &policy.text, path.span.clone())
                    .message(format!("the program `{inner}` cannot be found: {error}"))
                    .key(format!("rule `{}`: application", rule.name)),
            ),
        }
    }
    set
}

/// The programs each active rule names, as the kernel would report them.
pub(crate) fn resolved_applications(
    policy: &Policy,
    options: &CompileOptions<'_>,
) -> Result<Vec<Vec<Vec<u8>>>, Errors> {
    let mut diagnostics = Vec::new();
    let mut resolve = |rule: &Rule| {
        if rule.applications.is_none() || !rule.active(&policy.schedules, options.at) {
            return Vec::new();
        }
        applications(policy, rule, options, &mut diagnostics).into_iter().collect()
    };
    let all = policy.rules.iter().map(&mut resolve).collect();
    if diagnostics.is_empty() { Ok(all) } else { Err(Errors { diagnostics }) }
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

//! Turns the conditions of rules into sets, and sets into the tables that give a flow's classes.

use super::{
    CompileOptions, addresses,
    classes::Classes,
    identifiers::{self, Identifiers},
    names, v4, v6,
    writer::Writer,
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    image::layout::Dimension,
    model::{Action, AddressSet, Located, NameSet, NumberSet, Policy, Rule, program::fold},
};
use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};

/// A condition of at most this many prefixes in each family becomes boxes; more become a set.
const FEW: usize = 4;

/// The sets of a policy's active rules, each kept once.
#[derive(Default)]
pub(super) struct Spaces {
    remote: Interned<Arc<AddressSet>>,
    local: Interned<Arc<AddressSet>>,
    applications: Interned<Identifiers>,
    users: Interned<Identifiers>,
    names: Interned<(Arc<NameSet>, bool)>,
    rules: BTreeMap<usize, Conditions>,
    by_set: Vec<BySet>,
}

/// Which address conditions of a rule are sets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BySet {
    pub(super) remote: bool,
    pub(super) local: bool,
}

/// A rule's sets by number, and its other conditions.
#[derive(Default)]
struct Conditions {
    sets: Vec<(Dimension, u32)>,
    numbers: Vec<(Dimension, NumberSet)>,
}

/// The result for the rules' conditions.
pub(super) struct Resolved {
    /// Of active rules, by index.
    pub(super) conditions: BTreeMap<usize, Vec<(Dimension, NumberSet)>>,
    /// Of all rules.
    pub(super) by_set: Vec<BySet>,
    /// The class of undecidable names.
    pub(super) undecidable: u32,
    /// The label counts of listed names.
    pub(super) name_depths: u32,
}

/// Distinct values, in order of arrival.
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

/// Lists shared by rules are recognized by address before their contents are compared.
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
    /// Collects the sets of the rules that are active at `options.at`, with warnings about missing programs.
    pub(super) fn of(policy: &Policy, options: &CompileOptions<'_>) -> (Self, Vec<Diagnostic>) {
        let mut spaces = Self { by_set: vec![BySet::default(); policy.rules.len()], ..Self::default() };
        let mut diagnostics = Vec::new();
        let mut places: [Places; 4] = Default::default();
        for (index, rule) in policy.rules.iter().enumerate() {
            if !rule.active(&policy.schedules, options.at) {
                continue;
            }
            // Every condition of a rule is compiled here or in `rules`: a new one must say where.
            let Rule {
                name: _,
                note: _,
                action: _,
                hard: _,
                log: _,
                enabled: _,
                direction: _,
                protocols: _,
                remote,
                local,
                remote_ports: _,
                local_ports: _,
                applications: programs,
                users,
                groups,
                services,
                packages,
                interfaces: _,
                aliases,
                names: asked_names,
                undecidable_matches,
                schedule: _,
                expectations: _,
                span: _,
            } = rule;
            diagnostics.extend(aliases.iter().map(|alias| not_there(policy, rule, alias)));
            let mut conditions = Conditions { numbers: numbers(rule), ..Conditions::default() };
            let [remotes, locals, names, undecidable] = &mut places;
            if let Some(set) = remote.as_ref().filter(|set| !few(set)) {
                let number = remotes.number(set, &mut spaces.remote, || Arc::clone(set));
                conditions.sets.push((Dimension::RemoteSet, number));
                spaces.by_set[index].remote = true;
            }
            if let Some(set) = local.as_ref().filter(|set| !few(set)) {
                let number = locals.number(set, &mut spaces.local, || Arc::clone(set));
                conditions.sets.push((Dimension::LocalSet, number));
                spaces.by_set[index].local = true;
            }
            if let Some(set) = asked_names {
                let places = if *undecidable_matches { undecidable } else { names };
                let number = places.number(set, &mut spaces.names, || (Arc::clone(set), *undecidable_matches));
                conditions.sets.push((Dimension::Name, number));
            }
            if programs.is_some() {
                let set = applications(policy, rule, options, &mut diagnostics);
                conditions.sets.push((Dimension::Application, spaces.applications.number(&set)));
            }
            for identities in [users, groups, services, packages].into_iter().flatten() {
                let set = identities.iter().map(|one| one.bytes().to_vec()).collect();
                conditions.sets.push((Dimension::User, spaces.users.number(&set)));
            }
            spaces.rules.insert(index, conditions);
        }
        (spaces, diagnostics)
    }

    /// Writes the tables; with them, sets become ranges of classes.
    pub(super) fn write(self, key: [u8; 16], writer: &mut Writer) -> Result<Resolved, String> {
        let parts = &mut writer.parts;
        let mut members: BTreeMap<Dimension, Vec<NumberSet>> = BTreeMap::new();
        for (dimension, sets, out4, out6) in [
            (Dimension::RemoteSet, &self.remote.values, &mut parts.remote4, &mut parts.remote6),
            (Dimension::LocalSet, &self.local.values, &mut parts.local4, &mut parts.local6),
        ] {
            let mut classes = Classes::default();
            let four: Vec<_> = sets.iter().map(|set| &set.v4).collect();
            let six: Vec<_> = sets.iter().map(|set| &set.v6).collect();
            let mut four = v4::Space::new(&four, &mut classes);
            let mut six = addresses::segments(&six, &mut classes);
            let numbering = classes.finish(sets.len());
            four.renumber(&numbering.classes);
            addresses::renumber(&mut six, &numbering.classes);
            *out4 = four.map()?;
            drop(four);
            *out6 = v6::map(six)?;
            members.insert(dimension, numbering.members);
        }
        members
            .insert(Dimension::Application, identifiers::applications(&self.applications.values, key, parts).members);
        members.insert(Dimension::User, identifiers::users(&self.users.values, key, writer)?);
        let parts = &mut writer.parts;
        let named: Vec<(&NameSet, bool)> = self.names.values.iter().map(|(set, flag)| (&**set, *flag)).collect();
        let names = names::compile(&named, key, parts)?;
        members.insert(Dimension::Name, names.numbering.members);

        let conditions = self
            .rules
            .into_iter()
            .map(|(index, rule)| {
                let sets = rule.sets.into_iter();
                let mut all: Vec<_> =
                    sets.map(|(dimension, set)| (dimension, members[&dimension][set as usize].clone())).collect();
                all.extend(rule.numbers);
                (index, all)
            })
            .collect();
        Ok(Resolved { conditions, by_set: self.by_set, undecidable: names.undecidable, name_depths: names.depths })
    }
}

/// A warning of an interface that the machine does not have.
fn not_there(policy: &Policy, rule: &Rule, alias: &Located<String>) -> Diagnostic {
    Diagnostic::new(Severity::Warning, &policy.path, &policy.text, alias.span.clone())
        .message(format!("there is no interface `{}` on this machine: the rule does not match it", alias.value))
        .key(format!("rule `{}`: interface", rule.name))
}

fn few(set: &AddressSet) -> bool {
    set.v4.prefixes().nth(FEW).is_none() && set.v6.prefixes().nth(FEW).is_none()
}

/// Ports, protocols and interfaces that do not fit into an entry.
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
                // The letter case in which the kernel's own traffic is reported is not documented.
                if resolved.eq_ignore_ascii_case("system") {
                    set.insert("System".encode_utf16().flat_map(u16::to_le_bytes).collect());
                }
                set.insert(utf16(&(resolved + end)));
            }
            Err(error) => {
                // A missing program is permitted nothing; one to block, or to ask about, is met if it appears.
                let (done, blocked) = match rule.action {
                    Action::Permit => ("the rule does not match it", None),
                    Action::Block | Action::Drop | Action::Ask(_) => {
                        ("its path is used as written", Some(as_written(inner, options) + end))
                    }
                };
                set.extend(blocked.map(|path| utf16(&path)));
                let message = format!("the program `{inner}` cannot be found ({error}): {done}");
                diagnostics.push(
                    Diagnostic::new(Severity::Warning, &policy.path, &policy.text, path.span.clone())
                        .message(message)
                        .key(format!("rule `{}`: application", rule.name)),
                );
            }
        }
    }
    set
}

/// The path that a missing program would have: below the nearest existing folder.
fn as_written(path: &str, options: &CompileOptions<'_>) -> String {
    let mut folder = path;
    while let Some(at) = folder.rfind(['\\', '/']).filter(|at| *at > 0) {
        folder = &path[..at];
        // A bare drive is its current folder.
        let asked = if folder.ends_with(':') { &path[..=at] } else { folder };
        if let Ok(found) = (options.application)(asked) {
            return format!("{}{}", found.trim_end_matches('\\'), &path[at..]);
        }
    }
    path.to_owned()
}

/// By rule, the programs that it names if it is active, as the kernel would report them: UTF-16LE in lower case without the
/// NUL; directories end in a backslash.
#[must_use]
pub fn resolved_applications(policy: &Policy, options: &CompileOptions<'_>) -> Vec<Vec<Vec<u8>>> {
    let resolve = |rule: &Rule| {
        if rule.applications.is_none() || !rule.active(&policy.schedules, options.at) {
            return Vec::new();
        }
        applications(policy, rule, options, &mut Vec::new()).into_iter().collect()
    };
    policy.rules.iter().map(resolve).collect()
}

/// The UTF-16LE bytes of a path in lower case.
pub(crate) fn utf16(path: &str) -> Vec<u8> {
    fold(path).encode_utf16().flat_map(u16::to_le_bytes).collect()
}

//! From the conditions of rules to sets, and from sets to the tables that tell a flow's classes.

use super::{
    CompileOptions, addresses,
    classes::Classes,
    identifiers::{self, Identifiers},
    names, v4, v6,
};
use crate::{
    diagnostic::{Diagnostic, Errors, Severity},
    image::layout::{Dimension, Parts},
    model::{AddressSet, NameSet, NumberSet, Policy, Rule},
};
use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};

/// A condition of this many prefixes or fewer, in each family, becomes boxes of its own; more become a set.
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

/// What the rules' conditions came to.
pub(super) struct Resolved {
    /// Of active rules, by place.
    pub(super) conditions: BTreeMap<usize, Vec<(Dimension, NumberSet)>>,
    /// Of all rules.
    pub(super) by_set: Vec<BySet>,
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
        let mut spaces = Self { by_set: vec![BySet::default(); policy.rules.len()], ..Self::default() };
        let mut diagnostics = Vec::new();
        let mut places: [Places; 4] = Default::default();
        for (index, rule) in policy.rules.iter().enumerate() {
            if !rule.active(&policy.schedules, options.at) {
                continue;
            }
            let mut conditions = Conditions { numbers: numbers(rule), ..Conditions::default() };
            let [remotes, locals, names, undecidable] = &mut places;
            if let Some(set) = rule.remote.as_ref().filter(|set| !few(set)) {
                let number = remotes.number(set, &mut spaces.remote, || Arc::clone(set));
                conditions.sets.push((Dimension::RemoteSet, number));
                spaces.by_set[index].remote = true;
            }
            if let Some(set) = rule.local.as_ref().filter(|set| !few(set)) {
                let number = locals.number(set, &mut spaces.local, || Arc::clone(set));
                conditions.sets.push((Dimension::LocalSet, number));
                spaces.by_set[index].local = true;
            }
            if let Some(set) = &rule.names {
                let places = if rule.undecidable_matches { undecidable } else { names };
                let number = places.number(set, &mut spaces.names, || (Arc::clone(set), rule.undecidable_matches));
                conditions.sets.push((Dimension::Name, number));
            }
            if rule.applications.is_some() {
                let set = applications(policy, rule, options, &mut diagnostics);
                conditions.sets.push((Dimension::Application, spaces.applications.number(&set)));
            }
            if let Some(users) = &rule.users {
                let set = users.iter().map(|user| user.bytes().to_vec()).collect();
                conditions.sets.push((Dimension::User, spaces.users.number(&set)));
            }
            spaces.rules.insert(index, conditions);
        }
        if diagnostics.is_empty() { Ok(spaces) } else { Err(Errors { diagnostics }) }
    }

    /// Writes the tables; with them, sets become ranges of classes.
    pub(super) fn write(self, key: [u8; 16], parts: &mut Parts) -> Result<Resolved, String> {
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
        members.insert(Dimension::User, identifiers::users(&self.users.values, key, parts).members);
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

fn few(set: &AddressSet) -> bool {
    set.v4.prefixes().nth(FEW).is_none() && set.v6.prefixes().nth(FEW).is_none()
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

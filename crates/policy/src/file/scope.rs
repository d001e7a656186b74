//! Resolves `@name`: lists and groups, and the sets that every policy has.

use super::{
    Files, lists,
    reader::{At, Context, Item, Reader, Word, nearest},
    values,
};
use crate::model::{
    AddressSet, List, Located, NameSet, NumberSet, SidBuf,
    address::{self, AddressCollector},
    names,
};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Address sets every policy has.
pub(crate) const BUILT_IN: [(&str, &[&str]); 5] = [
    ("loopback", &["127.0.0.0/8", "::1"]),
    ("private", &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]),
    ("link-local", &["169.254.0.0/16", "fe80::/10"]),
    ("multicast", &["224.0.0.0/4", "ff00::/8"]),
    ("broadcast", &["255.255.255.255"]),
];

/// What a name refers to. A group may hold several kinds; each condition takes the kind it needs.
#[derive(Default)]
pub(super) struct Named {
    pub(super) addresses: Option<Arc<AddressSet>>,
    pub(super) names: Option<Arc<NameSet>>,
    ports: Option<NumberSet>,
    applications: Option<Vec<Located<String>>>,
    users: Option<Vec<SidBuf>>,
    services: Option<Vec<SidBuf>>,
    packages: Option<Vec<SidBuf>>,
    used: Cell<bool>,
    pub(super) is_list: bool,
    /// How many entries a list has.
    pub(super) entries: usize,
    /// A list without entries.
    pub(super) empty: bool,
    /// A list that is allowed to be empty.
    pub(super) strict: bool,
    at: Option<At>,
}

impl Named {
    fn kinds(&self) -> String {
        let kinds = [
            (self.addresses.is_some(), "addresses"),
            (self.names.is_some(), "names"),
            (self.ports.is_some(), "ports"),
            (self.applications.is_some(), "applications"),
            (self.users.is_some(), "users"),
            (self.services.is_some(), "services"),
            (self.packages.is_some(), "packages"),
        ];
        let held: Vec<_> = kinds.into_iter().filter(|(held, _)| *held).map(|(_, kind)| kind).collect();
        if held.is_empty() { "nothing".to_owned() } else { held.join(" and ") }
    }
}

/// All names of a policy.
pub(super) struct Scope {
    named: BTreeMap<String, Named>,
    built_in: BTreeMap<&'static str, Arc<AddressSet>>,
    /// The groups' names while the groups themselves are read: none of them can be used in another.
    unread: BTreeSet<String>,
}

impl Scope {
    /// Reads `[list.*]` and `[group.*]`.
    pub(super) fn read<'t>(context: &mut Context<'_>, root: &mut Reader<'t>, files: &dyn Files) -> Self {
        let mut built_in = BTreeMap::new();
        for (name, ranges) in BUILT_IN {
            let mut collector = AddressCollector::default();
            ranges.iter().filter_map(|text| address::parse_range(text).ok()).for_each(|range| collector.add(range));
            built_in.insert(name, Arc::new(collector.finish()));
        }
        let mut scope = Self { named: BTreeMap::new(), built_in, unread: BTreeSet::new() };
        for (name, reader) in root.named(context, "list") {
            let at = reader.at.clone();
            let mut named = lists::read(context, reader, files);
            named.at = Some(at);
            scope.named.insert(name.to_owned(), named);
        }
        let groups = root.named(context, "group");
        scope.unread = groups.iter().map(|(name, _)| (*name).to_owned()).collect();
        for (name, reader) in groups {
            let at = reader.at.clone();
            let mut named = read_group(context, reader, &scope);
            named.at = Some(at.clone());
            if scope.named.insert(name.to_owned(), named).is_some() {
                context.error(&at, format!("`{name}` is already a list"));
            }
        }
        scope.unread.clear();
        for name in scope.named.keys().filter(|name| scope.built_in.contains_key(name.as_str())) {
            if let Some(at) = scope.named[name].at.clone() {
                context.error(&at, format!("`@{name}` has a meaning in every policy; choose another name"));
            }
        }
        scope
    }

    /// The lists, by name.
    pub(super) fn lists(&self) -> Vec<List> {
        let list = |(name, named): (&String, &Named)| {
            let span = named.at.as_ref()?.span.clone();
            let (addresses, names) = (named.addresses.clone(), named.names.clone());
            named.is_list.then(|| List { name: name.clone(), addresses, names, entries: named.entries, span })
        };
        self.named.iter().filter_map(list).collect()
    }

    fn find<'s, T>(
        &'s self,
        context: &mut Context<'_>,
        word: &Word<'_>,
        wanted: &str,
        get: impl Fn(&'s Named) -> Option<&'s T>,
    ) -> Option<&'s T> {
        let name = word.text.trim_start_matches(['!', '@']);
        if self.unread.contains(name) {
            let message = format!("`@{name}` is a group, and a group cannot hold another");
            context.expected(&word.at, message, "a list, or what that group holds; a rule can name both groups");
            return None;
        }
        let Some(named) = self.named.get(name) else {
            let near = nearest(name, self.named.keys().map(String::as_str).chain(self.built_in.keys().copied()));
            let hint = near.map_or(String::new(), |near| format!("; did you mean `@{near}`?"));
            context.expected(
                &word.at,
                format!("there is no list or group `{name}`{hint}"),
                format!("a [list.{name}] or [group.{name}]"),
            );
            return None;
        };
        named.used.set(true);
        if named.empty {
            let message = format!("the list `@{name}` is empty, so conditions on it never match");
            match named.strict {
                true => context.error(&word.at, message),
                false => context.warning(&word.at, message, None),
            }
        }
        let found = get(named);
        if found.is_none() {
            context.expected(&word.at, format!("`@{name}` holds {}", named.kinds()), wanted);
        }
        found
    }

    /// An address condition: `None` is every address.
    pub(super) fn addresses(&self, context: &mut Context<'_>, item: &Item<'_>) -> Option<Arc<AddressSet>> {
        let words = item.words(context, "addresses, prefixes, ranges or `@list`, or a list of them");
        if words.iter().any(|word| word.text == "any") {
            if words.len() > 1 {
                context.error(&item.at, "`any` already holds every address; remove it or the rest");
            }
            return None;
        }
        // A single list is shared, however large.
        if let [word] = &words[..]
            && word.text.starts_with('@')
        {
            return Some(self.address_set(context, word).unwrap_or_default());
        }
        let (mut within, mut except) = (AddressCollector::default(), AddressCollector::default());
        let (mut any_within, mut any_except) = (false, false);
        for word in &words {
            let (negative, text) = match word.text.strip_prefix('!') {
                Some(text) => (true, text),
                None => (false, word.text),
            };
            let into = if negative { &mut except } else { &mut within };
            any_except |= negative;
            any_within |= !negative;
            if text.starts_with('@') {
                if let Some(set) = self.address_set(context, word) {
                    into.add_set(&set);
                }
            } else if let Some(range) = values::address_range(context, text, &word.at) {
                into.add(range);
            }
        }
        let mut set = if any_within { within.finish() } else { all_addresses() };
        if any_except {
            let except = except.finish();
            set = AddressSet { v4: set.v4.without(&except.v4), v6: set.v6.without(&except.v6) };
            if set.is_empty() {
                context.error(&item.at, "nothing is left of these addresses, so the rule could never match");
            }
        }
        Some(Arc::new(set))
    }

    fn address_set(&self, context: &mut Context<'_>, word: &Word<'_>) -> Option<Arc<AddressSet>> {
        let name = word.text.trim_start_matches(['!', '@']);
        if let Some(set) = self.built_in.get(name) {
            return Some(Arc::clone(set));
        }
        self.find(context, word, "addresses", |named| named.addresses.as_ref()).cloned()
    }

    /// Ports, or ICMP types and codes, up to `limit`; `None` is every one.
    pub(super) fn numbers(&self, context: &mut Context<'_>, item: &Item<'_>, limit: u64) -> Option<NumberSet> {
        let (mut within, mut except) = (Vec::new(), Vec::new());
        let mut any_except = false;
        let words = item.words(context, "numbers, ranges (\"1000-2000\") or `@group`, or a list of them");
        for word in &words {
            if word.text == "any" {
                return None;
            }
            let negative = word.text.starts_with('!');
            any_except |= negative;
            let into = if negative { &mut except } else { &mut within };
            if word.text.trim_start_matches('!').starts_with('@') {
                if let Some(set) = self.find(context, word, "ports", |named| named.ports.as_ref()) {
                    into.extend_from_slice(set.ranges());
                }
            } else {
                let bare = Word { text: word.text.trim_start_matches('!'), at: word.at.clone() };
                into.extend(values::number_range(context, &bare, limit));
            }
        }
        if any_except && within.is_empty() {
            within.push((0, limit));
        }
        let set = NumberSet::from_ranges(within).without(&NumberSet::from_ranges(except));
        if any_except && set.ranges().is_empty() {
            context.error(&item.at, "nothing is left of these numbers, so the rule could never match");
        }
        Some(set)
    }

    /// Programs.
    pub(super) fn applications(&self, context: &mut Context<'_>, item: &Item<'_>) -> Vec<Located<String>> {
        let mut paths = Vec::new();
        for word in item.words(context, "paths of programs or `@group`, or a list of them") {
            if word.text.starts_with('@') {
                if let Some(group) = self.find(context, &word, "applications", |named| named.applications.as_ref()) {
                    paths.extend(
                        group.iter().map(|path| Located { value: path.value.clone(), span: word.at.span.clone() }),
                    );
                }
            } else {
                paths
                    .extend(values::program(context, &word).map(|value| Located { value, span: word.at.span.clone() }));
            }
        }
        paths
    }

    /// Users and groups.
    pub(super) fn users(&self, context: &mut Context<'_>, item: &Item<'_>) -> Vec<SidBuf> {
        let expected = "SIDs or `@group`, or a list of them";
        self.identities(context, item, expected, "users", |named| named.users.as_ref(), values::user)
    }

    /// Services.
    pub(super) fn services(&self, context: &mut Context<'_>, item: &Item<'_>) -> Vec<SidBuf> {
        let expected = "names of services or `@group`, or a list of them";
        self.identities(context, item, expected, "services", |named| named.services.as_ref(), values::service)
    }

    /// Packages.
    pub(super) fn packages(&self, context: &mut Context<'_>, item: &Item<'_>) -> Vec<SidBuf> {
        let expected = "family names of packages or `@group`, or a list of them";
        self.identities(context, item, expected, "packages", |named| named.packages.as_ref(), values::package)
    }

    fn identities(
        &self,
        context: &mut Context<'_>,
        item: &Item<'_>,
        expected: &str,
        kind: &str,
        of_group: fn(&Named) -> Option<&Vec<SidBuf>>,
        one: fn(&mut Context<'_>, &Word<'_>) -> Option<SidBuf>,
    ) -> Vec<SidBuf> {
        let mut found = Vec::new();
        for word in item.words(context, expected) {
            if word.text.starts_with('@') {
                if let Some(group) = self.find(context, &word, kind, of_group) {
                    found.extend_from_slice(group);
                }
            } else {
                found.extend(one(context, &word));
            }
        }
        found
    }

    /// Names.
    pub(super) fn names(&self, context: &mut Context<'_>, item: &Item<'_>) -> Arc<NameSet> {
        let words = item.words(context, "host names or `@list`, or a list of them");
        if let [word] = &words[..]
            && word.text.starts_with('@')
        {
            return self.find(context, word, "names", |named| named.names.as_ref()).cloned().unwrap_or_default();
        }
        let mut set = NameSet::default();
        for word in &words {
            if word.text.starts_with('@') {
                if let Some(list) = self.find(context, word, "names", |named| named.names.as_ref()) {
                    set.extend(list);
                }
            } else {
                add_name(context, word, &mut set);
            }
        }
        set.settle();
        Arc::new(set)
    }

    /// Warns of unused names.
    pub(super) fn report_unused(&self, context: &mut Context<'_>) {
        for (name, named) in self.named.iter().filter(|(_, named)| !named.used.get()) {
            if let Some(at) = &named.at {
                context.warning(at, format!("no rule uses `@{name}`"), None);
            }
        }
    }
}

/// Every address of both families.
pub(crate) fn all_addresses() -> AddressSet {
    let mut all = AddressCollector::default();
    all.add(address::AddressRange::V4(0, u32::MAX));
    all.add(address::AddressRange::V6(0, u128::MAX));
    all.finish()
}

fn add_name(context: &mut Context<'_>, word: &Word<'_>, set: &mut NameSet) {
    match names::parse(word.text) {
        Some((name, _)) if address::parse(&name).is_ok() => context.error_with_help(
            &word.at,
            format!("`{}` is an address, and content asks only for names", word.text),
            "use `remote` for addresses",
        ),
        Some((name, scope)) => {
            if scope != names::Scope::Exact && sluice_suffixes::is_public_suffix(&name) {
                let help = "name what is registered below it, unless all of it is meant".to_owned();
                context.warning(
                    &word.at,
                    format!("`{}` covers everything below a public suffix", word.text),
                    Some(help),
                );
            }
            set.push(&name, scope);
        }
        None => context.expected(
            &word.at,
            format!("`{}` is not a host name", word.text),
            "`name` for the name itself, `*.name` for all below, `.name` for both, or `@list`",
        ),
    }
}

fn read_group(context: &mut Context<'_>, mut reader: Reader<'_>, scope: &Scope) -> Named {
    let mut group = Named::default();
    if let Some(item) = reader.take("addresses") {
        group.addresses = Some(scope.addresses(context, &item).unwrap_or_else(|| Arc::new(all_addresses())));
    }
    if let Some(item) = reader.take("names") {
        group.names = Some(scope.names(context, &item));
    }
    if let Some(item) = reader.take("ports") {
        group.ports =
            Some(scope.numbers(context, &item, 65535).unwrap_or_else(|| NumberSet::from_ranges(vec![(0, 65535)])));
    }
    if let Some(item) = reader.take("applications") {
        group.applications = Some(scope.applications(context, &item));
    }
    if let Some(item) = reader.take("users") {
        group.users = Some(scope.users(context, &item));
    }
    if let Some(item) = reader.take("services") {
        group.services = Some(scope.services(context, &item));
    }
    if let Some(item) = reader.take("packages") {
        group.packages = Some(scope.packages(context, &item));
    }
    reader.finish(context);
    group
}

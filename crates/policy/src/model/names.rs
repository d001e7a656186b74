//! Sets of domain names.

use std::{
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
};

/// The names that an entry covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The name itself.
    Exact,
    /// The names below it.
    Below,
    /// Both.
    Both,
}

/// Names in lower-case ASCII form without a final dot. All text is stored together, so that a million names cost little
/// more than their letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameSet {
    text: String,
    /// The start of a name, its length, its scope, and whether it is an exception.
    entries: Vec<(u32, u8, Scope, bool)>,
}

impl Hash for NameSet {
    /// Hashes a list's beginning and its length: lists equal in both are compared, and lists of millions are few.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.text.len(), &self.entries[..self.entries.len().min(32)]).hash(state);
        self.text.as_bytes()[..self.text.len().min(1024)].hash(state);
    }
}

impl PartialOrd for NameSet {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NameSet {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.text, &self.entries).cmp(&(&other.text, &other.entries))
    }
}

impl NameSet {
    /// Adds a name that [`normalize`] returned.
    pub(crate) fn push(&mut self, name: &str, scope: Scope) {
        self.add(name, scope, false);
    }

    /// Adds an exception: what is listed at or below it is not in the set. [`NameSet::settle`] must follow.
    pub(crate) fn except(&mut self, name: &str, scope: Scope) {
        self.add(name, scope, true);
    }

    fn add(&mut self, name: &str, scope: Scope, except: bool) {
        self.entries.push((self.text.len() as u32, name.len() as u8, scope, except));
        self.text.push_str(name);
    }

    /// Adds another set's names and exceptions; [`NameSet::settle`] must follow.
    pub(crate) fn extend(&mut self, other: &Self) {
        for place in 0..other.len() {
            let (name, scope, except) = other.get(place);
            self.add(name, scope, except);
        }
    }

    /// Removes the names that are listed exactly like this.
    pub(crate) fn withdraw(&mut self, names: &HashSet<String>) {
        if !names.is_empty() {
            self.retain(|name, scope, except| (except || !names.contains(name)).then_some(scope));
        }
    }

    /// Removes what exceptions cover, and puts the exceptions after the rest: from then on the longest entry that
    /// covers a name decides.
    pub(crate) fn settle(&mut self) {
        if !self.entries.iter().any(|(.., except)| *except) {
            return;
        }
        // The names that are exceptions themselves, and those below which everything is.
        let mut excepted: HashMap<String, (bool, bool)> = HashMap::new();
        for place in 0..self.len() {
            if let (name, scope, true) = self.get(place) {
                let (exact, below) = excepted.entry(name.to_owned()).or_default();
                *exact |= scope != Scope::Below;
                *below |= scope != Scope::Exact;
            }
        }
        let (mut within, mut except) = (Self::default(), Self::default());
        for place in 0..self.len() {
            let (name, scope, exception) = self.get(place);
            if exception {
                except.except(name, scope);
                continue;
            }
            let above = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
            if above.into_iter().any(|above| excepted.get(above).is_some_and(|(_, below)| *below)) {
                continue;
            }
            let (exact, below) = excepted.get(name).copied().unwrap_or_default();
            match (scope != Scope::Below && !exact, scope != Scope::Exact && !below) {
                (true, true) => within.push(name, Scope::Both),
                (true, false) => within.push(name, Scope::Exact),
                (false, true) => within.push(name, Scope::Below),
                (false, false) => {}
            }
        }
        if within.is_empty() {
            except = Self::default();
        }
        within.extend(&except);
        *self = within;
    }

    fn retain(&mut self, keep: impl Fn(&str, Scope, bool) -> Option<Scope>) {
        let mut kept = Self::default();
        for place in 0..self.len() {
            let (name, scope, except) = self.get(place);
            if let Some(scope) = keep(name, scope, except) {
                kept.add(name, scope, except);
            }
        }
        *self = kept;
    }

    /// The names and the scope of each, without exceptions.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Scope)> {
        (0..self.len())
            .map(|place| self.get(place))
            .filter(|(.., except)| !except)
            .map(|(name, scope, _)| (name, scope))
    }

    /// The entry at a place, and whether it is an exception.
    pub(crate) fn get(&self, place: usize) -> (&str, Scope, bool) {
        let (start, length, scope, except) = self.entries[place];
        (&self.text[start as usize..start as usize + usize::from(length)], scope, except)
    }

    /// How many entries, exceptions among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there are exceptions.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.entries.iter().any(|(.., except)| *except)
    }

    /// Whether a name in lower case is in the set. Scans every entry.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        let covers = |(entry, scope): (&str, Scope)| {
            let below = name.strip_suffix(entry).is_some_and(|rest| rest.ends_with('.'));
            match scope {
                Scope::Exact => name == entry,
                Scope::Below => below,
                Scope::Both => below || name == entry,
            }
        };
        let any = |wanted: bool| {
            let entries = (0..self.len()).map(|place| self.get(place)).filter(|(.., except)| *except == wanted);
            entries.into_iter().any(|(entry, scope, _)| covers((entry, scope)))
        };
        any(false) && !any(true)
    }
}

/// Converts a name to the form used for comparison: ASCII (punycode where needed), lower case, no final dot.
/// `None` when it cannot be a host name: empty, too long, empty labels, characters that no resolver passes on.
#[must_use]
pub fn normalize(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let ascii = if name.is_ascii() { name.to_ascii_lowercase() } else { idna::domain_to_ascii(name).ok()? };
    let valid = !ascii.is_empty()
        && ascii.len() <= 253
        && ascii.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        });
    valid.then_some(ascii)
}

/// Parses a name as written in rules: `name` itself, `*.name` all below, `.name` both.
#[must_use]
pub fn parse(text: &str) -> Option<(String, Scope)> {
    if let Some(rest) = text.strip_prefix("*.") {
        return Some((normalize(rest)?, Scope::Below));
    }
    match text.strip_prefix('.') {
        Some(rest) => Some((normalize(rest)?, Scope::Both)),
        None => Some((normalize(text)?, Scope::Exact)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        let mut set = NameSet::default();
        for text in ["a.example", "*.b.example", ".c.example"] {
            let (name, scope) = parse(text).unwrap();
            set.push(&name, scope);
        }
        for name in ["a.example", "x.b.example", "y.x.b.example", "c.example", "x.c.example"] {
            assert!(set.contains(name), "{name}");
        }
        for name in ["x.a.example", "b.example", "xb.example", "xc.example", "example"] {
            assert!(!set.contains(name), "{name}");
        }
    }

    #[test]
    fn exceptions_take_away_what_they_cover() {
        let mut set = NameSet::default();
        for (text, except) in [
            (".ads.example", false),
            ("keep.ads.example", true),
            ("x.keep.ads.example", false),
            (".gone.other.example", false),
            (".other.example", true),
            (".half.example", false),
            ("half.example", true),
        ] {
            let (name, scope) = parse(text).unwrap();
            set.add(&name, scope, except);
        }
        set.settle();
        for name in ["ads.example", "x.ads.example", "x.keep.ads.example", "x.half.example"] {
            assert!(set.contains(name), "{name}");
        }
        for name in ["keep.ads.example", "gone.other.example", "x.gone.other.example", "half.example"] {
            assert!(!set.contains(name), "{name}");
        }
        let mut nothing = NameSet::default();
        nothing.push("a.example", Scope::Both);
        nothing.except("example", Scope::Both);
        nothing.settle();
        assert!(nothing.is_empty());
    }

    #[test]
    fn one_form() {
        assert_eq!(normalize("WWW.Example.ORG.").as_deref(), Some("www.example.org"));
        assert_eq!(normalize("bücher.example").as_deref(), Some("xn--bcher-kva.example"));
        for wrong in ["", ".", "a..b", "a b", "a/b", &"a".repeat(64), "*.x"] {
            assert_eq!(normalize(wrong), None, "{wrong}");
        }
    }
}

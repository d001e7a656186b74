//! Sets of domain names.

use std::hash::{Hash, Hasher};

/// Which names an entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The name itself.
    Exact,
    /// What lies below it.
    Below,
    /// Both.
    Both,
}

/// Names in lower-case ASCII form without a final dot. The text of all is kept together, so that a million names cost
/// little more than their letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameSet {
    text: String,
    entries: Vec<(u32, u8, Scope)>,
}

impl Hash for NameSet {
    /// Of a list's beginning and length: lists that are alike in both are compared, and those of millions are few.
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
        self.entries.push((self.text.len() as u32, name.len() as u8, scope));
        self.text.push_str(name);
    }

    /// Adds another set's names.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (name, scope) in other.iter() {
            self.push(name, scope);
        }
    }

    /// The names and what each stands for.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Scope)> {
        self.entries
            .iter()
            .map(|&(start, length, scope)| (&self.text[start as usize..start as usize + usize::from(length)], scope))
    }

    /// The entry at a place.
    pub(crate) fn get(&self, place: usize) -> (&str, Scope) {
        let (start, length, scope) = self.entries[place];
        (&self.text[start as usize..start as usize + usize::from(length)], scope)
    }

    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a name in lower case is in the set. Looks at every entry.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.iter().any(|(entry, scope)| {
            let below = name.strip_suffix(entry).is_some_and(|rest| rest.ends_with('.'));
            match scope {
                Scope::Exact => name == entry,
                Scope::Below => below,
                Scope::Both => below || name == entry,
            }
        })
    }
}

/// Brings a name into the form names are compared in: ASCII (punycode where needed), lower case, no final dot.
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

/// Reads a name as rules write it: `name` itself, `*.name` all below, `.name` both.
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
    fn one_form() {
        assert_eq!(normalize("WWW.Example.ORG.").as_deref(), Some("www.example.org"));
        assert_eq!(normalize("bücher.example").as_deref(), Some("xn--bcher-kva.example"));
        for wrong in ["", ".", "a..b", "a b", "a/b", &"a".repeat(64), "*.x"] {
            assert_eq!(normalize(wrong), None, "{wrong}");
        }
    }
}

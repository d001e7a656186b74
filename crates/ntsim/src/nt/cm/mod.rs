//! The configuration manager: the registry of one machine.
//!
//! A tree of keys in memory. Names are case-insensitive; `CurrentControlSet` is the link it is on Windows. What a
//! freshly started machine has is what drivers look for: the version, and room for services.

pub mod query;
pub mod zw;

use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The types of registry values (winnt.h).
pub mod kind {
    #![allow(missing_docs, reason = "the names are those of winnt.h")]
    pub const REG_NONE: u32 = 0;
    pub const REG_SZ: u32 = 1;
    pub const REG_EXPAND_SZ: u32 = 2;
    pub const REG_BINARY: u32 = 3;
    pub const REG_DWORD: u32 = 4;
    pub const REG_MULTI_SZ: u32 = 7;
    pub const REG_QWORD: u32 = 11;
}

/// A registry value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// [`kind`].
    pub kind: u32,
    /// The bytes as stored: little-endian numbers, UTF-16 text with its terminator.
    pub data: Vec<u8>,
}

impl Value {
    /// A `REG_DWORD`.
    #[must_use]
    pub fn dword(value: u32) -> Self {
        Self { kind: kind::REG_DWORD, data: value.to_le_bytes().to_vec() }
    }

    /// A `REG_SZ`.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self { kind: kind::REG_SZ, data: text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect() }
    }
}

/// A key, with its name and its values' names as they were written.
#[derive(Clone, Debug, Default)]
struct Key {
    name: String,
    values: BTreeMap<String, (String, Value)>,
}

/// The registry of one machine.
#[derive(Debug)]
pub struct Registry {
    /// By canonical path; a parent is there before its children.
    keys: Mutex<BTreeMap<String, Key>>,
}

/// Below which drivers have their keys.
pub const SERVICES: &str = r"\Registry\Machine\System\CurrentControlSet\Services";
const VERSION: &str = r"\Registry\Machine\Software\Microsoft\Windows NT\CurrentVersion";
const LINK: &str = r"\registry\machine\system\currentcontrolset";
const LINK_TARGET: &str = r"\registry\machine\system\controlset001";

/// The form paths are kept in.
fn canonical(path: &str) -> String {
    let lower = path.trim_end_matches('\\').to_lowercase();
    match lower.strip_prefix(LINK) {
        Some(rest) if rest.is_empty() || rest.starts_with('\\') => format!("{LINK_TARGET}{rest}"),
        _ => lower,
    }
}

impl Default for Registry {
    fn default() -> Self {
        let registry = Self { keys: Mutex::default() };
        registry.create(SERVICES);
        registry.set(VERSION, "CurrentBuildNumber", Value::text("19045"));
        registry.set(VERSION, "CurrentMajorVersionNumber", Value::dword(10));
        registry.set(VERSION, "CurrentMinorVersionNumber", Value::dword(0));
        registry
    }
}

impl Registry {
    /// The same keys and values, in another registry.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { keys: Mutex::new(self.keys.lock().clone()) }
    }

    /// Creates a key and those on the way to it; false when it exists.
    pub fn create(&self, path: &str) -> bool {
        let end = canonical(path);
        let mut keys = self.keys.lock();
        let exists = keys.contains_key(&end);
        let written: Vec<&str> = path.split('\\').rev().collect();
        let parts: Vec<&str> = end.split('\\').collect();
        for depth in 2..=parts.len() {
            let at = parts[..depth].join("\\");
            let name = written.get(parts.len() - depth).copied().unwrap_or_default();
            keys.entry(at).or_insert_with(|| Key { name: name.to_owned(), values: BTreeMap::new() });
        }
        !exists
    }

    /// Whether a key exists.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.keys.lock().contains_key(&canonical(path))
    }

    /// Deletes a key without subkeys; false when it does not exist or has subkeys.
    pub fn remove(&self, path: &str) -> bool {
        let at = canonical(path);
        let mut keys = self.keys.lock();
        let inner = format!("{at}\\");
        let has_children = keys.range(inner.clone()..).next().is_some_and(|(path, _)| path.starts_with(&inner));
        !has_children && keys.remove(&at).is_some()
    }

    /// Deletes a key with everything below it.
    pub fn remove_all(&self, path: &str) {
        let at = canonical(path);
        let inner = format!("{at}\\");
        self.keys.lock().retain(|path, _| *path != at && !path.starts_with(&inner));
    }

    /// Sets a value, creating the key.
    pub fn set(&self, path: &str, name: &str, value: Value) {
        self.create(path);
        if let Some(key) = self.keys.lock().get_mut(&canonical(path)) {
            key.values.insert(name.to_lowercase(), (name.to_owned(), value));
        }
    }

    /// A value.
    #[must_use]
    pub fn get(&self, path: &str, name: &str) -> Option<Value> {
        self.value(path, name).map(|(_, value)| value)
    }

    /// A value with its name as it was written.
    fn value(&self, path: &str, name: &str) -> Option<(String, Value)> {
        self.keys.lock().get(&canonical(path))?.values.get(&name.to_lowercase()).cloned()
    }

    /// Deletes a value; false when it does not exist.
    pub fn remove_value(&self, path: &str, name: &str) -> bool {
        let mut keys = self.keys.lock();
        keys.get_mut(&canonical(path)).is_some_and(|key| key.values.remove(&name.to_lowercase()).is_some())
    }

    /// The values of a key, by name.
    #[must_use]
    pub fn values(&self, path: &str) -> Vec<(String, Value)> {
        let keys = self.keys.lock();
        keys.get(&canonical(path)).map_or_else(Vec::new, |key| key.values.values().cloned().collect())
    }

    /// The names of a key's subkeys.
    #[must_use]
    pub fn subkeys(&self, path: &str) -> Vec<String> {
        let inner = format!("{}\\", canonical(path));
        let keys = self.keys.lock();
        let below = keys.range(inner.clone()..).take_while(|(at, _)| at.starts_with(&inner));
        below.filter(|(at, _)| !at[inner.len()..].contains('\\')).map(|(_, key)| key.name.clone()).collect()
    }

    /// The key's own name as it was written.
    fn name(&self, path: &str) -> Option<String> {
        self.keys.lock().get(&canonical(path)).map(|key| key.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_without_case_and_keep_theirs() {
        let registry = Registry::default();
        registry.set(r"\Registry\Machine\System\CurrentControlSet\Services\Sluice", "Start", Value::dword(3));
        let through = r"\REGISTRY\MACHINE\SYSTEM\ControlSet001\SERVICES\sluice";
        assert_eq!(registry.get(through, "START"), Some(Value::dword(3)));
        assert_eq!(registry.subkeys(SERVICES), ["Sluice"]);
        assert_eq!(registry.values(through)[0].0, "Start");
        assert!(registry.remove_value(through, "start") && !registry.remove_value(through, "start"));
    }

    #[test]
    fn a_key_with_subkeys_is_not_deleted() {
        let registry = Registry::default();
        assert!(registry.create(r"\Registry\Machine\Software\A\B"));
        assert!(!registry.create(r"\Registry\Machine\Software\A"));
        assert!(!registry.remove(r"\Registry\Machine\Software\A"));
        assert!(registry.remove(r"\Registry\Machine\Software\A\B"));
        assert!(registry.remove(r"\Registry\Machine\Software\A"));
        assert!(!registry.exists(r"\Registry\Machine\Software\A"));
    }
}

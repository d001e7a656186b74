//! Symbolic names of well-known objects, as `netsh wfp` prints them, and the built-in sublayers.

use crate::layers::{self, LayerTable, WindowsVersion};
use sluice_host::Guid;
use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

const DATA: &str = include_str!("data/names.txt");

/// A built-in sublayer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltinSublayer {
    /// The whole name, `FWPM_SUBLAYER_*`.
    pub name: &'static str,
    /// subLayerKey.
    pub key: Guid,
    /// weight.
    pub weight: u16,
}

/// `FWPM_SUBLAYER_UNIVERSAL`, the default sublayer of every layer.
pub const SUBLAYER_UNIVERSAL: Guid = Guid(0xeebecc03_ced4_4380_819a_2734397b2b74);

/// The built-in sublayers.
#[must_use]
pub fn builtin_sublayers() -> &'static [BuiltinSublayer] {
    static SUBLAYERS: LazyLock<Vec<BuiltinSublayer>> = LazyLock::new(|| {
        let read = |line: &'static str| {
            let mut words = line.strip_prefix("sublayer ")?.split(' ');
            let (name, guid, weight) = (words.next()?, words.next()?, words.next()?);
            Some(BuiltinSublayer { name, key: layers::parse_guid(guid)?, weight: weight.parse().ok()? })
        };
        DATA.lines().filter_map(read).collect()
    });
    &SUBLAYERS
}

/// The symbolic names of well-known GUIDs.
fn names() -> &'static HashMap<Guid, &'static str> {
    static NAMES: LazyLock<HashMap<Guid, &'static str>> = LazyLock::new(|| {
        let mut names = HashMap::new();
        for line in DATA.lines() {
            let mut words = line.split(' ');
            if let (Some("name" | "sublayer"), Some(name), Some(guid)) = (words.next(), words.next(), words.next())
                && let Some(guid) = layers::parse_guid(guid)
            {
                names.insert(guid, name);
            }
        }
        let mut intern = |prefix: &str, name: &str, key| {
            names.insert(key, &*Box::leak(format!("{prefix}{name}").into_boxed_str()));
        };
        for (name, key) in layers::all_conditions() {
            intern("FWPM_CONDITION_", name, key);
        }
        for layer in LayerTable::of(WindowsVersion::Win24H2).iter() {
            // The engine prints the layers that have no name of their own in the headers as bare GUIDs.
            if !layer.name.starts_with("RESERVED_LAYER") {
                intern("FWPM_LAYER_", layer.name, layer.key);
            }
        }
        names
    });
    &NAMES
}

/// The symbolic name of a well-known GUID: a layer, condition, sublayer, provider, callout.
#[must_use]
pub fn name_of(key: Guid) -> Option<&'static str> {
    names().get(&key).copied()
}

/// The GUID of a symbolic name.
#[must_use]
pub fn key_of(name: &str) -> Option<Guid> {
    static KEYS: LazyLock<HashMap<&'static str, Guid>> =
        LazyLock::new(|| names().iter().map(|(key, name)| (*name, *key)).collect());
    KEYS.get(name).copied()
}

/// A GUID as `netsh wfp` prints it: by name, or in braces.
#[derive(Clone, Copy, Debug)]
pub struct Named(pub Guid);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name_of(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "{{{}}}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_objects_have_names_and_others_braces() {
        let table = LayerTable::of(WindowsVersion::default());
        let connect = table.by_name("ALE_AUTH_CONNECT_V4").expect("always there").key;
        assert_eq!(Named(connect).to_string(), "FWPM_LAYER_ALE_AUTH_CONNECT_V4");
        assert_eq!(Named(SUBLAYER_UNIVERSAL).to_string(), "FWPM_SUBLAYER_UNIVERSAL");
        assert_eq!(key_of("FWPM_SUBLAYER_UNIVERSAL"), Some(SUBLAYER_UNIVERSAL));
        assert_eq!(key_of("FWPM_SUBLAYER_OF_OTHERS"), None);
        let port = layers::condition("IP_REMOTE_PORT").expect("always there");
        assert_eq!(Named(port).to_string(), "FWPM_CONDITION_IP_REMOTE_PORT");
        assert_eq!(Named(Guid(0xab)).to_string(), "{00000000-0000-0000-0000-0000000000ab}");
    }

    #[test]
    fn the_built_in_sublayers_are_complete() {
        assert_eq!(builtin_sublayers().len(), 18);
        assert!(builtin_sublayers().iter().any(|s| s.name == "FWPM_SUBLAYER_INSPECTION" && s.weight == 0));
        assert!(builtin_sublayers().iter().any(|s| s.key == SUBLAYER_UNIVERSAL && s.weight == 0x8000));
    }
}

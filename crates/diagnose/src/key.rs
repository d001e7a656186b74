//! Names of objects: GUIDs, or symbols whose GUID is not known here.

use filter_engine::names;
use serde::{Serialize, Serializer};
use sluice_host::Guid;
use std::fmt;

/// The key of an object or a field. A file prints well-known ones by name; a name that a newer Windows has and this
/// program does not know stays a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A GUID.
    Guid(Guid),
    /// A symbol of a newer Windows.
    Symbol(Box<str>),
}

impl Key {
    /// Reads a key as `netsh wfp` prints it: a symbol, or a GUID in braces.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.parse() {
            Ok(guid) => Self::Guid(guid),
            Err(_) => names::key_of(text).map_or_else(|| Self::Symbol(text.into()), Self::Guid),
        }
    }

    /// The GUID, where it is known.
    #[must_use]
    pub fn guid(&self) -> Option<Guid> {
        match self {
            Self::Guid(guid) => Some(*guid),
            Self::Symbol(_) => None,
        }
    }

    /// The symbol without what all of its kind begin with: `ALE_AUTH_CONNECT_V4` of `FWPM_LAYER_ALE_AUTH_CONNECT_V4`.
    #[must_use]
    pub fn short(&self) -> String {
        const KINDS: [&str; 6] = ["LAYER_", "SUBLAYER_", "CONDITION_", "PROVIDER_", "CALLOUT_", "PROVIDER_CONTEXT_"];
        let full = self.to_string();
        let Some(rest) = full.strip_prefix("FWPM_") else { return full };
        KINDS.iter().find_map(|kind| rest.strip_prefix(kind)).unwrap_or(rest).to_owned()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guid(guid) => names::Named(*guid).fmt(f),
            Self::Symbol(symbol) => f.write_str(symbol),
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<Guid> for Key {
    fn from(guid: Guid) -> Self {
        Self::Guid(guid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_as_it_is_printed() {
        for text in ["FWPM_LAYER_ALE_AUTH_CONNECT_V4", "{00000000-0000-0000-0000-0000000000ab}", "FWPM_LAYER_OF_2030"] {
            assert_eq!(Key::parse(text).to_string(), text);
        }
        assert_eq!(Key::parse("{00000000-0000-0000-0000-0000000000ab}"), Key::Guid(Guid(0xab)));
        assert!(Key::parse("FWPM_SUBLAYER_UNIVERSAL").guid().is_some());
        assert_eq!(Key::parse("FWPM_LAYER_OF_2030").guid(), None);
        assert_eq!(Key::parse("FWPM_CONDITION_IP_PROTOCOL").short(), "IP_PROTOCOL");
    }
}

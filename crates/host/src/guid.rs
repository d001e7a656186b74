//! GUIDs, as numbers and as text.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A GUID in its usual order (`Data1-Data2-Data3-Data4`), as written: the first byte is the most significant of `Data1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub u128);

/// A GUID is text in human-readable formats (JSON), and a number in others.
impl Serialize for Guid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Guid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            u128::deserialize(deserializer).map(Self)
        }
    }
}

/// Text that is not a GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID: expected 8-4-4-4-12 hexadecimal digits")]
pub struct GuidError;

impl std::str::FromStr for Guid {
    type Err = GuidError;

    fn from_str(text: &str) -> Result<Self, GuidError> {
        let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let groups: Vec<&str> = text.split('-').collect();
        let shape = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]);
        let digits = groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if !(shape && digits) {
            return Err(GuidError);
        }
        u128::from_str_radix(&groups.concat(), 16).map(Self).map_err(|_| GuidError)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            (v >> 96) as u32,
            (v >> 80) as u16,
            (v >> 64) as u16,
            (v >> 48) as u16,
            v as u64 & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_reads_as_it_is_written() {
        let guid = Guid(0xc38d57d1_05a7_4c33_904f_7fbceee60e82);
        let text = "c38d57d1-05a7-4c33-904f-7fbceee60e82";
        assert_eq!(guid.to_string(), text);
        assert_eq!(text.parse(), Ok(guid));
        assert_eq!(format!("{{{text}}}").parse(), Ok(guid));
        assert_eq!(serde_json::to_string(&guid).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Guid>(&format!("\"{text}\"")).unwrap(), guid);
    }

    #[test]
    fn what_is_no_guid_is_refused() {
        for text in ["", "c38d57d1-05a7-4c33-904f-7fbceee60e8", "+38d57d1-05a7-4c33-904f-7fbceee60e82", "-----", "{}"] {
            assert_eq!(text.parse::<Guid>(), Err(GuidError), "{text}");
        }
    }
}

//! The built-in layers: run-time ids, GUIDs, fields and their data types, per version of Windows.

use nt_abi::fwp::consts;
use sluice_host::Guid;
use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

/// The run-time id of a layer (`FWPS_BUILTIN_LAYERS`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(pub u16);

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match STABLE.iter().find(|(id, _)| id == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "layer {}", self.0),
        }
    }
}

macro_rules! stable_ids {
    ($($name:ident = $id:literal),* $(,)?) => {
        #[allow(missing_docs, reason = "the names are those of FWPS_BUILTIN_LAYERS")]
        impl LayerId {
            $(pub const $name: Self = Self($id);)*
        }

        const STABLE: &[(LayerId, &str)] = &[$((LayerId::$name, stringify!($name))),*];
    };
}

// The ids that have not changed since the version that introduced them (Vista to 8.1). Those from 82 on have; see the
// table.
stable_ids! {
    INBOUND_IPPACKET_V4 = 0,
    INBOUND_IPPACKET_V4_DISCARD = 1,
    INBOUND_IPPACKET_V6 = 2,
    INBOUND_IPPACKET_V6_DISCARD = 3,
    OUTBOUND_IPPACKET_V4 = 4,
    OUTBOUND_IPPACKET_V4_DISCARD = 5,
    OUTBOUND_IPPACKET_V6 = 6,
    OUTBOUND_IPPACKET_V6_DISCARD = 7,
    IPFORWARD_V4 = 8,
    IPFORWARD_V4_DISCARD = 9,
    IPFORWARD_V6 = 10,
    IPFORWARD_V6_DISCARD = 11,
    INBOUND_TRANSPORT_V4 = 12,
    INBOUND_TRANSPORT_V4_DISCARD = 13,
    INBOUND_TRANSPORT_V6 = 14,
    INBOUND_TRANSPORT_V6_DISCARD = 15,
    OUTBOUND_TRANSPORT_V4 = 16,
    OUTBOUND_TRANSPORT_V4_DISCARD = 17,
    OUTBOUND_TRANSPORT_V6 = 18,
    OUTBOUND_TRANSPORT_V6_DISCARD = 19,
    STREAM_V4 = 20,
    STREAM_V4_DISCARD = 21,
    STREAM_V6 = 22,
    STREAM_V6_DISCARD = 23,
    DATAGRAM_DATA_V4 = 24,
    DATAGRAM_DATA_V4_DISCARD = 25,
    DATAGRAM_DATA_V6 = 26,
    DATAGRAM_DATA_V6_DISCARD = 27,
    INBOUND_ICMP_ERROR_V4 = 28,
    INBOUND_ICMP_ERROR_V4_DISCARD = 29,
    INBOUND_ICMP_ERROR_V6 = 30,
    INBOUND_ICMP_ERROR_V6_DISCARD = 31,
    OUTBOUND_ICMP_ERROR_V4 = 32,
    OUTBOUND_ICMP_ERROR_V4_DISCARD = 33,
    OUTBOUND_ICMP_ERROR_V6 = 34,
    OUTBOUND_ICMP_ERROR_V6_DISCARD = 35,
    ALE_RESOURCE_ASSIGNMENT_V4 = 36,
    ALE_RESOURCE_ASSIGNMENT_V4_DISCARD = 37,
    ALE_RESOURCE_ASSIGNMENT_V6 = 38,
    ALE_RESOURCE_ASSIGNMENT_V6_DISCARD = 39,
    ALE_AUTH_LISTEN_V4 = 40,
    ALE_AUTH_LISTEN_V4_DISCARD = 41,
    ALE_AUTH_LISTEN_V6 = 42,
    ALE_AUTH_LISTEN_V6_DISCARD = 43,
    ALE_AUTH_RECV_ACCEPT_V4 = 44,
    ALE_AUTH_RECV_ACCEPT_V4_DISCARD = 45,
    ALE_AUTH_RECV_ACCEPT_V6 = 46,
    ALE_AUTH_RECV_ACCEPT_V6_DISCARD = 47,
    ALE_AUTH_CONNECT_V4 = 48,
    ALE_AUTH_CONNECT_V4_DISCARD = 49,
    ALE_AUTH_CONNECT_V6 = 50,
    ALE_AUTH_CONNECT_V6_DISCARD = 51,
    ALE_FLOW_ESTABLISHED_V4 = 52,
    ALE_FLOW_ESTABLISHED_V4_DISCARD = 53,
    ALE_FLOW_ESTABLISHED_V6 = 54,
    ALE_FLOW_ESTABLISHED_V6_DISCARD = 55,
    INBOUND_MAC_FRAME_ETHERNET = 56,
    OUTBOUND_MAC_FRAME_ETHERNET = 57,
    INBOUND_MAC_FRAME_NATIVE = 58,
    OUTBOUND_MAC_FRAME_NATIVE = 59,
    NAME_RESOLUTION_CACHE_V4 = 60,
    NAME_RESOLUTION_CACHE_V6 = 61,
    ALE_RESOURCE_RELEASE_V4 = 62,
    ALE_RESOURCE_RELEASE_V6 = 63,
    ALE_ENDPOINT_CLOSURE_V4 = 64,
    ALE_ENDPOINT_CLOSURE_V6 = 65,
    ALE_CONNECT_REDIRECT_V4 = 66,
    ALE_CONNECT_REDIRECT_V6 = 67,
    ALE_BIND_REDIRECT_V4 = 68,
    ALE_BIND_REDIRECT_V6 = 69,
    STREAM_PACKET_V4 = 70,
    STREAM_PACKET_V6 = 71,
    INGRESS_VSWITCH_ETHERNET = 72,
    EGRESS_VSWITCH_ETHERNET = 73,
    INGRESS_VSWITCH_TRANSPORT_V4 = 74,
    INGRESS_VSWITCH_TRANSPORT_V6 = 75,
    EGRESS_VSWITCH_TRANSPORT_V4 = 76,
    EGRESS_VSWITCH_TRANSPORT_V6 = 77,
    INBOUND_TRANSPORT_FAST = 78,
    OUTBOUND_TRANSPORT_FAST = 79,
    INBOUND_MAC_FRAME_NATIVE_FAST = 80,
    OUTBOUND_MAC_FRAME_NATIVE_FAST = 81,
}

/// A version of Windows, as far as the numbering of layers and the fields they have differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WindowsVersion {
    /// Windows 7.
    Win7,
    /// Windows 8.1.
    Win81,
    /// Windows 10 and 11 as of 22H2: 99 layers, 37 listed fields at ALE_AUTH_CONNECT.
    ///
    /// The headers of the WDKs 15063 to 19041 number the user-mode layers (82 and up) differently, but no machine was
    /// found that does. The numbers here are those of live machines with this set of fields.
    #[default]
    Win22H2,
    /// Windows 11 24H2: lists reserved fields too, and has PACKAGE_FAMILY_NAME.
    Win24H2,
}

impl WindowsVersion {
    /// Every version, with the name that selects it on a command line.
    pub const ALL: [(&'static str, Self); 4] =
        [("7", Self::Win7), ("8.1", Self::Win81), ("22h2", Self::Win22H2), ("24h2", Self::Win24H2)];
}

/// An unknown version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown version of Windows `{0}`: expected 7, 8.1, 22h2 (Windows 10 and 11 as of 22H2; what differs is not what \
     they are called) or 24h2 (Windows 11)"
)]
pub struct UnknownVersion(String);

impl std::str::FromStr for WindowsVersion {
    type Err = UnknownVersion;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(s));
        found.map(|(_, version)| *version).ok_or_else(|| UnknownVersion(s.to_owned()))
    }
}

/// The data type of a layer's field in a classify call. The layers whose fields are known use the unsigned integers,
/// BYTE_ARRAY16, BYTE_BLOB, SID and TOKEN_ACCESS_INFORMATION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of FWP_DATA_TYPE")]
#[repr(u32)]
pub enum FieldType {
    Uint8 = consts::FWP_UINT8,
    Uint16 = consts::FWP_UINT16,
    Uint32 = consts::FWP_UINT32,
    Uint64 = consts::FWP_UINT64,
    Int8 = consts::FWP_INT8,
    Int16 = consts::FWP_INT16,
    Int32 = consts::FWP_INT32,
    Int64 = consts::FWP_INT64,
    Float = consts::FWP_FLOAT,
    Double = consts::FWP_DOUBLE,
    ByteArray16 = consts::FWP_BYTE_ARRAY16_TYPE,
    ByteBlob = consts::FWP_BYTE_BLOB_TYPE,
    Sid = consts::FWP_SID,
    TokenAccessInformation = consts::FWP_TOKEN_ACCESS_INFORMATION_TYPE,
    UnicodeString = consts::FWP_UNICODE_STRING_TYPE,
    ByteArray6 = consts::FWP_BYTE_ARRAY6_TYPE,
}

impl FieldType {
    /// The name in fwptypes.h.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uint8 => "FWP_UINT8",
            Self::Uint16 => "FWP_UINT16",
            Self::Uint32 => "FWP_UINT32",
            Self::Uint64 => "FWP_UINT64",
            Self::Int8 => "FWP_INT8",
            Self::Int16 => "FWP_INT16",
            Self::Int32 => "FWP_INT32",
            Self::Int64 => "FWP_INT64",
            Self::Float => "FWP_FLOAT",
            Self::Double => "FWP_DOUBLE",
            Self::ByteArray16 => "FWP_BYTE_ARRAY16_TYPE",
            Self::ByteBlob => "FWP_BYTE_BLOB_TYPE",
            Self::Sid => "FWP_SID",
            Self::TokenAccessInformation => "FWP_TOKEN_ACCESS_INFORMATION_TYPE",
            Self::UnicodeString => "FWP_UNICODE_STRING_TYPE",
            Self::ByteArray6 => "FWP_BYTE_ARRAY6_TYPE",
        }
    }
}

/// `FWPM_FIELD_TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of FWPM_FIELD_TYPE")]
#[repr(u32)]
pub enum FieldKind {
    RawData = consts::FWPM_FIELD_RAW_DATA,
    IpAddress = consts::FWPM_FIELD_IP_ADDRESS,
    Flags = consts::FWPM_FIELD_FLAGS,
}

/// A field of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The condition's name after `FWPM_CONDITION_`.
    pub name: &'static str,
    /// The condition's GUID.
    pub key: Guid,
    /// The data type.
    pub data_type: FieldType,
    /// What kind of data it is.
    pub kind: FieldKind,
}

/// A built-in layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The run-time id.
    pub id: LayerId,
    /// The name after `FWPM_LAYER_`.
    pub name: &'static str,
    /// layerKey.
    pub key: Guid,
    /// `FWPM_LAYER_FLAG_*`.
    pub flags: u32,
    /// The fields by run-time index: the values that classify has.
    pub fields: Vec<Field>,
    listed: usize,
}

impl Layer {
    /// The fields that FWPM_LAYER0 lists and a filter can have conditions on. Classify may have more: the headers put
    /// `FWPS_FIELD_*_RESERVED_0` to `_3` behind NTDDI_WIN10_RS5, and live machines before 24H2 do not list them.
    #[must_use]
    pub fn listed(&self) -> &[Field] {
        &self.fields[..self.listed]
    }

    /// The run-time index of a field, by its condition's name after `FWPM_CONDITION_`.
    #[must_use]
    pub fn field_index(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// The run-time index of a listed field, by its condition's GUID.
    #[must_use]
    pub fn field_by_key(&self, key: Guid) -> Option<usize> {
        self.listed().iter().position(|field| field.key == key)
    }

    /// Whether this is a `_DISCARD` layer.
    #[must_use]
    pub fn is_discard(&self) -> bool {
        self.name.ends_with("_DISCARD")
    }

    /// Whether this is STREAM_V4 or STREAM_V6, where the layer data is a stream packet.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self.id, LayerId::STREAM_V4 | LayerId::STREAM_V6)
    }
}

/// The layers of one version of Windows.
#[derive(Debug)]
pub struct LayerTable {
    version: WindowsVersion,
    layers: Vec<Option<Layer>>,
    by_key: HashMap<Guid, LayerId>,
}

impl LayerTable {
    /// The table of a version.
    #[must_use]
    pub fn of(version: WindowsVersion) -> &'static Self {
        static TABLES: LazyLock<[LayerTable; 4]> =
            LazyLock::new(|| WindowsVersion::ALL.map(|(_, v)| LayerTable::read(v)));
        let index = WindowsVersion::ALL.iter().position(|(_, v)| *v == version);
        &TABLES[index.expect("ALL lists every version")]
    }

    fn read(version: WindowsVersion) -> Self {
        let mut layers = parse(DATA, version).expect("the embedded table of layers is well formed");
        layers.sort_by_key(|layer| layer.id);
        let by_key = layers.iter().map(|layer| (layer.key, layer.id)).collect();
        let mut slots = Vec::new();
        for layer in layers {
            slots.resize_with(usize::from(layer.id.0), || None);
            slots.push(Some(layer));
        }
        Self { version, layers: slots, by_key }
    }

    /// Which version this is the table of.
    #[must_use]
    pub fn version(&self) -> WindowsVersion {
        self.version
    }

    /// A layer by run-time id.
    #[must_use]
    pub fn get(&self, id: LayerId) -> Option<&Layer> {
        self.layers.get(usize::from(id.0))?.as_ref()
    }

    /// A layer by GUID.
    #[must_use]
    pub fn by_key(&self, key: Guid) -> Option<&Layer> {
        self.get(*self.by_key.get(&key)?)
    }

    /// A layer by name, with or without `FWPM_LAYER_`.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Layer> {
        let name = name.strip_prefix("FWPM_LAYER_").unwrap_or(name);
        self.iter().find(|layer| layer.name == name)
    }

    /// Every layer by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().flatten()
    }

    /// One more than the highest id.
    #[must_use]
    pub fn id_end(&self) -> usize {
        self.layers.len()
    }

    /// The layer that is classified after `id` discarded something: its `_DISCARD` twin.
    #[must_use]
    pub fn discard_twin(&self, id: LayerId) -> Option<&Layer> {
        // Up to 55 every even id is a layer and the odd one after it its discard layer; no other layer has one.
        let twin = (id.0 < 56 && id.0.is_multiple_of(2)).then_some(LayerId(id.0 + 1))?;
        self.get(twin).filter(|layer| layer.is_discard())
    }
}

const DATA: &str = include_str!("data/layers.txt");

/// The GUID of a condition by its name after `FWPM_CONDITION_`.
#[must_use]
pub fn condition(name: &str) -> Option<Guid> {
    static CONDITIONS: LazyLock<HashMap<&str, Guid>> =
        LazyLock::new(|| conditions(DATA).expect("the embedded table of layers is well formed"));
    CONDITIONS.get(name).copied()
}

/// The condition names and GUIDs of the table.
pub(crate) fn all_conditions() -> impl Iterator<Item = (&'static str, Guid)> {
    conditions(DATA).expect("the embedded table of layers is well formed").into_iter()
}

/// A GUID in its usual written form, without braces.
#[must_use]
pub fn parse_guid(text: &str) -> Option<Guid> {
    let groups = [8, 4, 4, 4, 12];
    let mut parts = text.split('-');
    let mut value = 0u128;
    for digits in groups {
        let part = parts.next().filter(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit()))?;
        value = value << (4 * digits) | u128::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(Guid(value))
}

fn conditions(data: &'static str) -> Result<HashMap<&'static str, Guid>, String> {
    let mut found = HashMap::new();
    for line in data.lines() {
        if let Some(rest) = line.strip_prefix("condition ") {
            let (name, guid) = rest.split_once(' ').ok_or_else(|| format!("no GUID: {line}"))?;
            found.insert(name, parse_guid(guid).ok_or_else(|| format!("bad GUID: {line}"))?);
        }
    }
    Ok(found)
}

fn parse(data: &'static str, version: WindowsVersion) -> Result<Vec<Layer>, String> {
    let conditions = conditions(data)?;
    let column = WindowsVersion::ALL.iter().position(|(_, v)| *v == version).ok_or("a version ALL does not list")?;
    let mut layers: Vec<Layer> = Vec::new();
    // Whether the fields that follow belong to the last of `layers`, or to a layer this version lacks.
    let mut present = false;
    for line in data.lines() {
        if let Some(rest) = line.strip_prefix("layer ") {
            let words: Vec<&str> = rest.split(' ').collect();
            let [name, guid, flags, ids @ ..] = words.as_slice() else { return Err(format!("too short: {line}")) };
            let id = *ids.get(column).ok_or_else(|| format!("no id in column {column}: {line}"))?;
            present = id != "-";
            if present {
                layers.push(Layer {
                    id: LayerId(id.parse().map_err(|e| format!("id: {e}: {line}"))?),
                    name,
                    key: parse_guid(guid).ok_or_else(|| format!("bad GUID: {line}"))?,
                    flags: parse_flags(flags)?,
                    fields: Vec::new(),
                    listed: 0,
                });
            }
        } else if let Some(rest) = line.strip_prefix("  ") {
            if let Some(layer) = layers.last_mut().filter(|_| present) {
                for word in rest.split(' ') {
                    let Some((field, listed)) = parse_field(word, version, &conditions)? else { continue };
                    if listed && layer.listed != layer.fields.len() {
                        return Err(format!("a listed field behind one that is not: {line}"));
                    }
                    layer.fields.push(field);
                    layer.listed += usize::from(listed);
                }
            }
        } else if !(line.starts_with('#') || line.starts_with("condition ") || line.is_empty()) {
            return Err(format!("what is this: {line}"));
        }
    }
    for i in 1..layers.len() {
        let (before, rest) = layers.split_at_mut(i);
        let (base, twin) = (&before[i - 1], &mut rest[0]);
        if twin.fields.is_empty() && twin.name.strip_suffix("_DISCARD") == Some(base.name) {
            (twin.fields, twin.listed) = (base.fields.clone(), base.listed);
        }
    }
    Ok(layers)
}

fn parse_flags(letters: &str) -> Result<u32, String> {
    letters.chars().try_fold(0, |flags, letter| {
        Ok(flags
            | match letter {
                'K' => consts::FWPM_LAYER_FLAG_KERNEL,
                'B' => consts::FWPM_LAYER_FLAG_BUILTIN,
                'M' => consts::FWPM_LAYER_FLAG_CLASSIFY_MOSTLY,
                'U' => consts::FWPM_LAYER_FLAG_BUFFERED,
                other => return Err(format!("layer flag {other}")),
            })
    })
}

/// `NAME:type[/kind][@since[+listed]]` with whether `version` lists it, or nothing when the field came later.
fn parse_field(
    word: &str,
    version: WindowsVersion,
    conditions: &HashMap<&'static str, Guid>,
) -> Result<Option<(Field, bool)>, String> {
    let (word, since) = word.split_once('@').unwrap_or((word, "7"));
    let (since, listed) = since.split_once('+').unwrap_or((since, since));
    let (name, data_type) = word.split_once(':').ok_or_else(|| format!("no type: {word}"))?;
    let (data_type, kind) = data_type.split_once('/').unwrap_or((data_type, ""));
    let has = |since: &str| {
        let since = match since {
            "7" => WindowsVersion::Win7,
            "8" => WindowsVersion::Win81,
            "10" => WindowsVersion::Win22H2,
            "24h2" => WindowsVersion::Win24H2,
            other => return Err(format!("since {other}")),
        };
        Ok((since as u8) <= (version as u8))
    };
    if !has(since)? {
        return Ok(None);
    }
    let (name, key) = conditions.get_key_value(name).ok_or_else(|| format!("condition {name} has no GUID"))?;
    let field = Field {
        name,
        key: *key,
        data_type: match data_type {
            "u8" => FieldType::Uint8,
            "u16" => FieldType::Uint16,
            "u32" => FieldType::Uint32,
            "u64" => FieldType::Uint64,
            "bytes16" => FieldType::ByteArray16,
            "blob" => FieldType::ByteBlob,
            "sid" => FieldType::Sid,
            "token" => FieldType::TokenAccessInformation,
            other => return Err(format!("type {other}")),
        },
        kind: match kind {
            "" => FieldKind::RawData,
            "address" => FieldKind::IpAddress,
            "flags" => FieldKind::Flags,
            other => return Err(format!("kind {other}")),
        },
    };
    Ok(Some((field, has(listed)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_parses_and_the_stable_ids_are_its_names() {
        for (name, version) in WindowsVersion::ALL {
            let table = LayerTable::of(version);
            assert_eq!(table.version(), version, "{name}");
            for layer in table.iter() {
                assert_eq!(table.by_key(layer.key).map(|l| l.id), Some(layer.id), "{}", layer.name);
                assert_eq!(table.get(layer.id).map(|l| l.name), Some(layer.name));
                if version == WindowsVersion::Win22H2 && layer.id.0 < 82 {
                    assert_eq!(format!("{:?}", layer.id), layer.name);
                }
            }
        }
        assert_eq!(LayerTable::of(WindowsVersion::Win22H2).iter().count(), 99);
    }

    #[test]
    fn field_counts_follow_the_version() {
        // FWPS_FIELD_ALE_AUTH_CONNECT_V4_MAX in the headers of each version; live 22H2 machines list 37 of the 41.
        for (version, passed, listed) in [
            (WindowsVersion::Win7, 32, 32),
            (WindowsVersion::Win81, 34, 34),
            (WindowsVersion::Win22H2, 41, 37),
            (WindowsVersion::Win24H2, 42, 42),
        ] {
            let layer = LayerTable::of(version).get(LayerId::ALE_AUTH_CONNECT_V4).expect("always there");
            assert_eq!((layer.fields.len(), layer.listed().len()), (passed, listed), "{version:?}");
            assert_eq!(layer.field_index("IP_REMOTE_PORT"), Some(7));
        }
    }

    #[test]
    fn reserved_fields_are_passed_before_they_are_listed() {
        // By the headers the index of RESERVED_0: 35, 37 and 20, in all four from NTDDI_WIN10_RS5 on.
        let (old, new) = (LayerTable::of(WindowsVersion::Win22H2), LayerTable::of(WindowsVersion::Win24H2));
        for (id, first) in [
            (LayerId::ALE_AUTH_RECV_ACCEPT_V4, 35),
            (LayerId::ALE_AUTH_RECV_ACCEPT_V6, 35),
            (LayerId::ALE_AUTH_CONNECT_V6, 37),
            (LayerId::ALE_FLOW_ESTABLISHED_V4, 20),
            (LayerId::ALE_FLOW_ESTABLISHED_V6_DISCARD, 20),
        ] {
            let (old, new) = (old.get(id).expect("a layer"), new.get(id).expect("a layer"));
            for layer in [old, new] {
                let names: Vec<&str> = layer.fields[first..first + 4].iter().map(|field| field.name).collect();
                assert_eq!(names, ["RESERVED0", "RESERVED1", "RESERVED2", "RESERVED3"], "{}", layer.name);
            }
            let key = new.fields[first].key;
            assert_eq!((old.listed().len(), old.fields.len()), (first, first + 4), "{}", old.name);
            assert_eq!((old.field_by_key(key), new.field_by_key(key)), (None, Some(first)), "no condition before");
        }
    }

    #[test]
    fn a_discard_layer_has_the_fields_of_its_layer() {
        let table = LayerTable::of(WindowsVersion::default());
        let twin = table.discard_twin(LayerId::INBOUND_TRANSPORT_V6).expect("has one");
        assert_eq!(twin.id, LayerId::INBOUND_TRANSPORT_V6_DISCARD);
        assert_eq!(twin.fields.len(), 15);
        assert!(table.discard_twin(LayerId::STREAM_PACKET_V4).is_none());
        assert!(table.discard_twin(LayerId::INBOUND_TRANSPORT_V6_DISCARD).is_none());
    }

    #[test]
    fn the_numbering_above_81_differs_by_version() {
        let id = |version| LayerTable::of(version).by_name("FWPM_LAYER_RPC_UM").map(|layer| layer.id.0);
        assert_eq!(id(WindowsVersion::Win7), Some(78));
        assert_eq!(id(WindowsVersion::Win81), Some(88));
        assert_eq!(id(WindowsVersion::Win22H2), Some(93));
    }

    #[test]
    fn guids_are_read_strictly() {
        assert_eq!(parse_guid("c38d57d1-05a7-4c33-904f-7fbceee60e82"), Some(Guid(0xc38d57d105a74c33904f7fbceee60e82)));
        for bad in
            ["", "c38d57d1-05a7-4c33-904f", "c38d57d105a74c33904f7fbceee60e82", "+38d57d1-05a7-4c33-904f-7fbceee60e82"]
        {
            assert_eq!(parse_guid(bad), None, "{bad}");
        }
    }
}

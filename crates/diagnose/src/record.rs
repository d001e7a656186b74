//! The objects of the Filtering Platform and its net events, as a file or a machine tells of them.

use crate::Key;
use filter_engine::condition::ConditionValue;
use filter_engine::security::sid_text;
use serde::{Serialize, Serializer};
use sluice_host::MatchType;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `FWPM_PROVIDER0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Provider {
    /// providerKey.
    pub key: Key,
    /// displayData.name.
    pub name: String,
    /// displayData.description.
    pub description: String,
    /// The names of its flags.
    pub flags: Vec<String>,
    /// serviceName.
    pub service: Option<String>,
}

/// `FWPM_SUBLAYER0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sublayer {
    /// subLayerKey.
    pub key: Key,
    /// displayData.name.
    pub name: String,
    /// displayData.description.
    pub description: String,
    /// The names of its flags.
    pub flags: Vec<String>,
    /// providerKey.
    pub provider: Option<Key>,
    /// weight: the heaviest is evaluated first.
    pub weight: u16,
}

/// `FWPM_CALLOUT0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Callout {
    /// calloutKey.
    pub key: Key,
    /// displayData.name.
    pub name: String,
    /// displayData.description.
    pub description: String,
    /// The names of its flags.
    pub flags: Vec<String>,
    /// providerKey.
    pub provider: Option<Key>,
    /// applicableLayer.
    pub layer: Key,
    /// calloutId.
    pub id: Option<u32>,
}

impl Callout {
    /// Whether a driver has registered it.
    #[must_use]
    pub fn registered(&self) -> bool {
        self.flags.iter().any(|flag| flag == "FWPM_CALLOUT_FLAG_REGISTERED")
    }
}

/// `FWPM_LAYER0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// layerKey.
    pub key: Key,
    /// displayData.name.
    pub name: String,
    /// The names of its flags.
    pub flags: Vec<String>,
    /// layerId, the number in net events.
    pub id: u16,
    /// The fields that a filter can have conditions on.
    pub fields: Vec<Field>,
}

/// A field of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// fieldKey.
    pub key: Key,
    /// dataType, as FWP_DATA_TYPE spells it.
    pub data_type: String,
}

/// `FWP_ACTION_TYPE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of FWP_ACTION_TYPE")]
pub enum Action {
    Permit,
    Block,
    CalloutTerminating,
    CalloutInspection,
    CalloutUnknown,
    /// One that a newer Windows has.
    Other(String),
}

impl Action {
    /// Reads `FWP_ACTION_*`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "FWP_ACTION_PERMIT" => Self::Permit,
            "FWP_ACTION_BLOCK" => Self::Block,
            "FWP_ACTION_CALLOUT_TERMINATING" => Self::CalloutTerminating,
            "FWP_ACTION_CALLOUT_INSPECTION" => Self::CalloutInspection,
            "FWP_ACTION_CALLOUT_UNKNOWN" => Self::CalloutUnknown,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Whether a callout is asked.
    #[must_use]
    pub fn asks_callout(&self) -> bool {
        matches!(self, Self::CalloutTerminating | Self::CalloutInspection | Self::CalloutUnknown)
    }

    /// In one word.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Permit => "permit",
            Self::Block => "block",
            Self::CalloutTerminating | Self::CalloutUnknown => "callout",
            Self::CalloutInspection => "inspect",
            Self::Other(other) => other,
        }
    }
}

/// `FWPM_FILTER_CONDITION0`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    /// fieldKey.
    pub field: Key,
    /// matchType, as FWP_MATCH_TYPE spells it.
    pub match_type: String,
    /// conditionValue.
    pub value: Value,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relation = match self.match_type.strip_prefix("FWP_MATCH_").unwrap_or(&self.match_type) {
            "EQUAL" | "RANGE" => "=",
            "NOT_EQUAL" => "!=",
            "GREATER" => ">",
            "LESS" => "<",
            "GREATER_OR_EQUAL" => ">=",
            "LESS_OR_EQUAL" => "<=",
            "FLAGS_ALL_SET" => "has all of",
            "FLAGS_ANY_SET" => "has any of",
            "FLAGS_NONE_SET" => "has none of",
            "EQUAL_CASE_INSENSITIVE" => "= (any case)",
            // The documentation itself calls the name misleading: the end of the value is compared.
            "PREFIX" => "ends with",
            "NOT_PREFIX" => "does not end with",
            other => other,
        };
        let field = self.field.short();
        let spaced = if relation.len() > 2 { " " } else { "" };
        let address = field.ends_with("_ADDRESS") && !field.contains("PHYSICAL");
        write!(f, "{field}{spaced}{relation}{spaced}{}", Shown { value: &self.value, address })
    }
}

/// A condition's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One that the filter engine can compare.
    Known(ConditionValue),
    /// One that it cannot: its type and its text.
    Unknown {
        /// The FWP_DATA_TYPE.
        kind: String,
        /// What the file has.
        text: String,
    },
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Shown { value: self, address: false })
    }
}

/// A value as people read it.
struct Shown<'a> {
    value: &'a Value,
    /// A UINT32 is an address.
    address: bool,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Value::Known(value) => known(f, value, self.address),
            Value::Unknown { text, .. } if !text.is_empty() => f.write_str(text),
            Value::Unknown { kind, .. } => f.write_str(kind),
        }
    }
}

fn known(f: &mut fmt::Formatter<'_>, value: &ConditionValue, address: bool) -> fmt::Result {
    use ConditionValue as C;
    match value {
        C::Empty => f.write_str("(empty)"),
        C::Uint8(v) => write!(f, "{v}"),
        C::Uint16(v) => write!(f, "{v}"),
        C::Uint32(v) if address => write!(f, "{}", Ipv4Addr::from(*v)),
        C::Uint32(v) => write!(f, "{v}"),
        C::Uint64(v) => write!(f, "{v}"),
        C::Int8(v) => write!(f, "{v}"),
        C::Int16(v) => write!(f, "{v}"),
        C::Int32(v) => write!(f, "{v}"),
        C::Int64(v) => write!(f, "{v}"),
        C::Float(v) => write!(f, "{v}"),
        C::Double(v) => write!(f, "{v}"),
        C::ByteArray16(v) => write!(f, "{}", Ipv6Addr::from(*v)),
        C::ByteArray6(v) => hex(f, v),
        C::ByteBlob(v) => match wide(v) {
            Some(text) => f.write_str(&text),
            None => hex(f, v),
        },
        C::Sid(v) => f.write_str(&sid_text(v)),
        C::SecurityDescriptor(v) => match filter_engine::security::SecurityDescriptor::parse(v) {
            Some(descriptor) => f.write_str(&descriptor.sddl()),
            None => hex(f, v),
        },
        C::UnicodeString(v) => f.write_str(&String::from_utf16_lossy(v)),
        C::V4AddrMask { addr, mask } => match mask.leading_ones() + mask.trailing_zeros() {
            32 => write!(f, "{}/{}", Ipv4Addr::from(*addr), mask.leading_ones()),
            _ => write!(f, "{} mask {}", Ipv4Addr::from(*addr), Ipv4Addr::from(*mask)),
        },
        C::V6AddrMask { addr, prefix_length } => write!(f, "{}/{prefix_length}", Ipv6Addr::from(*addr)),
        C::Range { low, high } => {
            known(f, low, address)?;
            f.write_str("-")?;
            known(f, high, address)
        }
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// The text in a blob of UTF-16, as a program's path is.
#[must_use]
pub fn text_of(value: &ConditionValue) -> Option<String> {
    match value {
        ConditionValue::ByteBlob(bytes) => wide(bytes),
        _ => None,
    }
}

/// UTF-16 text, where the bytes are that: a path, without its NUL.
#[must_use]
pub fn wide(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(2) {
        return None;
    }
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let text = String::from_utf16(units.strip_suffix(&[0]).unwrap_or(&units)).ok()?;
    (!text.is_empty() && !text.contains('\0')).then_some(text)
}

/// `FWP_MATCH_TYPE` by its name.
#[must_use]
pub fn match_type(name: &str) -> Option<MatchType> {
    filter_engine::condition::match_types().find(|one| filter_engine::xml::match_type_name(*one) == name)
}

/// `FWPM_FILTER0`, as it stands in the engine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Filter {
    /// filterId, the number in net events; a later filter can get the number of a deleted one.
    pub id: u64,
    /// filterKey.
    pub key: Key,
    /// displayData.name.
    pub name: String,
    /// displayData.description.
    pub description: String,
    /// The names of its flags.
    pub flags: Vec<String>,
    /// providerKey.
    pub provider: Option<Key>,
    /// layerKey.
    pub layer: Key,
    /// subLayerKey.
    pub sublayer: Key,
    /// The weight by which it is sorted in its sublayer, the heaviest first.
    pub weight: Option<u64>,
    /// filterCondition. Conditions on one field are alternatives.
    pub conditions: Vec<Condition>,
    /// action.type.
    pub action: Action,
    /// The callout, for the actions that ask one.
    pub callout: Option<Key>,
}

impl Filter {
    /// Whether it has a flag, by the name after `FWPM_FILTER_FLAG_`.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|one| one.strip_prefix("FWPM_FILTER_FLAG_") == Some(flag))
    }
}

/// What a net event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Traffic was dropped by a filter.
    Drop,
    /// Traffic was allowed by a filter.
    Allow,
    /// A package lacked a capability.
    CapabilityDrop,
    /// A package had a capability.
    CapabilityAllow,
    /// Another FWPM_NET_EVENT_TYPE, by its name.
    Other(String),
}

impl EventKind {
    /// Reads `FWPM_NET_EVENT_TYPE_*`. Windows 11 24H2 has a `PUBLIC_` in the names of classify events.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let name = text.strip_prefix("FWPM_NET_EVENT_TYPE_").unwrap_or(text);
        match name.strip_prefix("PUBLIC_").unwrap_or(name) {
            "CLASSIFY_DROP" => Self::Drop,
            "CLASSIFY_ALLOW" => Self::Allow,
            "CAPABILITY_DROP" => Self::CapabilityDrop,
            "CAPABILITY_ALLOW" => Self::CapabilityAllow,
            _ => Self::Other(text.to_owned()),
        }
    }

    /// Whether traffic was refused.
    #[must_use]
    pub fn is_drop(&self) -> bool {
        matches!(self, Self::Drop | Self::CapabilityDrop)
    }

    /// In one word.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Drop => "drop",
            Self::Allow => "allow",
            Self::CapabilityDrop => "capability drop",
            Self::CapabilityAllow => "capability allow",
            Self::Other(other) => other.strip_prefix("FWPM_NET_EVENT_TYPE_").unwrap_or(other),
        }
    }
}

/// Which way traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "they say it")]
pub enum Direction {
    In,
    Out,
    Forward,
}

impl Direction {
    /// In one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Forward => "forward",
        }
    }
}

/// What the two ends of an event are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ends {
    /// This machine and the other one.
    LocalRemote,
    /// Source and destination, in the places of the local and the remote end. The audits say these; which of them is
    /// this machine differs between their numbers and is not documented for all.
    SourceDestination,
}

/// The decision of one sublayer, as an event tells of it (`terminatingFiltersInfo`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Terminating {
    /// filterId.
    pub filter_id: u64,
    /// The sublayer's name there, which is not always that of the object.
    pub sublayer: String,
    /// `permit`, `block` or what the file says.
    pub action: Action,
}

/// A net event. A member is `None` where the event does not have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetEvent {
    /// When, as the file spells it.
    pub time: String,
    /// What happened.
    pub kind: EventKind,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// This machine's address.
    pub local: Option<IpAddr>,
    /// This machine's port; for ICMP the type.
    pub local_port: Option<u16>,
    /// The other machine's address.
    pub remote: Option<IpAddr>,
    /// The other machine's port; for ICMP the code.
    pub remote_port: Option<u16>,
    /// What these two ends are.
    pub ends: Ends,
    /// The program's NT path.
    pub app: Option<String>,
    /// The user's SID.
    pub user: Option<String>,
    /// The package's SID.
    pub package: Option<String>,
    /// filterId.
    pub filter_id: Option<u64>,
    /// layerId.
    pub layer_id: Option<u16>,
    /// msFwpDirection.
    pub direction: Option<Direction>,
    /// isLoopback.
    pub loopback: Option<bool>,
    /// The decision of each sublayer that came to one.
    pub terminating: Vec<Terminating>,
    /// filterOrigin of Windows 11: the rule of Windows Firewall or the name of one of its defaults.
    pub origin: Option<String>,
    /// interfaceIndex of Windows 11.
    pub interface: Option<u32>,
    /// The process, where the event names one.
    pub process: Option<u64>,
}

//! The records that cross the seam: services, and BFE's objects.

use crate::Guid;
use serde::{Deserialize, Serialize};

/// The state of a kernel service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceState {
    /// No such service.
    Absent,
    /// Registered, not loaded.
    Stopped,
    /// The driver is loaded.
    Running,
    /// An unload is pending, e.g. on an open handle.
    StopPending,
}

/// When a service's driver is loaded (`dwStartType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartType {
    /// SERVICE_BOOT_START: by the loader, before the disk has a file system.
    Boot,
    /// SERVICE_SYSTEM_START: while the kernel starts, before any program runs.
    System,
    /// SERVICE_AUTO_START: by the Service Control Manager at its start.
    Auto,
    /// SERVICE_DEMAND_START: when somebody asks for it.
    Demand,
    /// SERVICE_DISABLED: never.
    Disabled,
}

impl StartType {
    /// The number in winnt.h, which is the service's `Start` in the registry.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The type of a number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        let all = [Self::Boot, Self::System, Self::Auto, Self::Demand, Self::Disabled];
        all.get(number as usize).copied()
    }
}

/// A value of a service's Parameters key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parameter {
    /// REG_DWORD.
    Number(u32),
    /// REG_SZ.
    Text(String),
}

/// A kernel driver service to create (`SERVICE_KERNEL_DRIVER`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceConfig {
    /// The service's name.
    pub name: String,
    /// The name shown to people.
    pub display_name: String,
    /// The path of the .sys file on the machine.
    pub driver: String,
    /// When it is loaded.
    pub start: StartType,
}

/// `FWPM_PROVIDER0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// providerKey.
    pub key: Guid,
    /// displayData.name.
    pub name: String,
    /// displayData.description.
    pub description: String,
    /// FWPM_PROVIDER_FLAG_PERSISTENT.
    pub persistent: bool,
    /// serviceName.
    pub service: Option<String>,
}

/// `FWPM_SUBLAYER0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sublayer {
    /// subLayerKey.
    pub key: Guid,
    /// displayData.name.
    pub name: String,
    /// displayData.description.
    pub description: String,
    /// FWPM_SUBLAYER_FLAG_PERSISTENT.
    pub persistent: bool,
    /// providerKey.
    pub provider: Option<Guid>,
    /// weight.
    pub weight: u16,
}

/// `FWPM_CALLOUT0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callout {
    /// calloutKey: the GUID the driver registers with FwpsCalloutRegister.
    pub key: Guid,
    /// displayData.name.
    pub name: String,
    /// displayData.description.
    pub description: String,
    /// FWPM_CALLOUT_FLAG_PERSISTENT.
    pub persistent: bool,
    /// providerKey.
    pub provider: Option<Guid>,
    /// applicableLayer.
    pub layer: Guid,
}

/// `FWP_ACTION_TYPE` of a filter, with its callout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterAction {
    /// FWP_ACTION_PERMIT.
    Permit,
    /// FWP_ACTION_BLOCK.
    Block,
    /// FWP_ACTION_CALLOUT_TERMINATING.
    CalloutTerminating(Guid),
    /// FWP_ACTION_CALLOUT_INSPECTION.
    CalloutInspection(Guid),
    /// FWP_ACTION_CALLOUT_UNKNOWN.
    CalloutUnknown(Guid),
}

/// `FWP_MATCH_TYPE`, with its number in fwptypes.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of FWP_MATCH_TYPE")]
#[repr(u32)]
pub enum MatchType {
    Equal = 0,
    Greater = 1,
    Less = 2,
    GreaterOrEqual = 3,
    LessOrEqual = 4,
    Range = 5,
    FlagsAllSet = 6,
    FlagsAnySet = 7,
    FlagsNoneSet = 8,
    EqualCaseInsensitive = 9,
    NotEqual = 10,
    Prefix = 11,
    NotPrefix = 12,
}

impl MatchType {
    /// The match of a number in fwptypes.h.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        const ALL: [MatchType; 13] = [
            MatchType::Equal,
            MatchType::Greater,
            MatchType::Less,
            MatchType::GreaterOrEqual,
            MatchType::LessOrEqual,
            MatchType::Range,
            MatchType::FlagsAllSet,
            MatchType::FlagsAnySet,
            MatchType::FlagsNoneSet,
            MatchType::EqualCaseInsensitive,
            MatchType::NotEqual,
            MatchType::Prefix,
            MatchType::NotPrefix,
        ];
        ALL.get(number as usize).copied()
    }
}

/// `FWP_CONDITION_VALUE0`: the types that a filter of ours or of a test can use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of FWP_DATA_TYPE")]
pub enum ConditionValue {
    Empty,
    Uint8(u8),
    Uint16(u16),
    Uint32(u32),
    Uint64(u64),
    ByteArray16([u8; 16]),
    ByteBlob(Vec<u8>),
    /// In binary form.
    Sid(Vec<u8>),
    /// Self-relative: it matches a token that its list grants FWP_ACTRL_MATCH_FILTER.
    SecurityDescriptor(Vec<u8>),
    /// Host order, as FWP_V4_ADDR_AND_MASK has it.
    V4AddrMask {
        addr: u32,
        mask: u32,
    },
    V6AddrMask {
        addr: [u8; 16],
        prefix_length: u8,
    },
    /// `FWP_RANGE0`. Its ends are never ranges themselves; deserialising refuses that.
    Range {
        #[serde(deserialize_with = "range_end")]
        low: Box<ConditionValue>,
        #[serde(deserialize_with = "range_end")]
        high: Box<ConditionValue>,
    },
}

/// Reads one end of a range. [`ConditionValue`] is recursive, and so would reading it be: a hostile sender could nest
/// ranges until the reader's stack overflows.
fn range_end<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Box<ConditionValue>, D::Error> {
    /// [`ConditionValue`] without its range, in the same order.
    #[derive(Deserialize)]
    enum End {
        Empty,
        Uint8(u8),
        Uint16(u16),
        Uint32(u32),
        Uint64(u64),
        ByteArray16([u8; 16]),
        ByteBlob(Vec<u8>),
        Sid(Vec<u8>),
        SecurityDescriptor(Vec<u8>),
        V4AddrMask { addr: u32, mask: u32 },
        V6AddrMask { addr: [u8; 16], prefix_length: u8 },
    }
    Ok(Box::new(match End::deserialize(deserializer)? {
        End::Empty => ConditionValue::Empty,
        End::Uint8(value) => ConditionValue::Uint8(value),
        End::Uint16(value) => ConditionValue::Uint16(value),
        End::Uint32(value) => ConditionValue::Uint32(value),
        End::Uint64(value) => ConditionValue::Uint64(value),
        End::ByteArray16(value) => ConditionValue::ByteArray16(value),
        End::ByteBlob(value) => ConditionValue::ByteBlob(value),
        End::Sid(value) => ConditionValue::Sid(value),
        End::SecurityDescriptor(value) => ConditionValue::SecurityDescriptor(value),
        End::V4AddrMask { addr, mask } => ConditionValue::V4AddrMask { addr, mask },
        End::V6AddrMask { addr, prefix_length } => ConditionValue::V6AddrMask { addr, prefix_length },
    }))
}

/// `FWPM_FILTER_CONDITION0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// fieldKey: an FWPM_CONDITION_* GUID.
    pub field: Guid,
    /// matchType.
    pub match_type: MatchType,
    /// conditionValue.
    pub value: ConditionValue,
}

/// A filter's weight as given when it is added (`FWPM_FILTER0.weight`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Weight {
    /// FWP_EMPTY: BFE computes one from the conditions.
    Auto,
    /// FWP_UINT8, 0 to 15: the weight range; BFE computes the rest.
    Range(u8),
    /// FWP_UINT64: exactly this.
    Exact(u64),
}

/// `FWPM_FILTER0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// filterKey; None lets BFE make one.
    pub key: Option<Guid>,
    /// displayData.name.
    pub name: String,
    /// displayData.description.
    pub description: String,
    /// flags: FWPM_FILTER_FLAG_*.
    pub flags: u32,
    /// providerKey.
    pub provider: Option<Guid>,
    /// layerKey.
    pub layer: Guid,
    /// subLayerKey.
    pub sublayer: Guid,
    /// weight.
    pub weight: Weight,
    /// filterCondition: all must match, several conditions on one field are alternatives.
    pub conditions: Vec<Condition>,
    /// action.
    pub action: FilterAction,
}

/// A filter as BFE reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterEntry {
    /// filterKey.
    pub key: Guid,
    /// filterId, the number in net events.
    pub id: u64,
    /// displayData.name.
    pub name: String,
    /// layerKey.
    pub layer: Guid,
    /// providerKey.
    pub provider: Option<Guid>,
    /// subLayerKey.
    pub sublayer: Guid,
    /// flags: FWPM_FILTER_FLAG_*, with those that BFE sets by itself.
    pub flags: u32,
    /// weight, as it was given when the filter was added; `None` for a type that is not a weight.
    pub weight: Option<Weight>,
    /// filterCondition; `None` for one of a type that [`ConditionValue`] does not have, or of another match.
    pub conditions: Vec<Option<Condition>>,
    /// action; `None` for one that no program can give a filter.
    pub action: Option<FilterAction>,
}

impl FilterEntry {
    /// The entry of a filter that was added as this one and got the filterId `id`; without a key of its own its key is
    /// zero here.
    #[must_use]
    pub fn of(filter: &Filter, id: u64) -> Self {
        Self {
            key: filter.key.unwrap_or(Guid(0)),
            id,
            name: filter.name.clone(),
            layer: filter.layer,
            provider: filter.provider,
            sublayer: filter.sublayer,
            flags: filter.flags,
            weight: Some(filter.weight),
            conditions: filter.conditions.iter().cloned().map(Some).collect(),
            action: Some(filter.action),
        }
    }
}

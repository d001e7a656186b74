//! What the Base Filtering Engine lists: its objects as they stand, its net events and its options.

use crate::{Callout, ConditionValue, FilterEntry, Guid, Provider, Sublayer};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Everything that the enumerations of the objects return.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// `FwpmLayerEnum0`.
    pub layers: Vec<ListedLayer>,
    /// `FwpmProviderEnum0`, each with its `FWPM_PROVIDER_FLAG_*`.
    pub providers: Vec<(Provider, u32)>,
    /// `FwpmSubLayerEnum0`.
    pub sublayers: Vec<Sublayer>,
    /// `FwpmCalloutEnum0`.
    pub callouts: Vec<ListedCallout>,
    /// `FwpmFilterEnum0`.
    pub filters: Vec<ListedFilter>,
}

/// `FWPM_LAYER0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedLayer {
    /// layerKey.
    pub key: Guid,
    /// displayData.name.
    pub name: String,
    /// `FWPM_LAYER_FLAG_*`.
    pub flags: u32,
    /// layerId.
    pub id: u16,
    /// Its fields: fieldKey and dataType (`FWP_DATA_TYPE`).
    pub fields: Vec<(Guid, u32)>,
}

/// `FWPM_CALLOUT0` with what the engine added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedCallout {
    /// The callout.
    pub callout: Callout,
    /// calloutId.
    pub id: u32,
    /// `FWPM_CALLOUT_FLAG_*`, among them whether a driver has registered it.
    pub flags: u32,
}

/// `FWPM_FILTER0` with what the engine added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFilter {
    /// The filter.
    pub entry: FilterEntry,
    /// displayData.description.
    pub description: String,
    /// effectiveWeight.
    pub effective_weight: Option<u64>,
    /// filterCondition.
    pub conditions: Vec<ListedCondition>,
}

/// `FWPM_FILTER_CONDITION0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedCondition {
    /// fieldKey.
    pub field: Guid,
    /// matchType.
    pub match_type: u32,
    /// conditionValue.type.
    pub data_type: u32,
    /// conditionValue; `None` for a type that is not listed here.
    pub value: Option<ListedValue>,
}

/// A condition's value. Its data type tells how wide an integer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListedValue {
    /// One of the types that the seam's filters are added with.
    Plain(ConditionValue),
    /// FWP_INT8 to FWP_INT64.
    Signed(i64),
    /// FWP_BYTE_ARRAY6_TYPE.
    Bytes6([u8; 6]),
    /// FWP_SID, in binary form.
    Sid(Vec<u8>),
    /// FWP_SECURITY_DESCRIPTOR_TYPE, self-relative.
    SecurityDescriptor(Vec<u8>),
    /// FWP_UNICODE_STRING_TYPE, without its NUL.
    Text(Vec<u16>),
}

/// `FWPM_NET_EVENT2`. A member is `None` where the event's flags say that it is not set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedEvent {
    /// timeStamp, as a FILETIME.
    pub time: u64,
    /// `FWPM_NET_EVENT_TYPE`.
    pub kind: u32,
    /// ipProtocol.
    pub protocol: Option<u8>,
    /// localAddrV4 or localAddrV6.
    pub local: Option<IpAddr>,
    /// localPort.
    pub local_port: Option<u16>,
    /// remoteAddrV4 or remoteAddrV6.
    pub remote: Option<IpAddr>,
    /// remotePort.
    pub remote_port: Option<u16>,
    /// appId: UTF-16 with its NUL.
    pub app_id: Option<Vec<u8>>,
    /// userId, in binary form.
    pub user: Option<Vec<u8>>,
    /// packageSid, in binary form.
    pub package: Option<Vec<u8>>,
    /// filterId, of the events that have one.
    pub filter_id: Option<u64>,
    /// layerId, of a classify event.
    pub layer_id: Option<u16>,
    /// msFwpDirection, of a classify event.
    pub direction: Option<u32>,
    /// isLoopback.
    pub loopback: Option<bool>,
}

/// `FWPM_ENGINE_OPTION`, by number, with its name in fwpmtypes.h and what it is.
pub const ENGINE_OPTIONS: [(u32, &str, &str); 6] = [
    (0, "COLLECT_NET_EVENTS", "net events are recorded"),
    (1, "NET_EVENT_MATCH_ANY_KEYWORDS", "which events are recorded besides drops (FWPM_NET_EVENT_KEYWORD_*)"),
    (2, "NAME_CACHE", "names that were resolved are kept for the events"),
    (3, "MONITOR_IPSEC_CONNECTIONS", "IPsec connections are watched"),
    (4, "PACKET_QUEUING", "packets of IPsec are spread over processors"),
    (5, "TXN_WATCHDOG_TIMEOUT_IN_MSEC", "how long a transaction may take before it is reported"),
];

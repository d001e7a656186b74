//! The seam: a Windows machine as an administrator's program sees it.
//!
//! Plain data and few verbs, so that the two implementations (Windows through windows-sys; ntsim, in process or over
//! a socket) can be compared line by line. Names and numbers are those of the Service Control Manager, fwpmu.h and
//! DeviceIoControl.

pub mod code;

use serde::{Deserialize, Serialize};
use std::fmt;

/// A GUID in its usual order (`Data1-Data2-Data3-Data4`), as written: the first byte is the most significant of `Data1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub u128);

/// A GUID is text where people read (JSON), and a number where they do not.
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

/// A text that is not a GUID.
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

/// What the operating system answered when it refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{operation}: {message} ({})", code::Shown(*code))]
pub struct HostError {
    /// The call that failed, by its Windows name: `FwpmFilterAdd0`, `CreateServiceW`.
    pub operation: String,
    /// A Win32 error or HRESULT (`FWP_E_*`): what the user-mode call returns on Windows.
    pub code: u32,
    /// What it means.
    pub message: String,
}

impl HostError {
    /// A refusal of `operation` with a Win32 or `FWP_E_*` code; the message is that code's, where this crate knows it.
    #[must_use]
    pub fn new(operation: &str, code: u32) -> Self {
        Self { operation: operation.to_owned(), code, message: code::message(code).to_owned() }
    }

    /// The same with what the caller knows to say about it.
    #[must_use]
    pub fn with_message(operation: &str, code: u32, message: impl Into<String>) -> Self {
        Self { operation: operation.to_owned(), code, message: message.into() }
    }
}

/// The result of a call over the seam.
pub type HostResult<T> = Result<T, HostError>;

/// The state of a kernel service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceState {
    /// No such service.
    Absent,
    /// Registered, not loaded.
    Stopped,
    /// The driver is loaded.
    Running,
    /// Unload was asked for and waits, e.g. for an open handle.
    StopPending,
}

/// A kernel driver service to create (`SERVICE_KERNEL_DRIVER`, demand start).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceConfig {
    /// The service's name.
    pub name: String,
    /// The name shown to people.
    pub display_name: String,
    /// The path of the .sys file in the machine's own terms.
    pub driver: String,
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

/// `FWP_CONDITION_VALUE0`: those of its types a filter of ours or of a test can use.
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
    /// Host order, as FWP_V4_ADDR_AND_MASK has it.
    V4AddrMask {
        addr: u32,
        mask: u32,
    },
    V6AddrMask {
        addr: [u8; 16],
        prefix_length: u8,
    },
    /// `FWP_RANGE0`. Its ends are never ranges themselves, and reading one from outside refuses that.
    Range {
        #[serde(deserialize_with = "range_end")]
        low: Box<ConditionValue>,
        #[serde(deserialize_with = "range_end")]
        high: Box<ConditionValue>,
    },
}

/// Reads an end of a range. [`ConditionValue`] is recursive, and so would its reading be: a hostile sender could nest
/// ranges until the reader's stack ends.
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
    /// FWP_UINT8, 0 to 15: the range; BFE computes the rest.
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
    /// filterCondition: all must match, alternatives for one field are "or".
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
}

/// A machine as an administrator's program sees it.
pub trait Host {
    /// `QueryServiceStatus`, or [`ServiceState::Absent`] when it cannot be opened because it does not exist.
    fn service_state(&self, name: &str) -> HostResult<ServiceState>;
    /// `QueryServiceConfigW`: the path of the service's .sys file as it was given when the service was created
    /// (without the `\??\` that the Service Control Manager puts before it), or `None` when there is no such service.
    fn service_driver(&self, name: &str) -> HostResult<Option<String>>;
    /// `CreateServiceW`.
    fn create_service(&self, config: &ServiceConfig) -> HostResult<()>;
    /// `StartServiceW`: loads the driver and runs its DriverEntry.
    fn start_service(&self, name: &str) -> HostResult<()>;
    /// `ControlService(SERVICE_CONTROL_STOP)`: unloads the driver.
    fn stop_service(&self, name: &str) -> HostResult<()>;
    /// `DeleteService`.
    fn delete_service(&self, name: &str) -> HostResult<()>;
    /// `FwpmEngineOpen0`, with a session that is not dynamic.
    fn open_engine(&self) -> HostResult<Box<dyn Engine + '_>>;
    /// `CreateFileW` on a device, e.g. `\\.\Sluice`, for reading and writing.
    fn open_device(&self, path: &str) -> HostResult<Box<dyn Device>>;
    /// `FwpmGetAppIdFromFileName0`: the lower-case NT path that ALE_APP_ID carries for this file, without the
    /// terminating NUL. The file must exist.
    fn app_id(&self, path: &str) -> HostResult<String>;
}

/// An open session with the Base Filtering Engine. Dropping it closes the handle (`FwpmEngineClose0`), which aborts
/// a transaction in progress.
pub trait Engine {
    /// `FwpmTransactionBegin0`.
    fn begin(&mut self) -> HostResult<()>;
    /// `FwpmTransactionCommit0`.
    fn commit(&mut self) -> HostResult<()>;
    /// `FwpmTransactionAbort0`.
    fn abort(&mut self) -> HostResult<()>;
    /// `FwpmProviderAdd0`.
    fn add_provider(&mut self, provider: &Provider) -> HostResult<()>;
    /// `FwpmSubLayerAdd0`.
    fn add_sublayer(&mut self, sublayer: &Sublayer) -> HostResult<()>;
    /// `FwpmCalloutAdd0`; returns the run-time id.
    fn add_callout(&mut self, callout: &Callout) -> HostResult<u32>;
    /// `FwpmFilterAdd0`; returns the run-time id.
    fn add_filter(&mut self, filter: &Filter) -> HostResult<u64>;
    /// `FwpmProviderDeleteByKey0`.
    fn delete_provider(&mut self, key: Guid) -> HostResult<()>;
    /// `FwpmSubLayerDeleteByKey0`.
    fn delete_sublayer(&mut self, key: Guid) -> HostResult<()>;
    /// `FwpmCalloutDeleteByKey0`.
    fn delete_callout(&mut self, key: Guid) -> HostResult<()>;
    /// `FwpmFilterDeleteByKey0`.
    fn delete_filter(&mut self, key: Guid) -> HostResult<()>;
    /// `FwpmFilterEnum0` over all filters of a provider, or of everybody.
    fn filters(&mut self, provider: Option<Guid>) -> HostResult<Vec<FilterEntry>>;
}

/// An open device. Dropping it closes the handle, which cancels what is pending on it.
pub trait Device: Send {
    /// `DeviceIoControl`; returns how many bytes of `output` were written.
    fn control(&self, code: u32, input: &[u8], output: &mut [u8]) -> HostResult<usize>;
    /// `ReadFile`; waits at most `timeout`, then cancels the read (`CancelIoEx`) and returns 0.
    fn read(&self, output: &mut [u8], timeout: std::time::Duration) -> HostResult<usize>;
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

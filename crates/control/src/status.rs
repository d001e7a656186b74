//! What is installed and in force.

use crate::apply::{AppliedBundle, applied};
use crate::device::Control;
use crate::error::ControlError;
use crate::kept::{KeptPolicy, look};
use crate::native::{self, NativeState};
use crate::objects::{self, Change, Fail, Foreign, Inspection};
use crate::sources::{self, Moved};
use crate::trust;
use serde::Serialize;
use sluice_host::{FilterEntry, Guid, Host, ServiceState, StartType, code};
use sluice_policy::image::Origin;
use sluice_protocol::status::{Counter, kept};
use sluice_protocol::{SERVICE_NAME, Status};
use std::collections::BTreeMap;

/// What a machine has of ours.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusReport {
    /// The service.
    pub service: ServiceState,
    /// When Windows loads the driver.
    pub start: Option<StartType>,
    /// What the machine does without the driver or a policy.
    pub fail: Fail,
    /// The driver file of the service.
    pub driver_file: Option<String>,
    /// Our filters, in the order of the layers.
    pub filters: Vec<FilterLine>,
    /// Why the filters cannot be queried: the Base Filtering Engine is stopped.
    pub filters_unknown: Option<String>,
    /// Whether all our objects are present and as we add them.
    pub filters_complete: bool,
    /// Whether the filters are switched off (`sluice disable`): nothing else is missing.
    pub disabled: bool,
    /// Objects of ours that are missing.
    pub missing: Vec<String>,
    /// Objects under our keys that are not as we add them.
    pub changed: Vec<Change>,
    /// Filters in our sublayer that are not ours.
    pub foreign: Vec<Foreign>,
    /// The filters of `load --native`, which decide without the driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeState>,
    /// What the driver reports, when it is loaded.
    pub driver: Option<DriverState>,
    /// The policy that is kept for the next start of the driver.
    pub kept: Option<KeptPolicy>,
    /// The key whose bundles alone the machine takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted: Option<String>,
    /// The bundle that was applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<AppliedBundle>,
    /// Drives that are elsewhere than the policy in force has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<Moved>,
}

impl StatusReport {
    /// Whether the loaded driver fails in another way than is declared: it reads the declaration when it is loaded.
    #[must_use]
    pub fn fails_otherwise(&self) -> bool {
        self.driver.as_ref().is_some_and(|driver| driver.fails_closed != matches!(self.fail, Fail::Closed { .. }))
    }

    /// Whether the policy in force is the one that is kept.
    #[must_use]
    pub fn keeps_what_is_in_force(&self) -> bool {
        let in_force = self.driver.as_ref().and_then(|driver| driver.policy.as_ref()).map(|policy| &policy.identity);
        self.kept.as_ref().and_then(|kept| kept.identity.as_ref()) == in_force
    }
}

/// One of our filters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FilterLine {
    /// filterId, the number in net events.
    pub id: u64,
    /// The layer, without FWPM_LAYER_.
    pub layer: String,
    /// filterKey.
    pub key: Guid,
}

impl From<&FilterEntry> for FilterLine {
    fn from(entry: &FilterEntry) -> Self {
        let layer = objects::layer_name(entry.layer).map_or_else(|| entry.layer.to_string(), str::to_owned);
        Self { id: entry.id, layer, key: entry.key }
    }
}

/// What the driver reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DriverState {
    /// The protocol it speaks.
    pub protocol_version: u32,
    /// Whether it is asked about nothing until a policy is in force, as was declared when it was loaded.
    pub fails_closed: bool,
    /// The policy in force.
    pub policy: Option<PolicyState>,
    /// What became of the kept policy when the driver was loaded: `none` was kept, it was `restored`, `refused` as damaged, or
    /// `unreadable`, with the NTSTATUS.
    pub at_start: String,
    /// Its counters by name, since it was loaded.
    pub counters: BTreeMap<&'static str, u64>,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyState {
    /// Its identity, as `sluice load` printed it.
    pub identity: String,
    /// Its generation: 1 for the first since the driver was loaded.
    pub epoch: u32,
    /// How many rules it has.
    pub rules: u32,
    /// How large its image is, in bytes.
    pub bytes: u64,
    /// Where it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

impl From<&Status> for DriverState {
    fn from(report: &Status) -> Self {
        Self {
            protocol_version: report.protocol_version,
            fails_closed: report.fails_closed != 0,
            policy: (report.policy_bytes != 0).then(|| PolicyState {
                identity: identity(&report.policy_identity),
                epoch: report.epoch,
                rules: report.rules,
                bytes: report.policy_bytes,
                origin: None,
            }),
            at_start: at_start(report.kept, report.kept_status),
            counters: Counter::ALL.iter().map(|&(counter, name)| (name, report.counters.get(counter))).collect(),
        }
    }
}

/// What became of the kept policy when the driver was loaded, with the NTSTATUS of reading it.
pub(crate) fn at_start(kept: u32, ntstatus: u32) -> String {
    match kept {
        kept::NONE => "none".to_owned(),
        kept::RESTORED => "restored".to_owned(),
        kept::REFUSED => "refused".to_owned(),
        kept::UNREADABLE => format!("unreadable: NTSTATUS {ntstatus:#010x}"),
        kept::LATER => "not read yet".to_owned(),
        other => format!("unknown: {other}"),
    }
}

/// A policy's identity as text.
#[must_use]
pub fn identity(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

/// Queries the service, the filters and, when it is loaded, the driver.
///
/// # Errors
/// The machine refused a query. It is not an error that nothing is installed.
pub fn status(host: &dyn Host) -> Result<StatusReport, ControlError> {
    let service = host.service_state(SERVICE_NAME).map_err(ControlError::step("querying the service"))?;
    let driver_file = host.service_driver(SERVICE_NAME).map_err(ControlError::step("querying the service"))?;
    let fail = Fail::declared(host).map_err(ControlError::step("querying the service"))?;
    let start = host.service_start(SERVICE_NAME).map_err(ControlError::step("querying the service"))?;
    let looked = host.open_engine().and_then(|mut engine| {
        let native = native::state(&mut *engine)?;
        Ok((objects::inspect(&mut *engine, &fail)?, native))
    });
    let ((objects, native), filters_unknown) = match looked {
        Ok(found) => (found, None),
        Err(error) if code::is_engine_stopped(error.code) => ((Inspection::default(), None), Some(error.to_string())),
        Err(error) => return Err(ControlError::step("querying the filters")(error)),
    };
    let mut driver = match service {
        ServiceState::Running => Some(DriverState::from(&Control::open(host)?.1)),
        _ => None,
    };
    // A policy that cannot be looked into says nothing of drives and of where it came from; the rest of
    // the status counts all the same.
    let in_force = driver.as_ref().and_then(|_| sources::in_force(host).ok().flatten());
    if let (Some(policy), Some(image)) = (driver.as_mut().and_then(|driver| driver.policy.as_mut()), &in_force) {
        policy.origin = image.origin();
    }
    Ok(StatusReport {
        kept: look(host),
        trusted: trust::trusted(host)?.map(|key| key.to_string()),
        bundle: applied(host),
        moved: in_force.map_or_else(Vec::new, |image| sources::moved(host, &image)),
        service,
        start,
        fail,
        driver_file,
        filters: objects.filters.iter().map(FilterLine::from).collect(),
        disabled: objects.disabled(),
        filters_complete: filters_unknown.is_none() && objects.complete(),
        filters_unknown,
        missing: objects.missing,
        changed: objects.changed,
        foreign: objects.foreign,
        native,
        driver,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Memory, installed};
    use sluice_protocol::PROTOCOL_VERSION;

    #[test]
    fn an_empty_machine_is_described_not_refused() {
        let report = status(&Memory::new()).unwrap();
        assert_eq!(report.service, ServiceState::Absent);
        assert!(report.filters.is_empty() && !report.filters_complete && report.driver.is_none());
    }

    #[test]
    fn an_installed_one_shows_filters_policy_and_counters() {
        let memory = installed();
        {
            let mut driver = memory.driver.lock().unwrap();
            driver.status.epoch = 3;
            driver.status.rules = 12;
            driver.status.policy_bytes = 4096;
            driver.status.policy_identity = *b"\x00\x01456789abcdefgh";
            driver.status.counters.connects_blocked = 7;
        }
        let report = status(&memory).unwrap();
        assert!(!report.fails_otherwise());
        memory.driver.lock().unwrap().status.fails_closed = 1;
        assert!(status(&memory).unwrap().fails_otherwise(), "it was loaded when closed was declared");
        assert!(report.filters_complete);
        assert_eq!(report.filters[0].layer, "ALE_AUTH_CONNECT_V4");
        assert_eq!(report.filters[0].id, 1001);
        let state = report.driver.unwrap();
        let policy = state.policy.unwrap();
        assert_eq!((policy.epoch, policy.rules, policy.bytes), (3, 12, 4096));
        assert_eq!(policy.identity, "00013435363738396162636465666768");
        assert_eq!(state.counters["connects_blocked"], 7);
        assert_eq!(state.counters["connects_permitted"], 0);
    }

    #[test]
    fn without_the_filter_engine_the_rest_is_shown() {
        let memory = installed();
        memory.engine_stopped.set(true);
        let report = status(&memory).unwrap();
        assert!(report.filters_unknown.unwrap().contains("service BFE") && !report.filters_complete);
        assert!(report.driver.is_some() && report.service == ServiceState::Running);
    }

    #[test]
    fn a_driver_of_another_protocol_is_named() {
        let memory = installed();
        memory.driver.lock().unwrap().status.protocol_version = 99;
        let error = status(&memory).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the driver speaks protocol 99, this program protocol {PROTOCOL_VERSION}")
        );
    }
}

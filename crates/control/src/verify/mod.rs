//! Whether a machine does what its policy says: connections to endpoints that it blocks and permits, and what the Base
//! Filtering Engine and the driver say became of each.
//!
//! Nothing is connected to that the caller has not allowed. A connection carries nothing: it is closed once it is there.

mod plan;

pub use plan::{Endpoint, MOST_ENDPOINTS, plan};

use crate::error::ControlError;
use crate::events::{EventLine, EventReader, Item};
use serde::Serialize;
use sluice_host::listing::{ListedEvent, Listing};
use sluice_host::{Host, ServiceState};
use sluice_protocol::SERVICE_NAME;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::time::Duration;

/// FWPM_NET_EVENT_TYPE_CLASSIFY_DROP (fwpmtypes.h).
const CLASSIFY_DROP: u32 = 3;
/// TCP.
const TCP: u8 = 6;
/// How long the record of a connection that is over may take to appear.
const SETTLING: Duration = Duration::from_millis(200);

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// It was established.
    Connected,
    /// The other side, or a filter, answered with a reset.
    Refused,
    /// The system refused it: WSAEACCES, EACCES.
    Denied,
    /// Nothing answered in time.
    TimedOut,
    /// There is no way there.
    Unreachable,
    /// Another error, in the system's words.
    Failed(String),
}

impl Happened {
    /// In words.
    #[must_use]
    pub fn said(&self) -> &str {
        match self {
            Self::Connected => "connected",
            Self::Refused => "refused",
            Self::Denied => "denied by the system",
            Self::TimedOut => "no answer",
            Self::Unreachable => "unreachable",
            Self::Failed(what) => what,
        }
    }
}

/// What decided, by the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// `permit` or `block`.
    pub verdict: String,
    /// filterId of the filter that decided or asked the driver.
    pub filter: u64,
    /// The filter's name, where it is listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_name: Option<String>,
    /// Its provider's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The rule of the policy in force by which the driver decided, or what else did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// How it compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// As the policy says.
    AsExpected,
    /// Not as the policy says.
    Otherwise,
    /// The policy's answer depends on what is not known here; only shown.
    NotJudged,
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The endpoint, and what was expected.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// What happened.
    pub happened: Happened,
    /// What decided; none where nothing was recorded, as of what Windows permits.
    pub decided: Option<Decided>,
    /// How it compares.
    pub judgement: Judgement,
}

/// Connects to the endpoints that are allowed, one after the other, and tells `sink` of each.
///
/// # Errors
/// The machine cannot be asked for what it recorded.
pub fn verify(
    host: &dyn Host,
    endpoints: &[Endpoint],
    timeout: Duration,
    sink: &mut dyn FnMut(&Verified) -> ControlFlow<()>,
) -> Result<(), ControlError> {
    let failed = || ControlError::step("reading the net events");
    let service = host.service_state(SERVICE_NAME).map_err(ControlError::step("querying the service"))?;
    let mut reader = if service == ServiceState::Running { Some(EventReader::open(host, true)?) } else { None };
    let mut engine = host.open_engine().map_err(failed())?;
    let listing = engine.list().map_err(failed())?;
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.allowed) {
        if let Some(reader) = &mut reader {
            reader.drain(&mut |_| ControlFlow::Continue(()))?;
        }
        let before = engine.net_events().map_err(failed())?;
        let happened = connect(endpoint.remote, timeout);
        std::thread::sleep(SETTLING);
        let mut lines = Vec::new();
        if let Some(reader) = &mut reader {
            reader.drain(&mut |item| {
                if let Item::Event(line) = item {
                    lines.push((**line).clone());
                }
                ControlFlow::Continue(())
            })?;
        }
        let after = engine.net_events().map_err(failed())?;
        let decided = decided(endpoint.remote, &before, &after, &lines, &listing);
        let judgement = judged(endpoint.expected, &happened, decided.as_ref());
        let verified = Verified { endpoint: endpoint.clone(), happened, decided, judgement };
        if sink(&verified).is_break() {
            break;
        }
    }
    Ok(())
}

fn connect(remote: SocketAddr, timeout: Duration) -> Happened {
    match TcpStream::connect_timeout(&remote, timeout) {
        Ok(_) => Happened::Connected,
        Err(error) => happened(&error),
    }
}

fn happened(error: &io::Error) -> Happened {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Happened::Refused,
        ErrorKind::PermissionDenied => Happened::Denied,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Happened::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => {
            Happened::Unreachable
        }
        _ => Happened::Failed(error.to_string()),
    }
}

/// What the records that are new say of a connection to `remote`: the net event of a drop, and what the driver says.
fn decided(
    remote: SocketAddr,
    before: &[ListedEvent],
    after: &[ListedEvent],
    lines: &[EventLine],
    listing: &Listing,
) -> Option<Decided> {
    let about = |event: &&ListedEvent| {
        event.kind == CLASSIFY_DROP
            && event.protocol == Some(TCP)
            && (event.remote, event.remote_port) == (Some(remote.ip()), Some(remote.port()))
    };
    // The records are bounded, so the oldest may have gone meanwhile: new is what was not there.
    let dropped = after.iter().filter(about).find(|event| !before.contains(event));
    let line = lines.iter().filter(|line| (line.remote_address, line.remote_port) == (remote.ip(), remote.port()));
    let line = line.filter(|line| line.protocol == "tcp").min_by_key(|line| line.verdict != "block");
    let (verdict, filter) = match (dropped, line) {
        (Some(event), _) => ("block".to_owned(), event.filter_id.unwrap_or_default()),
        (None, Some(line)) => (line.verdict.to_string(), line.filter_id),
        (None, None) => return None,
    };
    let listed = listing.filters.iter().find(|listed| listed.entry.id == filter).map(|listed| &listed.entry);
    let provider = listed.and_then(|entry| entry.provider);
    let provider = listing.providers.iter().find(|(one, _)| Some(one.key) == provider).map(|(one, _)| one.name.clone());
    let rule = line.filter(|line| line.filter_id == filter).map(|line| match (&line.rule_name, line.essential) {
        (Some(name), _) => format!("rule `{name}`"),
        (None, Some(reason)) => format!("essential: {}", reason.name()),
        (None, None) => "the default".to_owned(),
    });
    Some(Decided { verdict, filter, filter_name: listed.map(|entry| entry.name.clone()), provider, rule })
}

/// A connection counts as blocked if a record says so, and as permitted if it was established or no record blocks it.
fn judged(expected: Option<&str>, happened: &Happened, decided: Option<&Decided>) -> Judgement {
    let blocked = decided.is_some_and(|decided| decided.verdict == "block");
    match expected {
        None => Judgement::NotJudged,
        Some("permit") if !blocked && *happened != Happened::Denied => Judgement::AsExpected,
        Some("block") if blocked && *happened != Happened::Connected => Judgement::AsExpected,
        Some(_) => Judgement::Otherwise,
    }
}

#[cfg(test)]
mod tests;

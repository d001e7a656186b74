//! The flows that the driver keeps: who talks with whom, how much, and what the policy in force says of it.

use crate::device::Control;
use crate::error::ControlError;
use crate::events::{EventLine, RuleNames, timestamp};
use jiff::Timestamp;
use serde::Serialize;
use sluice_host::Host;
use sluice_policy::Essential;
use sluice_protocol::event::verdict;
use sluice_protocol::flows::Record;
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A live flow. `Display` gives the line that `sluice flows` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowLine {
    /// Its handle, as in events.
    pub flow: u64,
    /// `out` or `in`.
    pub direction: Cow<'static, str>,
    /// `tcp`, `udp`, or the IANA number.
    pub protocol: Cow<'static, str>,
    /// The local address.
    pub local_address: IpAddr,
    /// The local port.
    pub local_port: u16,
    /// The remote address.
    pub remote_address: IpAddr,
    /// The remote port.
    pub remote_port: u16,
    /// Packets that this machine sent.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets that it received.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// When it was established, to a second and a half.
    pub first: Timestamp,
    /// When its last packet came, to a second and a half.
    pub last: Timestamp,
    /// What the policy in force says of it; none without a policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Cow<'static, str>>,
    /// The rule that says so, by its index from 0; `None` where none matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// Why it is beyond the direction's default; otherwise that says so, if no rule does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub essential: Option<Essential>,
    /// That rule's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
    /// The name that its content asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_id: Option<u32>,
    /// The application's NT path; its end, if it is long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
}

impl fmt::Display for FlowLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [local, remote] = [(self.local_address, self.local_port), (self.remote_address, self.remote_port)];
        write!(f, "{} {:3} {} {}", self.protocol, self.direction, SocketAddr::from(local), SocketAddr::from(remote))?;
        write!(f, " out {} B in {} packets", self.bytes_out, self.packets_out)?;
        write!(f, " in {} B in {} packets", self.bytes_in, self.packets_in)?;
        let [first, last] = [self.first, self.last].map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ"));
        write!(f, " since {first} last {last}")?;
        match (&self.verdict, &self.rule_name, self.rule) {
            (None, ..) => f.write_str(" no policy")?,
            (Some(verdict), Some(name), _) => write!(f, " {verdict} rule {name:?}")?,
            (Some(verdict), None, Some(rule)) => write!(f, " {verdict} rule {rule}")?,
            (Some(verdict), None, None) => match self.essential {
                Some(reason) => write!(f, " {verdict} essential: {}", reason.name())?,
                None => write!(f, " {verdict} default")?,
            },
        }
        if let Some(name) = &self.name {
            write!(f, " name {name:?}")?;
        }
        if let Some(application) = &self.application {
            write!(f, " {}", sluice_policy::text::harmless(application))?;
        }
        self.process_id.map_or(Ok(()), |process| write!(f, " pid {process}"))
    }
}

/// Every flow that lives while this asks, those that carried most first.
///
/// # Errors
/// The driver is not loaded, or refused.
pub fn flows(host: &dyn Host) -> Result<Vec<FlowLine>, ControlError> {
    let (device, status) = Control::open(host)?;
    let records = device.flows()?;
    let mut names = RuleNames::default();
    if status.epoch != 0 && !records.is_empty() {
        names.learn(&device, status.epoch)?;
    }
    let mut flows: Vec<FlowLine> = records.iter().map(|record| line(record, &names)).collect();
    flows.sort_by_key(|flow| (std::cmp::Reverse(flow.bytes_out.saturating_add(flow.bytes_in)), flow.flow));
    Ok(flows)
}

fn line(record: &Record, names: &RuleNames) -> FlowLine {
    let said = EventLine::from(&record.flow);
    let rule_name = names.name(&said);
    let decided = record.flow.verdict != verdict::NONE;
    FlowLine {
        flow: record.flow.flow,
        direction: said.direction,
        protocol: said.protocol,
        local_address: said.local_address,
        local_port: said.local_port,
        remote_address: said.remote_address,
        remote_port: said.remote_port,
        packets_out: record.packets_out,
        bytes_out: record.bytes_out,
        packets_in: record.packets_in,
        bytes_in: record.bytes_in,
        first: timestamp(record.first),
        last: timestamp(record.last),
        verdict: decided.then_some(said.verdict),
        rule: said.rule.filter(|_| decided),
        essential: said.essential,
        rule_name: rule_name.filter(|_| decided),
        name: said.name,
        process_id: said.process_id,
        application: said.application,
    }
}

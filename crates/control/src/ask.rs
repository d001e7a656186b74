//! Answers what rules ask.

use crate::device::Control;
use crate::error::ControlError;
use crate::events::{RuleNames, address, timestamp};
use jiff::Timestamp;
use serde::Serialize;
use sluice_host::Host;
use sluice_policy::{Verdict, model::SidBuf};
use sluice_protocol::ask::{Question as Record, flags, scope};
use sluice_protocol::event::verdict;
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// An open question. `Display` gives it as `sluice ask` shows it, in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Question {
    /// Its number.
    pub id: u64,
    /// When it was asked, UTC.
    pub time: Timestamp,
    /// How many milliseconds are left to answer in.
    pub milliseconds: u32,
    /// What holds without an answer.
    pub when_unanswered: Verdict,
    /// The index of the rule that asks, from 0.
    pub rule: u32,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
    /// The generation of its policy.
    pub epoch: u32,
    /// The process that connects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_id: Option<u32>,
    /// When it was created, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_created: Option<Timestamp>,
    /// The process that created it; it may have ended, and its number be another one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<u32>,
    /// The application's NT path; its end, if it is long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Whether only the end of it is there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub application_cut: bool,
    /// The SID of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The SIDs of the services in the process.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// The SID of the package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or the IANA number.
    pub protocol: Cow<'static, str>,
    /// The local address.
    pub local_address: IpAddr,
    /// The local port; the type for ICMP.
    pub local_port: u16,
    /// The remote address.
    pub remote_address: IpAddr,
    /// The remote port; the code for ICMP.
    pub remote_port: u16,
    /// A name that DNS has told of the remote address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many connections wait for the answer.
    pub held: u32,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let harmless = sluice_policy::text::harmless;
        match &self.application {
            Some(application) => write!(f, "{}", harmless(application))?,
            None => f.write_str("a program that is not known")?,
        }
        if let Some(process) = self.process_id {
            write!(f, " (process {process}")?;
            self.parent_id.map_or(Ok(()), |parent| write!(f, ", of {parent}"))?;
            f.write_str(")")?;
        }
        write!(f, " wants to connect to ")?;
        if let Some(name) = &self.name {
            write!(f, "{}, ", harmless(name))?;
        }
        write!(f, "{} over {}", SocketAddr::from((self.remote_address, self.remote_port)), self.protocol)?;
        if self.held > 1 {
            write!(f, " ({} connections)", self.held)?;
        }
        match &self.rule_name {
            Some(name) => write!(f, "; rule {:?} asks", harmless(name)),
            None => write!(f, "; rule {} asks", self.rule),
        }
    }
}

/// For what an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// For the connections that wait for it.
    Once,
    /// And, as long as the process lives, for everything that the rule of the same name asks about it.
    Process,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It holds.
    Yes,
    /// The question is closed: out of time, of a process that has ended, or decided by a new policy.
    Closed,
    /// It cannot be remembered for the life of the process, for want of room; the question is still open.
    NotRemembered,
}

/// Answers what rules ask, until it is dropped: then every open question gets what its rule says of no answer, and so does
/// what is asked as long as no other program answers.
pub struct Answerer {
    device: Control,
    names: RuleNames,
    known: Option<u32>,
}

impl Answerer {
    /// Begins to answer.
    ///
    /// # Errors
    /// The driver is not loaded; or another program answers.
    pub fn begin(host: &dyn Host) -> Result<Self, ControlError> {
        let (device, _) = Control::open(host)?;
        device.answer_questions()?;
        Ok(Self { device, names: RuleNames::default(), known: None })
    }

    /// The open questions, in the order in which they were asked. What was open and is not there any more is closed.
    ///
    /// # Errors
    /// A request failed.
    pub fn open(&mut self) -> Result<Vec<Question>, ControlError> {
        let records = self.device.questions()?;
        for record in &records {
            if self.known != Some(record.epoch) {
                self.names.learn(&self.device, record.epoch)?;
                self.known = Some(record.epoch);
            }
        }
        Ok(records.iter().map(|record| question(record, &self.names)).collect())
    }

    /// Answers a question.
    ///
    /// # Errors
    /// The request failed.
    pub fn answer(&self, id: u64, verdict: Verdict, scope: Scope) -> Result<Answered, ControlError> {
        let verdict = match verdict {
            Verdict::Permit => verdict::PERMIT,
            Verdict::Block => verdict::BLOCK,
        };
        let scope = match scope {
            Scope::Once => scope::ONCE,
            Scope::Process => scope::PROCESS,
        };
        self.device.answer(&sluice_protocol::ask::Answer { id, verdict, scope, reserved: [0; 6] })
    }
}

fn question(record: &Record, names: &RuleNames) -> Question {
    let utf16: Vec<u16> = record.application().as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    let application = String::from_utf16_lossy(&utf16);
    let known = |number: u32| (number != 0).then_some(number);
    let sids: Vec<SidBuf> = record.sids().filter_map(SidBuf::from_bytes).collect();
    let of =
        |prefix: &'static str| sids.iter().skip(1).map(ToString::to_string).filter(move |sid| sid.starts_with(prefix));
    Question {
        id: record.id,
        time: timestamp(record.asked),
        milliseconds: record.milliseconds,
        when_unanswered: if record.unanswered == verdict::PERMIT { Verdict::Permit } else { Verdict::Block },
        rule: record.rule,
        rule_name: names.of(record.epoch, record.rule),
        epoch: record.epoch,
        process_id: known(record.process_id),
        process_created: (record.process_created != 0).then(|| timestamp(record.process_created)),
        parent_id: known(record.parent_id),
        application: (!application.is_empty()).then_some(application),
        application_cut: record.flags & flags::APPLICATION_CUT != 0,
        user: sids.first().map(ToString::to_string),
        services: of("S-1-5-80-").collect(),
        package: of("S-1-15-2-").next(),
        protocol: crate::events::protocol(record.protocol),
        local_address: address(record.ip_version, record.local),
        local_port: record.local_port,
        remote_address: address(record.ip_version, record.remote),
        remote_port: record.remote_port,
        name: Some(String::from_utf8_lossy(record.name()).into_owned()).filter(|name| !name.is_empty()),
        held: record.held,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_says_who_wants_to_connect_where() {
        let mut record = Record {
            id: 3,
            process_id: 7,
            parent_id: 4,
            protocol: 6,
            ip_version: 4,
            remote_port: 443,
            unanswered: verdict::BLOCK,
            held: 1,
            ..Record::zeroed()
        };
        record.remote[..4].copy_from_slice(&[203, 0, 113, 9]);
        record.set_application(&"\\device\\a\u{1b}.exe".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
        record.set_name(b"www.example.com");
        for sid in ["S-1-5-18", "S-1-5-80-1-2-3-4-5", "S-1-15-2-1-2"] {
            record.add_sid(SidBuf::parse(sid).unwrap().bytes());
        }
        let one = question(&record, &RuleNames::default());
        assert_eq!(one.user.as_deref(), Some("S-1-5-18"));
        assert_eq!(
            (&one.services[..], one.package.as_deref()),
            (&["S-1-5-80-1-2-3-4-5".to_owned()][..], Some("S-1-15-2-1-2"))
        );
        assert_eq!((one.process_created, one.when_unanswered), (None, Verdict::Block));
        let said = one.to_string();
        assert!(
            said.ends_with(
                "(process 7, of 4) wants to connect to www.example.com, 203.0.113.9:443 over tcp; rule 0 asks"
            ),
            "{said}"
        );
        assert!(said.starts_with("\\device\\a") && !said.contains('\u{1b}'), "{said}");
    }
}

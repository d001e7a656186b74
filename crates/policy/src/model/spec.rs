//! Flows as written by people: in expectations, on the command line, in reports.

use super::SidBuf;
use crate::{
    compile::utf16,
    flow::{AppId, Direction, Flow, Identities, Name, Sid},
};
use serde::{Serialize, Serializer};
use std::{fmt, net::IpAddr};

/// A flow that owns its parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FlowSpec {
    /// Who opens it.
    pub direction: Direction,
    /// IP protocol.
    pub protocol: u8,
    /// This machine's side.
    pub local: (IpAddr, u16),
    /// The other machine's side.
    pub remote: (IpAddr, u16),
    /// The program's path, as in rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Its owner: user, groups, services, package. Empty if not known.
    #[serde(rename = "user", skip_serializing_if = "Vec::is_empty", serialize_with = "sids")]
    pub users: Vec<SidBuf>,
    /// The interface's LUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<u64>,
    /// The name that the content asks for; `Some(None)` if it is undecidable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_name: Option<Option<String>>,
}

fn sids<S: Serializer>(sids: &[SidBuf], serializer: S) -> Result<S::Ok, S::Error> {
    match sids {
        [one] => serializer.collect_str(one),
        all => serializer.collect_seq(all.iter().map(ToString::to_string)),
    }
}

/// The SIDs of a flow's owner, with those in every token.
#[derive(Debug)]
struct Owner<'s>(&'s [SidBuf]);

/// `Everyone`, S-1-1-0.
const EVERYONE: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];

impl Identities for Owner<'_> {
    fn each(&self, visit: &mut dyn FnMut(Sid<'_>)) {
        visit(Sid(&EVERYONE));
        self.0.iter().for_each(|sid| visit(Sid(sid.bytes())));
    }
}

impl FlowSpec {
    /// Passes the flow to `ask`, with its program resolved by `resolve`.
    ///
    /// # Errors
    /// The error of `resolve`.
    pub fn with<T>(
        &self,
        resolve: &dyn Fn(&str) -> Result<String, String>,
        ask: impl FnOnce(&Flow<'_>) -> T,
    ) -> Result<T, String> {
        let program = self.application.as_deref().map(resolve).transpose()?.map(|path| utf16(&path));
        let mut flow =
            Flow::new(self.direction, self.protocol, self.local.0, self.local.1, self.remote.0, self.remote.1);
        flow.application = program.as_deref().map(AppId);
        let owner = Owner(&self.users);
        flow.others = (!self.users.is_empty()).then_some(&owner as &dyn Identities);
        flow.interface = self.interface;
        // Who names no port gets one that the system chooses.
        flow.port_chosen = self.direction == Direction::Bind && self.local.1 == 0;
        flow.name = match &self.remote_name {
            None => Name::Unknown,
            Some(None) => Name::Undecidable,
            Some(Some(name)) => Name::Known(name.as_bytes()),
        };
        Ok(ask(&flow))
    }
}

impl fmt::Display for FlowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.direction.word();
        let arrow = if self.direction == Direction::Inbound { "<-" } else { "->" };
        let protocol = match self.protocol {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "icmpv6".to_owned(),
            other => format!("protocol {other}"),
        };
        let icmp = matches!(self.protocol, 1 | 58);
        let end = |(address, port): (IpAddr, u16)| std::net::SocketAddr::new(address, port);
        if self.direction.is_local() {
            write!(f, "{word} {protocol} {}", end(self.local))?;
        } else if icmp {
            write!(f, "{word} {protocol} type {} code {} ", self.local.1, self.remote.1)?;
            write!(f, "{} {arrow} {}", self.local.0, self.remote.0)?;
        } else {
            write!(f, "{word} {protocol} {} {arrow} {}", end(self.local), end(self.remote))?;
        }
        if let Some(program) = &self.application {
            write!(f, " by {program}")?;
        }
        for (index, user) in self.users.iter().enumerate() {
            write!(f, "{}{user}", if index == 0 { " as " } else { " and " })?;
        }
        if let Some(luid) = self.interface {
            write!(f, " on luid:{luid:#x}")?;
        }
        match &self.remote_name {
            Some(Some(name)) => write!(f, " asking for {name}"),
            Some(None) => f.write_str(" asking for an undecidable name"),
            None => Ok(()),
        }
    }
}

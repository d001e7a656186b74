//! netsh's own conditions on filters and net events: `protocol= localaddr= remoteaddr= localport= remoteport= appid=
//! userid= dir= verbose=`.

use crate::Key;
use crate::record::{Condition, Direction, Filter, NetEvent, Value, match_type};
use crate::traffic::Traffic;
use filter_engine::condition;
use filter_engine::explain::{Facts, Matching};
use filter_engine::layers::{Layer, LayerTable, WindowsVersion};
use filter_engine::security::Sid;
use std::net::IpAddr;

/// What is asked of traffic; `None` asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// `protocol=`.
    pub protocol: Option<u8>,
    /// `localaddr=`.
    pub local: Option<IpAddr>,
    /// `remoteaddr=`.
    pub remote: Option<IpAddr>,
    /// `localport=`.
    pub local_port: Option<u16>,
    /// `remoteport=`.
    pub remote_port: Option<u16>,
    /// `appid=`: the program's NT path.
    pub app: Option<String>,
    /// `userid=`: a SID.
    pub user: Option<Sid>,
    /// `dir=`.
    pub direction: Option<Direction>,
    /// `verbose=on`: also filters that match such traffic only because they say nothing of it.
    pub verbose: bool,
}

/// The names of the conditions.
pub const CONDITIONS: [&str; 9] =
    ["protocol", "localaddr", "remoteaddr", "localport", "remoteport", "appid", "userid", "dir", "verbose"];

impl Query {
    /// Takes one `name=value`.
    ///
    /// # Errors
    /// What is wrong with it, and what was expected.
    pub fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = |expected: &str| format!("{name}={value}: expected {expected}");
        match name {
            "protocol" => {
                self.protocol = Some(protocol(value).ok_or_else(|| wrong("tcp, udp, icmp, icmpv6 or a number"))?)
            }
            "localaddr" => self.local = Some(value.parse().map_err(|_| wrong("an IP address"))?),
            "remoteaddr" => self.remote = Some(value.parse().map_err(|_| wrong("an IP address"))?),
            "localport" => self.local_port = Some(value.parse().map_err(|_| wrong("a port"))?),
            "remoteport" => self.remote_port = Some(value.parse().map_err(|_| wrong("a port"))?),
            "appid" if !value.is_empty() => self.app = Some(value.to_owned()),
            "appid" => {
                return Err(wrong(r"a program's path, as in \device\harddiskvolume3\windows\system32\svchost.exe"));
            }
            "userid" => self.user = Some(Sid::from_text(value).ok_or_else(|| wrong("a SID, as in S-1-5-18"))?),
            "dir" if value.eq_ignore_ascii_case("in") => self.direction = Some(Direction::In),
            "dir" if value.eq_ignore_ascii_case("out") => self.direction = Some(Direction::Out),
            "dir" => return Err(wrong("in or out")),
            "verbose" if value.eq_ignore_ascii_case("on") => self.verbose = true,
            "verbose" if value.eq_ignore_ascii_case("off") => self.verbose = false,
            "verbose" => return Err(wrong("on or off")),
            _ => return Err(format!("{name}= is not one of {}=", CONDITIONS.join("=, "))),
        }
        Ok(())
    }

    /// Whether anything is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { verbose: self.verbose, ..Self::default() }
    }

    /// Whether an event is about such traffic. What the event does not tell does not match.
    #[must_use]
    pub fn takes_event(&self, event: &NetEvent) -> bool {
        fn asks<T: PartialEq>(wanted: Option<&T>, has: Option<&T>) -> bool {
            wanted.is_none_or(|wanted| has == Some(wanted))
        }
        let app = |app: &String| event.app.as_deref().is_some_and(|is| is_program(is, app));
        let user = |user: &Sid| event.user.as_deref() == Some(user.to_string().as_str());
        asks(self.protocol.as_ref(), event.protocol.as_ref())
            && asks(self.local.as_ref(), event.local.as_ref())
            && asks(self.remote.as_ref(), event.remote.as_ref())
            && asks(self.local_port.as_ref(), event.local_port.as_ref())
            && asks(self.remote_port.as_ref(), event.remote_port.as_ref())
            && asks(self.direction.as_ref(), event.direction.as_ref())
            && self.app.as_ref().is_none_or(app)
            && self.user.as_ref().is_none_or(user)
    }

    /// Whether a filter can match such traffic. Without `verbose`, only one that has a condition on something asked.
    #[must_use]
    pub fn takes_filter(&self, filter: &Filter) -> bool {
        if self.is_empty() {
            return true;
        }
        let Some(layer) = layer(&filter.layer) else {
            // Nothing is known of this layer's traffic.
            return self.verbose;
        };
        if self.direction.is_some_and(|wanted| layer_direction(layer).is_some_and(|is| is != wanted)) {
            return false;
        }
        let wrong_version = |address: Option<IpAddr>| match address {
            Some(IpAddr::V4(_)) => layer.name.contains("_V6"),
            Some(IpAddr::V6(_)) => layer.name.contains("_V4"),
            None => false,
        };
        if wrong_version(self.local) || wrong_version(self.remote) {
            return false;
        }
        let facts = self.facts(layer);
        let conditions: Vec<Option<condition::Condition>> = filter.conditions.iter().map(understood).collect();
        match facts.matching(conditions.iter().map(Option::as_ref)) {
            Matching::No { .. } => false,
            Matching::Yes | Matching::Unknown { .. } if self.verbose => true,
            Matching::Yes => !conditions.is_empty(),
            // Conditions that hold are not among the unknown ones.
            Matching::Unknown { conditions: open } => {
                conditions.iter().enumerate().any(|(index, one)| !open.contains(&index) && self.is_about(one.as_ref()))
            }
        }
    }

    /// Whether a condition is on something asked.
    fn is_about(&self, condition: Option<&condition::Condition>) -> bool {
        let Some(condition) = condition else { return false };
        let field = Key::Guid(condition.field).short();
        match field.as_str() {
            "IP_PROTOCOL" => self.protocol.is_some(),
            "IP_LOCAL_ADDRESS" | "IP_SOURCE_ADDRESS" => self.local.is_some(),
            "IP_REMOTE_ADDRESS" | "IP_DESTINATION_ADDRESS" => self.remote.is_some(),
            "IP_LOCAL_PORT" => self.local_port.is_some(),
            "IP_REMOTE_PORT" => self.remote_port.is_some(),
            "ALE_APP_ID" => self.app.is_some(),
            "ALE_USER_ID" => self.user.is_some(),
            "DIRECTION" => self.direction.is_some(),
            _ => false,
        }
    }

    fn facts<'a>(&self, layer: &'a Layer) -> Facts<'a> {
        let traffic = Traffic {
            protocol: self.protocol,
            local: self.local,
            local_port: self.local_port,
            remote: self.remote,
            remote_port: self.remote_port,
            app: self.app.clone(),
            token: self.user.as_ref().map(|user| vec![user.clone(), Sid::new(1, &[0])]),
            direction: self.direction,
            ..Traffic::default()
        };
        traffic.facts(layer)
    }
}

/// The layer of the newest Windows with this key: it has the fields of every version.
#[must_use]
pub fn layer(key: &Key) -> Option<&'static Layer> {
    LayerTable::of(WindowsVersion::Win24H2).by_key(key.guid()?)
}

/// A condition as the filter engine has it; `None` when it cannot be understood.
#[must_use]
pub fn understood(condition: &Condition) -> Option<condition::Condition> {
    let Value::Known(value) = &condition.value else { return None };
    let (field, match_type) = (condition.field.guid()?, match_type(&condition.match_type)?);
    Some(condition::Condition { field, match_type, value: value.clone() })
}

/// ALE_APP_ID as classify carries it: the path in lower case, with its NUL.
#[must_use]
pub fn app_id(path: &str) -> Vec<u8> {
    path.to_lowercase().encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Which way the traffic of a layer goes, where that is one way.
fn layer_direction(layer: &Layer) -> Option<Direction> {
    let name = layer.name;
    if name.starts_with("INBOUND_") || ["ALE_AUTH_RECV_ACCEPT_", "ALE_AUTH_LISTEN_"].iter().any(|n| name.starts_with(n))
    {
        Some(Direction::In)
    } else if name.starts_with("OUTBOUND_")
        || ["ALE_AUTH_CONNECT_", "ALE_CONNECT_REDIRECT_"].iter().any(|n| name.starts_with(n))
    {
        Some(Direction::Out)
    } else {
        None
    }
}

/// Whether a program's path is the asked one: the whole path, or its end from a backslash on.
fn is_program(path: &str, asked: &str) -> bool {
    let (path, asked) = (path.to_lowercase(), asked.to_lowercase());
    path == asked || path.strip_suffix(&asked).is_some_and(|rest| asked.starts_with('\\') || rest.ends_with('\\'))
}

/// A protocol by its number or name.
#[must_use]
pub fn protocol(text: &str) -> Option<u8> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Some(6),
        "udp" => Some(17),
        "icmp" => Some(1),
        "icmpv6" => Some(58),
        number => number.parse().ok(),
    }
}

/// A protocol's name, or its number.
#[must_use]
pub fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        2 => "igmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

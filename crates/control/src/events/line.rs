//! A decision in words.

use jiff::Timestamp;
use serde::Serialize;
use sluice_policy::{Direction, Essential, Flow};
use sluice_protocol::event::{RULE_DEFAULT, RULE_ESSENTIAL, asked, direction, flags, verdict};
use sluice_protocol::{Event, object};
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One decision in words. `Display` gives the line that `sluice events` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventLine {
    /// The driver's number for the event, from 1.
    pub sequence: u64,
    /// When the driver decided, UTC.
    pub time: Timestamp,
    /// `permit` or `block`.
    pub verdict: Cow<'static, str>,
    /// `out` or `in`.
    pub direction: Cow<'static, str>,
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
    /// The process, where the layer reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_id: Option<u32>,
    /// The application's NT path, where the layer reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// The name that its content asked for, where that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The deciding rule's index in the policy, from 0; `None` where none matched.
    pub rule: Option<u32>,
    /// Why it is beyond the direction's default; otherwise that decided, if no rule did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub essential: Option<Essential>,
    /// The deciding rule's name, in the policy that decided; none when the driver does not have it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
    /// The generation of the policy that decided.
    pub epoch: u32,
    /// The layer, without FWPM_LAYER_.
    pub layer: Cow<'static, str>,
    /// The filter that asked the driver, as in net events.
    pub filter_id: u64,
    /// The flow's handle, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<u64>,
    /// Further remarks.
    pub notes: Vec<&'static str>,
}

impl From<&Event> for EventLine {
    fn from(event: &Event) -> Self {
        let utf16: Vec<u16> = event.application().as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
        let application = String::from_utf16_lossy(&utf16);
        let application = application.trim_end_matches('\0');
        Self {
            sequence: event.sequence,
            time: timestamp(event.time),
            verdict: match event.verdict {
                verdict::PERMIT => "permit".into(),
                verdict::BLOCK => "block".into(),
                other => format!("verdict {other}").into(),
            },
            direction: match event.direction {
                direction::OUTBOUND => "out".into(),
                direction::INBOUND => "in".into(),
                direction::FORWARD => "forward".into(),
                direction::LISTEN => "listen".into(),
                direction::BIND => "bind".into(),
                other => format!("direction {other}").into(),
            },
            protocol: protocol(event.protocol),
            local_address: address(event.ip_version, event.local),
            local_port: event.local_port,
            remote_address: address(event.ip_version, event.remote),
            remote_port: event.remote_port,
            process_id: (event.process_id != 0).then_some(event.process_id),
            application: (!application.is_empty()).then(|| application.to_owned()),
            name: Some(String::from_utf8_lossy(event.name()).into_owned()).filter(|name| !name.is_empty()),
            rule: Some(event.rule).filter(|rule| !matches!(*rule, RULE_DEFAULT | RULE_ESSENTIAL)),
            essential: essential(event),
            rule_name: None,
            epoch: event.epoch,
            layer: match object::CALLOUTS.iter().find(|place| place.layer_id == event.layer) {
                Some(place) => place.name.into(),
                None => format!("layer {}", event.layer).into(),
            },
            filter_id: event.filter_id,
            flow: (event.flow != 0).then_some(event.flow),
            notes: NOTES
                .iter()
                .filter(|(bit, _)| event.flags & bit != 0)
                .map(|&(_, note)| note)
                .chain(ASKED.iter().filter(|(how, _)| event.asked == *how).map(|&(_, note)| note))
                .collect(),
        }
    }
}

/// Why the driver called a flow essential: it says only that it did.
fn essential(event: &Event) -> Option<Essential> {
    let [local, remote] = [event.local, event.remote].map(|octets| address(event.ip_version, octets));
    let direction = match event.direction {
        direction::INBOUND => Direction::Inbound,
        direction::LISTEN => Direction::Listen,
        direction::BIND => Direction::Bind,
        _ => Direction::Outbound,
    };
    let flow = Flow::new(direction, event.protocol, local, event.local_port, remote, event.remote_port)
        .with_loopback(event.flags & flags::LOOPBACK != 0)
        .with_port_chosen(event.flags & flags::PORT_CHOSEN != 0);
    if event.rule == RULE_ESSENTIAL { Essential::of(&flow) } else { None }
}

const NOTES: [(u16, &str); 13] = [
    (flags::HARD, "hard"),
    (flags::REAUTHORIZE, "reauthorized"),
    (flags::FLOW_REVOKED, "flow revoked"),
    (flags::NO_RIGHT, "no right to write"),
    (flags::VETO, "veto"),
    (flags::LOOPBACK, "loopback"),
    (flags::APPLICATION_CUT, "application cut"),
    (flags::AWAITS_NAME, "awaits its name"),
    (flags::BY_CONTENT, "by content"),
    (flags::NAME_CUT, "name cut"),
    (flags::LEARNED, "learned"),
    (flags::PORT_CHOSEN, "port chosen by the system"),
    (flags::PROMISCUOUS, "asks for every packet"),
];

/// What became of asking, where a rule asks.
const ASKED: [(u8, &str); 8] = [
    (asked::ANSWERED, "answered"),
    (asked::REMEMBERED, "answered for the process"),
    (asked::OWN, "answers itself"),
    (asked::TIMED_OUT, "not answered in time"),
    (asked::DROPPED, "not answered any more"),
    (asked::NOBODY, "nobody to ask"),
    (asked::NO_ROOM, "no room to ask"),
    (asked::TOO_LATE, "too late to ask"),
];

/// `tcp`, `udp`, `icmp`, `icmpv6`, or the IANA number.
pub(crate) fn protocol(number: u8) -> Cow<'static, str> {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        other => format!("protocol {other}").into(),
    }
}

impl EventLine {
    fn is_icmp(&self) -> bool {
        self.protocol.starts_with("icmp")
    }

    /// Whether it is about this machine alone.
    fn is_local(&self) -> bool {
        matches!(&*self.direction, "listen" | "bind")
    }
}

impl fmt::Display for EventLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
        write!(f, "{time} {:6} {:3} {} ", self.verdict, self.direction, self.protocol)?;
        if self.is_local() {
            endpoint(f, self.local_address, self.local_port)?;
        } else if self.is_icmp() {
            let (kind, code) = (self.local_port, self.remote_port);
            write!(f, "{} {} type {kind} code {code}", self.local_address, self.remote_address)?;
        } else {
            endpoint(f, self.local_address, self.local_port)?;
            f.write_str(" ")?;
            endpoint(f, self.remote_address, self.remote_port)?;
        }
        match (self.rule, &self.rule_name) {
            (Some(_), Some(name)) => write!(f, " rule {name:?}")?,
            (Some(rule), None) => write!(f, " rule {rule} of generation {}", self.epoch)?,
            (None, _) => match self.essential {
                Some(reason) => write!(f, " essential: {}", reason.name())?,
                None => f.write_str(" default")?,
            },
        }
        write!(f, " filter {} {}", self.filter_id, self.layer)?;
        if let Some(name) = &self.name {
            write!(f, " asks for {}", name.escape_debug())?;
        }
        if let Some(application) = &self.application {
            let cut = if self.notes.contains(&"application cut") { "..." } else { "" };
            write!(f, " {cut}{}", application.escape_debug().to_string().replace("\\\\", "\\"))?;
        }
        if let Some(process) = self.process_id {
            write!(f, " pid {process}")?;
        }
        for note in self.notes.iter().filter(|&&note| note != "application cut") {
            write!(f, " [{note}]")?;
        }
        Ok(())
    }
}

fn endpoint(f: &mut fmt::Formatter<'_>, address: IpAddr, port: u16) -> fmt::Result {
    match address {
        IpAddr::V4(address) => write!(f, "{address}:{port}"),
        IpAddr::V6(address) => write!(f, "[{address}]:{port}"),
    }
}

pub(crate) fn address(ip_version: u8, bytes: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    if ip_version == 4 { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(bytes).into() }
}

/// A FILETIME, in 100 ns since 1601-01-01 UTC, if the calendar reaches that far.
pub(crate) fn timestamp(filetime: u64) -> Timestamp {
    /// 1601-01-01 to 1970-01-01 in 100 ns.
    const TO_UNIX: i128 = 116_444_736_000_000_000;
    Timestamp::from_nanosecond((i128::from(filetime) - TO_UNIX) * 100).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn sample() -> Event {
        let path: Vec<u8> =
            r"\device\harddiskvolume1\windows\curl.exe".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut event = Event {
            sequence: 9,
            time: 133_800_000_001_230_000,
            filter_id: 66_017,
            process_id: 4242,
            epoch: 2,
            rule: 3,
            layer: 48,
            verdict: verdict::BLOCK,
            direction: direction::OUTBOUND,
            protocol: 6,
            ip_version: 4,
            flags: flags::HARD,
            local_port: 50_123,
            remote_port: 443,
            ..Event::zeroed()
        };
        event.local[..4].copy_from_slice(&[10, 0, 0, 1]);
        event.remote[..4].copy_from_slice(&[192, 0, 2, 7]);
        event.set_application(&path);
        event
    }

    #[test]
    fn a_line_says_who_where_and_why() {
        assert_eq!(
            EventLine::from(&sample()).to_string(),
            "2024-12-30T02:40:00.123Z block  out tcp 10.0.0.1:50123 192.0.2.7:443 rule 3 of generation 2 filter 66017 \
             ALE_AUTH_CONNECT_V4 \\device\\harddiskvolume1\\windows\\curl.exe pid 4242 [hard]"
        );
    }

    #[test]
    fn icmp_shows_type_and_code_and_the_default_rule() {
        let event = Event {
            protocol: 58,
            ip_version: 6,
            local_port: 128,
            remote_port: 0,
            rule: RULE_DEFAULT,
            layer: 18,
            process_id: 0,
            application_bytes: 0,
            flags: 0,
            verdict: verdict::PERMIT,
            remote: Ipv6Addr::LOCALHOST.octets(),
            local: Ipv6Addr::UNSPECIFIED.octets(),
            ..sample()
        };
        let line = EventLine::from(&event).to_string();
        assert!(
            line.ends_with("out icmpv6 :: ::1 type 128 code 0 default filter 66017 OUTBOUND_TRANSPORT_V6"),
            "{line}"
        );
    }

    #[test]
    fn what_no_default_decides_says_why() {
        let event = Event { rule: RULE_ESSENTIAL, flags: flags::LOOPBACK, verdict: verdict::PERMIT, ..sample() };
        let line = EventLine::from(&event);
        assert_eq!((line.rule, line.essential), (None, Some(Essential::Loopback)));
        assert!(line.to_string().contains(" essential: loopback filter "), "{line}");
    }

    #[test]
    fn a_strange_record_is_shown_as_it_is() {
        let event = Event { verdict: 9, direction: 8, protocol: 200, layer: 999, time: u64::MAX, ..sample() };
        let line = EventLine::from(&event);
        assert_eq!(line.verdict, "verdict 9");
        assert_eq!(line.direction, "direction 8");
        assert_eq!(line.protocol, "protocol 200");
        assert_eq!(line.layer, "layer 999");
        assert_eq!(line.time, Timestamp::MAX);
    }

    #[test]
    fn control_characters_of_a_path_do_not_reach_the_terminal() {
        let mut event = sample();
        let path: Vec<u8> = "\\x\u{1b}[31m\u{202e}y".encode_utf16().flat_map(u16::to_le_bytes).collect();
        event.application_bytes = 0;
        event.set_application(&path);
        let line = EventLine::from(&event).to_string();
        assert!(line.contains("\\x\\u{1b}[31m\\u{202e}y"), "{line}");
    }

    #[test]
    fn a_line_says_what_was_asked_for() {
        let mut event = Event { flags: flags::BY_CONTENT, application_bytes: 0, layer: 20, ..sample() };
        event.set_name(b"ads.example");
        let line = EventLine::from(&event).to_string();
        assert!(line.ends_with(" STREAM_V4 asks for ads.example pid 4242 [by content]"), "{line}");
    }
}

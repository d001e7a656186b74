//! The driver's decisions as they are made.
//!
//! A read on the device waits in the driver until there is an event (an inverted call), so following is free while
//! nothing happens. The driver's ring is bounded: when a reader is too slow the newest events are lost, and an
//! [`Item::Lost`] in their place says how many, also at the start and at the end of a run.

use crate::device::Control;
use crate::error::ControlError;
use crate::status;
use jiff::Timestamp;
use serde::Serialize;
use sluice_host::Host;
use sluice_policy::Image;
use sluice_policy::{Direction, Essential, Flow};
use sluice_protocol::event::{RULE_DEFAULT, RULE_ESSENTIAL, direction, flags, verdict};
use sluice_protocol::{Event, object};
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use zerocopy::FromBytes;

/// How many events one read can return.
const BATCH: usize = 256;
/// The longest that one read waits when no end is given; then it is repeated.
const LONG_WAIT: Duration = Duration::from_secs(3600);

/// When to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventOptions {
    /// Wait for events to come; without it only what the ring holds is read.
    pub follow: bool,
    /// Stop after this many events. Implies waiting for them.
    pub count: Option<u64>,
    /// Stop after this time.
    pub timeout: Option<Duration>,
    /// Ask for every decision while this reads, not only for those that rules and defaults log.
    pub all: bool,
}

/// What the sink receives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Item {
    /// A decision.
    Event(Box<EventLine>),
    /// When the driver was loaded, the policy that was kept for it was not put in force.
    NotRestored {
        /// When, UTC.
        time: Timestamp,
        /// Why not, as `sluice status` says it.
        why: String,
    },
    /// This many events were lost here because the ring was full.
    Lost {
        /// How many.
        count: u64,
    },
    /// This many decisions from the source of the next one were not recorded, because it had used up its budget.
    Unrecorded {
        /// How many.
        count: u64,
    },
    /// This many events went to another reader.
    Elsewhere {
        /// How many.
        count: u64,
    },
}

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
    /// The deciding rule's name, when the policy that decided is still in force.
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
                other => format!("direction {other}").into(),
            },
            protocol: match event.protocol {
                1 => "icmp".into(),
                6 => "tcp".into(),
                17 => "udp".into(),
                58 => "icmpv6".into(),
                other => format!("protocol {other}").into(),
            },
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
            notes: NOTES.iter().filter(|(bit, _)| event.flags & bit != 0).map(|&(_, note)| note).collect(),
        }
    }
}

/// Why the driver called a flow essential: it says only that it did.
fn essential(event: &Event) -> Option<Essential> {
    let [local, remote] = [event.local, event.remote].map(|octets| address(event.ip_version, octets));
    let direction = if event.direction == direction::INBOUND { Direction::Inbound } else { Direction::Outbound };
    let flow = Flow::new(direction, event.protocol, local, event.local_port, remote, event.remote_port)
        .with_loopback(event.flags & flags::LOOPBACK != 0);
    if event.rule == RULE_ESSENTIAL { Essential::of(&flow) } else { None }
}

const NOTES: [(u16, &str); 10] = [
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
];

impl EventLine {
    fn is_icmp(&self) -> bool {
        self.protocol.starts_with("icmp")
    }
}

impl fmt::Display for EventLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
        write!(f, "{time} {:6} {:3} {} ", self.verdict, self.direction, self.protocol)?;
        if self.is_icmp() {
            let (kind, code) = (self.local_port, self.remote_port);
            write!(f, "{} {} type {kind} code {code}", self.local_address, self.remote_address)?;
        } else {
            endpoint(f, self.local_address, self.local_port)?;
            f.write_str(" ")?;
            endpoint(f, self.remote_address, self.remote_port)?;
        }
        match (self.rule, &self.rule_name) {
            (Some(_), Some(name)) => write!(f, " rule {name:?}")?,
            (Some(rule), None) => write!(f, " rule {rule}")?,
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

fn address(ip_version: u8, bytes: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    if ip_version == 4 { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(bytes).into() }
}

/// A FILETIME, in 100 ns since 1601-01-01 UTC, if the calendar reaches that far.
fn timestamp(filetime: u64) -> Timestamp {
    /// 1601-01-01 to 1970-01-01 in 100 ns.
    const TO_UNIX: i128 = 116_444_736_000_000_000;
    Timestamp::from_nanosecond((i128::from(filetime) - TO_UNIX) * 100).unwrap_or(Timestamp::MAX)
}

/// Reads events and passes them to `sink` in order until `options` or the sink stop it. Returns how many.
///
/// # Errors
/// The driver is not loaded, or a read failed or returned something other than events.
pub fn events(
    host: &dyn Host,
    options: &EventOptions,
    sink: &mut dyn FnMut(&Item) -> ControlFlow<()>,
) -> Result<u64, ControlError> {
    let (device, _) = Control::open(host)?;
    if options.all {
        device.record_all()?;
    }
    let mut stream = EventStream::new(options.count.unwrap_or(u64::MAX));
    let waits = options.follow || options.count.is_some() || options.timeout.is_some();
    let start = Instant::now();
    let mut buffer = vec![0; BATCH * size_of::<Event>()];
    while stream.seen < stream.wanted {
        let left = options.timeout.map_or(LONG_WAIT, |timeout| timeout.saturating_sub(start.elapsed()));
        let wait = if waits { left } else { Duration::ZERO };
        let read = device.read(&mut buffer, wait)?;
        if read == 0 && (!waits || options.timeout.is_some_and(|timeout| start.elapsed() >= timeout)) {
            break;
        }
        let names = |names: &mut RuleNames| names.refresh(&device);
        if stream.take(buffer.get(..read).unwrap_or_default(), names, sink)?.is_break() {
            break;
        }
    }
    Ok(stream.seen)
}

/// The rule names of one generation of the policy.
#[derive(Default)]
struct RuleNames {
    epoch: u32,
    policy: Option<Image<Vec<u8>>>,
}

impl RuleNames {
    /// Reads the names of the policy in force; none if the policy keeps being swapped.
    fn refresh(&mut self, device: &Control) -> Result<(), ControlError> {
        /// How often to retry after a swap.
        const TRIES: usize = 4;
        for _ in 0..TRIES {
            let before = device.status()?.epoch;
            let policy = device.policy()?.and_then(|bytes| Image::validate(bytes).ok());
            if device.status()?.epoch == before {
                *self = Self { epoch: before, policy };
                break;
            }
        }
        Ok(())
    }

    fn name(&self, line: &EventLine) -> Option<String> {
        let policy = self.policy.as_ref().filter(|_| self.epoch == line.epoch)?;
        policy.rule_name(line.rule?).map(str::to_owned)
    }
}

/// The position in a stream of events.
struct EventStream {
    seen: u64,
    last: Option<u64>,
    wanted: u64,
    names: RuleNames,
}

impl EventStream {
    fn new(wanted: u64) -> Self {
        Self { seen: 0, last: None, wanted, names: RuleNames::default() }
    }

    /// What is missing before `event`, if anything.
    fn absent(&mut self, event: &Event) -> impl Iterator<Item = Item> + use<> {
        let elsewhere = match self.last {
            Some(last) if event.verdict != verdict::NONE => event.sequence.saturating_sub(last).saturating_sub(1),
            _ => 0,
        };
        if event.verdict != verdict::NONE {
            self.last = Some(event.sequence);
        }
        let (lost, unrecorded) = (event.lost.into(), event.unrecorded.into());
        let items = [
            (elsewhere, Item::Elsewhere { count: elsewhere }),
            (lost, Item::Lost { count: lost }),
            (unrecorded, Item::Unrecorded { count: unrecorded }),
        ];
        items.into_iter().filter(|(count, _)| *count > 0).map(|(_, item)| item)
    }

    fn take(
        &mut self,
        bytes: &[u8],
        refresh: impl Fn(&mut RuleNames) -> Result<(), ControlError>,
        sink: &mut dyn FnMut(&Item) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ControlError> {
        let (records, rest) = bytes.as_chunks::<{ size_of::<Event>() }>();
        if !rest.is_empty() {
            let what = format!("{} bytes are not a whole number of {}-byte events", bytes.len(), size_of::<Event>());
            return Err(ControlError::Answer { request: "a read", what });
        }
        for record in records {
            let Ok(event) = Event::read_from_bytes(record) else { continue };
            for item in self.absent(&event) {
                if sink(&item).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if event.verdict == verdict::NONE {
                continue;
            }
            if event.verdict == verdict::NOT_RESTORED {
                let (time, why) = (timestamp(event.time), status::at_start(event.rule, event.flow as u32));
                self.seen += 1;
                if sink(&Item::NotRestored { time, why }).is_break() || self.seen == self.wanted {
                    return Ok(ControlFlow::Break(()));
                }
                continue;
            }
            let mut line = EventLine::from(&event);
            if event.epoch > self.names.epoch {
                refresh(&mut self.names)?;
            }
            line.rule_name = self.names.name(&line);
            self.seen += 1;
            if sink(&Item::Event(Box::new(line))).is_break() || self.seen == self.wanted {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Memory, installed};
    use zerocopy::IntoBytes;

    fn sample() -> Event {
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
            "2024-12-30T02:40:00.123Z block  out tcp 10.0.0.1:50123 192.0.2.7:443 rule 3 filter 66017 \
             ALE_AUTH_CONNECT_V4 \\device\\harddiskvolume1\\windows\\curl.exe pid 4242 [hard]"
        );
    }

    #[test]
    fn a_line_says_what_was_asked_for() {
        let mut event = Event { flags: flags::BY_CONTENT, application_bytes: 0, layer: 20, ..sample() };
        event.set_name(b"ads.example");
        let line = EventLine::from(&event).to_string();
        assert!(line.ends_with(" STREAM_V4 asks for ads.example pid 4242 [by content]"), "{line}");
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
    fn what_is_missing_is_reported_in_its_place() {
        let end = Event { verdict: verdict::NONE, lost: 3, ..Event::zeroed() };
        let records: Vec<u8> = [
            Event { sequence: 1, lost: 5, ..sample() },
            Event { sequence: 2, ..sample() },
            Event { sequence: 7, unrecorded: 9, ..sample() },
            end,
        ]
        .iter()
        .flat_map(|event| event.as_bytes().to_vec())
        .collect();
        let mut items = Vec::new();
        let mut stream = EventStream::new(u64::MAX);
        let flow = stream.take(&records, |_| Ok(()), &mut |item| {
            items.push(match item {
                Item::Event(line) => ("event", line.sequence),
                Item::Lost { count } => ("lost", *count),
                Item::Unrecorded { count } => ("unrecorded", *count),
                Item::Elsewhere { count } => ("elsewhere", *count),
                Item::NotRestored { .. } => ("not restored", 0),
            });
            ControlFlow::Continue(())
        });
        assert!(flow.unwrap().is_continue());
        let expected =
            [("lost", 5), ("event", 1), ("event", 2), ("elsewhere", 4), ("unrecorded", 9), ("event", 7), ("lost", 3)];
        assert_eq!(items, expected);
        assert_eq!(stream.seen, 3);
    }

    #[test]
    fn half_a_record_is_an_error() {
        let mut stream = EventStream::new(1);
        let error = stream.take(&[0; 300], |_| Ok(()), &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the driver's answer to a read is not valid: 300 bytes are not a whole number of 256-byte events"
        );
    }

    /// A machine whose driver returns these events, one per read.
    fn machine(sequences: impl IntoIterator<Item = u64>) -> Memory {
        let memory = installed();
        memory.driver.lock().unwrap().reads =
            sequences.into_iter().map(|sequence| Event { sequence, ..sample() }.as_bytes().to_vec()).collect();
        memory
    }

    #[test]
    fn without_options_what_is_there_is_read_and_no_more() {
        let memory = machine(1..=3);
        let start = Instant::now();
        assert_eq!(events(&memory, &EventOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap(), 3);
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn rules_have_the_names_of_the_policy_that_decided() {
        let memory = machine(1..=2);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let policy = r#"
            [default]
            outbound = "permit"
            inbound = "permit"
            [[rule]]
            name = "no bell"
            action = "block"
            remote-port = 7
        "#;
        std::io::Write::write_all(&mut file, policy.as_bytes()).unwrap();
        crate::load(&memory, file.path()).unwrap();
        {
            let mut driver = memory.driver.lock().unwrap();
            driver.status.epoch = 2;
            driver.status.policy_bytes = driver.policies[0].len() as u64;
            let of = |epoch| Event { sequence: 1, epoch, rule: 0, ..sample() }.as_bytes().to_vec();
            driver.reads = [of(1), of(2)].into();
        }
        let mut lines = Vec::new();
        let mut sink = |item: &Item| {
            lines.extend(match item {
                Item::Event(line) => Some(line.to_string()),
                _ => None,
            });
            ControlFlow::Continue(())
        };
        events(&memory, &EventOptions::default(), &mut sink).unwrap();
        assert!(lines[0].contains(" rule 0 filter "), "of a policy that is gone: {}", lines[0]);
        assert!(lines[1].contains(r#" rule "no bell" filter "#), "{}", lines[1]);
    }

    #[test]
    fn a_count_stops_there_and_a_timeout_ends_the_wait() {
        let memory = machine(1..=3);
        let options = EventOptions { count: Some(2), ..EventOptions::default() };
        assert_eq!(events(&memory, &options, &mut |_| ControlFlow::Continue(())).unwrap(), 2);
        let options =
            EventOptions { count: Some(2), timeout: Some(Duration::from_millis(60)), follow: true, all: false };
        let start = Instant::now();
        assert_eq!(events(&memory, &options, &mut |_| ControlFlow::Continue(())).unwrap(), 1);
        assert!(start.elapsed() >= Duration::from_millis(60));
    }

    #[test]
    fn the_sink_can_stop() {
        let memory = machine(1..=3);
        let options = EventOptions { follow: true, ..EventOptions::default() };
        assert_eq!(events(&memory, &options, &mut |_| ControlFlow::Break(())).unwrap(), 1);
    }

    #[test]
    fn without_a_driver_it_says_which_step_is_missing() {
        let memory = Memory::new();
        let mut sink = |_: &Item| ControlFlow::Continue(());
        let error = events(&memory, &EventOptions::default(), &mut sink).unwrap_err();
        assert!(matches!(error, ControlError::NotInstalled));
        let memory = machine([]);
        memory.stop_service("Sluice").unwrap();
        let error = events(&memory, &EventOptions::default(), &mut sink).unwrap_err();
        assert!(matches!(error, ControlError::NotLoaded), "{error}");
    }
}

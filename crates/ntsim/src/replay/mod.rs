//! Passes a capture through the simulated stack.
//!
//! [`Options::local`] says which side of a flow is the simulated machine; else the capture does where it marks sent and
//! received frames (Linux "cooked" captures, `epb_flags` of pcapng); else it is the side that spoke first
//! ([`Stack::direction_by_first_speaker`](shim::stack::Stack::direction_by_first_speaker)). A packet between two
//! addresses of the machine without such a mark passes both ends; multicast and broadcast addresses are local on both
//! sides.

pub mod capture;
pub mod link;
mod parallel;

use crate::cpu::Bugcheck;
use crate::machine::Machine;
use crate::net::Prefix;
use crate::tcpip::carrier::{Around, Carrier, NoWire};
use crate::tcpip::verdicts::Verdicts;
use capture::{CaptureError, Frame};
use filter_engine::netevent::FileTime;
use nt_abi::PacketBuffer;
use shim::flow::{Endpoints, FlowKey, Owner};
use shim::layer::Direction;
use shim::packet::{AddressType, Packet};
use shim::stack::{Config, Stack, Verdict};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// The most requests of drivers served after one packet.
const SERVED: usize = 4096;
/// How long drivers must have injected nothing before the replay ends, and how long to wait for a packet that a callout
/// has pended.
const QUIET: Duration = Duration::from_millis(100);

/// How a capture is replayed.
#[derive(Clone, Debug)]
pub struct Options {
    /// The simulated machine's addresses; packets between others are skipped, unless it forwards. Empty: see the
    /// module's description.
    pub local: Vec<Prefix>,
    /// The machine is on the way between others: packets of which neither end is its own are passed on.
    pub forward: bool,
    /// How many processors take packets at once, each with a stack of its own. With more than one, flows are not
    /// decided in the order of the capture, and nothing that a driver injects or completes later is carried.
    pub processors: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { local: Vec::new(), forward: false, processors: 1 }
    }
}

/// Why a replay ended early.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReplayError {
    /// The capture cannot be read to its end.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The driver stopped the machine.
    #[error(transparent)]
    Bugcheck(#[from] Bugcheck),
}

/// Frames that held nothing to replay, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedOver(pub BTreeMap<String, u64>);

impl PassedOver {
    fn note(&mut self, reason: impl ToString) {
        *self.0.entry(reason.to_string()).or_default() += 1;
    }
}

/// Passes every packet of a capture through `machine`. Flows that are open at its end are ended.
///
/// # Errors
/// What is wrong with the capture, or the bugcheck; `verdicts` has the verdicts up to there, and after a damaged
/// capture the flows are ended.
pub fn run(
    machine: &Arc<Machine>,
    input: impl Read + Send,
    options: &Options,
    verdicts: &mut Verdicts,
) -> Result<PassedOver, ReplayError> {
    if options.processors > 1 {
        return parallel::run(machine, input, options, verdicts);
    }
    let mut replay = Replay {
        machine: machine.clone(),
        carrier: Carrier::new(machine, Config { pick_up: true }, || ()),
        buffer: PacketBuffer::new(65_536),
        first: None,
        now: Duration::ZERO,
        passed_over: PassedOver::default(),
    };
    let mut stopped = None;
    let read = capture::read(input, |frame| match replay.pass(&frame, options, verdicts) {
        Ok(()) => ControlFlow::Continue(()),
        Err(bugcheck) => {
            stopped = Some(bugcheck);
            ControlFlow::Break(())
        }
    });
    if let Some(bugcheck) = stopped {
        return Err(bugcheck.into());
    }
    replay.linger(options, verdicts)?;
    replay.carrier.finish()?;
    machine.wfp.engine.events.set_time(None);
    read?;
    Ok(replay.passed_over)
}

struct Replay {
    machine: Arc<Machine>,
    carrier: Carrier,
    buffer: PacketBuffer,
    first: Option<Duration>,
    now: Duration,
    passed_over: PassedOver,
}

impl Replay {
    fn pass(&mut self, frame: &Frame<'_>, options: &Options, verdicts: &mut Verdicts) -> Result<(), Bugcheck> {
        let found = match link::find(frame.link, frame.bytes) {
            Ok(found) => found,
            Err(reason) => {
                self.passed_over.note(reason);
                return Ok(());
            }
        };
        self.buffer.fill(found.packet);
        link::fill_in_length(&mut self.buffer.storage_mut()[..found.packet.len()]);
        let marked = frame.direction.or(found.direction);
        let packet = self.buffer.bytes();
        let Some(way) = way(self.carrier.stack(), packet, marked, found.to_group, options) else {
            self.passed_over.note(NOT_LOCAL);
            return Ok(());
        };
        // Captures are not always in order; the stack's clock never goes back.
        let first = *self.first.get_or_insert(frame.time);
        self.now = self.now.max(frame.time.saturating_sub(first));
        self.machine.wfp.engine.events.set_time(Some(FileTime::from(UNIX_EPOCH + frame.time)));
        let mut endpoints = Addresses(&options.local);
        let mut around = Around { endpoints: &mut endpoints, wire: &mut NoWire, verdicts, now: self.now };
        let decision = match way {
            Way::Through(direction) => self.carrier.carry(&mut self.buffer, direction, &mut around)?,
            Way::Within => self.carrier.carry_within(&mut self.buffer, &mut around)?,
            Way::Between => self.carrier.forward(&mut self.buffer, &mut around)?,
        };
        self.carrier.serve(SERVED, &mut around)?;
        // The rest of the capture came after the decision, so the decision must come first.
        let asked = Instant::now();
        while decision.verdict == Verdict::Hold && self.carrier.stack().held_count() != 0 && asked.elapsed() < QUIET {
            std::thread::sleep(Duration::from_millis(1));
            self.carrier.serve(SERVED, &mut around)?;
        }
        Ok(())
    }

    /// Waits until drivers have injected nothing from their own threads for a while. Without an injection handle there
    /// is nothing to wait for.
    fn linger(&mut self, options: &Options, verdicts: &mut Verdicts) -> Result<(), Bugcheck> {
        let mut endpoints = Addresses(&options.local);
        let mut around = Around { endpoints: &mut endpoints, wire: &mut NoWire, verdicts, now: self.now };
        let mut injected = around.verdicts.totals.injected;
        let mut quiet_since = Instant::now();
        loop {
            let more = self.carrier.serve(SERVED, &mut around)?;
            if more || around.verdicts.totals.injected != injected {
                injected = around.verdicts.totals.injected;
                quiet_since = Instant::now();
            } else if self.machine.wfp.injections.handle_count() == 0 || quiet_since.elapsed() > QUIET {
                return Ok(());
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

const NOT_LOCAL: &str = "packets between addresses that are not local";

/// The direction of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Between this machine and another.
    Through(Direction),
    /// From this machine to itself.
    Within,
    /// Between others, by way of this machine.
    Between,
}

/// The addresses of the simulated machine; its programs are unknown.
#[derive(Clone, Copy, Debug)]
struct Addresses<'a>(&'a [Prefix]);

impl Endpoints for Addresses<'_> {
    fn owner(&mut self, _: &FlowKey) -> Option<Arc<Owner>> {
        None
    }

    fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.0.iter().any(|prefix| prefix.contains(address))
    }
}

/// The direction of a packet; `None` when it is not this machine's. `to_group`: its frame went to several stations.
fn way<F>(
    stack: &Stack<F>,
    packet: &[u8],
    marked: Option<Direction>,
    to_group: bool,
    options: &Options,
) -> Option<Way> {
    let marked = marked.map(Way::Through);
    // An unreadable packet has no real direction, but gets one so that it is counted.
    let Ok(packet) = Packet::parse(packet) else { return Some(marked.unwrap_or(Way::Through(Direction::Inbound))) };
    let addresses = Addresses(&options.local);
    let is_group = matches!(AddressType::of(packet.destination), AddressType::Multicast | AddressType::Broadcast);
    match (addresses.is_local(packet.source), addresses.is_local(packet.destination)) {
        (true, true) => Some(marked.unwrap_or(Way::Within)),
        _ if options.local.is_empty() => {
            marked.or_else(|| Some(Way::Through(stack.direction_by_first_speaker(&packet))))
        }
        (true, false) => Some(Way::Through(Direction::Outbound)),
        (false, true) => Some(Way::Through(Direction::Inbound)),
        // Sent before the machine had an address (DHCP), or by another host to a broadcast address.
        (false, false) if packet.source.is_unspecified() => Some(marked.unwrap_or(Way::Through(Direction::Outbound))),
        (false, false) if is_group || to_group => Some(Way::Through(Direction::Inbound)),
        (false, false) => options.forward.then_some(Way::Between),
    }
}

#[cfg(test)]
mod tests {
    use super::capture::tests::pcap;
    use super::link::LinkType;
    use super::*;
    use crate::fwpkclnt::UserSession;
    use crate::tcpip::verdicts::Totals;
    use etherparse::{PacketBuilder, TcpHeader};
    use filter_engine::layers::{LayerId, condition};
    use sluice_host::{Condition, ConditionValue, Engine as _, Filter, FilterAction, Guid, MatchType, Weight};

    fn segment(out: bool, flags: u8, sequence: u32, acknowledgment: u32, data: &[u8]) -> Vec<u8> {
        let (us, them) = ([192, 168, 1, 5], [203, 0, 113, 66]);
        let (ip, source, destination) = if out {
            (PacketBuilder::ipv4(us, them, 64), 40000, 443)
        } else {
            (PacketBuilder::ipv4(them, us, 64), 443, 40000)
        };
        let mut header = TcpHeader::new(source, destination, sequence, 100);
        header.syn = flags & 2 != 0;
        header.ack = flags & 16 != 0;
        header.acknowledgment_number = acknowledgment;
        let mut bytes = Vec::new();
        ip.tcp_header(header).write(&mut bytes, data).unwrap();
        bytes
    }

    fn conversation() -> Vec<Vec<u8>> {
        vec![
            segment(true, 2, 100, 0, b""),
            segment(false, 18, 500, 101, b""),
            segment(true, 16, 101, 501, b"hello"),
            segment(false, 16, 501, 106, b"world"),
        ]
    }

    fn replay(machine: &Arc<Machine>, options: &Options) -> (Totals, PassedOver) {
        let packets = conversation();
        let frames: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        let mut verdicts = Verdicts::new(None);
        let passed_over = run(machine, &pcap(LinkType::RAW, &frames)[..], options, &mut verdicts).unwrap();
        (verdicts.totals, passed_over)
    }

    fn block_https(machine: &Arc<Machine>) -> u64 {
        let field = condition("IP_REMOTE_PORT").unwrap();
        UserSession::open(machine, false)
            .add_filter(&Filter {
                key: None,
                name: "block".into(),
                description: String::new(),
                flags: 0,
                provider: None,
                layer: machine.wfp.engine.layers().get(LayerId::ALE_AUTH_CONNECT_V4).unwrap().key,
                sublayer: Guid(0xeebe_cc03_ced4_4380_819a_2734_397b_2b74),
                weight: Weight::Auto,
                conditions: vec![Condition { field, match_type: MatchType::Equal, value: ConditionValue::Uint16(443) }],
                action: FilterAction::Block,
            })
            .unwrap()
    }

    #[test]
    fn a_conversation_passes() {
        let machine = Machine::new();
        let (totals, passed_over) = replay(&machine, &Options::default());
        assert_eq!((totals.packets, totals.forwarded, totals.flows), (4, 4, 1));
        assert_eq!(passed_over, PassedOver::default());
        assert_eq!(machine.wfp.engine.flows.len(), 0);
    }

    #[test]
    fn several_processors_come_to_the_same_verdicts() {
        let options = Options { processors: 3, ..Options::default() };
        let machine = Machine::new();
        let (totals, passed_over) = replay(&machine, &options);
        assert_eq!((totals.packets, totals.forwarded, totals.flows), (4, 4, 1));
        assert_eq!(passed_over, PassedOver::default());
        assert_eq!(machine.wfp.engine.flows.len(), 0);
        block_https(&machine);
        assert_eq!(replay(&machine, &options).0.refused, 1);
    }

    #[test]
    fn a_blocked_conversation_is_refused_with_the_time_of_the_capture() {
        let machine = Machine::new();
        let filter = block_https(&machine);
        let (totals, _) = replay(&machine, &Options::default());
        assert_eq!(totals.refused, 1, "the SYN: {totals:?}");
        let events = machine.wfp.engine.events.to_vec();
        assert_eq!(events[0].filter_id, filter);
        assert_eq!(events[0].time.unix(), Some((1_700_000_000, 0)));
    }

    #[test]
    fn local_addresses_decide_the_direction() {
        let machine = Machine::new();
        block_https(&machine); // remote port 443: from the server's side the remote port is 40000
        let server = Options { local: vec!["203.0.113.0/24".parse().unwrap()], ..Options::default() };
        assert_eq!(replay(&machine, &server).0.forwarded, 4);
        let elsewhere = Options { local: vec!["10.0.0.0/8".parse().unwrap()], ..Options::default() };
        let (totals, passed_over) = replay(&machine, &elsewhere);
        assert_eq!(totals.packets, 0);
        assert_eq!(passed_over.0.values().sum::<u64>(), 4);
        for processors in [1, 2] {
            let on_the_way = Options { forward: true, processors, ..elsewhere.clone() };
            let (totals, passed_over) = replay(&machine, &on_the_way);
            assert_eq!((totals.packets, totals.forwarded, totals.flows), (4, 4, 0));
            assert_eq!(passed_over, PassedOver::default());
        }
    }

    fn udp(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4(source, destination, 64).udp(68, 67).write(&mut bytes, b"data").unwrap();
        bytes
    }

    #[test]
    fn groups_and_broadcasts_are_local_and_own_addresses_are_within() {
        let options = Options { local: vec!["10.0.0.5".parse().unwrap()], ..Options::default() };
        let stack = Stack::<()>::new(Config { pick_up: true });
        let way = |source, destination, to_group| way(&stack, &udp(source, destination), None, to_group, &options);
        let (us, other) = ([10, 0, 0, 5], [10, 0, 0, 9]);
        let (inbound, outbound) = (Some(Way::Through(Direction::Inbound)), Some(Way::Through(Direction::Outbound)));
        assert_eq!(way(other, [224, 0, 0, 251], false), inbound);
        assert_eq!(way(other, [255; 4], false), inbound);
        assert_eq!(way(other, [10, 0, 0, 255], true), inbound, "the frame goes to several stations");
        assert_eq!(way(other, [10, 0, 0, 7], false), None);
        assert_eq!(way(us, [224, 0, 0, 251], true), outbound);
        assert_eq!(way([0; 4], [255; 4], true), outbound, "without an address yet");
        assert_eq!(way(us, us, false), Some(Way::Within));
        assert_eq!(way([127, 0, 0, 1], us, false), Some(Way::Within));
    }

    #[test]
    fn a_segment_that_the_card_was_to_cut_is_read() {
        let machine = Machine::new();
        let mut packets = conversation();
        packets[2][2..4].fill(0);
        let frames: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        for processors in [1, 2] {
            let options = Options { processors, ..Options::default() };
            let mut verdicts = Verdicts::new(None);
            run(&machine, &pcap(LinkType::RAW, &frames)[..], &options, &mut verdicts).unwrap();
            assert_eq!((verdicts.totals.forwarded, verdicts.totals.malformed), (4, 0));
        }
    }

    #[test]
    fn a_packet_to_the_machine_itself_counts_once_and_opens_two_flows() {
        let machine = Machine::new();
        block_https(&machine); // something to decide
        let packet = udp([127, 0, 0, 1], [127, 0, 0, 1]);
        for processors in [1, 2] {
            let options = Options { processors, ..Options::default() };
            let mut verdicts = Verdicts::new(None);
            run(&machine, &pcap(LinkType::RAW, &[&packet])[..], &options, &mut verdicts).unwrap();
            let totals = verdicts.totals;
            assert_eq!((totals.packets, totals.forwarded, totals.flows), (1, 1, 2));
        }
    }

    #[test]
    fn frames_without_a_packet_are_passed_over_and_damage_is_reported() {
        let machine = Machine::new();
        let file = pcap(LinkType::ETHERNET, &[&[0; 60]]);
        let mut verdicts = Verdicts::new(None);
        let passed_over = run(&machine, &file[..], &Options::default(), &mut verdicts).unwrap();
        assert_eq!(passed_over.0.len(), 1);
        let error = run(&machine, &file[..50], &Options::default(), &mut verdicts).unwrap_err();
        assert!(matches!(error, ReplayError::Capture(CaptureError::CutOff { .. })), "{error}");
    }
}

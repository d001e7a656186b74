//! The orders of the layers, against a scripted filter engine and hand-made packets.

mod any_bytes;
mod blind;
mod local;
mod order;
mod streams;

use super::*;
use crate::classifier::{Injected, StreamAction};
use crate::layer::IpVersion;
use crate::packet::tcp_flag;
use etherparse::{PacketBuilder, TcpHeader};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;

const CLIENT4: [u8; 4] = [10, 77, 0, 2];
const SERVER4: [u8; 4] = [203, 0, 113, 10];
const CLIENT6: [u8; 16] = [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const SERVER6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];

/// Answers by a script and notes what it was asked.
#[derive(Default)]
struct Script {
    log: Vec<String>,
    block: Vec<Layer>,
    unwanted: Vec<Layer>,
    drop_connection: bool,
    absorb: bool,
    generation: u64,
    flows: u64,
    ended: Vec<u64>,
    aborted: Vec<u64>,
    stream: Vec<(u32, Vec<u8>)>,
    /// Layer, the bytes shown, how far the data is in them.
    shown: Vec<(Layer, Vec<u8>, usize)>,
    irqls: Vec<(Layer, nt_abi::Irql)>,
    flags: Vec<(Layer, u32)>,
    with_flow: Vec<(Layer, Option<u64>)>,
}

impl Classifier for Script {
    type Flow = u64;

    fn wants(&self, layer: Layer, _: IpVersion) -> bool {
        !self.unwanted.contains(&layer)
    }

    fn concerns(&self, layer: Layer, version: IpVersion, _: &u64) -> bool {
        self.wants(layer, version)
    }

    fn classify(&mut self, indication: Indication<'_, u64>) -> Outcome {
        let layer = indication.layer;
        let mut entry = layer.name(indication.version()).to_owned();
        if indication.flags & condition_flag::IS_REAUTHORIZE != 0 {
            entry.push_str(" again");
        }
        self.irqls.push((layer, indication.irql()));
        self.flags.push((layer, indication.flags));
        self.with_flow.push((layer, indication.flow.copied()));
        match indication.data {
            Data::None => {}
            Data::Packet { buffer, start, offset, end } => {
                self.shown.push((layer, buffer.bytes()[start..end].to_vec(), offset - start));
            }
            Data::Stream { data, flags } => {
                let bytes = data.map(|(packet, range)| packet.bytes()[range].to_vec()).unwrap_or_default();
                write!(entry, " {}", String::from_utf8_lossy(&bytes)).unwrap();
                self.stream.push((flags, bytes));
            }
        }
        self.log.push(entry);
        let drop = self.drop_connection && layer == Layer::Stream;
        Outcome {
            blocked: drop || self.block.contains(&layer),
            absorbed: self.absorb,
            pended: false,
            filter_id: 7,
            stream: if drop { StreamAction::DropConnection } else { StreamAction::None },
            enforced: 0,
            redirect: None,
        }
    }

    fn generation(&self, _: Layer, _: IpVersion) -> u64 {
        self.generation
    }

    fn create_flow(&mut self) -> u64 {
        self.flows += 1;
        self.flows
    }

    fn end_flow(&mut self, flow: u64) {
        self.log.push(format!("end of flow {flow}"));
        self.ended.push(flow);
    }

    fn is_aborted(&self, flow: &u64) -> bool {
        self.aborted.contains(flow)
    }

    fn speak_for_itself(&mut self, _: bool) {}

    fn flow_id(&self, flow: &u64) -> u64 {
        *flow
    }

    fn take_injected(&mut self, _: &u64, _: Direction) -> Vec<Injected> {
        Vec::new()
    }
}

/// A machine with one stack and one script, and a peer.
struct Bench {
    stack: Stack<u64>,
    script: Script,
    now: Duration,
    v6: bool,
    owners: Owners,
}

#[derive(Clone, Default)]
struct Owners(Rc<RefCell<Vec<FlowKey>>>);

impl Endpoints for Owners {
    fn owner(&mut self, key: &FlowKey) -> Option<Arc<Owner>> {
        self.0.borrow_mut().push(*key);
        Some(Arc::new(Owner { pid: 42, uid: Some(0), app_id: r"\device\harddiskvolume1\usr\bin\curl".into() }))
    }
}

impl Bench {
    fn new(v6: bool) -> Self {
        Self::with(v6, Config { pick_up: false })
    }

    fn with(v6: bool, config: Config) -> Self {
        Self {
            stack: Stack::new(config),
            script: Script::default(),
            now: Duration::ZERO,
            v6,
            owners: Owners::default(),
        }
    }

    fn pass(&mut self, direction: Direction, bytes: &[u8]) -> Decision {
        let mut buffer = PacketBuffer::copy_of(bytes);
        self.stack.process(&mut self.script, &mut self.owners, &mut buffer, direction, self.now)
    }

    /// What was asked since the last look, without version suffixes.
    fn asked(&mut self) -> Vec<String> {
        let suffix = if self.v6 { "_V6" } else { "_V4" };
        self.script.log.drain(..).map(|entry| entry.replace(suffix, "")).collect()
    }

    fn ip(&self, direction: Direction) -> PacketBuilderStep {
        match (self.v6, direction) {
            (false, Direction::Outbound) => PacketBuilder::ipv4(CLIENT4, SERVER4, 64),
            (false, Direction::Inbound) => PacketBuilder::ipv4(SERVER4, CLIENT4, 64),
            (true, Direction::Outbound) => PacketBuilder::ipv6(CLIENT6, SERVER6, 64),
            (true, Direction::Inbound) => PacketBuilder::ipv6(SERVER6, CLIENT6, 64),
        }
    }

    fn segment(&self, direction: Direction, flags: u8, sequence: u32, acknowledgment: u32, data: &[u8]) -> Vec<u8> {
        let (source, destination) = match direction {
            Direction::Outbound => (40000, 443),
            Direction::Inbound => (443, 40000),
        };
        self.segment_between(direction, source, destination, flags, sequence, acknowledgment, data)
    }

    #[allow(clippy::too_many_arguments, reason = "a segment has that many fields")]
    fn segment_between(
        &self,
        direction: Direction,
        source: u16,
        destination: u16,
        flags: u8,
        sequence: u32,
        acknowledgment: u32,
        data: &[u8],
    ) -> Vec<u8> {
        let mut header = TcpHeader::new(source, destination, sequence, 65535);
        header.syn = flags & tcp_flag::SYN != 0;
        header.ack = flags & tcp_flag::ACK != 0;
        header.fin = flags & tcp_flag::FIN != 0;
        header.rst = flags & tcp_flag::RST != 0;
        header.psh = flags & tcp_flag::PSH != 0;
        header.acknowledgment_number = acknowledgment;
        let mut bytes = Vec::new();
        self.ip(direction).tcp_header(header).write(&mut bytes, data).unwrap();
        bytes
    }

    fn udp(&self, direction: Direction, data: &[u8]) -> Vec<u8> {
        let (source, destination) = match direction {
            Direction::Outbound => (5353, 53),
            Direction::Inbound => (53, 5353),
        };
        let mut bytes = Vec::new();
        self.ip(direction).udp(source, destination).write(&mut bytes, data).unwrap();
        bytes
    }

    fn send(&mut self, flags: u8, sequence: u32, acknowledgment: u32, data: &[u8]) -> Decision {
        let bytes = self.segment(Direction::Outbound, flags, sequence, acknowledgment, data);
        self.pass(Direction::Outbound, &bytes)
    }

    fn receive(&mut self, flags: u8, sequence: u32, acknowledgment: u32, data: &[u8]) -> Decision {
        let bytes = self.segment(Direction::Inbound, flags, sequence, acknowledgment, data);
        self.pass(Direction::Inbound, &bytes)
    }

    /// An outbound connection: our data starts at 101, theirs at 501.
    fn connected(&mut self) {
        assert_eq!(self.send(SYN, 100, 0, b"").verdict, Verdict::Forward);
        assert_eq!(self.receive(SYN | ACK, 500, 101, b"").verdict, Verdict::Forward);
        assert_eq!(self.send(ACK, 101, 501, b"").verdict, Verdict::Forward);
        self.asked();
    }
}

type PacketBuilderStep = etherparse::PacketBuilderStep<etherparse::IpHeaders>;
use tcp_flag::{ACK, FIN, PSH, RST, SYN};

fn versions(test: impl Fn(&mut Bench)) {
    for v6 in [false, true] {
        test(&mut Bench::new(v6));
    }
}

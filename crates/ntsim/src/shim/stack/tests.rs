//! The orders of the layers, against a scripted filter engine and hand-made packets.

use super::*;
use crate::shim::classifier::StreamAction;
use crate::shim::layer::IpVersion;
use crate::shim::packet::tcp_flag;
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
    /// Layer, the bytes shown, how far the data lies in them.
    shown: Vec<(Layer, Vec<u8>, usize)>,
    irqls: Vec<(Layer, crate::irql::Irql)>,
    flags: Vec<(Layer, u32)>,
    with_flow: Vec<(Layer, Option<u64>)>,
}

impl Classifier for Script {
    type Flow = u64;

    fn wants(&self, layer: Layer, _: IpVersion) -> bool {
        !self.unwanted.contains(&layer)
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
            filter_id: 7,
            stream: if drop { StreamAction::DropConnection } else { StreamAction::None },
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

#[test]
fn outbound_tcp_from_connect_to_close() {
    versions(|b| {
        let opened = b.send(SYN, 100, 0, b"");
        assert_eq!(opened.verdict, Verdict::Forward);
        assert!(opened.opened);
        assert_eq!(opened.by, Some(By { layer: Layer::AleAuthConnect, filter_id: 7 }));
        assert_eq!(
            b.asked(),
            ["ALE_RESOURCE_ASSIGNMENT", "ALE_AUTH_CONNECT", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]
        );
        b.receive(SYN | ACK, 500, 101, b"");
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "ALE_FLOW_ESTABLISHED"]);
        b.send(ACK, 101, 501, b"");
        assert_eq!(b.asked(), ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
        b.send(ACK | PSH, 101, 501, b"GET");
        assert_eq!(b.asked(), ["STREAM GET", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
        b.receive(ACK | PSH, 501, 104, b"200");
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "STREAM 200"]);
        b.send(FIN | ACK, 104, 504, b"");
        assert_eq!(b.asked(), ["STREAM ", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
        b.receive(FIN | ACK, 504, 105, b"");
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "STREAM "]);
        b.send(ACK, 105, 505, b"");
        assert_eq!(
            b.asked(),
            [
                "OUTBOUND_TRANSPORT",
                "OUTBOUND_IPPACKET",
                "end of flow 1",
                "ALE_ENDPOINT_CLOSURE",
                "ALE_RESOURCE_RELEASE"
            ]
        );
        use crate::shim::classifier::stream_flag::*;
        let flags: Vec<u32> = b.script.stream.iter().map(|(flags, _)| *flags).collect();
        assert_eq!(flags, [SEND, RECEIVE | RECEIVE_PUSH, SEND_DISCONNECT, RECEIVE_DISCONNECT]);
        assert_eq!(b.owners.0.borrow().len(), 1, "the owner is looked up once a flow");
        assert!(b.stack.ledger.binds.is_empty());
    });
}

#[test]
fn inbound_tcp() {
    versions(|b| {
        let syn = b.segment_between(Direction::Inbound, 50000, 80, SYN, 900, 0, b"");
        let decision = b.pass(Direction::Inbound, &syn);
        assert!(decision.opened);
        assert_eq!(decision.by.unwrap().layer, Layer::AleAuthRecvAccept);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "ALE_AUTH_RECV_ACCEPT"]);
        assert_eq!(b.script.flags[1], (Layer::InboundTransport, condition_flag::REQUIRES_ALE_CLASSIFY));
        let answer = b.segment_between(Direction::Outbound, 80, 50000, SYN | ACK, 30, 901, b"");
        b.pass(Direction::Outbound, &answer);
        assert_eq!(b.asked(), ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
        let last = b.segment_between(Direction::Inbound, 50000, 80, ACK, 901, 31, b"hello");
        b.pass(Direction::Inbound, &last);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "ALE_FLOW_ESTABLISHED", "STREAM hello"]);
    });
}

#[test]
fn udp_both_ways() {
    versions(|b| {
        let out = b.udp(Direction::Outbound, b"question");
        let back = b.udp(Direction::Inbound, b"answer");
        assert!(b.pass(Direction::Outbound, &out).opened);
        assert_eq!(
            b.asked(),
            [
                "ALE_RESOURCE_ASSIGNMENT",
                "ALE_AUTH_CONNECT",
                "ALE_FLOW_ESTABLISHED",
                "DATAGRAM_DATA",
                "OUTBOUND_TRANSPORT",
                "OUTBOUND_IPPACKET"
            ]
        );
        assert!(!b.pass(Direction::Inbound, &back).opened);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "DATAGRAM_DATA"]);
        b.pass(Direction::Outbound, &out);
        assert_eq!(b.asked(), ["DATAGRAM_DATA", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
    });
    versions(|b| {
        let first = b.udp(Direction::Inbound, b"knock");
        b.pass(Direction::Inbound, &first);
        assert_eq!(
            b.asked(),
            ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "ALE_AUTH_RECV_ACCEPT", "ALE_FLOW_ESTABLISHED", "DATAGRAM_DATA"]
        );
    });
}

#[test]
fn icmp_echo_is_a_flow_and_an_error_is_not() {
    versions(|b| {
        let (mut request, mut reply, mut error) = (Vec::new(), Vec::new(), Vec::new());
        let dropped = b.udp(Direction::Outbound, b"lost");
        if b.v6 {
            b.ip(Direction::Outbound).icmpv6_echo_request(5, 1).write(&mut request, b"ping").unwrap();
            b.ip(Direction::Inbound).icmpv6_echo_reply(5, 1).write(&mut reply, b"ping").unwrap();
            b.ip(Direction::Inbound).icmpv6_raw(1, 4, [0; 4]).write(&mut error, &dropped).unwrap();
        } else {
            b.ip(Direction::Outbound).icmpv4_echo_request(5, 1).write(&mut request, b"ping").unwrap();
            b.ip(Direction::Inbound).icmpv4_echo_reply(5, 1).write(&mut reply, b"ping").unwrap();
            b.ip(Direction::Inbound).icmpv4_raw(3, 3, [0; 4]).write(&mut error, &dropped).unwrap();
        }
        b.pass(Direction::Outbound, &request);
        assert_eq!(b.asked()[1..4], ["ALE_AUTH_CONNECT", "ALE_FLOW_ESTABLISHED", "DATAGRAM_DATA"]);
        b.pass(Direction::Inbound, &reply);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "DATAGRAM_DATA"]);
        b.pass(Direction::Inbound, &error);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "INBOUND_ICMP_ERROR"]);
        // Data offsets: an inbound ICMP message is shown from its header, an error from the packet it quotes.
        let ip_header = if b.v6 { 40 } else { 20 };
        let shown = |layer| b.script.shown.iter().rfind(|(l, ..)| *l == layer).map(|(_, _, offset)| *offset);
        assert_eq!(shown(Layer::DatagramData), Some(ip_header));
        assert_eq!(shown(Layer::InboundIcmpError), Some(ip_header + 8));
        b.pass(Direction::Outbound, &error_out(b));
        assert_eq!(b.asked(), ["OUTBOUND_ICMP_ERROR", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
    });
}

fn error_out(b: &Bench) -> Vec<u8> {
    let mut error = Vec::new();
    let quoted = b.udp(Direction::Inbound, b"unwanted");
    match b.v6 {
        true => b.ip(Direction::Outbound).icmpv6_raw(1, 4, [0; 4]).write(&mut error, &quoted).unwrap(),
        false => b.ip(Direction::Outbound).icmpv4_raw(3, 3, [0; 4]).write(&mut error, &quoted).unwrap(),
    }
    error
}

#[test]
fn each_layer_sees_its_part_of_the_packet() {
    versions(|b| {
        b.connected();
        b.script.shown.clear();
        b.send(ACK, 101, 501, b"out");
        b.receive(ACK, 501, 104, b"in");
        let ip = if b.v6 { 40 } else { 20 };
        let summary: Vec<(Layer, usize, usize)> =
            b.script.shown.iter().map(|(layer, bytes, offset)| (*layer, bytes.len(), *offset)).collect();
        assert_eq!(
            summary,
            [
                (Layer::OutboundTransport, 20 + 3, 0),
                (Layer::OutboundIpPacket, ip + 20 + 3, 0),
                (Layer::InboundIpPacket, ip + 20 + 2, ip),
                (Layer::InboundTransport, ip + 20 + 2, ip + 20),
            ]
        );
    });
}

#[test]
fn only_binding_and_connecting_happen_at_passive_level() {
    let b = &mut Bench::new(false);
    b.connected();
    b.send(ACK, 101, 501, b"x");
    b.script.generation = 1;
    b.send(ACK, 102, 501, b"y");
    let passive: Vec<Layer> = b
        .script
        .irqls
        .iter()
        .filter(|(_, irql)| *irql == crate::irql::Irql::PASSIVE)
        .map(|(layer, _)| *layer)
        .collect();
    assert_eq!(
        passive,
        [Layer::AleResourceAssignment, Layer::AleAuthConnect],
        "the reauthorization comes with a packet"
    );
}

#[test]
fn a_blocked_connect_is_refused_and_leaves_nothing() {
    versions(|b| {
        b.script.block = vec![Layer::AleAuthConnect];
        let decision = b.send(SYN, 100, 0, b"");
        assert_eq!(decision.verdict, Verdict::Refuse);
        assert_eq!(decision.by, Some(By { layer: Layer::AleAuthConnect, filter_id: 7 }));
        let reset = Packet::parse(&b.stack.output.to_local).unwrap();
        let Upper::Tcp(tcp) = reset.upper else { panic!("not TCP") };
        assert_eq!((tcp.flags, tcp.acknowledgment, tcp.source), (RST | ACK, 101, 443));
        assert!(b.stack.output.to_remote.is_empty());
        assert_eq!((b.stack.flow_count(), b.stack.ledger.binds.len()), (0, 0));
        assert_eq!(b.asked(), ["ALE_RESOURCE_ASSIGNMENT", "ALE_AUTH_CONNECT", "ALE_RESOURCE_RELEASE"]);

        let datagram = b.udp(Direction::Outbound, b"question");
        assert_eq!(b.pass(Direction::Outbound, &datagram).verdict, Verdict::Refuse);
        let error = Packet::parse(&b.stack.output.to_local).unwrap();
        assert!(matches!(error.upper, Upper::Icmp(icmp) if icmp.error));
        assert_eq!(b.stack.flow_count(), 0);
    });
}

#[test]
fn an_absorbed_connect_is_told_to_nobody() {
    let b = &mut Bench::new(false);
    b.script.block = vec![Layer::AleAuthConnect];
    b.script.absorb = true;
    assert_eq!(b.send(SYN, 100, 0, b"").verdict, Verdict::Drop);
    assert!(b.stack.output.to_local.is_empty());
}

#[test]
fn a_blocked_accept_or_transport_is_silent() {
    versions(|b| {
        b.script.block = vec![Layer::AleAuthRecvAccept];
        let syn = b.segment_between(Direction::Inbound, 50000, 80, SYN, 900, 0, b"");
        assert_eq!(b.pass(Direction::Inbound, &syn).verdict, Verdict::Drop);
        b.script.block = vec![Layer::OutboundTransport];
        let decision = b.send(SYN, 100, 0, b"");
        assert_eq!((decision.verdict, decision.by.unwrap().layer), (Verdict::Drop, Layer::OutboundTransport));
        assert!(b.stack.output.to_local.is_empty());
        b.asked();
        b.script.block.clear();
        b.send(SYN, 100, 0, b"");
        assert_eq!(
            b.asked(),
            ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"],
            "a retransmitted SYN connects no second time"
        );
    });
}

#[test]
fn retransmitted_bytes_are_indicated_once() {
    let b = &mut Bench::new(false);
    b.connected();
    b.send(ACK, 101, 501, b"abc");
    b.send(ACK, 101, 501, b"abc");
    b.send(ACK, 101, 501, b"abcdef");
    b.receive(ACK, 501, 107, b"xyz");
    b.receive(ACK, 501, 107, b"xyz");
    let bytes: Vec<&[u8]> = b.script.stream.iter().map(|(_, bytes)| &bytes[..]).collect();
    assert_eq!(bytes, [b"abc", b"def", b"xyz"]);
    let transport = b.script.log.iter().filter(|entry| entry.contains("OUTBOUND_TRANSPORT")).count();
    assert_eq!(transport, 3, "every segment passes the transport layer");
}

#[test]
fn bytes_out_of_order_are_indicated_in_order() {
    versions(|b| {
        b.connected();
        assert_eq!(b.receive(ACK, 504, 101, b"def").verdict, Verdict::Forward);
        b.receive(FIN | ACK, 507, 101, b"gh");
        assert!(b.script.stream.is_empty());
        b.receive(ACK, 501, 101, b"abc");
        let bytes: Vec<&[u8]> = b.script.stream.iter().map(|(_, bytes)| &bytes[..]).collect();
        assert_eq!(bytes, [&b"abc"[..], b"def", b"gh", b""]);
        assert_eq!(b.script.stream[3].0, crate::shim::classifier::stream_flag::RECEIVE_DISCONNECT);
    });
}

#[test]
fn drop_connection_resets_both_ends() {
    versions(|b| {
        b.connected();
        b.send(ACK, 101, 501, b"abc");
        b.receive(ACK, 501, 104, b"xyz");
        b.script.drop_connection = true;
        let decision = b.send(ACK, 104, 504, b"secret");
        assert_eq!((decision.verdict, decision.by.unwrap().layer), (Verdict::Abort, Layer::Stream));
        let to_local = Packet::parse(&b.stack.output.to_local).unwrap();
        let to_remote = Packet::parse(&b.stack.output.to_remote).unwrap();
        let (Upper::Tcp(local), Upper::Tcp(remote)) = (to_local.upper, to_remote.upper) else { panic!("not TCP") };
        assert_eq!((local.source, local.destination, local.sequence), (443, 40000, 504));
        assert_eq!((remote.source, remote.destination, remote.sequence), (40000, 443, 104), "the secret never arrived");
        assert!(local.has(RST) && remote.has(RST));
        assert_eq!(b.script.ended, [1]);
        b.asked();
        b.script.drop_connection = false;
        assert_eq!(b.send(ACK, 104, 504, b"secret").verdict, Verdict::Forward);
        assert_eq!(b.asked(), ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"], "a late segment belongs to no flow");
    });
}

#[test]
fn an_aborted_flow_is_reset_at_its_next_packet() {
    let b = &mut Bench::new(false);
    b.connected();
    b.script.aborted = vec![1];
    assert_eq!(b.receive(ACK, 501, 101, b"data").verdict, Verdict::Abort);
    assert_eq!(b.script.ended, [1]);
}

#[test]
fn a_packet_blocked_with_an_abort_ends_its_flow_at_once() {
    let b = &mut Bench::new(false);
    b.connected();
    b.script.aborted = vec![1];
    b.script.block = vec![Layer::InboundTransport];
    let decision = b.receive(ACK, 501, 101, b"data");
    assert_eq!((decision.verdict, decision.by.unwrap().layer), (Verdict::Abort, Layer::InboundTransport));
    assert_eq!(b.script.ended, [1]);

    let b = &mut Bench::new(false);
    let out = b.udp(Direction::Outbound, b"q");
    b.pass(Direction::Outbound, &out);
    b.script.aborted = vec![1];
    b.script.block = vec![Layer::OutboundTransport];
    assert_eq!(b.pass(Direction::Outbound, &out).verdict, Verdict::Drop);
    assert_eq!((b.stack.flow_count(), &b.script.ended[..]), (0, &[1][..]));
}

#[test]
fn a_stream_block_withholds_the_bytes_and_all_after_them() {
    let b = &mut Bench::new(false);
    b.connected();
    b.script.block = vec![Layer::Stream];
    assert_eq!(b.receive(ACK, 501, 101, b"bad").verdict, Verdict::Drop);
    assert_eq!(b.receive(ACK, 501, 101, b"bad").verdict, Verdict::Drop);
    assert_eq!(b.receive(ACK, 504, 101, b"more").verdict, Verdict::Drop);
    assert_eq!(b.receive(ACK, 501, 101, b"").verdict, Verdict::Forward, "acknowledgments still travel");
    assert_eq!(b.script.stream.len(), 1, "the verdict was asked for once");
}

#[test]
fn a_policy_change_reauthorizes_at_the_next_packet() {
    versions(|b| {
        b.connected();
        b.script.generation = 1;
        b.receive(ACK, 501, 101, b"in");
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "ALE_AUTH_CONNECT again", "STREAM in"]);
        b.send(ACK, 101, 503, b"out");
        assert_eq!(b.asked(), ["STREAM out", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"], "once is enough");
        b.script.generation = 2;
        b.send(ACK, 104, 503, b"out");
        assert_eq!(b.asked(), ["STREAM out", "ALE_AUTH_CONNECT again", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
        b.script.generation = 3;
        b.script.block = vec![Layer::AleAuthConnect];
        assert_eq!(b.receive(ACK, 503, 107, b"late").verdict, Verdict::Abort);
        assert_eq!(b.script.ended, [1]);
    });
    versions(|b| {
        let out = b.udp(Direction::Outbound, b"q");
        b.pass(Direction::Outbound, &out);
        b.script.generation = 1;
        let back = b.udp(Direction::Inbound, b"a");
        b.asked();
        b.pass(Direction::Inbound, &back);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "ALE_AUTH_CONNECT again", "DATAGRAM_DATA"]);
        b.script.generation = 2;
        b.script.block = vec![Layer::AleAuthConnect];
        assert_eq!(b.pass(Direction::Outbound, &out).verdict, Verdict::Drop);
        assert_eq!((b.stack.flow_count(), b.script.ended.len()), (0, 1));
    });
}

#[test]
fn a_reset_ends_the_flow() {
    let b = &mut Bench::new(false);
    b.connected();
    b.receive(RST | ACK, 501, 101, b"");
    assert_eq!(
        b.asked(),
        [
            "INBOUND_IPPACKET",
            "INBOUND_TRANSPORT",
            "STREAM ",
            "end of flow 1",
            "ALE_ENDPOINT_CLOSURE",
            "ALE_RESOURCE_RELEASE"
        ]
    );
    assert_eq!(b.script.stream[0].0, crate::shim::classifier::stream_flag::RECEIVE_ABORT);
    b.send(SYN, 7000, 0, b"");
    assert_eq!(b.asked()[1], "ALE_AUTH_CONNECT", "the same ports make a new connection");
    b.receive(RST | ACK, 0, 7001, b"");
    assert_eq!(b.script.ended.len(), 1, "a refused connect had no flow yet");
}

#[test]
fn idle_flows_end() {
    let b = &mut Bench::new(false);
    let out = b.udp(Direction::Outbound, b"q");
    b.pass(Direction::Outbound, &out);
    b.now = Duration::from_secs(59);
    b.pass(Direction::Outbound, &out);
    b.now = Duration::from_secs(100);
    b.stack.expire(&mut b.script, b.now);
    assert_eq!(b.stack.flow_count(), 1, "it was used 41 seconds ago");
    b.now = Duration::from_secs(119);
    b.stack.expire(&mut b.script, b.now);
    assert_eq!((b.stack.flow_count(), &b.script.ended[..]), (0, &[1][..]));
    assert_eq!(b.stack.ledger.deadlines.len(), 0);

    b.send(SYN, 100, 0, b"");
    b.now += HANDSHAKE_TIMEOUT;
    b.stack.expire(&mut b.script, b.now);
    assert_eq!(b.stack.flow_count(), 0, "nobody answered the SYN");

    b.connected();
    b.receive(RST | ACK, 501, 101, b"");
    assert_eq!(b.stack.flow_count(), 1, "remembered for its last segments");
    b.now += CLOSED_TIMEOUT;
    b.stack.expire(&mut b.script, b.now);
    assert_eq!(b.stack.flow_count(), 0);
}

#[test]
fn finish_ends_every_flow() {
    let b = &mut Bench::new(true);
    b.connected();
    let out = b.udp(Direction::Outbound, b"q");
    b.pass(Direction::Outbound, &out);
    b.stack.finish(&mut b.script);
    assert_eq!((b.script.ended.len(), b.stack.flow_count()), (2, 0));
    assert!(b.stack.ledger.binds.is_empty());
}

#[test]
fn fragments_wait_for_one_verdict() {
    versions(|b| {
        let datagram = b.udp(Direction::Outbound, &[9; 3000]);
        let pieces = crate::shim::fragment::tests::cut(&datagram, 1480, 99);
        assert_eq!(b.pass(Direction::Outbound, &pieces[0]).verdict, Verdict::Hold);
        assert_eq!(b.pass(Direction::Outbound, &pieces[2]).verdict, Verdict::Hold);
        assert!(b.asked().is_empty(), "fragments are not indicated on their way out");
        assert_eq!(b.pass(Direction::Outbound, &pieces[1]).verdict, Verdict::Forward);
        assert_eq!(
            b.stack.output.earlier.iter().map(PacketBuffer::bytes).collect::<Vec<_>>(),
            [&pieces[0], &pieces[2]]
        );
        assert_eq!(b.asked()[3], "DATAGRAM_DATA");
        let shown = b.script.shown.iter().find(|(layer, ..)| *layer == Layer::DatagramData).unwrap();
        assert_eq!(shown.1.len(), 3008);

        let datagram = b.udp(Direction::Inbound, &[8; 2000]);
        let pieces = crate::shim::fragment::tests::cut(&datagram, 1480, 98);
        b.pass(Direction::Inbound, &pieces[0]);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET"]);
        assert_eq!(b.script.flags.last(), Some(&(Layer::InboundIpPacket, condition_flag::IS_FRAGMENT)));
    });
}

#[test]
fn a_connection_under_way_is_picked_up_as_after_a_policy_change() {
    for v6 in [false, true] {
        let b = &mut Bench::with(v6, Config { pick_up: true });
        let decision = b.send(ACK, 2000, 9000, b"mid");
        assert!(decision.opened);
        assert_eq!(decision.by, Some(By { layer: Layer::AleAuthConnect, filter_id: 7 }));
        assert_eq!(b.asked(), ["STREAM mid", "ALE_AUTH_CONNECT again", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
        b.receive(ACK, 9000, 2003, b"dle");
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "STREAM dle"]);
    }
    let b = &mut Bench::new(false);
    assert!(!b.send(ACK, 2000, 9000, b"mid").opened);
    assert_eq!(b.asked(), ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"], "a stray segment has no flow");
    let b = &mut Bench::with(false, Config { pick_up: true });
    let served = b.segment_between(Direction::Inbound, 50000, 80, ACK, 1, 1, b"x");
    b.pass(Direction::Inbound, &served);
    assert_eq!(b.asked()[2], "ALE_AUTH_RECV_ACCEPT again", "the lower port accepted");
}

#[test]
fn data_with_the_syn_is_indicated_when_the_connection_stands() {
    let b = &mut Bench::new(false);
    b.send(SYN, 100, 0, b"fast");
    b.receive(SYN | ACK, 500, 105, b"");
    b.asked();
    b.send(ACK, 105, 501, b"open");
    let bytes: Vec<&[u8]> = b.script.stream.iter().map(|(_, bytes)| &bytes[..]).collect();
    assert_eq!(bytes, [b"fast", b"open"]);
}

#[test]
fn flow_established_may_refuse() {
    let b = &mut Bench::new(false);
    b.script.block = vec![Layer::AleFlowEstablished];
    b.send(SYN, 100, 0, b"");
    assert_eq!(b.receive(SYN | ACK, 500, 101, b"").verdict, Verdict::Abort);
    let Upper::Tcp(tcp) = Packet::parse(&b.stack.output.to_local).unwrap().upper else { panic!("not TCP") };
    assert_eq!((tcp.flags, tcp.acknowledgment), (RST | ACK, 101), "acceptable in SYN-SENT");
    assert_eq!(b.script.ended, [1]);
}

#[test]
fn layers_nobody_filters_are_not_asked() {
    let b = &mut Bench::new(false);
    b.script.unwanted = Layer::ALL.to_vec();
    b.connected();
    b.send(ACK, 101, 501, b"abc");
    b.receive(ACK, 600, 104, b"early");
    assert!(b.asked().is_empty());
    assert_eq!(b.script.flows, 1);
}

#[test]
fn who_spoke_first_is_local() {
    let b = &mut Bench::new(false);
    let direction = |b: &Bench, bytes: &[u8]| b.stack.direction_by_first_speaker(&Packet::parse(bytes).unwrap());
    let syn = b.segment(Direction::Outbound, SYN, 1, 0, b"");
    let answer = b.segment(Direction::Inbound, SYN | ACK, 1, 2, b"");
    assert_eq!(direction(b, &syn), Direction::Outbound);
    assert_eq!(direction(b, &answer), Direction::Inbound);
    let from_server = b.segment(Direction::Inbound, ACK, 1, 2, b"x");
    assert_eq!(direction(b, &from_server), Direction::Inbound, "its port is the lower one");
    let datagram = b.udp(Direction::Inbound, b"x");
    assert_eq!(direction(b, &datagram), Direction::Outbound, "nothing is known of this flow");
    let out = b.udp(Direction::Outbound, b"x");
    b.pass(Direction::Outbound, &out);
    assert_eq!(direction(b, &datagram), Direction::Inbound, "now there is");
}

#[test]
fn malformed_packets_reach_no_layer() {
    let b = &mut Bench::new(false);
    let syn = b.segment(Direction::Outbound, SYN, 1, 0, b"");
    assert!(matches!(b.pass(Direction::Outbound, &syn[..30]).verdict, Verdict::Malformed(_)));
    assert!(b.asked().is_empty());
}

mod any_bytes {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes, nothing panics, and when all is over every flow that began has ended.
        #[test]
        fn flows_balance(
            steps in proptest::collection::vec(
                (0u8..64, 0u32..40, 0u32..40, proptest::collection::vec(any::<u8>(), 0..8), any::<bool>(), 0u64..20, any::<bool>()),
                1..60,
            ),
            block in proptest::sample::subsequence(Layer::ALL.to_vec(), 0..3),
            pick_up: bool,
            v6: bool,
        ) {
            let mut b = Bench::with(v6, Config { pick_up });
            b.script.block = block;
            for (flags, sequence, acknowledgment, data, outbound, seconds, udp) in steps {
                b.now += Duration::from_secs(seconds);
                let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
                let bytes = if udp {
                    b.udp(direction, &data)
                } else {
                    b.segment(direction, flags, sequence, acknowledgment, &data)
                };
                b.pass(direction, &bytes);
            }
            b.stack.finish(&mut b.script);
            b.script.ended.sort_unstable();
            prop_assert_eq!(&b.script.ended, &(1..=b.script.flows).collect::<Vec<_>>());
            prop_assert!(b.stack.ledger.binds.is_empty());
        }
    }
}

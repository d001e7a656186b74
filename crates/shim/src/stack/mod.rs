//! The order in which Windows' network stack calls the filter engine for each packet.
//!
//! The orders, with `_V4` standing for both versions, are those of "TCP Packet Flows" and "UDP Packet Flows" (win32
//! desktop-src/FWP/tcp-packet-flows.md, udp-packet-flows.md) and "Packet Inspection Points" (windows-driver-docs
//! network/packet-inspection-points.md):
//!
//! | event | layers |
//! |---|---|
//! | bind() | ALE_BIND_REDIRECT, ALE_RESOURCE_ASSIGNMENT |
//! | listen() of TCP | ALE_AUTH_LISTEN |
//! | TCP connect | ALE_BIND_REDIRECT, ALE_RESOURCE_ASSIGNMENT, ALE_CONNECT_REDIRECT, ALE_AUTH_CONNECT, SYN: OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET |
//! | its SYN-ACK | INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_FLOW_ESTABLISHED |
//! | TCP accept | SYN: INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT |
//! | its last ACK | INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_FLOW_ESTABLISHED |
//! | TCP data out | STREAM, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET |
//! | TCP data in | INBOUND_IPPACKET, INBOUND_TRANSPORT, STREAM |
//! | first datagram out | ALE_BIND_REDIRECT, ALE_RESOURCE_ASSIGNMENT, ALE_CONNECT_REDIRECT, ALE_AUTH_CONNECT, ALE_FLOW_ESTABLISHED, DATAGRAM_DATA, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET |
//! | first datagram in | INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT, ALE_FLOW_ESTABLISHED, DATAGRAM_DATA |
//! | ICMP error out | OUTBOUND_ICMP_ERROR, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET |
//! | ICMP error in | INBOUND_IPPACKET, INBOUND_TRANSPORT, INBOUND_ICMP_ERROR |
//! | TCP segment or datagram in that no socket wants | INBOUND_IPPACKET, INBOUND_TRANSPORT, INBOUND_TRANSPORT_DISCARD |
//! | packet or fragment between others | IPFORWARD |
//!
//! A filter added to or removed from the ALE layer that authorized a flow makes the next packet of the flow, in either
//! direction, pass that layer again with `FWP_CONDITION_FLAG_IS_REAUTHORIZE` ("ALE Reauthorization", win32
//! desktop-src/FWP/ale-re-authorization.md): inbound between INBOUND_TRANSPORT and STREAM or DATAGRAM_DATA. For
//! outbound packets the documentation names no place; here a segment passes it between STREAM (which Windows calls
//! before there are segments) and OUTBOUND_TRANSPORT, a datagram where it passes ALE_AUTH_CONNECT the first time.
//!
//! A packet that no endpoint wants is discarded by the transport layer (`InetDiscardEndpointNotFound`), and a callout at
//! INBOUND_TRANSPORT_DISCARD that absorbs it keeps TCP from answering with a reset ("Preventing Port Scanning", win32
//! desktop-src/FWP/preventing-port-scanning.md; the same page stops UDP's "port unreachable" at OUTBOUND_ICMP_ERROR, so here
//! absorbing does not stop it). The other `_DISCARD` layers, and packets that a filter discards, are not indicated.
//!
//! Connection termination is not indicated to a filtering layer of the packet path, but to ALE_ENDPOINT_CLOSURE and
//! ALE_RESOURCE_RELEASE, and the flow's contexts are deleted.

mod authorize;
mod connection;
mod datagram;
mod decision;
mod end;
mod forward;
mod held;
mod injected;
mod ledger;
mod redirect;
mod relay;
mod relayed;
mod socket;
mod stream;
#[cfg(test)]
mod tests;

use super::classifier::{Classifier, Data, Indication, Outcome, REASON_POLICY_CHANGE, condition_flag};
use super::flow::{Endpoints, FlowKey, LocalEndpoint, Owner};
use super::fragment::{Added, Reassembly};
use super::layer::{Direction, Layer};
use super::packet::{AddressType, Malformed, Packet, Upper, protocol};
use super::tcp::{Connection, Phase};
pub use decision::{By, Decision, Output, Verdict};
use foldhash::HashMap;
pub use held::Settled;
use held::{Resumed, Waiting};
use ledger::Ledger;
use nt_abi::PacketBuffer;
use redirect::Redirects;
use relay::Relay;
pub use socket::{Request, RequestKind};
use socket::{Sockets, Waits};
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How the stack behaves.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The packets are those of a capture. A connection whose SYN was not seen is taken for one established before the
    /// first packet (a capture that starts in the middle): it is authorized like an existing flow after a policy
    /// change. Otherwise its packets only pass the transport and IP layers, as packets without an endpoint. And since
    /// nothing answers the stack's own packets, they count as received.
    pub pick_up: bool,
}

/// Idle time after which a flow of datagrams ends ("ALE Stateful Filtering": 60 seconds by default).
pub const DATAGRAM_TIMEOUT: Duration = Duration::from_secs(60);
/// How long after the last datagram to a multicast or broadcast address any host may answer without authorization ("ALE
/// Multicast/Broadcast Traffic", win32 desktop-src/FWP/ale-multicast-broadcast-traffic.md: 4 seconds by default).
pub const GROUP_TIMEOUT: Duration = Duration::from_secs(4);
/// Time after which an incomplete handshake ends: Windows gives up a connect after 21 seconds.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(21);
/// Idle time after which an established connection is taken for dead: Windows' keep-alive interval, two hours.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(7200);
/// How often UDP sockets are checked for having been closed. Windows knows at once; here a check reads the table of all
/// sockets.
pub const CLOSED_CHECK: Duration = Duration::from_secs(1);
/// How long a closed connection is kept, so that its last segments are recognized.
pub const CLOSED_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
enum Kind {
    Tcp(Box<Connection>),
    Datagram,
    /// Datagrams sent to a multicast or broadcast address: any host may answer.
    Group,
}

impl Kind {
    /// For a flow of datagrams that this machine opens to `remote`.
    fn of_datagrams_to(remote: IpAddr) -> Self {
        match AddressType::of(remote) {
            AddressType::Multicast | AddressType::Broadcast => Self::Group,
            _ => Self::Datagram,
        }
    }
}

/// The flow, as indications show it.
#[derive(Debug)]
struct Head<F> {
    /// Who opened it.
    direction: Direction,
    owner: Option<Arc<Owner>>,
    /// The engine's flow, from ALE_FLOW_ESTABLISHED to the end.
    handle: Option<F>,
    endpoint: u64,
    /// [`Classifier::generation`] when it was last authorized.
    generation: u64,
}

impl<F> Head<F> {
    /// The layer that authorizes the flow.
    const fn authority(&self) -> Layer {
        match self.direction {
            Direction::Outbound => Layer::AleAuthConnect,
            Direction::Inbound => Layer::AleAuthRecvAccept,
        }
    }
}

#[derive(Debug)]
struct Flow<F> {
    head: Head<F>,
    kind: Kind,
    /// For a relayed connection.
    relay: Option<Box<Relay>>,
    /// It opened a local port (ALE_RESOURCE_ASSIGNMENT) and is one of its users.
    bound: bool,
    last: Duration,
    /// The entry in [`Ledger::deadlines`] that counts.
    deadline: Duration,
}

impl<F> Flow<F> {
    fn timeout(&self) -> Duration {
        match &self.kind {
            Kind::Datagram => DATAGRAM_TIMEOUT,
            Kind::Group => GROUP_TIMEOUT,
            Kind::Tcp(connection) => match connection.phase {
                Phase::Opening | Phase::HalfOpen => HANDSHAKE_TIMEOUT,
                Phase::Established => CONNECTION_TIMEOUT,
                Phase::Closed => CLOSED_TIMEOUT,
            },
        }
    }
}

type Flows<F> = HashMap<FlowKey, Flow<F>>;

/// The flows of one simulated processor. A flow's packets must all come to the same stack.
#[derive(Debug)]
pub struct Stack<F> {
    config: Config,
    flows: Flows<F>,
    /// The last flow of each local endpoint to a multicast or broadcast address.
    groups: HashMap<LocalEndpoint, FlowKey>,
    ledger: Ledger,
    reassembly: Reassembly,
    next_reassembly_check: Duration,
    next_closed_check: Duration,
    held: Waiting<F>,
    /// The flows with a relay; a flow without one may still be here.
    relays: Vec<FlowKey>,
    redirects: Redirects,
    sockets: Sockets,
    /// Packets of the last decision.
    pub output: Output,
}

/// Everything about the current packet.
struct Context<'a, C: Classifier> {
    classifier: &'a mut C,
    endpoints: &'a mut dyn Endpoints,
    buffer: &'a mut PacketBuffer,
    packet: Packet,
    key: FlowKey,
    direction: Direction,
    /// Flags that hold for the packet at every layer.
    flags: u32,
    entry: Entry,
    now: Duration,
}

/// Where a packet enters the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// From the wire, or from a program.
    Edge,
    /// Injected above the IP layer of the receive path.
    Transport,
}

/// The part of a flow that indications show.
struct FlowView<'a, F> {
    direction: Direction,
    owner: Option<&'a Owner>,
    handle: Option<&'a F>,
    endpoint: u64,
}

// Not derived: that would require `F: Copy`.
impl<F> Clone for FlowView<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<F> Copy for FlowView<'_, F> {}

impl<F> Head<F> {
    fn view(&self) -> FlowView<'_, F> {
        FlowView {
            direction: self.direction,
            owner: self.owner.as_deref(),
            handle: self.handle.as_ref(),
            endpoint: self.endpoint,
        }
    }
}

impl<'a, F> FlowView<'a, F> {
    /// A packet that belongs to no flow.
    const fn none(direction: Direction) -> Self {
        Self { direction, owner: None, handle: None, endpoint: 0 }
    }
}

/// The part of the packet that a layer sees ("Data Offset Positions", windows-driver-docs
/// network/data-offset-positions.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// Nothing: `layerData` is NULL.
    Nothing,
    /// The packet from its IP header.
    IpHeader,
    /// From the transport header, with the IP header in reach.
    BehindIpHeader,
    /// From the transport header; there is no IP header yet.
    TransportHeader,
    /// From the transport payload, with both headers in reach.
    Payload,
    /// From the packet that an ICMP error quotes, with the headers in reach.
    Quoted,
}

impl Position {
    /// The start at layers with two directions.
    const fn by_direction(direction: Direction) -> Self {
        match direction {
            Direction::Outbound => Self::TransportHeader,
            Direction::Inbound => Self::Payload,
        }
    }
}

impl<C: Classifier> Context<'_, C> {
    /// Calls one layer.
    fn ask(&mut self, layer: Layer, position: Position, flags: u32, flow: FlowView<'_, C::Flow>) -> Outcome {
        self.ask_because(layer, position, flags, 0, flow)
    }

    /// Calls one layer; `reason` is why a flow is authorized again, or 0.
    fn ask_because(
        &mut self,
        layer: Layer,
        position: Position,
        flags: u32,
        reason: u32,
        flow: FlowView<'_, C::Flow>,
    ) -> Outcome {
        let flags = if reason == 0 { flags } else { flags | condition_flag::IS_REAUTHORIZE };
        if !self.classifier.wants(layer, self.key.version()) {
            return Outcome::default();
        }
        let packet = &self.packet;
        // "For inbound packets received on the ICMP socket the offset is the beginning of the ICMP header."
        let payload = match packet.upper {
            Upper::Icmp(_) => packet.ip_header_len,
            _ => packet.data_offset(),
        };
        let window = match position {
            Position::Nothing => None,
            Position::IpHeader => Some((0, 0)),
            Position::BehindIpHeader => Some((0, packet.ip_header_len)),
            Position::TransportHeader => Some((packet.ip_header_len, packet.ip_header_len)),
            Position::Payload => Some((0, payload)),
            Position::Quoted => Some((0, packet.data_offset())),
        };
        let data = match window {
            None => Data::None,
            Some((start, offset)) => Data::Packet { buffer: self.buffer, start, offset, end: packet.len },
        };
        self.classifier.classify(Indication {
            layer,
            key: &self.key,
            direction: self.direction,
            flow_direction: flow.direction,
            packet: Some(packet),
            flags: self.flags | flags,
            reason,
            flow: flow.handle,
            owner: flow.owner,
            endpoint: flow.endpoint,
            injected_by: 0,
            promiscuous: 0,
            data,
        })
    }

    /// Calls one layer and turns a block into `verdict`.
    fn pass(
        &mut self,
        layer: Layer,
        position: Position,
        flow: FlowView<'_, C::Flow>,
        verdict: Verdict,
    ) -> Result<Outcome, Decision> {
        let outcome = self.ask(layer, position, 0, flow);
        if outcome.blocked { Err(Decision::stopped(verdict, layer, outcome)) } else { Ok(outcome) }
    }

    /// The layers below every outbound packet.
    fn leave(&mut self, flow: FlowView<'_, C::Flow>) -> Result<(), Decision> {
        self.pass(Layer::OutboundTransport, Position::TransportHeader, flow, Verdict::Drop)?;
        self.pass(Layer::OutboundIpPacket, Position::IpHeader, flow, Verdict::Drop)?;
        Ok(())
    }

    /// The layers below every inbound packet. `authorize`: an ALE layer comes next.
    fn arrive(&mut self, flow: FlowView<'_, C::Flow>, authorize: bool) -> Result<(), Decision> {
        if self.entry == Entry::Edge {
            self.pass(Layer::InboundIpPacket, Position::BehindIpHeader, flow, Verdict::Drop)?;
        }
        let flags = if authorize { condition_flag::REQUIRES_ALE_CLASSIFY } else { 0 };
        let outcome = self.ask(Layer::InboundTransport, Position::Payload, flags, flow);
        if outcome.blocked {
            return Err(Decision::stopped(Verdict::Drop, Layer::InboundTransport, outcome));
        }
        Ok(())
    }

    /// Tells the layer of discarded packets that no socket wants this one; whether TCP is to keep silent.
    fn discard(&mut self) -> Option<Decision> {
        let outcome =
            self.ask(Layer::InboundTransportDiscard, Position::Payload, 0, FlowView::none(Direction::Inbound));
        let silent = outcome.blocked && outcome.absorbed && self.packet.protocol == protocol::TCP;
        silent.then(|| Decision::stopped(Verdict::Drop, Layer::InboundTransportDiscard, outcome))
    }

    /// Whether the flow must be authorized again.
    fn is_stale(&self, flow: &Head<C::Flow>) -> bool {
        self.classifier.generation(flow.authority(), self.key.version()) != flow.generation
    }

    /// Authorizes an existing flow again when the policy at its ALE layer changed.
    fn reauthorize(&mut self, flow: &mut Head<C::Flow>) -> Result<Option<By>, Decision> {
        if !self.is_stale(flow) {
            return Ok(None);
        }
        let layer = flow.authority();
        let generation = self.classifier.generation(layer, self.key.version());
        let outcome = self.ask_because(layer, self.authority_position(), 0, REASON_POLICY_CHANGE, flow.view());
        if outcome.blocked {
            let verdict = if self.packet.protocol == protocol::TCP { Verdict::Abort } else { Verdict::Drop };
            return Err(Decision::stopped(verdict, layer, outcome));
        }
        flow.generation = generation;
        Ok(Some(By { layer, filter_id: outcome.filter_id }))
    }

    /// What the authorizing layers see of a packet: nothing of an outbound TCP segment.
    const fn authority_position(&self) -> Position {
        match self.direction {
            Direction::Outbound if self.packet.protocol == protocol::TCP => Position::Nothing,
            direction => Position::by_direction(direction),
        }
    }
}

/// FWP_CONDITION_FLAG_IS_LOOPBACK for a packet from this machine to itself, at any of its addresses.
fn loopback_flag(endpoints: &dyn Endpoints, packet: &Packet) -> u32 {
    let within = endpoints.is_local(packet.source) && endpoints.is_local(packet.destination);
    if within || packet.source == packet.destination { condition_flag::IS_LOOPBACK } else { 0 }
}

impl<F> Stack<F> {
    /// A stack without flows.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            flows: HashMap::default(),
            groups: HashMap::default(),
            ledger: Ledger { deadlines: BinaryHeap::new(), binds: HashMap::default(), next_endpoint: 1 },
            reassembly: Reassembly::default(),
            next_reassembly_check: Duration::ZERO,
            next_closed_check: Duration::ZERO,
            held: Waiting::default(),
            relays: Vec::new(),
            redirects: Redirects::default(),
            sockets: Sockets::default(),
            output: Output::default(),
        }
    }

    /// The number of flows, including closed connections that are still kept.
    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// The process behind a flow.
    #[must_use]
    pub fn owner(&self, key: &FlowKey) -> Option<Arc<Owner>> {
        self.flows.get(key)?.head.owner.clone()
    }

    /// A packet's direction by who spoke first: that of its flow if it is known; else the sender is taken for this
    /// machine, except that the sender of a SYN-ACK, of an ICMP reply, or (when a TCP segment is the first seen of its
    /// connection) from the lower port is taken for the other side.
    #[must_use]
    pub fn direction_by_first_speaker(&self, packet: &Packet) -> Direction {
        if self.flows.contains_key(&FlowKey::of(packet, Direction::Outbound)) {
            return Direction::Outbound;
        }
        if self.flows.contains_key(&FlowKey::of(packet, Direction::Inbound)) {
            return Direction::Inbound;
        }
        let answers = match packet.upper {
            Upper::Tcp(tcp) if tcp.has(super::packet::tcp_flag::SYN) => tcp.has(super::packet::tcp_flag::ACK),
            Upper::Tcp(tcp) => tcp.source < tcp.destination,
            Upper::Icmp(icmp) => icmp.error || matches!((packet.protocol, icmp.kind), (1, 0) | (58, 129)),
            _ => false,
        };
        if answers { Direction::Inbound } else { Direction::Outbound }
    }

    /// Passes one packet, travelling in `direction` at time `now` (any clock that does not go back), through the
    /// layers. The packets that the decision produces are in [`Stack::output`].
    ///
    /// With the real engine this must run on a simulated processor (ntsim's `cpu::enter`) at PASSIVE_LEVEL, as must
    /// [`Stack::expire`] and [`Stack::finish`].
    pub fn process<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        buffer: &mut PacketBuffer,
        direction: Direction,
        now: Duration,
    ) -> Decision {
        self.take_in(classifier, endpoints, buffer, direction, Entry::Edge, now)
    }

    /// Passes a packet that this machine sends: it leaves, and if permitted, arrives, if `returns` says that it is for
    /// this machine itself. Returns the decision of each end, the second if it arrived; [`Stack::output`] is that of the
    /// last. Each end has its own flow, unless one socket talks to itself.
    pub fn send<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        buffer: &mut PacketBuffer,
        returns: impl Fn(&[u8]) -> bool,
        now: Duration,
    ) -> (Decision, Option<Decision>) {
        let sent = self.process(classifier, endpoints, buffer, Direction::Outbound, now);
        if sent.verdict != Verdict::Forward || !returns(buffer.bytes()) {
            return (sent, None);
        }
        let mut pieces = std::mem::take(&mut self.output.earlier);
        let mut arrive = |buffer: &mut _| self.process(classifier, endpoints, buffer, Direction::Inbound, now);
        for piece in &mut pieces {
            arrive(piece);
        }
        (sent, Some(arrive(buffer)))
    }

    fn take_in<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        buffer: &mut PacketBuffer,
        direction: Direction,
        entry: Entry,
        now: Duration,
    ) -> Decision {
        self.output.clear();
        self.expire(classifier, now);
        let packet = match Packet::parse(buffer.bytes()) {
            Ok(packet) => packet,
            Err(malformed) => {
                return Decision { verdict: Verdict::Malformed(malformed), by: None, opened: false };
            }
        };
        if packet.fragment.is_none() {
            let packet = self.turned(buffer, packet, direction);
            let flags = loopback_flag(endpoints, &packet);
            let key = FlowKey::of(&packet, direction);
            let context = Context { classifier, endpoints, buffer, packet, key, direction, flags, entry, now };
            return self.whole(context);
        }
        // "IP packet fragments are not indicated" on their way out, but each is on its way in.
        if direction == Direction::Inbound && entry == Entry::Edge {
            let key = FlowKey::of(&packet, direction);
            let flags = loopback_flag(endpoints, &packet) | condition_flag::IS_FRAGMENT;
            let mut context = Context { classifier, endpoints, buffer, packet, key, direction, flags, entry, now };
            let none = FlowView::none(direction);
            if let Err(decision) = context.pass(Layer::InboundIpPacket, Position::BehindIpHeader, none, Verdict::Drop) {
                return decision;
            }
        }
        match self.reassembly.add(&packet, buffer.bytes(), direction, now) {
            Added::Waiting => Decision { verdict: Verdict::Hold, by: None, opened: false },
            Added::Discarded => Decision { verdict: Verdict::Malformed(Malformed::IpHeader), by: None, opened: false },
            Added::Whole(mut datagram) => {
                let packet = match Packet::parse(datagram.whole.bytes()) {
                    Ok(packet) => packet,
                    Err(malformed) => {
                        return Decision { verdict: Verdict::Malformed(malformed), by: None, opened: false };
                    }
                };
                let program = FlowKey::of(&packet, direction);
                let packet = self.turned(&mut datagram.whole, packet, direction);
                let key = FlowKey::of(&packet, direction);
                let flags = loopback_flag(endpoints, &packet) | condition_flag::IS_REASSEMBLED;
                let buffer = &mut datagram.whole;
                let decision =
                    self.whole(Context { classifier, endpoints, buffer, packet, key, direction, flags, entry, now });
                if decision.verdict == Verdict::Forward && self.redirects.turns(&program, direction) {
                    // The fragments have the old addresses.
                    self.output.relayed.push((direction, datagram.whole));
                    return Decision { verdict: Verdict::Relayed, ..decision };
                }
                if decision.verdict == Verdict::Forward {
                    self.output.earlier = datagram.pieces;
                }
                decision
            }
        }
    }

    fn whole<C: Classifier<Flow = F>>(&mut self, mut context: Context<'_, C>) -> Decision {
        if self.held.is_waiting(&context.key) {
            return self.held_back(&mut context);
        }
        match context.packet.upper {
            Upper::Tcp(tcp) => self.segment(&mut context, &tcp),
            Upper::Icmp(icmp) if icmp.error => self.icmp_error(&mut context),
            _ => self.datagram(&mut context),
        }
    }
}

//! TCP segments.

use super::{
    By, Context, Decision, Flow, FlowView, Head, Kind, Ledger, Output, Position, Relay, Stack, Verdict, Waits,
};
use crate::classifier::Classifier;
use crate::flow::FlowKey;
use crate::layer::{Direction, Layer};
use crate::packet::{Packet, Tcp, tcp_flag};
use crate::reply;
use crate::tcp::{Connection, Phase};

impl<F> Stack<F> {
    pub(super) fn segment<C: Classifier<Flow = F>>(&mut self, context: &mut Context<'_, C>, tcp: &Tcp) -> Decision {
        if tcp.flags & (tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST) == tcp_flag::SYN {
            match self.flows.get_mut(&context.key) {
                Some(flow) if is_retransmission(flow, tcp, context.direction) => {}
                Some(flow) if context.direction == Direction::Inbound && !listens_again(flow) => {
                    return unheeded(context, flow);
                }
                known => {
                    if let Some(old) = known {
                        self.ledger.close(context.classifier, &context.key, old);
                    }
                    return self.open(context, tcp).unwrap_or_else(|stopped| stopped);
                }
            }
        }
        let Self { flows, ledger, output, config, relays, .. } = self;
        match flows.get_mut(&context.key) {
            Some(flow) if is_open(flow) && !heeds(flow, tcp, context.direction) => unheeded(context, flow),
            Some(flow) if is_open(flow) => {
                let decision = exchange(ledger, output, context, flow, tcp, None, !config.pick_up);
                if flow.relay.is_some() && !relays.contains(&context.key) {
                    relays.push(context.key);
                }
                decision
            }
            None if config.pick_up && tcp.flags & (tcp_flag::RST | tcp_flag::SYN) == 0 => {
                let flow = under_way(ledger, context);
                let opened = By { layer: flow.head.authority(), filter_id: 0 };
                let flow = ledger.insert(flows, context.key, flow);
                let decision = exchange(ledger, output, context, flow, tcp, Some(opened), false);
                if flow.relay.is_some() {
                    relays.push(context.key);
                }
                decision
            }
            Some(Flow { kind: Kind::Tcp(connection), .. }) if connection.aborted => {
                // Its hosts were reset; packets still in transit have no endpoint.
                let dropped = Decision { verdict: Verdict::Drop, ..Decision::FORWARD };
                context.stray().err().unwrap_or(dropped)
            }
            _ => context.stray().err().unwrap_or(Decision::FORWARD),
        }
    }

    /// A SYN: the connection is authorized before it exists.
    fn open<C: Classifier<Flow = F>>(&mut self, context: &mut Context<'_, C>, tcp: &Tcp) -> Result<Decision, Decision> {
        let kind = Kind::Tcp(Box::new(Connection::opening(tcp, context.direction)));
        let (flow, by) = match context.direction {
            Direction::Outbound => self.connect(context, kind, None)?,
            Direction::Inbound => {
                let waits = self.waits(context);
                context.arrive(FlowView::none(context.direction), waits == Waits::Yes)?;
                if waits != Waits::Yes {
                    let silent = context.discard();
                    if waits == Waits::Refused && silent.is_none() {
                        reply::refuse_tcp(&mut self.output.to_remote, &context.packet);
                        return Ok(Decision { verdict: Verdict::Drop, by: None, opened: false });
                    }
                    return Ok(silent.unwrap_or(Decision::FORWARD));
                }
                self.accept(context, kind)?
            }
        };
        self.opened(context, tcp, flow, by)
    }

    /// Passes a SYN that is authorized.
    pub(super) fn opened<C: Classifier<Flow = F>>(
        &mut self,
        context: &mut Context<'_, C>,
        tcp: &Tcp,
        flow: Flow<F>,
        by: By,
    ) -> Result<Decision, Decision> {
        let flow = self.ledger.insert(&mut self.flows, context.key, flow);
        if let Kind::Tcp(connection) = &mut flow.kind {
            connection.meet(context.segment(), context.direction);
            // Data in the SYN (TCP Fast Open) belongs to the application once the connection is established.
            context.keep_for_later(connection, tcp);
        }
        if context.direction == Direction::Outbound {
            context.leave(flow.head.view())?;
        }
        if let Kind::Tcp(connection) = &mut flow.kind {
            connection.follow(tcp, segment_len(&context.packet), context.direction);
        }
        Ok(Decision { verdict: Verdict::Forward, by: Some(by), opened: true })
    }
}

/// A flow that was established before its first packet was seen. The side with the lower port is taken to have accepted
/// it; it counts as authorized under an old policy.
fn under_way<C: Classifier>(ledger: &mut Ledger, context: &mut Context<'_, C>) -> Flow<C::Flow> {
    let served_here = context.key.local_port < context.key.remote_port;
    let opener = if served_here { Direction::Inbound } else { Direction::Outbound };
    let mut flow = ledger.flow(context, opener, Kind::Tcp(Box::new(Connection::under_way())));
    flow.head.generation = flow.head.generation.wrapping_sub(1);
    flow.head.handle = Some(context.classifier.create_flow());
    flow
}

pub(super) fn is_retransmission<F>(flow: &Flow<F>, syn: &Tcp, direction: Direction) -> bool {
    match &flow.kind {
        Kind::Tcp(connection) => {
            connection.phase != Phase::Closed
                && connection.initial == Some(syn.sequence)
                && flow.head.direction == direction
        }
        Kind::Datagram | Kind::Group => false,
    }
}

fn is_open<F>(flow: &Flow<F>) -> bool {
    matches!(&flow.kind, Kind::Tcp(connection) if connection.phase != Phase::Closed)
}

/// Whether a new SYN from the other side opens a connection: the previous one is over, or was only requested ("If the
/// connection was initiated with a passive OPEN, then return this connection to the LISTEN state", RFC 9293 section
/// 3.10.7.4, of SYN-RECEIVED).
fn listens_again<F>(flow: &Flow<F>) -> bool {
    let Kind::Tcp(connection) = &flow.kind else { return true };
    match connection.phase {
        Phase::Closed => true,
        Phase::Opening | Phase::HalfOpen => flow.head.direction == Direction::Inbound,
        Phase::Established => false,
    }
}

/// Whether this machine's TCP accepts a segment of an open connection. It may reject one from the other side: a reset
/// with a wrong sequence number, or an answer to a SYN that was never sent. Segments of local programs are accepted.
fn heeds<F>(flow: &Flow<F>, tcp: &Tcp, direction: Direction) -> bool {
    let Kind::Tcp(connection) = &flow.kind else { return true };
    if direction == Direction::Outbound {
        return true;
    }
    if tcp.has(tcp_flag::RST) {
        return match &flow.relay {
            Some(relay) => tcp.sequence == relay.expected(Direction::Inbound),
            None => connection.obeys_reset(tcp, flow.head.direction),
        };
    }
    let opens = matches!(connection.phase, Phase::Opening | Phase::HalfOpen);
    !opens || !tcp.has(tcp_flag::ACK) || connection.acknowledges(tcp)
}

/// A segment that arrives and changes nothing: TCP drops it, with or without a challenge ACK (RFC 5961 sections 3 and
/// 4). So is a SYN that crosses ours: the connection stays the one that was authorized, and is established when ours is
/// acknowledged (RFC 9293 section 3.5, simultaneous initiation).
fn unheeded<C: Classifier>(context: &mut Context<'_, C>, flow: &mut Flow<C::Flow>) -> Decision {
    flow.last = context.now;
    context.arrive(flow.head.view(), false).err().unwrap_or(Decision::FORWARD)
}

/// The data bytes of a segment, on the wire.
pub(super) fn segment_len(packet: &Packet) -> u32 {
    (packet.wire_len - packet.data_offset()) as u32
}

/// A segment of a known connection. `live`: the hosts answer.
fn exchange<C: Classifier>(
    ledger: &mut Ledger,
    output: &mut Output,
    context: &mut Context<'_, C>,
    flow: &mut Flow<C::Flow>,
    tcp: &Tcp,
    mut opened: Option<By>,
    live: bool,
) -> Decision {
    flow.last = context.now;
    let Flow { head, kind: Kind::Tcp(connection), relay, .. } = flow else { return Decision::FORWARD };
    connection.meet(context.segment(), context.direction);
    let relayed = relay.is_some();
    let mut passed = match context.direction {
        Direction::Outbound if relayed => context.reauthorize(head),
        Direction::Outbound => send(context, head, connection, relay, tcp, live),
        Direction::Inbound => receive(context, head, connection, relay, tcp, live),
    };
    let decided = match passed {
        Ok(_) if relayed => Some(Decision { verdict: Verdict::Relayed, by: None, opened: false }),
        Err(decided) if !relayed && relay.is_some() => Some(decided), // the stack is between the hosts from now on
        _ => None,
    };
    if let (Some(decided), Some(relay)) = (decided, &mut *relay) {
        match context.relay(head, relay, tcp) {
            Ok(blocked) => {
                let segments = relay.send(&context.key, context.now);
                let over = relay.is_over() || tcp.has(tcp_flag::RST);
                context.send_relayed(output, head, segments);
                if tcp.has(tcp_flag::RST) {
                    context.hand_on_reset(output, head, relay);
                }
                if over {
                    ledger.close(context.classifier, &context.key, flow);
                }
                return Decision { opened: opened.is_some(), ..blocked.unwrap_or(decided) };
            }
            Err(stopped) => passed = Err(stopped),
        }
    }
    match passed {
        Ok(reauthorized) => {
            connection.follow(tcp, segment_len(&context.packet), context.direction);
            if connection.phase == Phase::Closed {
                ledger.close(context.classifier, &context.key, flow);
            }
            opened = opened.and(reauthorized.or(opened));
            Decision { verdict: Verdict::Forward, by: opened, opened: opened.is_some() }
        }
        Err(mut stopped) => {
            if context.check_aborted(head).is_err() {
                stopped.verdict = Verdict::Abort; // the callout that stopped the packet also aborted the flow
            }
            if stopped.verdict == Verdict::Abort {
                reset_both(output, &context.key, connection, relay.as_deref(), Some((tcp, context.direction)));
                ledger.close(context.classifier, &context.key, flow);
                if let Kind::Tcp(connection) = &mut flow.kind {
                    connection.aborted = true;
                }
            }
            Decision { opened: opened.is_some(), ..stopped }
        }
    }
}

/// An outbound segment of a known connection that a callout absorbed and a driver injects: TCP sent it long ago, but it
/// reaches the other side only now.
pub(super) fn sent_again<C: Classifier>(
    ledger: &mut Ledger,
    context: &mut Context<'_, C>,
    flow: &mut Flow<C::Flow>,
    tcp: &Tcp,
) {
    if !is_open(flow) {
        return;
    }
    flow.last = context.now;
    let Kind::Tcp(connection) = &mut flow.kind else { return };
    if flow.relay.is_some() {
        return; // the stack's own segment, already known
    }
    answers(connection, tcp);
    connection.follow(tcp, segment_len(&context.packet), Direction::Outbound);
    if connection.phase == Phase::Closed {
        ledger.close(context.classifier, &context.key, flow);
    }
}

/// An outbound SYN-ACK moves an inbound connection half-way.
fn answers(connection: &mut Connection, tcp: &Tcp) {
    if tcp.has(tcp_flag::SYN | tcp_flag::ACK) && connection.phase == Phase::Opening {
        connection.phase = Phase::HalfOpen;
    }
}

/// Outbound: STREAM, the ALE layer if the policy changed, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET.
fn send<C: Classifier>(
    context: &mut Context<'_, C>,
    head: &mut Head<C::Flow>,
    connection: &mut Connection,
    relay: &mut Option<Box<Relay>>,
    tcp: &Tcp,
    live: bool,
) -> Result<Option<By>, Decision> {
    context.stream(head, connection, relay, tcp, live)?;
    let reauthorized = context.reauthorize(head)?;
    context.leave(head.view())?;
    answers(connection, tcp);
    Ok(reauthorized)
}

/// Inbound: INBOUND_IPPACKET, INBOUND_TRANSPORT, the ALE layer if the policy changed, ALE_FLOW_ESTABLISHED if this
/// completes the handshake, STREAM.
fn receive<C: Classifier>(
    context: &mut Context<'_, C>,
    head: &mut Head<C::Flow>,
    connection: &mut Connection,
    relay: &mut Option<Box<Relay>>,
    tcp: &Tcp,
    live: bool,
) -> Result<Option<By>, Decision> {
    let stale = context.is_stale(head);
    context.arrive(head.view(), stale)?;
    let reauthorized = context.reauthorize(head)?;
    let completes = match head.direction {
        // Our SYN is answered: the connection is established for us. If it crossed another SYN, we have answered that
        // one.
        Direction::Outbound => match connection.phase {
            Phase::Opening => tcp.has(tcp_flag::SYN | tcp_flag::ACK),
            Phase::HalfOpen => tcp.has(tcp_flag::ACK),
            Phase::Established | Phase::Closed => false,
        },
        // Our SYN-ACK is acknowledged.
        Direction::Inbound => connection.phase == Phase::HalfOpen && tcp.has(tcp_flag::ACK),
    };
    if completes && !tcp.has(tcp_flag::RST) {
        context.establish(head)?;
        connection.phase = Phase::Established;
    }
    if relay.is_none() {
        context.stream(head, connection, relay, tcp, live)?;
    }
    Ok(reauthorized)
}

impl<C: Classifier> Context<'_, C> {
    /// A packet without an endpoint.
    fn stray(&mut self) -> Result<(), Decision> {
        let none = FlowView::none(self.direction);
        match self.direction {
            Direction::Outbound => self.leave(none),
            Direction::Inbound => self.arrive(none, false),
        }
    }

    /// Makes the engine's flow and indicates ALE_FLOW_ESTABLISHED. Callouts need not return a verdict there ("ALE
    /// Layers"); a block is obeyed.
    pub(super) fn establish(&mut self, head: &mut Head<C::Flow>) -> Result<(), Decision> {
        self.establish_from(head, Position::by_direction(self.direction))
    }

    /// [`Self::establish`], showing the packet from `position` on.
    pub(super) fn establish_from(&mut self, head: &mut Head<C::Flow>, position: Position) -> Result<(), Decision> {
        head.handle = Some(self.classifier.create_flow());
        self.pass(Layer::AleFlowEstablished, position, head.view(), Verdict::Abort)?;
        self.check_aborted(head)
    }

    /// Honours `FwpsFlowAbort0`.
    pub(super) fn check_aborted(&self, head: &Head<C::Flow>) -> Result<(), Decision> {
        match &head.handle {
            Some(flow) if self.classifier.is_aborted(flow) => {
                Err(Decision { verdict: Verdict::Abort, by: None, opened: false })
            }
            _ => Ok(()),
        }
    }

    /// The packet from its TCP header on.
    pub(super) fn segment(&self) -> &[u8] {
        &self.buffer.bytes()[self.packet.ip_header_len..self.packet.len]
    }
}

/// Resets for both ends, each with the sequence number its receiver expects next: any other would only be challenged
/// (RFC 5961 section 3.2).
pub(super) fn reset_both(
    output: &mut Output,
    key: &FlowKey,
    connection: &mut Connection,
    relay: Option<&Relay>,
    segment: Option<(&Tcp, Direction)>,
) {
    let mut ours = connection.half(Direction::Outbound).delivered;
    let mut theirs = connection.half(Direction::Inbound).delivered;
    if let Some((tcp, direction)) = segment {
        // Taken from this segment for a direction in which nothing has passed yet.
        let acknowledged = tcp.has(tcp_flag::ACK).then_some(tcp.acknowledgment);
        (ours, theirs) = match direction {
            Direction::Outbound => (ours.or(Some(tcp.sequence)), theirs.or(acknowledged)),
            Direction::Inbound => (ours.or(acknowledged), theirs.or(Some(tcp.sequence))),
        };
    }
    if let Some(relay) = relay {
        (ours, theirs) = (Some(relay.expected(Direction::Outbound)), Some(relay.expected(Direction::Inbound)));
    }
    let local = (key.local(), key.local_port);
    let remote = (key.remote(), key.remote_port);
    if let Some(sequence) = theirs {
        reply::reset(&mut output.to_local, remote, local, sequence, ours);
    }
    if let Some(sequence) = ours {
        reply::reset(&mut output.to_remote, local, remote, sequence, theirs);
    }
}

//! TCP segments.

use super::{By, Context, Decision, Flow, FlowView, Head, Kind, Ledger, Output, Position, Stack, Verdict};
use crate::ndis::PacketBuffer;
use crate::shim::classifier::{Classifier, Data, Indication, Outcome, StreamAction, stream_flag};
use crate::shim::flow::FlowKey;
use crate::shim::layer::{Direction, Layer};
use crate::shim::packet::{Packet, Tcp, tcp_flag};
use crate::shim::reply;
use crate::shim::tcp::{Connection, Early, Fresh, Phase, after};
use std::ops::Range;

impl<F> Stack<F> {
    pub(super) fn segment<C: Classifier<Flow = F>>(&mut self, context: &mut Context<'_, C>, tcp: &Tcp) -> Decision {
        if tcp.flags & (tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST) == tcp_flag::SYN {
            match self.flows.get_mut(&context.key) {
                Some(flow) if is_retransmission(flow, tcp, context.direction) => {}
                known => {
                    if let Some(old) = known {
                        self.ledger.close(context.classifier, &context.key, old);
                    }
                    return self.open(context, tcp).unwrap_or_else(|stopped| stopped);
                }
            }
        }
        let Self { flows, ledger, output, config, .. } = self;
        match flows.get_mut(&context.key) {
            Some(flow) if is_open(flow) => exchange(ledger, output, context, flow, tcp, None),
            None if config.pick_up && tcp.flags & (tcp_flag::RST | tcp_flag::SYN) == 0 => {
                let flow = under_way(ledger, context);
                let opened = By { layer: flow.head.authority(), filter_id: 0 };
                let flow = ledger.insert(flows, context.key, flow);
                exchange(ledger, output, context, flow, tcp, Some(opened))
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
                context.arrive(FlowView::none(context.direction), true)?;
                self.accept(context, kind)?
            }
        };
        self.opened(context, tcp, flow, by)
    }

    /// A SYN that is authorized goes its way.
    pub(super) fn opened<C: Classifier<Flow = F>>(
        &mut self,
        context: &mut Context<'_, C>,
        tcp: &Tcp,
        flow: Flow<F>,
        by: By,
    ) -> Result<Decision, Decision> {
        let flow = self.ledger.insert(&mut self.flows, context.key, flow);
        if context.direction == Direction::Outbound {
            context.leave(flow.head.view())?;
        }
        if let Kind::Tcp(connection) = &mut flow.kind {
            // Data that comes with the SYN (TCP Fast Open) is the application's once the connection stands.
            context.keep_for_later(connection, tcp);
            connection.follow(tcp, segment_len(context.packet), context.direction);
        }
        Ok(Decision { verdict: Verdict::Forward, by: Some(by), opened: true })
    }
}

/// A flow that stood before its first packet was seen. The side with the lower port is taken for the one that
/// accepted it; it counts as authorized under a policy that is no more.
fn under_way<C: Classifier>(ledger: &mut Ledger, context: &mut Context<'_, C>) -> Flow<C::Flow> {
    let served_here = context.key.local_port < context.key.remote_port;
    let opener = if served_here { Direction::Inbound } else { Direction::Outbound };
    let mut flow = ledger.flow(context, opener, Kind::Tcp(Box::new(Connection::under_way())));
    flow.head.generation = flow.head.generation.wrapping_sub(1);
    flow.head.handle = Some(context.classifier.create_flow());
    flow
}

fn is_retransmission<F>(flow: &Flow<F>, syn: &Tcp, direction: Direction) -> bool {
    match &flow.kind {
        Kind::Tcp(connection) => {
            connection.phase != Phase::Closed
                && connection.initial == Some(syn.sequence)
                && flow.head.direction == direction
        }
        Kind::Datagram => false,
    }
}

fn is_open<F>(flow: &Flow<F>) -> bool {
    matches!(&flow.kind, Kind::Tcp(connection) if connection.phase != Phase::Closed)
}

/// The data bytes of a segment, on the wire.
fn segment_len(packet: &Packet) -> u32 {
    (packet.wire_len - packet.data_offset()) as u32
}

/// A segment of a known connection.
fn exchange<C: Classifier>(
    ledger: &mut Ledger,
    output: &mut Output,
    context: &mut Context<'_, C>,
    flow: &mut Flow<C::Flow>,
    tcp: &Tcp,
    mut opened: Option<By>,
) -> Decision {
    flow.last = context.now;
    let Kind::Tcp(connection) = &mut flow.kind else { return Decision::FORWARD };
    let passed = match context.direction {
        Direction::Outbound => send(context, &mut flow.head, connection, tcp),
        Direction::Inbound => receive(context, &mut flow.head, connection, tcp),
    };
    match passed {
        Ok(reauthorized) => {
            connection.follow(tcp, segment_len(context.packet), context.direction);
            if connection.phase == Phase::Closed {
                ledger.close(context.classifier, &context.key, flow);
            }
            opened = opened.and(reauthorized.or(opened));
            Decision { verdict: Verdict::Forward, by: opened, opened: opened.is_some() }
        }
        Err(mut stopped) => {
            if context.check_aborted(&flow.head).is_err() {
                stopped.verdict = Verdict::Abort; // the callout that stopped the packet has also ended the flow
            }
            if stopped.verdict == Verdict::Abort {
                resets(output, &context.key, connection, tcp, context.direction);
                ledger.close(context.classifier, &context.key, flow);
            }
            Decision { opened: opened.is_some(), ..stopped }
        }
    }
}

/// An outbound segment of a known connection that a callout took out and a driver sends again: TCP it go long ago, but
/// only now does the other side hear of it.
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
    answers(connection, tcp);
    connection.follow(tcp, segment_len(context.packet), Direction::Outbound);
    if connection.phase == Phase::Closed {
        ledger.close(context.classifier, &context.key, flow);
    }
}

/// A SYN-ACK that leaves brings a connection that came in half-way.
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
    tcp: &Tcp,
) -> Result<Option<By>, Decision> {
    context.stream(head, connection, tcp)?;
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
    tcp: &Tcp,
) -> Result<Option<By>, Decision> {
    let stale = context.is_stale(head);
    context.arrive(head.view(), stale)?;
    let reauthorized = context.reauthorize(head)?;
    let completes = match head.direction {
        // Our SYN is answered: for us the connection stands.
        Direction::Outbound => connection.phase == Phase::Opening && tcp.has(tcp_flag::SYN | tcp_flag::ACK),
        // Our SYN-ACK is acknowledged.
        Direction::Inbound => connection.phase == Phase::HalfOpen && tcp.has(tcp_flag::ACK),
    };
    if completes && !tcp.has(tcp_flag::RST) {
        context.establish(head)?;
        connection.phase = Phase::Established;
    }
    context.stream(head, connection, tcp)?;
    Ok(reauthorized)
}

/// What a flow's data comes from.
enum Source<'a> {
    /// The packet at hand.
    Here(Range<usize>),
    /// One that waited for its turn.
    Early(&'a mut PacketBuffer, Range<usize>),
    /// Nothing: a disconnect or an abort.
    Nothing,
}

impl<C: Classifier> Context<'_, C> {
    /// A packet that no endpoint knows.
    fn stray(&mut self) -> Result<(), Decision> {
        let none = FlowView::none(self.direction);
        match self.direction {
            Direction::Outbound => self.leave(none),
            Direction::Inbound => self.arrive(none, false),
        }
    }

    /// Makes the engine's flow and indicates ALE_FLOW_ESTABLISHED. The documentation asks callouts for no verdict
    /// there ("ALE Layers"); a block is taken at its word.
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

    /// Indicates what a segment brings that is new: data in order, then the FIN; or the reset.
    fn stream(&mut self, head: &Head<C::Flow>, connection: &mut Connection, tcp: &Tcp) -> Result<(), Decision> {
        self.check_aborted(head)?;
        let direction = self.direction;
        let start = tcp.sequence.wrapping_add(u32::from(tcp.has(tcp_flag::SYN)));
        let len = segment_len(self.packet);
        let end = start.wrapping_add(len);
        if connection.phase != Phase::Established {
            self.keep_for_later(connection, tcp);
            return Ok(());
        }
        let half = connection.half(direction);
        if !self.classifier.wants(Layer::Stream, self.key.version()) {
            if half.next.is_none_or(|next| after(end, next)) {
                half.next = Some(end);
            }
            return Ok(());
        }
        if tcp.has(tcp_flag::RST) {
            let flag = by_direction(direction, stream_flag::SEND_ABORT, stream_flag::RECEIVE_ABORT);
            self.ask_stream(head, Source::Nothing, flag);
            return Ok(());
        }
        if half.cut.is_some_and(|cut| after(end, cut)) {
            // The verdict on these bytes stands; they are retransmitted because they never arrived.
            return Err(Decision { verdict: Verdict::Drop, by: None, opened: false });
        }
        self.catch_up(head, connection)?; // data that came with the SYN
        match connection.half(direction).fresh(start, len) {
            Fresh::Nothing => {}
            Fresh::InOrder { skip } => {
                let data = self.packet.data_offset() + skip as usize..self.packet.len;
                self.pass_stream(head, connection, Source::Here(data), tcp.flags)?;
                connection.half(direction).next = Some(end);
            }
            Fresh::Early => self.keep_for_later(connection, tcp),
        }
        self.catch_up(head, connection)?;
        let half = connection.half(direction);
        let fin = if tcp.has(tcp_flag::FIN) { Some(end) } else { half.fin };
        if fin.is_some() && half.next == fin && !std::mem::replace(&mut half.disconnected, true) {
            let flag = by_direction(direction, stream_flag::SEND_DISCONNECT, stream_flag::RECEIVE_DISCONNECT);
            self.ask_stream(head, Source::Nothing, flag);
        }
        Ok(())
    }

    /// Indicates the segments that waited for the gap before them to be filled.
    fn catch_up(&mut self, head: &Head<C::Flow>, connection: &mut Connection) -> Result<(), Decision> {
        while let Some(mut early) = connection.half(self.direction).next_early() {
            let next = connection.half(self.direction).next.unwrap_or(early.sequence);
            let skip = next.wrapping_sub(early.sequence) as usize;
            let data = early.data_offset + skip..early.packet.bytes().len();
            self.pass_stream(head, connection, Source::Early(&mut early.packet, data), early.flags)?;
            connection.half(self.direction).next = Some(early.sequence.wrapping_add(early.len));
        }
        Ok(())
    }

    /// Asks the STREAM layer about data, and withholds it and all that follows when the answer is no.
    ///
    /// Windows takes blocked bytes out of the stream and lets the rest go on; here sequence numbers are not rewritten,
    /// so that a stream stands still at its first blocked byte.
    fn pass_stream(
        &mut self,
        head: &Head<C::Flow>,
        connection: &mut Connection,
        source: Source<'_>,
        tcp_flags: u8,
    ) -> Result<(), Decision> {
        let empty = match &source {
            Source::Here(data) | Source::Early(_, data) => data.is_empty(),
            Source::Nothing => true,
        };
        if empty {
            return Ok(()); // cut off by a capture's snapshot length
        }
        let mut flags = by_direction(self.direction, stream_flag::SEND, stream_flag::RECEIVE);
        if self.direction == Direction::Inbound && tcp_flags & tcp_flag::PSH != 0 {
            flags |= stream_flag::RECEIVE_PUSH;
        }
        let outcome = self.ask_stream(head, source, flags);
        if outcome.stream == StreamAction::DropConnection {
            return Err(Decision::stopped(Verdict::Abort, Layer::Stream, outcome));
        }
        self.check_aborted(head)?;
        if outcome.blocked {
            let half = connection.half(self.direction);
            half.cut = half.next;
            return Err(Decision::stopped(Verdict::Drop, Layer::Stream, outcome));
        }
        Ok(())
    }

    fn ask_stream(&mut self, head: &Head<C::Flow>, source: Source<'_>, flags: u32) -> Outcome {
        let data = match source {
            Source::Here(range) => Some((&mut *self.buffer, range)),
            Source::Early(packet, range) => Some((packet, range)),
            Source::Nothing => None,
        };
        let view = head.view();
        self.classifier.classify(Indication {
            layer: Layer::Stream,
            key: &self.key,
            direction: self.direction,
            flow_direction: view.direction,
            packet: Some(self.packet),
            flags: self.flags,
            reason: 0,
            flow: view.handle,
            owner: view.owner,
            endpoint: view.endpoint,
            data: Data::Stream { data, flags },
        })
    }

    /// Keeps a segment's data until its turn comes. A gap that costs too much memory is given up.
    fn keep_for_later(&self, connection: &mut Connection, tcp: &Tcp) {
        let len = segment_len(self.packet);
        if len == 0 || !self.classifier.wants(Layer::Stream, self.key.version()) {
            return;
        }
        let sequence = tcp.sequence.wrapping_add(u32::from(tcp.has(tcp_flag::SYN)));
        let half = connection.half(self.direction);
        let early = Early {
            sequence,
            len,
            flags: tcp.flags,
            data_offset: self.packet.data_offset(),
            packet: PacketBuffer::copy_of(&self.buffer.bytes()[..self.packet.len]),
        };
        if !half.keep(early) {
            half.skip_gap();
        }
    }
}

const fn by_direction(direction: Direction, outbound: u32, inbound: u32) -> u32 {
    match direction {
        Direction::Outbound => outbound,
        Direction::Inbound => inbound,
    }
}

/// Resets for both ends, each with the sequence number its receiver expects next: any other would only be challenged
/// (RFC 5961 section 3.2).
fn resets(output: &mut Output, key: &FlowKey, connection: &mut Connection, tcp: &Tcp, direction: Direction) {
    let ours = connection.half(Direction::Outbound).delivered;
    let theirs = connection.half(Direction::Inbound).delivered;
    // What the segment at hand says about a direction of which nothing was let through yet.
    let acknowledged = tcp.has(tcp_flag::ACK).then_some(tcp.acknowledgment);
    let (ours, theirs) = match direction {
        Direction::Outbound => (ours.or(Some(tcp.sequence)), theirs.or(acknowledged)),
        Direction::Inbound => (ours.or(acknowledged), theirs.or(Some(tcp.sequence))),
    };
    let local = (key.local(), key.local_port);
    let remote = (key.remote(), key.remote_port);
    if let Some(sequence) = theirs {
        reply::reset(&mut output.to_local, remote, local, sequence, ours);
    }
    if let Some(sequence) = ours {
        reply::reset(&mut output.to_remote, local, remote, sequence, theirs);
    }
}

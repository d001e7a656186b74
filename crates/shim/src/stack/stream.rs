//! Calls of the STREAM layer, and their effect on the bytes.

use super::connection::segment_len;
use super::relay::{End, MOST, Piece, Relay, Start};
use super::{Context, Decision, Entry, Head, Output, Verdict};
use crate::classifier::{Classifier, Data, Indication, Injected, Outcome, StreamAction, stream_flag};
use crate::flow::{Endpoints, FlowKey};
use crate::layer::{Direction, Layer};
use crate::packet::{Packet, Tcp, tcp_flag};
use crate::reply;
use crate::tcp::{Connection, Early, Fresh, Phase, after};
use nt_abi::PacketBuffer;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

const RELAYED: Decision = Decision { verdict: Verdict::Relayed, by: None, opened: false };

/// The source of a flow's data.
enum Source<'a> {
    /// The current packet.
    Here(Range<usize>),
    /// An earlier packet that waited for its turn.
    Early(&'a mut PacketBuffer, Range<usize>),
    /// Nothing: a disconnect or an abort.
    Nothing,
}

/// The context of calls for a stream.
pub(super) struct Asker<'a, C: Classifier> {
    pub(super) classifier: &'a mut C,
    pub(super) key: &'a FlowKey,
    pub(super) flags: u32,
}

impl<C: Classifier> Asker<'_, C> {
    fn ask(
        &mut self,
        head: &Head<C::Flow>,
        direction: Direction,
        data: Option<(&mut PacketBuffer, Range<usize>)>,
        flags: u32,
        injected_by: u32,
    ) -> Outcome {
        let view = head.view();
        self.classifier.classify(Indication {
            layer: Layer::Stream,
            key: self.key,
            direction,
            flow_direction: view.direction,
            packet: None,
            flags: self.flags,
            reason: 0,
            flow: view.handle,
            owner: view.owner,
            endpoint: view.endpoint,
            injected_by,
            promiscuous: 0,
            data: Data::Stream { data, flags },
        })
    }

    fn is_aborted(&self, head: &Head<C::Flow>) -> bool {
        head.handle.as_ref().is_some_and(|flow| self.classifier.is_aborted(flow))
    }

    fn take_injected(&mut self, head: &Head<C::Flow>, direction: Direction) -> Vec<Injected> {
        head.handle.as_ref().map(|flow| self.classifier.take_injected(flow, direction)).unwrap_or_default()
    }

    /// Adds data of callouts to a stream, after what has passed: "it will be made available to stream callouts from
    /// lower-weight sublayers" (FwpsStreamInjectAsync0 documentation). What those inject meanwhile comes after it. They
    /// may block it or a part of it and drop the connection; data of which they need more, or that they defer, passes.
    pub(super) fn put_in(
        &mut self,
        head: &Head<C::Flow>,
        relay: &mut Relay,
        direction: Direction,
        injected: Vec<Injected>,
    ) -> Result<(), Decision> {
        let mut line = VecDeque::from(injected);
        while let Some(Injected { callout_id, mut data, end }) = line.pop_front() {
            while !data.is_empty() {
                let mut buffer = PacketBuffer::copy_of(&data);
                let flags = data_flag(direction);
                let outcome = self.ask(head, direction, Some((&mut buffer, 0..data.len())), flags, callout_id);
                if outcome.stream == StreamAction::DropConnection {
                    return Err(Decision::stopped(Verdict::Abort, Layer::Stream, outcome));
                }
                let covered = match outcome.enforced {
                    0 => data.len(),
                    part => part.min(data.len()),
                };
                if !outcome.blocked || outcome.stream != StreamAction::None {
                    relay.half(direction).pass(&data[..covered]);
                }
                data.drain(..covered);
                for (place, more) in self.take_injected(head, direction).into_iter().enumerate() {
                    line.insert(place, more);
                }
            }
            if end {
                relay.half(direction).end = End::Passed;
            }
        }
        Ok(())
    }

    /// Applies a callout's answer to the undecided bytes of a direction; false when no further call makes sense before
    /// another event.
    fn obey(
        &mut self,
        head: &Head<C::Flow>,
        relay: &mut Relay,
        direction: Direction,
        outcome: Outcome,
        injected: Vec<Injected>,
        blocked: &mut Option<Decision>,
    ) -> Result<bool, Decision> {
        let half = relay.half(direction);
        let there = half.undecided.len();
        let goes_on = match outcome.stream {
            StreamAction::DropConnection => return Err(Decision::stopped(Verdict::Abort, Layer::Stream, outcome)),
            // A callout that still waits for data when the stream has ended will not get it; what Windows does then is
            // not documented. Nothing passes without a permit.
            StreamAction::NeedMoreData(_) if half.ended => {
                half.undecided.clear();
                true
            }
            StreamAction::NeedMoreData(more) => {
                half.wanted = there.saturating_add(more.max(1) as usize);
                if half.wanted > MOST {
                    tracing::warn!(wanted = half.wanted, "a stream callout wants to see more at once than can be kept");
                    return Err(Decision::stopped(Verdict::Abort, Layer::Stream, outcome));
                }
                false
            }
            StreamAction::Defer(callout) if direction == Direction::Inbound => {
                half.deferred = Some(callout);
                false
            }
            // "This action can only be set for an inbound data stream": otherwise as if it had not been.
            StreamAction::None | StreamAction::Defer(_) => {
                half.wanted = 0;
                let covered = match outcome.enforced {
                    0 => there,
                    part => part.min(there),
                };
                let decided: Vec<u8> = half.undecided.drain(..covered).collect();
                if outcome.blocked {
                    *blocked = Some(Decision::stopped(Verdict::Drop, Layer::Stream, outcome));
                } else {
                    half.pass(&decided);
                }
                true
            }
        };
        self.put_in(head, relay, direction, injected)?;
        if self.is_aborted(head) {
            return Err(Decision { verdict: Verdict::Abort, by: None, opened: false });
        }
        Ok(goes_on)
    }

    /// Calls the layer for the undecided bytes of a direction as long as callouts decide, then for its end. Returns the
    /// last block, if any.
    pub(super) fn decide(
        &mut self,
        head: &Head<C::Flow>,
        relay: &mut Relay,
        direction: Direction,
        pushed: bool,
    ) -> Result<Option<Decision>, Decision> {
        let mut blocked = None;
        loop {
            let half = relay.half(direction);
            let enough = half.undecided.len() >= half.wanted || half.ended;
            if half.undecided.is_empty() || half.deferred.is_some() || !enough {
                break;
            }
            let mut flags = data_flag(direction);
            if direction == Direction::Inbound && pushed {
                flags |= stream_flag::RECEIVE_PUSH;
            }
            if half.ended {
                flags |= end_flag(direction);
            }
            let mut buffer = PacketBuffer::copy_of(&half.undecided);
            let all = 0..half.undecided.len();
            let outcome = self.ask(head, direction, Some((&mut buffer, all)), flags, 0);
            let injected = self.take_injected(head, direction);
            if !self.obey(head, relay, direction, outcome, injected, &mut blocked)? {
                break;
            }
        }
        let half = relay.half(direction);
        if half.ended && half.undecided.is_empty() && half.end == End::Open {
            let outcome = self.ask(head, direction, None, end_flag(direction), 0);
            let injected = self.take_injected(head, direction);
            self.put_in(head, relay, direction, injected)?;
            let half = relay.half(direction);
            if half.end == End::Open {
                half.end = if outcome.blocked { End::Withheld } else { End::Passed };
            }
        }
        Ok(blocked)
    }
}

const fn data_flag(direction: Direction) -> u32 {
    match direction {
        Direction::Outbound => stream_flag::SEND,
        Direction::Inbound => stream_flag::RECEIVE,
    }
}

const fn end_flag(direction: Direction) -> u32 {
    match direction {
        Direction::Outbound => stream_flag::SEND_DISCONNECT,
        Direction::Inbound => stream_flag::RECEIVE_DISCONNECT,
    }
}

const fn abort_flag(direction: Direction) -> u32 {
    match direction {
        Direction::Outbound => stream_flag::SEND_ABORT,
        Direction::Inbound => stream_flag::RECEIVE_ABORT,
    }
}

/// Begins to relay a connection: from the byte `next` in `direction`, and in the other direction, if nothing was seen
/// of it, from the byte `back`.
pub(super) fn stand_between(
    connection: &mut Connection,
    direction: Direction,
    next: u32,
    back: u32,
    live: bool,
    now: Duration,
) -> Relay {
    let mut start = |of: Direction| {
        let half = connection.half(of);
        let next = if of == direction { next } else { half.next.unwrap_or(back) };
        let acknowledged = half.acknowledged.filter(|_| live).unwrap_or(next);
        let ended = (half.fin == Some(next)).then_some(half.fin_acknowledged);
        Start { next, acknowledged, ended }
    };
    let starts = [start(Direction::Outbound), start(Direction::Inbound)];
    Relay::new(starts, connection.hosts(), live, now)
}

impl<C: Classifier> Context<'_, C> {
    fn asker(&mut self) -> Asker<'_, C> {
        Asker { classifier: self.classifier, key: &self.key, flags: self.flags }
    }

    /// Indicates what is new in a segment: data in order, then the FIN; or the reset. When a callout does not pass all
    /// of it, `relay` is set and takes over.
    pub(super) fn stream(
        &mut self,
        head: &Head<C::Flow>,
        connection: &mut Connection,
        relay: &mut Option<Box<Relay>>,
        tcp: &Tcp,
        live: bool,
    ) -> Result<(), Decision> {
        self.check_aborted(head)?;
        let direction = self.direction;
        let start = tcp.sequence.wrapping_add(u32::from(tcp.has(tcp_flag::SYN)));
        let len = segment_len(&self.packet);
        let end = start.wrapping_add(len);
        if connection.phase != Phase::Established {
            self.keep_for_later(connection, tcp);
            return Ok(());
        }
        let half = connection.half(direction);
        let version = self.key.version();
        let asks = match &head.handle {
            Some(flow) => self.classifier.concerns(Layer::Stream, version, flow),
            None => self.classifier.wants(Layer::Stream, version),
        };
        if !asks {
            if half.next.is_none_or(|next| after(end, next)) {
                half.next = Some(end);
            }
            return Ok(());
        }
        if tcp.has(tcp_flag::RST) {
            self.ask_stream(head, &mut Source::Nothing, abort_flag(direction));
            return Ok(());
        }
        self.catch_up(head, connection, relay, tcp, live)?; // data that came with the SYN
        match connection.half(direction).fresh(start, len) {
            Fresh::Nothing => {}
            Fresh::InOrder { skip } => {
                let data = self.packet.data_offset() + skip as usize..self.packet.len;
                let next = start.wrapping_add(skip);
                self.pass_stream(head, connection, relay, Source::Here(data), next, tcp, live)?;
                connection.half(direction).next = Some(end);
            }
            // Earlier data may be removed or changed, and then its sequence number would be wrong.
            Fresh::Early if live => {
                let next = connection.half(direction).next.unwrap_or(start);
                *relay = Some(Box::new(stand_between(connection, direction, next, tcp.acknowledgment, live, self.now)));
                return Err(RELAYED);
            }
            Fresh::Early => self.keep_for_later(connection, tcp),
        }
        self.catch_up(head, connection, relay, tcp, live)?;
        let half = connection.half(direction);
        let fin = if tcp.has(tcp_flag::FIN) { Some(end) } else { half.fin };
        if fin.is_some() && half.next == fin && !std::mem::replace(&mut half.disconnected, true) {
            let outcome = self.ask_stream(head, &mut Source::Nothing, end_flag(direction));
            let injected = self.asker().take_injected(head, direction);
            if outcome.blocked || !injected.is_empty() {
                let next = end;
                let mut new = stand_between(connection, direction, next, tcp.acknowledgment, live, self.now);
                new.half(direction).end = if outcome.blocked { End::Withheld } else { End::Passed };
                self.asker().put_in(head, &mut new, direction, injected)?;
                *relay = Some(Box::new(new));
                return Err(RELAYED);
            }
        }
        Ok(())
    }

    /// Indicates the segments that waited for the gap before them to be filled.
    fn catch_up(
        &mut self,
        head: &Head<C::Flow>,
        connection: &mut Connection,
        relay: &mut Option<Box<Relay>>,
        tcp: &Tcp,
        live: bool,
    ) -> Result<(), Decision> {
        while let Some(mut early) = connection.half(self.direction).next_early() {
            let next = connection.half(self.direction).next.unwrap_or(early.sequence);
            let skip = next.wrapping_sub(early.sequence) as usize;
            let data = early.data_offset + skip..early.packet.bytes().len();
            let source = Source::Early(&mut early.packet, data);
            let described = Tcp { flags: early.flags, ..*tcp };
            self.pass_stream(head, connection, relay, source, next, &described, live)?;
            connection.half(self.direction).next = Some(early.sequence.wrapping_add(early.len));
        }
        Ok(())
    }

    /// Calls the STREAM layer for data whose first byte is number `next`. Unless all of it passes, the connection is
    /// relayed from there on.
    #[expect(clippy::too_many_arguments, reason = "the parts of one connection, each borrowed by itself")]
    fn pass_stream(
        &mut self,
        head: &Head<C::Flow>,
        connection: &mut Connection,
        relay: &mut Option<Box<Relay>>,
        mut source: Source<'_>,
        next: u32,
        tcp: &Tcp,
        live: bool,
    ) -> Result<(), Decision> {
        let empty = match &source {
            Source::Here(data) | Source::Early(_, data) => data.is_empty(),
            Source::Nothing => true,
        };
        if empty {
            return Ok(()); // cut off by a capture's snapshot length
        }
        let mut flags = data_flag(self.direction);
        if self.direction == Direction::Inbound && tcp.has(tcp_flag::PSH) {
            flags |= stream_flag::RECEIVE_PUSH;
        }
        // Which byte is urgent is not looked at: all of the segment is shown as urgent.
        if tcp.has(tcp_flag::URG) {
            flags |= match self.direction {
                Direction::Outbound => stream_flag::SEND_EXPEDITED,
                Direction::Inbound => stream_flag::RECEIVE_EXPEDITED,
            };
        }
        let outcome = self.ask_stream(head, &mut source, flags);
        if outcome.stream == StreamAction::DropConnection {
            return Err(Decision::stopped(Verdict::Abort, Layer::Stream, outcome));
        }
        self.check_aborted(head)?;
        let direction = self.direction;
        let injected = self.asker().take_injected(head, direction);
        let all = outcome.enforced == 0 && outcome.stream == StreamAction::None && !outcome.blocked;
        if all && injected.is_empty() {
            return Ok(());
        }
        let fresh = match &source {
            Source::Here(data) => self.buffer.bytes()[data.clone()].to_vec(),
            Source::Early(packet, data) => packet.bytes()[data.clone()].to_vec(),
            Source::Nothing => Vec::new(),
        };
        let mut new = stand_between(connection, direction, next, tcp.acknowledgment, live, self.now);
        let piece =
            Piece { sequence: next, acknowledgment: None, window: window(self.segment()), data: &fresh, fin: false };
        new.take(direction, piece, self.now);
        let mut blocked = None;
        self.asker().obey(head, &mut new, direction, outcome, injected, &mut blocked)?;
        // Data after a gap is decided in its turn.
        connection.half(direction).next = Some(next.wrapping_add(fresh.len() as u32));
        while let Some(early) = connection.half(direction).next_early() {
            let data = &early.packet.bytes()[early.data_offset..];
            let fin = early.flags & tcp_flag::FIN != 0;
            let piece = Piece { sequence: early.sequence, acknowledgment: None, window: tcp_window(&early), data, fin };
            new.take(direction, piece, self.now);
            connection.half(direction).next = Some(early.sequence.wrapping_add(early.len));
        }
        *relay = Some(Box::new(new));
        Err(blocked.unwrap_or(RELAYED))
    }

    fn ask_stream(&mut self, head: &Head<C::Flow>, source: &mut Source<'_>, flags: u32) -> Outcome {
        let data = match source {
            Source::Here(range) => Some((&mut *self.buffer, range.clone())),
            Source::Early(packet, range) => Some((&mut **packet, range.clone())),
            Source::Nothing => None,
        };
        let mut asker = Asker { classifier: self.classifier, key: &self.key, flags: self.flags };
        asker.ask(head, self.direction, data, flags, 0)
    }

    /// Keeps a segment's data until its turn comes. A gap that costs too much memory is given up.
    pub(super) fn keep_for_later(&self, connection: &mut Connection, tcp: &Tcp) {
        let len = segment_len(&self.packet);
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

    /// Passes the current segment to the relay, and calls the layer for its data. Returns the last block.
    pub(super) fn relay(
        &mut self,
        head: &Head<C::Flow>,
        relay: &mut Relay,
        tcp: &Tcp,
    ) -> Result<Option<Decision>, Decision> {
        self.check_aborted(head)?;
        let (direction, now) = (self.direction, self.now);
        if tcp.has(tcp_flag::RST) {
            self.ask_stream(head, &mut Source::Nothing, abort_flag(direction));
            return Ok(None);
        }
        let sequence = tcp.sequence.wrapping_add(u32::from(tcp.has(tcp_flag::SYN)));
        let piece = Piece {
            sequence,
            acknowledgment: tcp.has(tcp_flag::ACK).then_some(tcp.acknowledgment),
            window: window(self.segment()),
            data: &self.buffer.bytes()[self.packet.data_offset()..self.packet.len],
            fin: tcp.has(tcp_flag::FIN),
        };
        relay.take(direction, piece, now);
        self.asker().decide(head, relay, direction, tcp.has(tcp_flag::PSH))
    }

    /// Sends the stack's own segments: outbound ones pass the layers below TCP.
    pub(super) fn send_relayed(
        &mut self,
        output: &mut Output,
        head: &Head<C::Flow>,
        segments: Vec<(Direction, Vec<u8>)>,
    ) {
        let Context { classifier, endpoints, key, flags, now, .. } = self;
        send_segments(output, *classifier, *endpoints, head, *key, *flags, *now, segments);
    }

    /// Resets the other host, because this one has reset the connection.
    pub(super) fn hand_on_reset(&mut self, output: &mut Output, head: &Head<C::Flow>, relay: &Relay) {
        let (local, remote) = ((self.key.local(), self.key.local_port), (self.key.remote(), self.key.remote_port));
        let (from, to) = match self.direction {
            Direction::Outbound => (local, remote),
            Direction::Inbound => (remote, local),
        };
        let (sequence, back) = (relay.expected(self.direction), relay.expected(self.direction.reverse()));
        let mut bytes = Vec::new();
        reply::reset(&mut bytes, from, to, sequence, Some(back));
        let direction = self.direction;
        self.send_relayed(output, head, vec![(direction, bytes)]);
    }
}

/// The window in a TCP header.
fn window(segment: &[u8]) -> u16 {
    segment.get(14..16).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn tcp_window(early: &Early) -> u16 {
    let bytes = early.packet.bytes();
    Packet::parse(bytes).map_or(0, |packet| window(&bytes[packet.ip_header_len..]))
}

#[expect(clippy::too_many_arguments, reason = "what a context is made of")]
pub(super) fn send_segments<C: Classifier>(
    output: &mut Output,
    classifier: &mut C,
    endpoints: &mut dyn Endpoints,
    head: &Head<C::Flow>,
    key: FlowKey,
    flags: u32,
    now: Duration,
    segments: Vec<(Direction, Vec<u8>)>,
) {
    classifier.speak_for_itself(true);
    for (direction, bytes) in segments {
        let mut buffer = PacketBuffer::copy_of(&bytes);
        if direction == Direction::Outbound {
            let Ok(packet) = Packet::parse(&bytes) else { continue };
            let (entry, buffer, endpoints) = (Entry::Edge, &mut buffer, &mut *endpoints);
            let classifier = &mut *classifier;
            let mut context = Context { classifier, endpoints, buffer, packet, key, direction, flags, entry, now };
            if context.leave(head.view()).is_err() {
                continue; // lost on its way down: it is sent again
            }
        }
        output.relayed.push((direction, buffer));
    }
    classifier.speak_for_itself(false);
}

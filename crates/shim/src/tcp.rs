//! As much of TCP as it takes to know when a connection is established, when it is over, and which bytes of a segment
//! are new.
//!
//! Windows indicates a connection's bytes to the STREAM layer once and in order: outbound when the application sends
//! them, before they become segments, inbound when TCP has put them in order. Seen from the wire that means:
//! retransmitted bytes are not indicated again, and bytes that arrive early wait until the gap before them is filled.

use super::layer::{Direction, IpVersion};
use super::packet::{Tcp, tcp_flag};
use etherparse::{TcpOptionElement, TcpSlice};
use nt_abi::PacketBuffer;

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The SYN went out or came in, without an answer yet.
    Opening,
    /// Both SYNs were seen, but not the opener's ACK.
    HalfOpen,
    /// The handshake is complete.
    Established,
    /// Reset, or both FINs were acknowledged.
    Closed,
}

/// `a` comes after `b` in sequence space.
#[must_use]
pub const fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// The most early bytes of a direction. Beyond them the gap is given up (a capture that lost packets).
const EARLY_LIMIT: usize = 1 << 20;

/// A segment that arrived early.
#[derive(Debug)]
pub struct Early {
    /// The sequence number of its first data byte.
    pub sequence: u32,
    /// Its data bytes on the wire.
    pub len: u32,
    /// Its flags.
    pub flags: u8,
    /// Where the data starts in the packet.
    pub data_offset: usize,
    /// The packet.
    pub packet: PacketBuffer,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Half {
    /// The next sequence number in order; `None` before anything was seen.
    pub next: Option<u32>,
    /// The end of what passed without a gap: what the receiver expects next.
    pub delivered: Option<u32>,
    /// What the receiver acknowledged last.
    pub acknowledged: Option<u32>,
    /// The sequence number after the SYN.
    pub behind_syn: Option<u32>,
    /// The sequence number of the FIN.
    pub fin: Option<u32>,
    /// The other side acknowledged the FIN.
    pub fin_acknowledged: bool,
    /// The FIN was indicated to the STREAM layer.
    pub disconnected: bool,
    early: Vec<Early>,
    early_bytes: usize,
}

/// Which part of a segment's data is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Nothing: no data, or all of it was seen before.
    Nothing,
    /// The bytes from `skip` on.
    InOrder {
        /// Bytes at the start of the segment's data that were seen before.
        skip: u32,
    },
    /// It is after a gap.
    Early,
}

impl Half {
    /// Compares a segment's data, `len` bytes at `sequence`, with what was seen.
    #[must_use]
    pub fn fresh(&self, sequence: u32, len: u32) -> Fresh {
        let Some(next) = self.next else { return Fresh::InOrder { skip: 0 } };
        if len == 0 {
            return Fresh::Nothing;
        }
        if after(sequence, next) {
            return Fresh::Early;
        }
        match next.wrapping_sub(sequence) {
            seen if seen >= len => Fresh::Nothing,
            skip => Fresh::InOrder { skip },
        }
    }

    /// Keeps an early segment; `false` when there is no room.
    pub fn keep(&mut self, early: Early) -> bool {
        let size = early.packet.bytes().len();
        if self.early_bytes + size > EARLY_LIMIT {
            return false;
        }
        self.early_bytes += size;
        self.early.push(early);
        true
    }

    /// Takes the next kept segment that is now in order; segments that became old are dropped.
    pub fn next_early(&mut self) -> Option<Early> {
        let next = self.next?;
        let mut found = None;
        let mut index = 0;
        while index < self.early.len() {
            let early = &self.early[index];
            if after(early.sequence, next) {
                index += 1;
                continue;
            }
            let early = self.early.swap_remove(index);
            self.early_bytes -= early.packet.bytes().len();
            if after(early.sequence.wrapping_add(early.len), next) {
                found = Some(early);
                break;
            }
        }
        found
    }

    /// Gives up the gap: the nearest kept segment comes next.
    pub fn skip_gap(&mut self) {
        if let Some(nearest) = self.early.iter().map(|e| e.sequence).reduce(|a, b| if after(a, b) { b } else { a }) {
            self.next = Some(nearest);
        }
    }

    /// Records that the segment `[sequence, end)` passed.
    pub fn deliver(&mut self, sequence: u32, end: u32) {
        match self.delivered {
            Some(delivered) if after(sequence, delivered) || !after(end, delivered) => {}
            _ => self.delivered = Some(end),
        }
    }
}

/// What a host announces in its segments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host {
    /// The window of the last header.
    pub window: u16,
    /// The shift of the window; once both SYNs were seen, 0 unless both hosts offered a scale.
    pub scale: u8,
    /// The last header was a SYN's: "the window field in a segment where the SYN bit is set MUST NOT be scaled"
    /// (RFC 7323 section 2.2).
    unscaled: bool,
    offers_scale: bool,
    largest: Option<u16>,
}

impl Host {
    /// The window in bytes.
    #[must_use]
    pub fn takes(&self) -> usize {
        usize::from(self.window) << if self.unscaled { 0 } else { self.scale }
    }

    /// Records the window of a segment that is not a SYN.
    pub fn says(&mut self, window: u16) {
        (self.window, self.unscaled) = (window, false);
    }

    /// How much data it takes in one segment; without the option, what every host must take (RFC 9293 section 3.7.1).
    #[must_use]
    pub fn largest(&self, version: IpVersion) -> usize {
        let least = match version {
            IpVersion::V4 => 536,
            IpVersion::V6 => 1220,
        };
        self.largest.map_or(least, |largest| usize::from(largest).clamp(64, 1460))
    }

    /// Reads a segment's header, and the options of a SYN.
    fn read(&mut self, header: &TcpSlice<'_>) {
        self.says(header.window_size());
        if !header.syn() {
            return;
        }
        self.unscaled = true;
        (self.offers_scale, self.scale, self.largest) = (false, 0, None);
        for option in header.options_iterator().map_while(Result::ok) {
            match option {
                TcpOptionElement::WindowScale(scale) => {
                    (self.offers_scale, self.scale) = (true, scale.min(14)); // RFC 7323 section 2.3
                }
                TcpOptionElement::MaximumSegmentSize(largest) => self.largest = Some(largest),
                _ => {}
            }
        }
    }
}

/// A TCP connection.
#[derive(Debug)]
pub struct Connection {
    /// Its phase.
    pub phase: Phase,
    /// The sequence number of the SYN that opened it, to tell its retransmission from a new connection.
    pub initial: Option<u32>,
    /// Both ends have been reset.
    pub aborted: bool,
    halves: [Half; 2],
    hosts: [Host; 2],
}

impl Connection {
    /// A connection that `syn`, travelling in `direction`, opens.
    #[must_use]
    pub fn opening(syn: &Tcp, direction: Direction) -> Self {
        let mut connection = Self::at(Phase::Opening);
        connection.initial = Some(syn.sequence);
        let half = connection.half(direction);
        half.next = Some(syn.sequence.wrapping_add(1));
        half.behind_syn = half.next;
        connection
    }

    /// A connection that was established before the first packet seen.
    #[must_use]
    pub fn under_way() -> Self {
        Self::at(Phase::Established)
    }

    /// A connection that is over.
    #[must_use]
    pub fn closed() -> Self {
        Self::at(Phase::Closed)
    }

    fn at(phase: Phase) -> Self {
        Self { phase, initial: None, aborted: false, halves: Default::default(), hosts: Default::default() }
    }

    /// One direction.
    pub fn half(&mut self, direction: Direction) -> &mut Half {
        &mut self.halves[direction as usize]
    }

    /// Records what the sender of a segment announces; `segment` begins at the TCP header.
    pub fn meet(&mut self, segment: &[u8], direction: Direction) {
        if let Ok(header) = TcpSlice::from_slice(segment) {
            self.hosts[direction as usize].read(&header);
        }
    }

    /// The two hosts, by the direction in which they send, with scales that both agreed to.
    #[must_use]
    pub fn hosts(&self) -> [Host; 2] {
        let both = self.hosts.iter().all(|host| host.offers_scale);
        self.hosts.map(|host| Host { scale: if both { host.scale } else { 0 }, ..host })
    }

    /// Whether a segment from the other side acknowledges this side's SYN, but nothing that was never sent ("SND.UNA <
    /// SEG.ACK =< SND.NXT", RFC 9293 section 3.10.7).
    #[must_use]
    pub fn acknowledges(&self, tcp: &Tcp) -> bool {
        let ours = &self.halves[Direction::Outbound as usize];
        let beyond = |end: Option<u32>| end.is_some_and(|end| after(tcp.acknowledgment, end));
        let short = ours.behind_syn.is_some_and(|syn| after(syn, tcp.acknowledgment));
        tcp.has(tcp_flag::ACK) && !short && !beyond(ours.delivered.or(ours.behind_syn))
    }

    /// Whether this side obeys a reset from the other side: in answer to its SYN one that acknowledges it (RFC 9293
    /// section 3.10.7.3), later one with exactly the sequence number that it expects next (RFC 5961 section 3.2; any
    /// other gets a challenge ACK or none). Where that is not known, in a capture that starts in the middle, it obeys
    /// every one.
    #[must_use]
    pub fn obeys_reset(&self, tcp: &Tcp, opener: Direction) -> bool {
        if self.phase == Phase::Opening && opener == Direction::Outbound {
            return self.acknowledges(tcp);
        }
        let theirs = &self.halves[Direction::Inbound as usize];
        let expected = [theirs.delivered.or(theirs.behind_syn), theirs.acknowledged];
        expected == [None, None] || expected.contains(&Some(tcp.sequence))
    }

    /// Follows the acknowledgment, SYN and FIN of a segment that passes.
    pub fn follow(&mut self, tcp: &Tcp, len: u32, direction: Direction) {
        let start = tcp.sequence.wrapping_add(u32::from(tcp.has(tcp_flag::SYN)));
        let half = self.half(direction);
        if half.next.is_none() {
            half.next = Some(start);
        }
        if tcp.has(tcp_flag::SYN) {
            half.behind_syn = Some(start);
        }
        if tcp.has(tcp_flag::FIN) {
            half.fin = Some(start.wrapping_add(len));
        }
        half.deliver(tcp.sequence, start.wrapping_add(len).wrapping_add(u32::from(tcp.has(tcp_flag::FIN))));
        if tcp.has(tcp_flag::ACK) {
            let other = self.half(direction.reverse());
            if other.acknowledged.is_none_or(|last| after(tcp.acknowledgment, last)) {
                other.acknowledged = Some(tcp.acknowledgment);
            }
            if other.fin.is_some_and(|fin| after(tcp.acknowledgment, fin)) {
                other.fin_acknowledged = true;
            }
        }
        if self.halves.iter().all(|half| half.fin_acknowledged) || tcp.has(tcp_flag::RST) {
            self.phase = Phase::Closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u32, acknowledgment: u32, flags: u8) -> Tcp {
        Tcp { source: 1, destination: 2, sequence, acknowledgment, header_len: 20, flags }
    }

    #[test]
    fn retransmissions_are_not_fresh() {
        let half = Half { next: Some(100), ..Half::default() };
        assert_eq!(half.fresh(100, 10), Fresh::InOrder { skip: 0 });
        assert_eq!(half.fresh(90, 10), Fresh::Nothing);
        assert_eq!(half.fresh(90, 20), Fresh::InOrder { skip: 10 });
        assert_eq!(half.fresh(101, 5), Fresh::Early);
        assert_eq!(half.fresh(100, 0), Fresh::Nothing);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let half = Half { next: Some(5), ..Half::default() };
        assert_eq!(half.fresh(u32::MAX - 4, 20), Fresh::InOrder { skip: 10 });
        assert_eq!(half.fresh(u32::MAX - 4, 10), Fresh::Nothing);
        assert!(after(3, u32::MAX));
    }

    #[test]
    fn early_segments_come_out_in_order() {
        let mut half = Half { next: Some(0), ..Half::default() };
        for sequence in [20, 10, 10] {
            let packet = PacketBuffer::copy_of(&[0; 10]);
            assert!(half.keep(Early { sequence, len: 10, flags: 0, data_offset: 0, packet }));
        }
        assert!(half.next_early().is_none());
        half.next = Some(10);
        assert_eq!(half.next_early().unwrap().sequence, 10);
        half.next = Some(20);
        assert_eq!(half.next_early().unwrap().sequence, 20, "the duplicate of 10 is forgotten");
        half.next = Some(30);
        assert!(half.next_early().is_none());
        assert_eq!((half.early.len(), half.early_bytes), (0, 0));
    }

    #[test]
    fn the_store_of_early_segments_is_bounded() {
        let mut half = Half { next: Some(0), ..Half::default() };
        let mut kept = 0u32;
        loop {
            let packet = PacketBuffer::copy_of(&[0; 1000]);
            if !half.keep(Early { sequence: 5000 + kept * 1000, len: 1000, flags: 0, data_offset: 0, packet }) {
                break;
            }
            kept += 1;
        }
        assert_eq!(kept as usize, EARLY_LIMIT / 1000);
        half.skip_gap();
        assert_eq!(half.next_early().unwrap().sequence, 5000);
    }

    #[test]
    fn closed_when_both_fins_are_acknowledged() {
        let mut connection = Connection::opening(&segment(100, 0, tcp_flag::SYN), Direction::Outbound);
        connection.follow(&segment(500, 101, tcp_flag::SYN | tcp_flag::ACK), 0, Direction::Inbound);
        connection.phase = Phase::Established;
        connection.follow(&segment(101, 501, tcp_flag::FIN | tcp_flag::ACK), 10, Direction::Outbound);
        connection.follow(&segment(501, 111, tcp_flag::ACK), 0, Direction::Inbound);
        assert_eq!(connection.phase, Phase::Established, "the FIN at 111 is not acknowledged by 111");
        connection.follow(&segment(501, 112, tcp_flag::FIN | tcp_flag::ACK), 0, Direction::Inbound);
        assert_eq!(connection.phase, Phase::Established);
        connection.follow(&segment(112, 502, tcp_flag::ACK), 0, Direction::Outbound);
        assert_eq!(connection.phase, Phase::Closed);
    }

    #[test]
    fn what_the_receiver_expects_grows_only_without_gaps() {
        let mut half = Half::default();
        half.deliver(10, 20);
        half.deliver(30, 40);
        assert_eq!(half.delivered, Some(20));
        half.deliver(15, 30);
        half.deliver(5, 12);
        assert_eq!(half.delivered, Some(30));
    }
}

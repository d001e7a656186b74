//! A connection whose bytes callouts defer, remove or inject.
//!
//! Windows calls the STREAM layer for bytes, not for segments: outbound before TCP makes segments of them, inbound
//! after it has acknowledged them. As long as every byte passes, the segments themselves can go on. From the first byte
//! that does not, the stack relays between the two hosts: it acknowledges what it receives, and sends what the callouts
//! leave of it in its own segments, with its own sequence numbers, until they are acknowledged.
//!
//! This is as much of TCP as two hosts on one link need: windows, retransmission by a timer and probes of a closed window;
//! no congestion control, no options.

use crate::flow::FlowKey;
use crate::layer::Direction;
use crate::reply;
use crate::tcp::{Host, after};
use etherparse::TcpHeader;
use std::collections::VecDeque;
use std::time::Duration;

/// How many bytes of a direction may wait here, for a decision or for their receiver, before the sender's window closes;
/// a callout that needs more gets more, up to [`MOST`].
const LIMIT: usize = 256 * 1024;
/// How many bytes a callout may ask to see at once. What Windows allows is not documented.
pub(super) const MOST: usize = 8 * 1024 * 1024;
/// What an early segment costs in addition to its bytes.
const EARLY_COST: usize = 64;
/// Time without progress after which what was sent is sent again; doubled each time, up to [`LONGEST`].
const RETRY: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// A segment's part for one relay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    /// The sequence number of the first data byte.
    pub(super) sequence: u32,
    pub(super) acknowledgment: Option<u32>,
    /// As it is in the header.
    pub(super) window: u16,
    pub(super) data: &'a [u8],
    pub(super) fin: bool,
}

/// The state of a direction's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Not indicated yet.
    Open,
    /// A callout defers it.
    Withheld,
    /// It passes, after the last byte.
    Passed,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Half {
    /// The next byte expected from the sender.
    received: u32,
    /// The sender's FIN was received.
    pub(super) ended: bool,
    early: Vec<(u32, Vec<u8>, bool)>,
    /// The sender must get an acknowledgment.
    owes: bool,
    /// The last window announced to it.
    told: usize,
    /// Bytes without a decision.
    pub(super) undecided: Vec<u8>,
    /// How many of them a callout needs before it is called again.
    pub(super) wanted: usize,
    /// The callout that has deferred the stream.
    pub(super) deferred: Option<u32>,
    pub(super) end: End,
    /// Bytes that passed and that the receiver has not acknowledged.
    queue: VecDeque<u8>,
    /// The number of the first of them.
    first: u32,
    /// How many of them were sent since the last retransmission.
    sent: usize,
    /// How many of them were ever sent.
    most_sent: usize,
    fin_sent: bool,
    /// The FIN was sent at least once.
    fin_known: bool,
    fin_acknowledged: bool,
    /// How many bytes the receiver takes.
    window: usize,
    progress: Duration,
    retries: u32,
    /// The sequence number at which the relay began.
    start: u32,
    /// What the receiver has acknowledged of the earlier bytes, until that is all of them: only then may they be
    /// acknowledged to the sender, and until then it may send them again.
    behind: Option<u32>,
    /// Earlier bytes that the sender has sent again, with their sequence numbers.
    replays: Vec<(u32, Vec<u8>)>,
}

/// The state of one direction of a connection when the relay begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// The number of the first byte that does not go on by itself.
    pub(super) next: u32,
    /// What the receiver has acknowledged.
    pub(super) acknowledged: u32,
    /// The FIN, whose number is `next`, has gone by; whether it was acknowledged.
    pub(super) ended: Option<bool>,
}

impl Half {
    fn new(Start { next: start, acknowledged, ended }: Start, window: usize, now: Duration) -> Self {
        let fin = ended.is_some();
        Self {
            start,
            behind: after(start, acknowledged).then_some(acknowledged),
            replays: Vec::new(),
            received: start.wrapping_add(u32::from(fin)),
            ended: fin,
            early: Vec::new(),
            owes: false,
            told: usize::MAX,
            undecided: Vec::new(),
            wanted: 0,
            deferred: None,
            end: if fin { End::Passed } else { End::Open },
            queue: VecDeque::new(),
            first: start,
            sent: 0,
            most_sent: 0,
            fin_sent: fin,
            fin_known: fin,
            fin_acknowledged: ended == Some(true),
            window,
            progress: now,
            retries: 0,
        }
    }

    /// Passes bytes.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        self.queue.extend(bytes);
    }

    /// How many more bytes the sender may send. A deferred stream takes none: "the network stack stops acknowledging
    /// data ... a reduction in the size of the sliding TCP window" (FWPS_STREAM_CALLOUT_IO_PACKET0 documentation).
    fn room(&self) -> usize {
        match self.deferred {
            Some(_) => 0,
            None => LIMIT.max(self.wanted).saturating_sub(self.undecided.len() + self.queue.len()),
        }
    }

    /// Takes what is new of `data`, whose first byte is number `sequence`; at most `room` bytes.
    fn take(&mut self, sequence: u32, data: &[u8], fin: bool, mut room: usize) {
        if self.ended {
            return;
        }
        if after(sequence, self.received) {
            self.keep(sequence, data, fin);
            return;
        }
        self.take_next(sequence, data, fin, &mut room);
        while !self.ended
            && let Some(next) = self.early.iter().position(|(sequence, ..)| !after(*sequence, self.received))
        {
            let (sequence, data, fin) = self.early.swap_remove(next);
            self.take_next(sequence, &data, fin, &mut room);
        }
    }

    /// Keeps an early segment, unless it is a duplicate or there are too many.
    fn keep(&mut self, sequence: u32, data: &[u8], fin: bool) {
        let kept: usize = self.early.iter().map(|(_, data, _)| data.len() + EARLY_COST).sum();
        let known =
            |(at, had, ended): &(u32, Vec<u8>, bool)| *at == sequence && had.len() >= data.len() && *ended >= fin;
        if kept + data.len() + EARLY_COST <= LIMIT && !self.early.iter().any(known) {
            self.early.push((sequence, data.to_vec(), fin));
        }
    }

    /// Takes what is new of data that begins no later than what is expected next.
    fn take_next(&mut self, sequence: u32, data: &[u8], fin: bool, room: &mut usize) {
        let old = self.received.wrapping_sub(sequence) as usize;
        let Some(fresh) = data.get(old..) else { return };
        let taken = &fresh[..fresh.len().min(*room)];
        self.undecided.extend_from_slice(taken);
        self.received = self.received.wrapping_add(taken.len() as u32);
        *room -= taken.len();
        if fin && taken.len() == fresh.len() {
            self.received = self.received.wrapping_add(1);
            self.ended = true;
            self.early.clear();
        }
    }

    /// The receiver has received everything up to `acknowledgment`.
    fn acknowledge(&mut self, acknowledgment: u32, window: usize, now: Duration) {
        if let Some(behind) = &mut self.behind {
            if after(acknowledgment, *behind) {
                *behind = acknowledgment;
                self.owes = true;
            }
            if !after(self.start, acknowledgment) {
                self.behind = None;
            }
        }
        let advance = acknowledgment.wrapping_sub(self.first) as usize;
        if advance > self.most_sent + usize::from(self.fin_known) {
            return; // old, or for what was not sent
        }
        self.window = window;
        if advance > 0 {
            let bytes = advance.min(self.most_sent);
            self.queue.drain(..bytes);
            self.first = self.first.wrapping_add(bytes as u32);
            self.most_sent -= bytes;
            self.sent = self.sent.saturating_sub(bytes);
            self.fin_acknowledged |= advance > bytes;
            (self.progress, self.retries) = (now, 0);
        }
    }

    /// The acknowledgment number for the sender.
    fn acknowledgment(&self) -> u32 {
        self.behind.unwrap_or(self.received)
    }

    /// The sequence number after everything that was ever sent: any other would not be acceptable (RFC 9293 section
    /// 3.10.7.4).
    fn next(&self) -> u32 {
        self.first.wrapping_add(self.most_sent as u32).wrapping_add(u32::from(self.fin_known))
    }

    /// Whether an answer is overdue.
    fn is_due(&self, now: Duration) -> bool {
        let waits = !self.queue.is_empty() || self.fin_sent;
        let patience = LONGEST.min(RETRY.saturating_mul(1 << self.retries.min(8)));
        waits && !self.fin_acknowledged && now >= self.progress + patience
    }
}

/// Both directions.
#[derive(Debug)]
pub(super) struct Relay {
    halves: [Half; 2],
    /// By the direction in which each sends.
    hosts: [Host; 2],
    /// The hosts answer; otherwise (in a capture) what is sent counts as acknowledged.
    live: bool,
}

impl Relay {
    /// Begins to relay between two hosts, from the state of each direction.
    pub(super) fn new(starts: [Start; 2], hosts: [Host; 2], live: bool, now: Duration) -> Self {
        // A direction's receiver announces its window in the segments that it sends in the other direction.
        let half = |direction: Direction| {
            let window = hosts[direction.reverse() as usize].takes();
            Half::new(starts[direction as usize], window, now)
        };
        Self { halves: [half(Direction::Outbound), half(Direction::Inbound)], hosts, live }
    }

    pub(super) fn half(&mut self, direction: Direction) -> &mut Half {
        &mut self.halves[direction as usize]
    }

    /// The callout that has deferred a direction.
    pub(super) fn deferred(&self, direction: Direction) -> Option<u32> {
        self.halves[direction as usize].deferred
    }

    /// Takes a segment that travels in `direction`.
    pub(super) fn take(&mut self, direction: Direction, piece: Piece<'_>, now: Duration) {
        self.hosts[direction as usize].says(piece.window);
        let window = self.hosts[direction as usize].takes();
        if let Some(acknowledgment) = piece.acknowledgment {
            self.half(direction.reverse()).acknowledge(acknowledgment, window, now);
        }
        let live = self.live;
        let half = self.half(direction);
        if piece.data.is_empty() && !piece.fin {
            half.owes |= after(half.received, piece.sequence); // a keep-alive
            return;
        }
        half.owes = true;
        let before = half.start.wrapping_sub(piece.sequence) as usize;
        if half.behind.is_some() && after(half.start, piece.sequence) && !piece.data.is_empty() {
            half.replays.push((piece.sequence, piece.data[..before.min(piece.data.len())].to_vec()));
        }
        let room = if live { half.room() } else { usize::MAX };
        half.take(piece.sequence, piece.data, piece.fin, room);
    }

    /// The numbers a reset must carry: what the receiver of each direction expects next.
    pub(super) fn expected(&self, direction: Direction) -> u32 {
        self.halves[direction as usize].next()
    }

    /// Whether both directions have ended and both ends are acknowledged.
    pub(super) fn is_over(&self) -> bool {
        self.halves.iter().all(|half| half.fin_acknowledged)
    }

    /// Prepares to retransmit what was not answered in time; whether there is anything.
    pub(super) fn retry(&mut self, now: Duration) -> bool {
        let mut any = false;
        for half in &mut self.halves {
            if self.live && half.is_due(now) {
                (half.sent, half.fin_sent) = (0, false);
                (half.progress, half.retries) = (now, half.retries + 1);
                half.window = half.window.max(1); // a closed window is probed
                any = true;
            }
        }
        any
    }

    /// The segments to send now, with their directions.
    pub(super) fn send(&mut self, key: &FlowKey, now: Duration) -> Vec<(Direction, Vec<u8>)> {
        let mut out = Vec::new();
        for direction in [Direction::Outbound, Direction::Inbound] {
            while let Some(segment) = self.next_segment(key, direction, now) {
                out.push((direction, segment));
            }
        }
        for direction in [Direction::Outbound, Direction::Inbound] {
            let half = &self.halves[direction as usize];
            let reopened = half.told < 2 * 1460 && half.room() >= 2 * 1460;
            if half.owes || reopened {
                let back = direction.reverse();
                let sequence = self.expected(back);
                out.push((back, self.segment(key, back, sequence, &[], false)));
            }
        }
        out
    }

    fn next_segment(&mut self, key: &FlowKey, direction: Direction, now: Duration) -> Option<Vec<u8>> {
        let most = self.hosts[direction.reverse() as usize].largest(key.version());
        let live = self.live;
        let half = self.half(direction);
        if let Some((sequence, data)) = half.replays.pop() {
            return Some(self.segment(key, direction, sequence, &data, false));
        }
        let left = half.queue.len() - half.sent;
        let room = if live { half.window.saturating_sub(half.sent) } else { usize::MAX };
        let count = left.min(most).min(room);
        let fin = half.end == End::Passed && !half.fin_sent && !half.fin_acknowledged && count == left;
        if count == 0 && !fin {
            return None;
        }
        if half.sent == 0 {
            half.progress = now;
        }
        let sequence = half.first.wrapping_add(half.sent as u32);
        let data: Vec<u8> = half.queue.range(half.sent..half.sent + count).copied().collect();
        half.sent += count;
        half.most_sent = half.most_sent.max(half.sent);
        half.fin_sent |= fin;
        half.fin_known |= fin;
        if !live {
            let next = half.next();
            half.acknowledge(next, usize::MAX, now);
        }
        Some(self.segment(key, direction, sequence, &data, fin))
    }

    /// A segment with the acknowledgment and window of the other direction.
    fn segment(&mut self, key: &FlowKey, direction: Direction, sequence: u32, data: &[u8], fin: bool) -> Vec<u8> {
        let scale = self.hosts[direction as usize].scale;
        let back = self.half(direction.reverse());
        (back.owes, back.told) = (false, back.room());
        let (window, acknowledgment) = ((back.told >> scale).min(0xffff) as u16, back.acknowledgment());
        let (from, to) = match direction {
            Direction::Outbound => ((key.local(), key.local_port), (key.remote(), key.remote_port)),
            Direction::Inbound => ((key.remote(), key.remote_port), (key.local(), key.local_port)),
        };
        let mut header = TcpHeader::new(from.1, to.1, sequence, window);
        (header.ack, header.acknowledgment_number) = (true, acknowledgment);
        (header.fin, header.psh) = (fin, !data.is_empty());
        let mut bytes = Vec::new();
        if let Some(ip) = reply::ip(from.0, to.0) {
            // Writing to a Vec fails only when the data is too long for its length field; it is at most a segment.
            let _ = ip.tcp_header(header).write(&mut bytes, data);
        }
        bytes
    }
}

//! Two hosts that speak TCP to each other through the machine: as much TCP as it takes to see what arrives.

use super::rig::*;
use shim::layer::Direction::{self, Inbound, Outbound};
use shim::packet::{Packet, Tcp, Upper, tcp_flag};

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    /// The direction of what it sends.
    direction: Direction,
    /// The sequence number of its first byte.
    first: u32,
    /// All the bytes it sends.
    pub(super) says: Vec<u8>,
    /// It ends its stream after them.
    pub(super) ends: bool,
    /// How much of it was sent, the FIN counted.
    sent: usize,
    /// How much of it was acknowledged, the FIN counted.
    pub(super) acknowledged: usize,
    /// The other host's window.
    window: usize,
    /// The bytes it has received.
    pub(super) heard: Vec<u8>,
    /// The sequence number of the other host's first byte.
    theirs: u32,
    /// The other host has ended its stream.
    pub(super) ended: bool,
    pub(super) reset: bool,
}

impl Host {
    fn new(direction: Direction, first: u32, theirs: u32) -> Self {
        Self {
            direction,
            first,
            says: Vec::new(),
            ends: false,
            sent: 0,
            acknowledged: 0,
            window: 64_000,
            heard: Vec::new(),
            theirs,
            ended: false,
            reset: false,
        }
    }

    fn acknowledgment(&self) -> u32 {
        self.theirs.wrapping_add(self.heard.len() as u32 + u32::from(self.ended))
    }

    /// The next segment, of at most `most` bytes, if there is something to send.
    pub(super) fn speak(&mut self, v6: bool, most: usize) -> Option<Vec<u8>> {
        let room = (self.acknowledged + self.window).saturating_sub(self.sent);
        let left = self.says.len().saturating_sub(self.sent);
        let count = left.min(most).min(room);
        let fin = self.ends && count == left && self.sent <= self.says.len();
        if self.reset || (count == 0 && !fin) {
            return None;
        }
        let data = self.says[self.sent..self.sent + count].to_vec();
        let sequence = self.first.wrapping_add(self.sent as u32);
        self.sent += count + usize::from(fin);
        let flags = if fin { "AF" } else { "AP" };
        Some(tcp(v6, self.direction, flags, sequence, self.acknowledgment(), &data))
    }

    /// Goes back to send again what was not acknowledged.
    pub(super) fn again(&mut self) {
        self.sent = self.acknowledged;
        self.window = self.window.max(1); // probes a closed window
    }

    /// Takes a segment; returns the answer, if it needs one.
    fn hear(&mut self, v6: bool, bytes: &[u8]) -> Option<Vec<u8>> {
        let packet = Packet::parse(bytes).expect("a packet");
        let mut mended = bytes.to_vec();
        shim::rewrite::mend(&mut mended, &packet);
        assert_eq!(mended, bytes, "the checksums");
        let Upper::Tcp(segment @ Tcp { sequence, acknowledgment, .. }) = packet.upper else { panic!("not TCP") };
        if segment.has(tcp_flag::RST) {
            assert_eq!(sequence, self.acknowledgment(), "any other reset is only challenged");
            self.reset = true;
            return None;
        }
        let got = acknowledgment.wrapping_sub(self.first) as usize;
        assert!(got <= self.says.len() + 1, "an acknowledgment of what was never sent");
        self.acknowledged = self.acknowledged.max(got);
        self.sent = self.sent.max(self.acknowledged);
        self.window =
            usize::from(u16::from_be_bytes([bytes[packet.ip_header_len + 14], bytes[packet.ip_header_len + 15]]));
        let data = &bytes[packet.data_offset()..packet.len];
        let fin = segment.has(tcp_flag::FIN);
        let ahead = sequence.wrapping_sub(self.acknowledgment()) as i32;
        assert!(ahead < 64_000, "a segment beyond the window");
        if data.is_empty() && !fin {
            return None;
        }
        let old = self.acknowledgment().wrapping_sub(sequence) as usize;
        if !self.ended && old <= data.len() {
            self.heard.extend_from_slice(&data[old..]);
            self.ended = fin;
        }
        let sequence = self.first.wrapping_add(self.sent as u32);
        Some(tcp(v6, self.direction, "A", sequence, self.acknowledgment(), b""))
    }
}

/// A conversation.
pub(super) struct Talk {
    pub(super) rig: Rig,
    pub(super) client: Host,
    pub(super) server: Host,
    v6: bool,
    /// Whether the next packet is lost before it reaches its host.
    pub(super) loses: Box<dyn FnMut() -> bool>,
}

impl Talk {
    /// An established outbound connection.
    pub(super) fn new(mut rig: Rig, v6: bool) -> Self {
        rig.out(&tcp(v6, Outbound, "S", 100, 0, b""));
        rig.inward(&tcp(v6, Inbound, "SA", 4_294_967_200, 101, b""));
        rig.out(&tcp(v6, Outbound, "A", 101, 4_294_967_201, b""));
        rig.sides = Sides::default();
        let (client, server) = (Host::new(Outbound, 101, 4_294_967_201), Host::new(Inbound, 4_294_967_201, 101));
        Self { rig, client, server, v6, loses: Box::new(|| false) }
    }

    pub(super) fn host(&mut self, direction: Direction) -> &mut Host {
        match direction {
            Outbound => &mut self.client,
            Inbound => &mut self.server,
        }
    }

    /// Lets a host send one segment, of at most `most` bytes, and delivers what follows; whether it had one.
    pub(super) fn step(&mut self, direction: Direction, most: usize) -> bool {
        let v6 = self.v6;
        let Some(segment) = self.host(direction).speak(v6, most) else { return false };
        if !(self.loses)() {
            self.rig.pass(direction, &segment);
            self.rig.serve();
        }
        self.settle();
        true
    }

    /// Sends data in one segment, and delivers what follows.
    pub(super) fn say(&mut self, direction: Direction, data: &[u8]) {
        self.host(direction).says.extend_from_slice(data);
        assert!(self.step(direction, 1460), "the window is open");
    }

    pub(super) fn end(&mut self, direction: Direction) {
        self.host(direction).ends = true;
        self.step(direction, 1460);
    }

    /// Carries packets until neither host answers.
    pub(super) fn settle(&mut self) {
        loop {
            let Sides { local, remote } = std::mem::take(&mut self.rig.sides);
            if local.is_empty() && remote.is_empty() {
                break;
            }
            for (direction, packet) in
                local.into_iter().map(|p| (Outbound, p)).chain(remote.into_iter().map(|p| (Inbound, p)))
            {
                if (self.loses)() {
                    continue;
                }
                let v6 = self.v6;
                if let Some(answer) = self.host(direction).hear(v6, &packet)
                    && !(self.loses)()
                {
                    self.rig.pass(direction, &answer);
                    self.rig.serve();
                }
            }
        }
    }
}

//! A network card of a machine on which connections can be held: what a driver pends goes on when it is completed.
#![allow(dead_code, unreachable_pub, reason = "every test program uses a part of this")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nt_abi::PacketBuffer;
use ntsim::{
    machine::Machine,
    tcpip::{
        carrier::{Around, Carrier, Wire},
        verdicts::Verdicts,
    },
};
use shim::{
    flow::{Endpoints, FlowKey, Owner},
    layer::Direction,
    stack::{Config, Verdict},
};

use crate::wire::{APP_ID, Segment, Tcp};

struct Process(Arc<Owner>);

impl Endpoints for Process {
    fn owner(&mut self, _: &FlowKey) -> Option<Arc<Owner>> {
        Some(self.0.clone())
    }

    fn is_open(&mut self, _: &FlowKey) -> bool {
        true
    }
}

#[derive(Default)]
struct Sides {
    /// Packets that were sent.
    sent: Vec<Vec<u8>>,
    /// Packets for the programs of this machine.
    told: Vec<Vec<u8>>,
}

impl Wire for Sides {
    fn deliver(&mut self, packet: &[u8]) {
        self.told.push(packet.to_vec());
    }

    fn transmit(&mut self, packet: &[u8]) {
        self.sent.push(packet.to_vec());
    }
}

/// How a connect() stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// It waits.
    Held,
    /// Its first packet was sent.
    Sent,
    /// Its program was told that it is refused.
    Refused,
}

/// The card, whose traffic all belongs to one process.
pub struct Card {
    carrier: Carrier,
    sides: Sides,
    verdicts: Verdicts,
    process: Process,
    now: Duration,
    port: u16,
}

impl Card {
    pub fn new(machine: &Arc<Machine>, pid: u32) -> Self {
        Self {
            carrier: Carrier::new(machine, Config { pick_up: false }, || {}),
            sides: Sides::default(),
            verdicts: Verdicts::new(None),
            process: Process(Arc::new(Owner { pid, app_id: APP_ID.into(), uid: Some(1000) })),
            now: Duration::ZERO,
            port: 50_000,
        }
    }

    /// From now on its traffic belongs to another process.
    pub fn becomes(&mut self, pid: u32) {
        self.process = Process(Arc::new(Owner { pid, app_id: APP_ID.into(), uid: Some(1000) }));
    }

    pub fn pass(&mut self, packet: &[u8], direction: Direction) -> Verdict {
        self.now += Duration::from_millis(1);
        let mut buffer = PacketBuffer::copy_of(packet);
        let Self { carrier, sides, verdicts, process, now, .. } = self;
        let mut around = Around { endpoints: process, wire: sides, verdicts, now: *now };
        carrier.carry(&mut buffer, direction, &mut around).unwrap_or_else(|bugcheck| panic!("{bugcheck}")).verdict
    }

    /// What was completed goes on.
    pub fn serve(&mut self) {
        let Self { carrier, sides, verdicts, process, now, .. } = self;
        let mut around = Around { endpoints: process, wire: sides, verdicts, now: *now };
        while carrier.serve(1000, &mut around).unwrap_or_else(|bugcheck| panic!("{bugcheck}")) {}
    }

    /// A connect() to this address from a port of its own, and how it stands.
    pub fn connect(&mut self, remote: &str, remote_port: u16) -> (Stands, Tcp) {
        self.port = self.port.checked_add(1).unwrap_or(50_000);
        self.connect_from(self.port, remote, remote_port)
    }

    /// The same from this port.
    pub fn connect_from(&mut self, port: u16, remote: &str, remote_port: u16) -> (Stands, Tcp) {
        let mut tcp = Tcp::new(remote, remote_port, port);
        let syn = tcp.packet(Segment::Syn, Direction::Outbound);
        (self.sides.sent, self.sides.told) = Default::default();
        let verdict = self.pass(&syn, Direction::Outbound);
        let stands = match verdict {
            Verdict::Hold => Stands::Held,
            Verdict::Forward => Stands::Sent,
            Verdict::Refuse => Stands::Refused,
            other => panic!("{other:?}"),
        };
        (stands, tcp)
    }

    /// How the connects that were held stand now: how many go on, and how many are refused.
    pub fn outcome(&mut self) -> (usize, usize) {
        self.serve();
        (self.sides.sent.len(), self.sides.told.len())
    }

    /// Waits until so many connects go on and so many are refused. What is waited for happens at once on a machine that is
    /// not busy; a machine that is gets a minute.
    pub fn await_outcome(&mut self, expected: (usize, usize)) {
        let begun = Instant::now();
        while self.outcome() != expected {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?} instead of {expected:?}", self.outcome());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Finishes the handshake of a connection whose first packet was sent, and sends something. Whether all of it passes.
    pub fn talks(&mut self, tcp: &mut Tcp) -> bool {
        self.serve();
        let steps = [
            (Segment::SynAck, Direction::Inbound),
            (Segment::Ack, Direction::Outbound),
            (Segment::Data(b"hello"), Direction::Outbound),
            (Segment::Data(b"hello"), Direction::Inbound),
        ];
        steps.into_iter().all(|(segment, direction)| {
            let packet = tcp.packet(segment, direction);
            // What is looked at for a name goes on in segments of the stack.
            matches!(self.pass(&packet, direction), Verdict::Forward | Verdict::Relayed)
        })
    }

    /// Sends more over a connection; whether it passes.
    pub fn says(&mut self, tcp: &mut Tcp) -> bool {
        let packet = tcp.packet(Segment::Data(b"more"), Direction::Outbound);
        self.pass(&packet, Direction::Outbound) == Verdict::Forward
    }

    pub fn finish(self) {
        self.carrier.finish().unwrap_or_else(|bugcheck| panic!("{bugcheck}"));
    }
}

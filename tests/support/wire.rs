//! Packets on the wire of a [`Rig`], each passed through the simulated stack and the real driver.
#![allow(dead_code, unreachable_pub, reason = "every test program uses a part of this")]

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, PacketBuilderStep};
use filter_engine::flow::Flow;
use nt_abi::{Irql, PacketBuffer};
use ntsim::{cpu, machine::Machine, tcpip::engine::EngineClassifier};
use shim::{
    flow::{Endpoints, FlowKey, Owner},
    layer::Direction,
    stack::{By, Config, Decision, Request, RequestKind, Stack, Verdict},
};

/// The process behind every local endpoint.
pub const PID: u32 = 4242;
/// Its executable.
pub const APP_ID: &str = r"\device\harddiskvolume1\usr\bin\curl";

struct OneProcess {
    owner: Arc<Owner>,
    /// Local ports that it has no socket on.
    closed: Vec<u16>,
}

impl Endpoints for OneProcess {
    fn owner(&mut self, _: &FlowKey) -> Option<Arc<Owner>> {
        Some(self.owner.clone())
    }

    fn is_open(&mut self, key: &FlowKey) -> bool {
        !self.closed.contains(&key.local_port)
    }
}

/// A TCP segment to send.
#[derive(Clone, Copy)]
pub enum Segment {
    Syn,
    SynAck,
    Ack,
    Data(&'static [u8]),
    Urgent(&'static [u8]),
    Fin,
    Rst,
}

/// One processor's stack.
pub struct Wire {
    machine: Arc<Machine>,
    classifier: EngineClassifier,
    stack: Stack<Arc<Flow>>,
    owner: OneProcess,
    now: Duration,
    irql: Irql,
}

impl Wire {
    pub fn new(machine: &Arc<Machine>) -> Self {
        Self::of_user(machine, None)
    }

    /// A wire whose traffic all belongs to one process of one program.
    pub fn of_program(machine: &Arc<Machine>, pid: u32, app_id: &str) -> Self {
        let owner = Arc::new(Owner { pid, app_id: app_id.into(), uid: None });
        Self { owner: OneProcess { owner, closed: Vec::new() }, ..Self::new(machine) }
    }

    /// A wire whose traffic all belongs to one Unix user; [`Sid`](filter_engine::security::Sid)s for them are
    /// `S-1-22-1-UID`.
    #[allow(dead_code, reason = "not every test that includes this file has users")]
    pub fn of_user(machine: &Arc<Machine>, uid: Option<u32>) -> Self {
        Self {
            machine: machine.clone(),
            classifier: EngineClassifier::new(machine.clone()),
            stack: Stack::new(Config { pick_up: false }),
            owner: OneProcess { owner: Arc::new(Owner { pid: PID, app_id: APP_ID.into(), uid }), closed: Vec::new() },
            now: Duration::ZERO,
            irql: Irql::PASSIVE,
        }
    }

    /// The same, with packets that come at another IRQL.
    #[allow(dead_code, reason = "most tests that include this file send at PASSIVE_LEVEL")]
    pub fn at(self, irql: Irql) -> Self {
        Self { irql, ..self }
    }

    /// Everything on it belongs to `owner`.
    pub fn of_owner(machine: &Arc<Machine>, owner: Owner) -> Self {
        Self { owner: OneProcess { owner: Arc::new(owner), closed: Vec::new() }, ..Self::new(machine) }
    }

    /// Nothing listens on a local port from now on.
    #[allow(dead_code, reason = "not every test that includes this file has closed ports")]
    pub fn close(&mut self, port: u16) {
        self.owner.closed.push(port);
    }

    /// Passes one packet, a millisecond after the one before.
    pub fn pass(&mut self, bytes: &[u8], direction: Direction) -> Decision {
        self.now += Duration::from_millis(1);
        let mut buffer = PacketBuffer::copy_of(bytes);
        let Self { machine, classifier, stack, owner, now, irql } = self;
        cpu::enter(machine, *irql, || {
            classifier.packet(|classifier| stack.process(classifier, owner, &mut buffer, direction, *now))
        })
        .unwrap_or_else(|bugcheck| panic!("{bugcheck}"))
    }

    /// What the stack sends in its own segments because of the last packet, with their directions.
    pub fn relayed(&self) -> Vec<(Direction, Vec<u8>)> {
        self.stack.output.relayed.iter().map(|(direction, buffer)| (*direction, buffer.bytes().to_vec())).collect()
    }

    /// Passes on a packet between others, a millisecond after the one before.
    #[allow(dead_code, reason = "not every test that includes this file forwards")]
    pub fn forward(&mut self, bytes: &[u8]) -> Decision {
        self.now += Duration::from_millis(1);
        let mut buffer = PacketBuffer::copy_of(bytes);
        let Self { machine, classifier, stack, owner, now, irql } = self;
        cpu::enter(machine, *irql, || {
            classifier.packet(|classifier| stack.forward(classifier, owner, &mut buffer, *now))
        })
        .unwrap_or_else(|bugcheck| panic!("{bugcheck}"))
    }

    /// bind(): the socket's number, or who refuses it.
    pub fn bind(&mut self, protocol: u8, local: SocketAddr, kind: RequestKind) -> Result<u64, By> {
        let Self { machine, classifier, stack, owner, .. } = self;
        let request = Request { protocol, local, owner: Some(owner.owner.clone()), kind };
        cpu::enter(machine, Irql::PASSIVE, || classifier.packet(|classifier| stack.bind(classifier, request)))
            .unwrap_or_else(|bugcheck| panic!("{bugcheck}"))
    }

    /// listen() of a socket that is bound.
    pub fn listen(&mut self, socket: u64) -> Result<(), By> {
        let Self { machine, classifier, stack, .. } = self;
        cpu::enter(machine, Irql::PASSIVE, || classifier.packet(|classifier| stack.listen(classifier, socket)))
            .unwrap_or_else(|bugcheck| panic!("{bugcheck}"))
    }

    /// The machine loses an address; with others it speaks by [`Tcp::from`].
    #[allow(dead_code, reason = "not every test that includes this file changes addresses")]
    pub fn lose_address(&mut self, address: IpAddr) {
        let Self { machine, classifier, stack, .. } = self;
        cpu::enter(machine, Irql::PASSIVE, || classifier.packet(|classifier| stack.lose_address(classifier, address)))
            .unwrap_or_else(|bugcheck| panic!("{bugcheck}"));
    }

    /// Ends every flow, as when the machine leaves the network.
    pub fn finish(&mut self) {
        let Self { machine, classifier, stack, .. } = self;
        cpu::enter(machine, Irql::PASSIVE, || classifier.packet(|classifier| stack.finish(classifier)))
            .unwrap_or_else(|bugcheck| panic!("{bugcheck}"));
    }

    /// Lets time pass before the next packet.
    #[allow(dead_code, reason = "not every test that includes this file waits")]
    pub fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// The verdict on a connect() to this address. Local ports repeat after 10,000 packets: the connection must be over
    /// by then.
    pub fn connect(&mut self, remote: &str, port: u16) -> (Verdict, Tcp) {
        let mut tcp = Tcp::new(remote, port, 50_000 + (self.now.as_millis() % 10_000) as u16);
        let verdict = self.send(&mut tcp, Segment::Syn);
        (verdict, tcp)
    }

    /// Connects and finishes the handshake; both must be permitted.
    pub fn establish(&mut self, remote: &str, port: u16) -> Tcp {
        let (verdict, mut tcp) = self.connect(remote, port);
        assert_eq!(verdict, Verdict::Forward, "SYN");
        assert_eq!(self.receive(&mut tcp, Segment::SynAck), Verdict::Forward, "SYN-ACK");
        assert_eq!(self.send(&mut tcp, Segment::Ack), Verdict::Forward, "ACK");
        tcp
    }

    pub fn send(&mut self, tcp: &mut Tcp, segment: Segment) -> Verdict {
        let packet = tcp.packet(segment, Direction::Outbound);
        self.pass(&packet, Direction::Outbound).verdict
    }

    pub fn receive(&mut self, tcp: &mut Tcp, segment: Segment) -> Verdict {
        let packet = tcp.packet(segment, Direction::Inbound);
        self.pass(&packet, Direction::Inbound).verdict
    }
}

/// This machine's address of the same family.
fn local(remote: IpAddr) -> IpAddr {
    if remote.is_ipv4() { IpAddr::from([10, 77, 0, 2]) } else { "fd77::2".parse().unwrap() }
}

fn ip(source: IpAddr, destination: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => PacketBuilder::ipv4(source.octets(), destination.octets(), 64),
        (IpAddr::V6(source), IpAddr::V6(destination)) => PacketBuilder::ipv6(source.octets(), destination.octets(), 64),
        _ => panic!("{source} and {destination} are of different families"),
    }
}

/// Both ends' state of a TCP connection.
pub struct Tcp {
    local: IpAddr,
    local_port: u16,
    remote: IpAddr,
    remote_port: u16,
    /// Next sequence number of this machine and of the other.
    next: [u32; 2],
}

impl Tcp {
    pub fn new(remote: &str, remote_port: u16, local_port: u16) -> Self {
        let remote = remote.parse().unwrap();
        Self { local: local(remote), local_port, remote, remote_port, next: [1000, 9000] }
    }

    /// This end's port.
    pub const fn local_port(&self) -> u16 {
        self.local_port
    }

    /// The same from another address of this machine.
    pub const fn from(mut self, local: IpAddr) -> Self {
        self.local = local;
        self
    }

    /// The other end's address.
    pub const fn remote(&self) -> IpAddr {
        self.remote
    }

    /// The next segment of one end.
    pub fn packet(&mut self, segment: Segment, direction: Direction) -> Vec<u8> {
        let ours = [(self.local, self.local_port), (self.remote, self.remote_port)];
        let (me, other) = match direction {
            Direction::Outbound => (0, 1),
            Direction::Inbound => (1, 0),
        };
        let step = ip(ours[me].0, ours[other].0).tcp(ours[me].1, ours[other].1, self.next[me], 0xffff);
        let data: &[u8] = if let Segment::Data(data) | Segment::Urgent(data) = segment { data } else { &[] };
        let step = match segment {
            Segment::Syn => step.syn(),
            Segment::SynAck => step.syn().ack(self.next[other]),
            Segment::Fin => step.fin().ack(self.next[other]),
            Segment::Rst => step.rst().ack(self.next[other]),
            Segment::Ack | Segment::Data(_) => step.ack(self.next[other]),
            Segment::Urgent(data) => step.ack(self.next[other]).urg(data.len() as u16),
        };
        let takes_one = matches!(segment, Segment::Syn | Segment::SynAck | Segment::Fin);
        self.next[me] += data.len() as u32 + u32::from(takes_one);
        let mut packet = Vec::new();
        step.write(&mut packet, data).unwrap();
        packet
    }
}

/// A datagram between this machine and `remote`.
pub fn udp(remote: &str, remote_port: u16, direction: Direction, data: &[u8]) -> Vec<u8> {
    let remote = remote.parse().unwrap();
    let (source, destination, from, to) = match direction {
        Direction::Outbound => (local(remote), remote, 40_000, remote_port),
        Direction::Inbound => (remote, local(remote), remote_port, 40_000),
    };
    let mut packet = Vec::new();
    ip(source, destination).udp(from, to).write(&mut packet, data).unwrap();
    packet
}

/// An echo request to `remote`.
pub fn ping(remote: &str) -> Vec<u8> {
    let remote = remote.parse().unwrap();
    let echo = etherparse::IcmpEchoHeader { id: 7, seq: 1 };
    let mut packet = Vec::new();
    let step = ip(local(remote), remote);
    if remote.is_ipv4() {
        step.icmpv4(Icmpv4Type::EchoRequest(echo)).write(&mut packet, b"ping").unwrap();
    } else {
        step.icmpv6(Icmpv6Type::EchoRequest(echo)).write(&mut packet, b"ping").unwrap();
    }
    packet
}

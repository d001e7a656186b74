//! The capture that replays are timed over: thousands of concurrent TCP connections shaped like web traffic, with a
//! handshake, requests, answers in full-sized segments with their acknowledgments, and an end.

use etherparse::{PacketBuilder, TcpHeader};
use ntsim::{host::LocalHost, machine::Machine};
use std::{path::Path, sync::Arc};

/// Connections that are open at the same time.
pub const SIDE_BY_SIDE: u32 = 500;
/// Generations of such connections, one after another.
pub const GENERATIONS: u32 = 4;
/// Requests in each connection.
const REQUESTS: u32 = 5;
/// Full-sized segments in each answer.
const SEGMENTS: u32 = 16;
const SEGMENT: usize = 1448;

const POLICY: &str = r#"
[default]
outbound = "permit"
inbound = "permit"

[[rule]]
name = "quarantine"
action = "block"
remote = "198.51.100.0/24"
"#;

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;

/// One connection's packets, written step by step.
struct Connection {
    number: u32,
    next: [u32; 2],
}

impl Connection {
    fn packet(&mut self, out: bool, flags: u8, data: &[u8]) -> Vec<u8> {
        let [a, b] = (1 + self.number).to_be_bytes().last_chunk::<2>().copied().unwrap_or_default();
        let (us, them) = ([10, 0, 0, 2], [203, 0, a, b]);
        let ours = 1024 + (self.number % 60_000) as u16;
        let (ip, from, to) = match out {
            true => (PacketBuilder::ipv4(us, them, 64), ours, 443),
            false => (PacketBuilder::ipv4(them, us, 64), 443, ours),
        };
        let (mine, other) = if out { (0, 1) } else { (1, 0) };
        let mut header = TcpHeader::new(from, to, self.next[mine], 0xffff);
        header.syn = flags & SYN != 0;
        header.fin = flags & FIN != 0;
        header.ack = flags & ACK != 0;
        header.acknowledgment_number = if header.ack { self.next[other] } else { 0 };
        self.next[mine] = self.next[mine].wrapping_add(data.len() as u32 + u32::from(flags & (SYN | FIN) != 0));
        let mut bytes = Vec::with_capacity(54 + data.len());
        ip.tcp_header(header).write(&mut bytes, data).expect("a packet");
        bytes
    }

    /// The packets of step `step`; none when the connection has ended.
    fn step(&mut self, step: u32) -> Vec<Vec<u8>> {
        let data = [0x5a; SEGMENT];
        match step {
            0 => vec![self.packet(true, SYN, &[]), self.packet(false, SYN | ACK, &[]), self.packet(true, ACK, &[])],
            n if n <= REQUESTS => {
                let mut packets = vec![self.packet(true, ACK, &data[..300])];
                for segment in 0..SEGMENTS {
                    packets.push(self.packet(false, ACK, &data));
                    if segment % 2 == 1 {
                        packets.push(self.packet(true, ACK, &[]));
                    }
                }
                packets
            }
            n if n == REQUESTS + 1 => {
                vec![self.packet(true, FIN | ACK, &[]), self.packet(false, FIN | ACK, &[]), self.packet(true, ACK, &[])]
            }
            _ => Vec::new(),
        }
    }
}

/// The capture, with how many packets and bytes of them it has.
pub fn web() -> (Vec<u8>, u64, u64) {
    let mut file = Vec::new();
    file.extend_from_slice(&0xa1b2_c3d4u32.to_le_bytes());
    file.extend_from_slice(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0]);
    let (mut packets, mut bytes) = (0u64, 0u64);
    for generation in 0..GENERATIONS {
        let mut connections: Vec<Connection> = (0..SIDE_BY_SIDE)
            .map(|n| Connection { number: generation * SIDE_BY_SIDE + n, next: [1000, 900_000] })
            .collect();
        for step in 0..=REQUESTS + 1 {
            for packet in connections.iter_mut().flat_map(|connection| connection.step(step)) {
                // A packet each microsecond.
                let (seconds, micros) = (1_700_000_000 + packets / 1_000_000, packets % 1_000_000);
                for word in [seconds as u32, micros as u32, packet.len() as u32, packet.len() as u32] {
                    file.extend_from_slice(&word.to_le_bytes());
                }
                file.extend_from_slice(&packet);
                packets += 1;
                bytes += packet.len() as u64;
            }
        }
    }
    (file, packets, bytes)
}

/// A machine with sluice.sys in it, or none, and a policy that permits every flow of the capture.
pub fn machine(driver: Option<&Path>) -> Arc<Machine> {
    let machine = Machine::new();
    if let Some(driver) = driver {
        let host = LocalHost::new(machine.clone());
        let folder = tempfile::tempdir().expect("a folder");
        let policy = folder.path().join("policy.toml");
        std::fs::write(&policy, POLICY).expect("written");
        sluice_control::install(&host, driver).expect("the driver installs");
        sluice_control::load(&host, &policy).expect("the policy loads");
    }
    machine
}

//! What a machine in an ordinary network says and hears, as captures.
//!
//! The machine is [`OWN4`], [`OWN6`] and [`OWN_LINK`]; a router and others are beside it.
#![allow(dead_code, unreachable_pub, reason = "every test program uses a part of this")]

use etherparse::{IpNumber, PacketBuilder, PacketBuilderStep, TcpHeader};
use std::net::IpAddr;

/// This machine's addresses.
pub const OWN4: &str = "192.168.1.5";
pub const OWN6: &str = "2001:db8:7::5";
pub const OWN_LINK: &str = "fe80::5";
const ROUTER4: &str = "192.168.1.1";
const ROUTER_LINK: &str = "fe80::1";
/// Far away.
const SERVER4: &str = "198.51.100.10";
const SERVER6: &str = "2001:db8:2::10";

/// Something a network is used for.
pub struct Conversation {
    pub name: &'static str,
    /// When each packet comes, in milliseconds, and its bytes.
    pub packets: Vec<(u32, Vec<u8>)>,
    /// The places of segments that follow a SYN: none of them comes where that does not pass.
    following: Vec<usize>,
}

impl Conversation {
    fn new(name: &'static str) -> Self {
        Self { name, packets: Vec::new(), following: Vec::new() }
    }

    /// The next packet, ten milliseconds later.
    fn then(self, packet: Vec<u8>) -> Self {
        self.later(10, packet)
    }

    fn later(mut self, milliseconds: u32, packet: Vec<u8>) -> Self {
        let last = self.packets.last().map_or(0, |(at, _)| *at);
        self.packets.push((last + milliseconds, packet));
        self
    }

    /// A segment behind a SYN, ten milliseconds later.
    fn followed(mut self, packet: Vec<u8>) -> Self {
        self.following.push(self.packets.len());
        self.then(packet)
    }

    /// What is left of it where nothing passes.
    pub fn openings(self) -> Self {
        let packets = self.packets.into_iter().enumerate().filter(|(place, _)| !self.following.contains(place));
        Self { name: self.name, packets: packets.map(|(_, packet)| packet).collect(), following: Vec::new() }
    }

    /// As a capture file of IP packets (pcap, LINKTYPE_RAW).
    pub fn pcap(&self) -> Vec<u8> {
        let mut file: Vec<u8> =
            [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65535, 101].iter().flat_map(|word| word.to_le_bytes()).collect();
        for (at, packet) in &self.packets {
            let length = packet.len() as u32;
            for word in [1_700_000_000 + at / 1000, at % 1000 * 1000, length, length] {
                file.extend(word.to_le_bytes());
            }
            file.extend(packet);
        }
        file
    }
}

fn ip(from: &str, to: &str) -> PacketBuilderStep<etherparse::IpHeaders> {
    match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 255),
        _ => panic!("{from} and {to} are of different families"),
    }
}

fn udp((from, source): (&str, u16), (to, destination): (&str, u16)) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(from, to).udp(source, destination).write(&mut packet, b"some data").unwrap();
    packet
}

/// An ICMP or ICMPv6 message, by the family of its addresses.
fn icmp(from: &str, to: &str, kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let step = ip(from, to);
    let second_word = [0, 7, 0, 1];
    if from.contains(':') {
        step.icmpv6_raw(kind, code, second_word).write(&mut packet, payload).unwrap();
    } else {
        step.icmpv4_raw(kind, code, second_word).write(&mut packet, payload).unwrap();
    }
    packet
}

fn igmp(from: &str, to: &str, kind: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(from, to).write(&mut packet, IpNumber::IGMP, &[kind, 0, 0, 0, 224, 0, 0, 251]).unwrap();
    packet
}

fn tcp(
    (from, source): (&str, u16),
    (to, destination): (&str, u16),
    flags: &str,
    next: [u32; 2],
    data: &[u8],
) -> Vec<u8> {
    let mut header = TcpHeader::new(source, destination, next[0], 0xffff);
    header.syn = flags.contains('S');
    header.ack = flags.contains('A');
    header.acknowledgment_number = if header.ack { next[1] } else { 0 };
    let mut packet = Vec::new();
    ip(from, to).tcp_header(header).write(&mut packet, data).unwrap();
    packet
}

/// A connection with a little data each way.
fn connection(conversation: Conversation, us: (&str, u16), them: (&str, u16)) -> Conversation {
    conversation
        .then(tcp(us, them, "S", [100, 0], b""))
        .followed(tcp(them, us, "SA", [500, 101], b""))
        .followed(tcp(us, them, "A", [101, 501], b""))
        .followed(tcp(us, them, "A", [101, 501], b"question"))
        .followed(tcp(them, us, "A", [501, 109], b"answer"))
}

/// Without these nothing works, whatever the policy's default is.
pub fn essential() -> Vec<Conversation> {
    let dhcp = Conversation::new("DHCP")
        .then(udp(("0.0.0.0", 68), ("255.255.255.255", 67)))
        // A slow server: later than answers to a broadcast are taken for such.
        .later(9_000, udp((ROUTER4, 67), (OWN4, 68)))
        .then(udp(("0.0.0.0", 68), ("255.255.255.255", 67)))
        .later(9_000, udp((ROUTER4, 67), ("255.255.255.255", 68)))
        .later(900_000, udp((OWN4, 68), (ROUTER4, 67)))
        .then(udp((ROUTER4, 67), (OWN4, 68)));
    let dhcp6 = Conversation::new("DHCPv6")
        .then(udp((OWN_LINK, 546), ("ff02::1:2", 547)))
        .later(9_000, udp((ROUTER_LINK, 547), (OWN_LINK, 546)));
    let neighbours = Conversation::new("neighbour discovery")
        .then(icmp(OWN_LINK, "ff02::2", 133, 0, &[]))
        .then(icmp(ROUTER_LINK, "ff02::1", 134, 0, &[0; 8]))
        .then(icmp(ROUTER_LINK, "ff02::1:ff00:5", 135, 0, &[0; 16]))
        .then(icmp(OWN_LINK, ROUTER_LINK, 136, 0, &[0; 16]))
        .then(icmp(OWN6, "ff02::1:ff00:1", 135, 0, &[0; 16]))
        .then(icmp(ROUTER_LINK, OWN6, 136, 0, &[0; 16]))
        .then(icmp("::", "ff02::1:ff00:5", 135, 0, &[0; 16]))
        .then(icmp(ROUTER_LINK, OWN_LINK, 137, 0, &[0; 32]));
    let listeners = Conversation::new("multicast listener discovery")
        .then(icmp(ROUTER_LINK, "ff02::1", 130, 0, &[0; 20]))
        .then(icmp(OWN_LINK, "ff02::16", 143, 0, &[0; 20]))
        .then(icmp("fe80::9", "ff02::fb", 131, 0, &[0; 16]))
        .then(icmp(OWN_LINK, "ff02::2", 132, 0, &[0; 16]));
    let igmp = Conversation::new("IGMP")
        .then(igmp(ROUTER4, "224.0.0.1", 0x11))
        .then(igmp(OWN4, "224.0.0.22", 0x22))
        .then(igmp("192.168.1.9", "224.0.0.251", 0x16));
    let mut all = vec![dhcp, dhcp6, neighbours, listeners, igmp];
    for (name, own, other) in [
        ("loopback", "127.0.0.1", "127.0.0.1"),
        ("loopback by IPv6", "::1", "::1"),
        ("its own address", OWN4, OWN4),
        ("one of its addresses to another", OWN6, OWN_LINK),
    ] {
        let conversation = connection(Conversation::new(name), (own, 50_000), (other, 8080));
        all.push(conversation.then(udp((own, 50_000), (other, 5000))).then(udp((other, 5000), (own, 50_000))));
    }
    all
}

/// Errors about what this machine sent, each an essential conversation of its own.
pub fn icmp_errors() -> Vec<Conversation> {
    let quoted4 = tcp((OWN4, 50_001), (SERVER4, 443), "A", [101, 501], &[7; 1400]);
    let quoted6 = tcp((OWN6, 50_001), (SERVER6, 443), "A", [101, 501], &[7; 1400]);
    let (quoted4, quoted6) = (&quoted4[..48], &quoted6[..1200]);
    [
        ("fragmentation needed", icmp("203.0.114.1", OWN4, 3, 4, quoted4)),
        ("host unreachable", icmp("203.0.114.1", OWN4, 3, 1, quoted4)),
        ("time exceeded", icmp("203.0.114.1", OWN4, 11, 0, quoted4)),
        ("parameter problem", icmp("203.0.114.1", OWN4, 12, 0, quoted4)),
        ("packet too big", icmp("2001:db8:9::1", OWN6, 2, 0, quoted6)),
        ("unreachable by IPv6", icmp("2001:db8:9::1", OWN6, 1, 4, quoted6)),
        ("time exceeded by IPv6", icmp("2001:db8:9::1", OWN6, 3, 0, quoted6)),
        ("parameter problem by IPv6", icmp("2001:db8:9::1", OWN6, 4, 1, quoted6)),
    ]
    .map(|(name, packet)| Conversation::new(name).then(packet))
    .into()
}

/// What people do all day, which a policy that lets programs out must carry.
pub fn everyday() -> Vec<Conversation> {
    let mut all = Vec::new();
    for (own, server) in [(OWN4, SERVER4), (OWN6, SERVER6)] {
        let six = own == OWN6;
        let (echo, reply) = if six { (128, 129) } else { (8, 0) };
        all.push(
            Conversation::new("ping")
                .then(icmp(own, server, echo, 0, b"ping"))
                .then(icmp(server, own, reply, 0, b"ping")),
        );
        let question = Conversation::new("name resolution").then(udp((own, 50_053), (server, 53)));
        all.push(question.then(udp((server, 53), (own, 50_053))));
        let (us, them) = ((own, 50_002), (server, 80));
        let large = tcp(us, them, "A", [109, 507], &[7; 1400]);
        let too_big = if six {
            icmp("2001:db8:9::1", own, 2, 0, &large[..1200])
        } else {
            icmp("203.0.114.1", own, 3, 4, &large[..28])
        };
        all.push(
            connection(Conversation::new("path MTU discovery"), us, them)
                .then(large)
                .then(too_big)
                .then(tcp(us, them, "A", [109, 507], &[7; 700]))
                .then(tcp(them, us, "A", [507, 809], b"")),
        );
        let (group, asker, neighbour) =
            if six { ("ff02::fb", OWN_LINK, "fe80::9") } else { ("224.0.0.251", OWN4, "192.168.1.9") };
        all.push(
            Conversation::new("mDNS")
                .then(udp((asker, 5353), (group, 5353)))
                .then(udp((neighbour, 5353), (group, 5353)))
                .later(900, udp((neighbour, 5353), (asker, 5353))),
        );
        let group = if six { "ff02::c" } else { "239.255.255.250" };
        all.push(
            Conversation::new("SSDP")
                .then(udp((asker, 50_003), (group, 1900)))
                .later(2_900, udp((neighbour, 41_000), (asker, 50_003))),
        );
        let gone = udp((own, 50_004), (server, 33_434));
        let error =
            if six { icmp("2001:db8:9::1", own, 3, 0, &gone) } else { icmp("203.0.114.1", own, 11, 0, &gone[..28]) };
        all.push(Conversation::new("traceroute").then(gone).then(error));
    }
    all
}

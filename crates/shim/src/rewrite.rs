//! Headers and checksums of packets that the stack builds.

use super::layer::IpVersion;
use super::packet::{Packet, Upper, protocol};
use etherparse::{IpNumber, Ipv4Header, Ipv6Header};
use std::net::{IpAddr, SocketAddr};

/// The hop limit of Windows' own packets.
const HOPS: u8 = 128;

/// The IP packet that carries `data`, which begins at its transport header, from one address to another, with its
/// checksums; `None` when the families of the addresses differ, or the data is too long or has no such transport
/// header.
pub fn wrap(source: IpAddr, destination: IpAddr, number: u8, data: &[u8]) -> Option<Vec<u8>> {
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(data.len()).ok()?;
            let (source, destination) = (source.octets(), destination.octets());
            let header = Ipv4Header::new(length, HOPS, IpNumber(number), source, destination).ok()?;
            header.to_bytes().to_vec()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Header {
                payload_length: u16::try_from(data.len()).ok()?,
                next_header: IpNumber(number),
                hop_limit: HOPS,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            header.to_bytes().to_vec()
        }
        _ => return None,
    };
    packet.extend_from_slice(data);
    let description = Packet::parse(&packet).ok()?;
    mend(&mut packet, &description);
    Some(packet)
}

/// Sets the checksums of an IP packet, which `packet` describes, from its current content: that of the IPv4 header, and
/// of TCP, UDP, ICMP or ICMPv6.
pub fn mend(bytes: &mut [u8], packet: &Packet) {
    let addresses = match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let len = packet.ip_header_len;
            put(bytes, 10, |bytes| !fold(sum(0, &bytes[..len])));
            sum(sum(0, &source.octets()), &destination.octets())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => sum(sum(0, &source.octets()), &destination.octets()),
        _ => return,
    };
    if packet.fragment.is_some() {
        return; // its checksum covers data that is not here
    }
    let (start, end) = (packet.ip_header_len, packet.len);
    let at = start
        + match packet.protocol {
            protocol::TCP => 16,
            protocol::UDP => 6,
            protocol::ICMP | protocol::ICMPV6 => 2,
            _ => return,
        };
    let pseudo = match packet.protocol {
        protocol::ICMP => 0,
        number => addresses + u64::from(number) + (end - start) as u64,
    };
    put(bytes, at, |bytes| match !fold(sum(pseudo, &bytes[start..end])) {
        0 if packet.protocol == protocol::UDP => 0xffff, // 0 means no checksum (RFC 768)
        checksum => checksum,
    });
}

/// Changes the addresses and ports of a packet, which `packet` describes, and adjusts its checksums. Does nothing when
/// the addresses are not of the packet's IP version.
pub fn readdress(bytes: &mut [u8], packet: &Packet, source: SocketAddr, destination: SocketAddr) {
    match (packet.version(), source.ip(), destination.ip()) {
        (IpVersion::V4, IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes[12..16].copy_from_slice(&source.octets());
            bytes[16..20].copy_from_slice(&destination.octets());
        }
        (IpVersion::V6, IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes[8..24].copy_from_slice(&source.octets());
            bytes[24..40].copy_from_slice(&destination.octets());
        }
        _ => return,
    }
    if matches!(packet.upper, Upper::Tcp(_) | Upper::Udp { .. }) {
        let ports = packet.ip_header_len;
        bytes[ports..ports + 2].copy_from_slice(&source.port().to_be_bytes());
        bytes[ports + 2..ports + 4].copy_from_slice(&destination.port().to_be_bytes());
    }
    let changed = Packet { source: source.ip(), destination: destination.ip(), ..*packet };
    mend(bytes, &changed);
}

/// Gives the packet that an ICMP error quotes other addresses and ports, and the error another source; `packet` is the
/// description of the error. The quoted transport checksum stays: what it is about is not all there.
pub fn requote(bytes: &mut [u8], packet: &Packet, from: IpAddr, source: SocketAddr, destination: SocketAddr) {
    let quote = &mut bytes[packet.data_offset()..packet.len];
    let (header, next) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) if quote.len() >= 20 => {
            quote[12..16].copy_from_slice(&source.octets());
            quote[16..20].copy_from_slice(&destination.octets());
            let header = usize::from(quote[0] & 0xf) * 4;
            if header < 20 || quote.len() < header {
                return;
            }
            put(quote, 10, |quote| !fold(sum(0, &quote[..header])));
            (header, quote[9])
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) if quote.len() >= 40 => {
            quote[8..24].copy_from_slice(&source.octets());
            quote[24..40].copy_from_slice(&destination.octets());
            (40, quote[6])
        }
        _ => return,
    };
    if let (protocol::TCP | protocol::UDP, Some(ports)) = (next, quote.get_mut(header..header + 4)) {
        ports[..2].copy_from_slice(&source.port().to_be_bytes());
        ports[2..].copy_from_slice(&destination.port().to_be_bytes());
    }
    readdress(bytes, packet, SocketAddr::new(from, 0), SocketAddr::new(packet.destination, 0));
}

/// Sets the checksum at `at` to what `of` says when it is zero.
fn put(bytes: &mut [u8], at: usize, of: impl FnOnce(&[u8]) -> u16) {
    bytes[at..at + 2].fill(0);
    let checksum = of(bytes);
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Adds the 16-bit words of `bytes` to `sum` (RFC 1071).
fn sum(sum: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u64::from(low)));
    sum + words.sum::<u64>()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn packets(data: &[u8]) -> Vec<Vec<u8>> {
        let v4 = || PacketBuilder::ipv4([10, 77, 0, 2], [203, 0, 113, 10], 9);
        let v6 = || PacketBuilder::ipv6([0xfd; 16], [0x20; 16], 9);
        let write = |f: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            f(&mut bytes);
            bytes
        };
        vec![
            write(&|b| v4().udp(4000, 53).write(b, data).unwrap()),
            write(&|b| v6().udp(4000, 53).write(b, data).unwrap()),
            write(&|b| v4().tcp(4000, 80, 7, 9).write(b, data).unwrap()),
            write(&|b| v6().tcp(4000, 80, 7, 9).write(b, data).unwrap()),
            write(&|b| v4().icmpv4_echo_request(1, 2).write(b, data).unwrap()),
            write(&|b| v6().icmpv6_echo_request(1, 2).write(b, data).unwrap()),
        ]
    }

    proptest! {
        /// Compares the sums with another implementation.
        #[test]
        fn checksums_are_those_of_etherparse(data in proptest::collection::vec(any::<u8>(), 0..64), wrong in any::<u16>()) {
            for right in packets(&data) {
                let packet = Packet::parse(&right).unwrap();
                let at = packet.ip_header_len + match packet.protocol { 6 => 16, 17 => 6, _ => 2 };
                let mut bytes = right.clone();
                bytes[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
                if right[0] >> 4 == 4 {
                    bytes[10..12].copy_from_slice(&wrong.to_be_bytes());
                }
                mend(&mut bytes, &packet);
                prop_assert_eq!(&bytes, &right);
            }
        }
    }

    #[test]
    fn other_addresses_and_ports_bring_their_checksums() {
        let to = |ip: [u8; 4], port| PacketBuilder::ipv4([10, 77, 0, 2], ip, 9).udp(4000, port);
        let (mut bytes, mut right) = (Vec::new(), Vec::new());
        to([203, 0, 113, 10], 53).write(&mut bytes, b"data").unwrap();
        to([192, 0, 2, 7], 5353).write(&mut right, b"data").unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        let (source, destination) = ("10.77.0.2:4000".parse().unwrap(), "192.0.2.7:5353".parse().unwrap());
        readdress(&mut bytes, &packet, source, destination);
        assert_eq!(bytes, right);
        readdress(&mut bytes, &packet, source, "[2001:db8::1]:53".parse().unwrap());
        assert_eq!(bytes, right, "another version of IP changes nothing");
    }

    #[test]
    fn an_error_quotes_other_addresses_and_ports() {
        let error = |from: [u8; 4], to: [u8; 4], port| {
            let (mut quoted, mut bytes) = (Vec::new(), Vec::new());
            PacketBuilder::ipv4([10, 77, 0, 2], to, 9).udp(4000, port).write(&mut quoted, b"data").unwrap();
            quoted[26..28].fill(0); // the checksum of UDP
            let kind = etherparse::Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
            PacketBuilder::ipv4(from, [10, 77, 0, 2], 9).icmpv4(kind).write(&mut bytes, &quoted).unwrap();
            bytes
        };
        let mut bytes = error([192, 0, 2, 7], [192, 0, 2, 7], 5353);
        let packet = Packet::parse(&bytes).unwrap();
        let (source, destination) = ("10.77.0.2:4000".parse().unwrap(), "203.0.113.10:53".parse().unwrap());
        requote(&mut bytes, &packet, "203.0.113.10".parse().unwrap(), source, destination);
        assert_eq!(bytes, error([203, 0, 113, 10], [203, 0, 113, 10], 53));
    }

    #[test]
    fn wrapping_makes_the_packet_around_its_data() {
        for right in packets(b"data") {
            let packet = Packet::parse(&right).unwrap();
            let data = &right[packet.ip_header_len..];
            let made = wrap(packet.source, packet.destination, packet.protocol, data).unwrap();
            let again = Packet::parse(&made).unwrap();
            assert_eq!(
                (again.source, again.destination, again.upper),
                (packet.source, packet.destination, packet.upper)
            );
            assert_eq!(&made[again.ip_header_len..], data);
        }
        let (v4, v6) = ("10.0.0.1".parse().unwrap(), "fd77::1".parse().unwrap());
        assert_eq!(wrap(v4, v6, 17, &[0; 8]), None);
        assert_eq!(wrap(v4, v4, 17, &[0; 70_000]), None);
        assert_eq!(wrap(v4, v4, 17, &[0; 3]), None, "no UDP header");
    }
}

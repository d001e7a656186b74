//! The packets that report a refusal: TCP resets and ICMP errors, as the refused side gets them.

use super::packet::{Packet, Upper, protocol, tcp_flag};
use etherparse::icmpv4::DestUnreachableHeader as V4;
use etherparse::icmpv6::DestUnreachableCode as V6;
use etherparse::{Icmpv4Type, Icmpv6Type, IpHeaders, PacketBuilder, PacketBuilderStep, TcpHeader};
use std::net::IpAddr;

/// The hop limit of the packets made here, which travel one hop.
const HOPS: u8 = 64;
/// How much of the offending packet an ICMPv4 error quotes (RFC 1812 section 4.3.2.3: at most 576 bytes in all).
const V4_QUOTE: usize = 576 - 20 - 8;
/// The same for ICMPv6 (RFC 4443 section 2.4: the minimum MTU, 1280, in all).
const V6_QUOTE: usize = 1280 - 40 - 8;

/// The beginning of a packet from one address to another; `None` when their families differ.
pub(crate) fn ip(source: IpAddr, destination: IpAddr) -> Option<PacketBuilderStep<IpHeaders>> {
    match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => Some(PacketBuilder::ipv4(s.octets(), d.octets(), HOPS)),
        (IpAddr::V6(s), IpAddr::V6(d)) => Some(PacketBuilder::ipv6(s.octets(), d.octets(), HOPS)),
        _ => None,
    }
}

/// A TCP reset from `source` to `destination`. Replaces what `out` holds.
pub fn reset(
    out: &mut Vec<u8>,
    (source, source_port): (IpAddr, u16),
    (destination, destination_port): (IpAddr, u16),
    sequence: u32,
    acknowledgment: Option<u32>,
) {
    out.clear();
    let Some(builder) = ip(source, destination) else { return };
    let mut header = TcpHeader::new(source_port, destination_port, sequence, 0);
    header.rst = true;
    if let Some(acknowledgment) = acknowledgment {
        header.ack = true;
        header.acknowledgment_number = acknowledgment;
    }
    // Writing to a Vec fails only when the payload is too long for its length field; there is no payload.
    let _ = builder.tcp_header(header).write(out, &[]);
}

/// The answer to a segment that is refused: the reset that a host without such a connection sends (RFC 9293 section
/// 3.10.7.1). Replaces what `out` holds; it stays empty when the packet gets no answer (not TCP, or itself a reset).
pub fn refuse_tcp(out: &mut Vec<u8>, packet: &Packet) {
    out.clear();
    let Upper::Tcp(tcp) = packet.upper else { return };
    if tcp.has(tcp_flag::RST) {
        return;
    }
    let from = (packet.destination, tcp.destination);
    let to = (packet.source, tcp.source);
    if tcp.has(tcp_flag::ACK) {
        reset(out, from, to, tcp.acknowledgment, None);
    } else {
        let len = (packet.wire_len - packet.data_offset()) as u32
            + u32::from(tcp.has(tcp_flag::SYN))
            + u32::from(tcp.has(tcp_flag::FIN));
        reset(out, from, to, 0, Some(tcp.sequence.wrapping_add(len)));
    }
}

/// The ICMP error that refuses a datagram: "port unreachable" for UDP, so that a connected socket fails at once, and
/// "administratively prohibited" for everything else. Replaces what `out` holds; it stays empty when the packet gets no
/// answer: an ICMP error, a multicast, or TCP.
pub fn refuse_datagram(out: &mut Vec<u8>, bytes: &[u8], packet: &Packet) {
    out.clear();
    let is_error = matches!(packet.upper, Upper::Icmp(icmp) if icmp.error);
    if is_error || packet.destination.is_multicast() || packet.protocol == protocol::TCP {
        return;
    }
    let Some(builder) = ip(packet.destination, packet.source) else { return };
    let udp = packet.protocol == protocol::UDP;
    let bytes = &bytes[..packet.len.min(bytes.len())];
    // As for `reset`: the quoted part always fits.
    let _ = match packet.source {
        IpAddr::V4(_) => {
            let code = if udp { V4::Port } else { V4::FilterProhibited };
            let quote = &bytes[..bytes.len().min(V4_QUOTE)];
            builder.icmpv4(Icmpv4Type::DestinationUnreachable(code)).write(out, quote)
        }
        IpAddr::V6(_) => {
            let code = if udp { V6::Port } else { V6::Prohibited };
            let quote = &bytes[..bytes.len().min(V6_QUOTE)];
            builder.icmpv6(Icmpv6Type::DestinationUnreachable(code)).write(out, quote)
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv4Slice, Icmpv6Slice, IpSlice, TcpSlice};

    fn syn(v6: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        if v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 9).tcp(4000, 80, 1000, 99).syn().write(&mut bytes, &[]).unwrap();
        } else {
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
                .tcp(4000, 80, 1000, 99)
                .syn()
                .write(&mut bytes, &[])
                .unwrap();
        }
        bytes
    }

    /// Parses a reply strictly and checks every checksum in it.
    fn checked(reply: &[u8]) -> IpSlice<'_> {
        let ip = IpSlice::from_slice(reply).unwrap();
        let payload = ip.payload().payload;
        match &ip {
            IpSlice::Ipv4(v4) => {
                let header = v4.header().to_header();
                assert_eq!(v4.header().header_checksum(), header.calc_header_checksum());
                if ip.payload_ip_number() == etherparse::IpNumber::TCP {
                    let tcp = TcpSlice::from_slice(payload).unwrap();
                    assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv4(header.source, header.destination).unwrap());
                } else {
                    // The one's complement sum over a message with its checksum in place is all ones.
                    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(payload).ones_complement();
                    assert_eq!(sum, 0);
                }
            }
            IpSlice::Ipv6(v6) => {
                let header = v6.header().to_header();
                if ip.payload_ip_number() == etherparse::IpNumber::TCP {
                    let tcp = TcpSlice::from_slice(payload).unwrap();
                    assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv6(header.source, header.destination).unwrap());
                } else {
                    let icmp = Icmpv6Slice::from_slice(payload).unwrap();
                    assert!(icmp.is_checksum_valid(header.source, header.destination));
                }
            }
        }
        ip
    }

    #[test]
    fn a_refused_syn_is_answered_by_reset_and_ack() {
        for v6 in [false, true] {
            let bytes = syn(v6);
            let mut reply = vec![1, 2, 3];
            refuse_tcp(&mut reply, &Packet::parse(&bytes).unwrap());
            checked(&reply);
            let packet = Packet::parse(&reply).unwrap();
            let Upper::Tcp(tcp) = packet.upper else { panic!("not TCP") };
            assert_eq!(tcp.flags, tcp_flag::RST | tcp_flag::ACK);
            assert_eq!((tcp.source, tcp.destination), (80, 4000));
            assert_eq!((tcp.sequence, tcp.acknowledgment), (0, 1001));
            assert_eq!(packet.destination, Packet::parse(&bytes).unwrap().source);
        }
    }

    #[test]
    fn a_reset_is_not_answered() {
        let mut bytes = Vec::new();
        reset(&mut bytes, ("10.0.0.1".parse().unwrap(), 1), ("10.0.0.2".parse().unwrap(), 2), 5, None);
        let mut reply = vec![1];
        refuse_tcp(&mut reply, &Packet::parse(&bytes).unwrap());
        assert!(reply.is_empty());
    }

    #[test]
    fn a_refused_datagram_is_answered_by_port_unreachable() {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).udp(4000, 53).write(&mut bytes, &[3; 900]).unwrap();
        let mut reply = Vec::new();
        refuse_datagram(&mut reply, &bytes, &Packet::parse(&bytes).unwrap());
        assert_eq!(reply.len(), 576);
        let ip = checked(&reply);
        let icmp = Icmpv4Slice::from_slice(ip.payload().payload).unwrap();
        assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 3));
        assert_eq!(icmp.payload(), &bytes[..548]);

        let mut bytes = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 9).udp(4000, 53).write(&mut bytes, &[3; 2000]).unwrap();
        refuse_datagram(&mut reply, &bytes, &Packet::parse(&bytes).unwrap());
        assert_eq!(reply.len(), 1280);
        let ip = checked(&reply);
        let icmp = Icmpv6Slice::from_slice(ip.payload().payload).unwrap();
        assert_eq!((icmp.type_u8(), icmp.code_u8()), (1, 4));
    }

    #[test]
    fn a_refused_ping_is_answered_by_prohibited_and_an_error_by_nothing() {
        let mut ping = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).icmpv4_echo_request(1, 2).write(&mut ping, &[]).unwrap();
        let mut reply = Vec::new();
        refuse_datagram(&mut reply, &ping, &Packet::parse(&ping).unwrap());
        let ip = checked(&reply);
        let icmp = Icmpv4Slice::from_slice(ip.payload().payload).unwrap();
        assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 13));

        let error = reply.clone();
        refuse_datagram(&mut reply, &error, &Packet::parse(&error).unwrap());
        assert!(reply.is_empty());
    }
}

//! Parses IP packets, as far as the shim needs.

use super::extension::Chain;
use super::layer::IpVersion;
use etherparse::{Icmpv4Slice, Icmpv6Slice, IpNumber, LaxIpSlice, TcpSlice, UdpSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IANA protocol numbers that the shim treats specially.
pub mod protocol {
    #![allow(missing_docs, reason = "the names are those of the protocols")]
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
}

/// Why a packet is malformed. Windows' stack discards such a packet before any layer except `*_IPPACKET_DISCARD` sees
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No IPv4 or IPv6 header, or its lengths contradict each other.
    #[error("the IP header is broken or cut off")]
    IpHeader,
    /// The transport header is cut off or its length field is out of range.
    #[error("the transport header (protocol {0}) is broken or cut off")]
    Transport(u8),
}

/// The source and destination address of an IP header; nothing else in it is checked.
#[must_use]
pub fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    fn pair<const N: usize>(bytes: &[u8], at: usize) -> Option<(IpAddr, IpAddr)>
    where
        IpAddr: From<[u8; N]>,
    {
        let (source, rest) = bytes.get(at..)?.split_first_chunk::<N>()?;
        Some((IpAddr::from(*source), IpAddr::from(*rest.first_chunk::<N>()?)))
    }
    match packet.first()? >> 4 {
        4 => pair::<4>(packet, 12),
        6 => pair::<16>(packet, 8),
        _ => None,
    }
}

/// A parsed IP packet. Offsets and lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The upper-layer protocol, after any IPv6 extension headers.
    pub protocol: u8,
    /// The offset of the transport header, after IPv4 options and IPv6 extension headers.
    pub ip_header_len: usize,
    /// The length of the packet that is here, without link-layer padding.
    pub len: usize,
    /// The packet's length on the wire: more than `len` in a capture with a snapshot length.
    pub wire_len: usize,
    /// The fragment's place, when the packet is a fragment.
    pub fragment: Option<Fragment>,
    /// The transport header.
    pub upper: Upper,
}

/// The place of a fragment in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// The datagram's identification.
    pub id: u32,
    /// Its offset in the datagram's payload, in bytes.
    pub offset: u32,
    /// Whether more follows.
    pub more: bool,
}

/// The transport header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6.
    Icmp(Icmp),
    /// Any other protocol, or a fragment (the header is in the first one).
    Other,
}

/// A TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number; valid with the ACK flag.
    pub acknowledgment: u32,
    /// Header length with options.
    pub header_len: usize,
    /// Flags: [`tcp_flag`].
    pub flags: u8,
}

/// The flag bits of a TCP header.
pub mod tcp_flag {
    #![allow(missing_docs, reason = "the names are those of the TCP flags")]
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
}

impl Tcp {
    /// Whether every one of these flags is set.
    #[must_use]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// An ICMP or ICMPv6 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Identifier and sequence number, of echo requests and replies.
    pub echo: Option<(u16, u16)>,
    /// Whether it reports an error (and so quotes another packet).
    pub error: bool,
}

/// The size of an ICMP header with its "rest of header".
pub const ICMP_HEADER_LEN: usize = 8;

/// The packet that an ICMP error quotes, as far as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Its protocol.
    pub protocol: u8,
    /// Its source address.
    pub source: IpAddr,
    /// Its destination address.
    pub destination: IpAddr,
    /// Its source port, 0 when it has none.
    pub source_port: u16,
    /// Its destination port, 0 when it has none.
    pub destination_port: u16,
}

impl Packet {
    /// Parses an IP packet. `bytes` may be longer than the packet (link-layer padding) or shorter (a capture's snapshot
    /// length).
    ///
    /// # Errors
    /// [`Malformed`] when a header cannot be read.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::parse_ip(bytes)?.with_upper(bytes)
    }

    /// Takes the headers of the network layer apart and leaves the rest alone.
    ///
    /// # Errors
    /// [`Malformed::IpHeader`].
    pub fn parse_ip(bytes: &[u8]) -> Result<Self, Malformed> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::parse_v4(bytes),
            Some(6) => Self::parse_v6(bytes),
            _ => Err(Malformed::IpHeader),
        }
    }

    fn parse_v4(bytes: &[u8]) -> Result<Self, Malformed> {
        let (ip, stopped) = LaxIpSlice::from_slice(bytes).map_err(|_| Malformed::IpHeader)?;
        let LaxIpSlice::Ipv4(v4) = &ip else { return Err(Malformed::IpHeader) };
        if stopped.is_some() {
            return Err(Malformed::IpHeader); // an authentication header is cut off
        }
        let payload = ip.payload();
        let ip_header_len = payload.payload.as_ptr() as usize - bytes.as_ptr() as usize;
        let header = v4.header();
        let wire_len = usize::from(header.total_len());
        if wire_len < ip_header_len {
            return Err(Malformed::IpHeader);
        }
        let fragment = header.is_fragmenting_payload().then(|| Fragment {
            id: u32::from(header.identification()),
            offset: u32::from(header.fragments_offset().byte_offset()),
            more: header.more_fragments(),
        });
        Ok(Self {
            source: ip.source_addr(),
            destination: ip.destination_addr(),
            protocol: payload.ip_number.0,
            ip_header_len,
            len: ip_header_len + payload.payload.len(),
            wire_len,
            fragment,
            upper: Upper::Other,
        })
    }

    fn parse_v6(bytes: &[u8]) -> Result<Self, Malformed> {
        let header = etherparse::Ipv6HeaderSlice::from_slice(bytes).map_err(|_| Malformed::IpHeader)?;
        // A payload length of 0 means a jumbogram, or a segment that the network card splits: the bytes that are there
        // count.
        let wire_len = match header.payload_length() {
            0 => bytes.len(),
            length => 40 + usize::from(length),
        };
        let bytes = &bytes[..bytes.len().min(wire_len)];
        let chain = Chain::follow(bytes)?;
        Ok(Self {
            source: IpAddr::V6(header.source_addr()),
            destination: IpAddr::V6(header.destination_addr()),
            protocol: chain.protocol,
            ip_header_len: chain.end,
            len: bytes.len(),
            wire_len,
            fragment: chain.fragment.map(|fragment| fragment.piece),
            upper: Upper::Other,
        })
    }

    /// Parses the transport header, which a fragment does not have.
    fn with_upper(mut self, bytes: &[u8]) -> Result<Self, Malformed> {
        if self.fragment.is_none() {
            self.upper = Upper::parse(IpNumber(self.protocol), &bytes[self.ip_header_len..self.len])?;
        }
        Ok(self)
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub const fn version(&self) -> IpVersion {
        match self.source {
            IpAddr::V4(_) => IpVersion::V4,
            IpAddr::V6(_) => IpVersion::V6,
        }
    }

    /// The length of the transport header; 0 for protocols that the shim does not parse.
    #[must_use]
    pub const fn transport_header_len(&self) -> usize {
        match self.upper {
            Upper::Tcp(tcp) => tcp.header_len,
            Upper::Udp { .. } => 8,
            Upper::Icmp(_) => ICMP_HEADER_LEN,
            Upper::Other => 0,
        }
    }

    /// Where the transport payload starts.
    #[must_use]
    pub const fn data_offset(&self) -> usize {
        self.ip_header_len + self.transport_header_len()
    }

    /// Source and destination port. WFP calls an ICMP message's type and code its local and remote port
    /// (`FWP_CONDITION_IP_LOCAL_PORT` and `_REMOTE_PORT` share their number with `ICMP_TYPE` and `ICMP_CODE`).
    #[must_use]
    pub const fn ports(&self) -> (u16, u16) {
        match self.upper {
            Upper::Tcp(tcp) => (tcp.source, tcp.destination),
            Upper::Udp { source, destination } => (source, destination),
            Upper::Icmp(icmp) => (icmp.kind as u16, icmp.code as u16),
            Upper::Other => (0, 0),
        }
    }
}

impl Upper {
    fn parse(number: IpNumber, bytes: &[u8]) -> Result<Self, Malformed> {
        let broken = Malformed::Transport(number.0);
        Ok(match number {
            IpNumber::TCP => {
                let tcp = TcpSlice::from_slice(bytes).map_err(|_| broken)?;
                Self::Tcp(Tcp {
                    source: tcp.source_port(),
                    destination: tcp.destination_port(),
                    sequence: tcp.sequence_number(),
                    acknowledgment: tcp.acknowledgment_number(),
                    header_len: tcp.header_slice().len(),
                    flags: bytes[13], // the header is there: TcpSlice found at least 20 bytes
                })
            }
            IpNumber::UDP => {
                let udp = UdpSlice::from_slice_lax(bytes).map_err(|_| broken)?;
                Self::Udp { source: udp.source_port(), destination: udp.destination_port() }
            }
            IpNumber::ICMP => {
                let icmp = Icmpv4Slice::from_slice(bytes).map_err(|_| broken)?;
                let kind = icmp.type_u8();
                Self::Icmp(Icmp {
                    kind,
                    code: icmp.code_u8(),
                    echo: matches!(kind, 0 | 8).then(|| echo(icmp.bytes5to8())),
                    // RFC 792: unreachable, source quench, redirect, time exceeded, parameter problem.
                    error: matches!(kind, 3 | 4 | 5 | 11 | 12),
                })
            }
            IpNumber::IPV6_ICMP => {
                let icmp = Icmpv6Slice::from_slice(bytes).map_err(|_| broken)?;
                let kind = icmp.type_u8();
                Self::Icmp(Icmp {
                    kind,
                    code: icmp.code_u8(),
                    echo: matches!(kind, 128 | 129).then(|| echo(icmp.bytes5to8())),
                    error: kind < 128, // RFC 4443 section 2.1
                })
            }
            _ => Self::Other,
        })
    }
}

fn echo(rest: [u8; 4]) -> (u16, u16) {
    (u16::from_be_bytes([rest[0], rest[1]]), u16::from_be_bytes([rest[2], rest[3]]))
}

impl Quoted {
    /// The packet quoted by the ICMP error in `bytes` (a whole packet, of which `packet` is the description).
    #[must_use]
    pub fn parse(bytes: &[u8], packet: &Packet) -> Option<Self> {
        let inner = bytes.get(packet.ip_header_len + ICMP_HEADER_LEN..packet.len)?;
        let (ip, _) = LaxIpSlice::from_slice(inner).ok()?;
        let payload = ip.payload();
        // Only 8 bytes after the header are guaranteed (RFC 792), so the ports are read directly.
        let (source_port, destination_port) = match (payload.ip_number, payload.payload) {
            (IpNumber::TCP | IpNumber::UDP, [a, b, c, d, ..]) => {
                (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
            }
            _ => (0, 0),
        };
        Some(Self {
            protocol: payload.ip_number.0,
            source: ip.source_addr(),
            destination: ip.destination_addr(),
            source_port,
            destination_port,
        })
    }
}

/// `NL_ADDRESS_TYPE` (nldef.h) of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of NL_ADDRESS_TYPE")]
#[repr(u8)]
pub enum AddressType {
    Unspecified = 0,
    Unicast = 1,
    Anycast = 2,
    Multicast = 3,
    Broadcast = 4,
}

impl AddressType {
    /// The type of an address, as far as the address shows it: a subnet's broadcast address counts as unicast.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            _ if address.is_multicast() => Self::Multicast,
            _ if address.is_unspecified() => Self::Unspecified,
            IpAddr::V4(Ipv4Addr::BROADCAST) => Self::Broadcast,
            IpAddr::V4(_) | IpAddr::V6(Ipv6Addr { .. }) => Self::Unicast,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn tcp_v4(options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(40000, 443, 1000, 4096)
            .syn()
            .options_raw(options)
            .unwrap()
            .write(&mut out, payload)
            .unwrap();
        out
    }

    #[test]
    fn tcp_with_options_and_link_padding() {
        let mut bytes = tcp_v4(&[2, 4, 5, 180], b"hello");
        let len = bytes.len();
        bytes.extend_from_slice(&[0; 12]); // Ethernet pads short frames
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.len, packet.wire_len, packet.ip_header_len), (len, len, 20));
        assert_eq!((packet.transport_header_len(), packet.data_offset()), (24, 44));
        assert_eq!(packet.ports(), (40000, 443));
        let Upper::Tcp(tcp) = packet.upper else { panic!("not TCP: {packet:?}") };
        assert!(tcp.has(tcp_flag::SYN) && !tcp.has(tcp_flag::ACK));
        assert_eq!(tcp.sequence, 1000);
    }

    #[test]
    fn a_snapshot_length_cuts_the_payload_not_the_wire_length() {
        let bytes = tcp_v4(&[], &[7; 1000]);
        let packet = Packet::parse(&bytes[..100]).unwrap();
        assert_eq!((packet.len, packet.wire_len), (100, 1040));
    }

    #[test]
    fn v6_extension_headers_count_as_ip_header() {
        let mut bytes = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 64).udp(5, 53).write(&mut bytes, b"query").unwrap();
        // Hop-by-hop options (8 bytes of padding) between IPv6 header and UDP.
        let udp = bytes.split_off(40);
        bytes[4..6].copy_from_slice(&((udp.len() + 8) as u16).to_be_bytes());
        bytes[6] = 0;
        bytes.extend_from_slice(&[protocol::UDP, 0, 1, 4, 0, 0, 0, 0]);
        bytes.extend_from_slice(&udp);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.ip_header_len, packet.protocol), (48, protocol::UDP));
        assert_eq!(packet.ports(), (5, 53));
        assert_eq!(packet.version(), IpVersion::V6);
    }

    #[test]
    fn icmp_type_and_code_stand_in_for_ports() {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).icmpv4_echo_request(7, 9).write(&mut bytes, &[]).unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.ports(), (8, 0));
        let Upper::Icmp(icmp) = packet.upper else { panic!("not ICMP") };
        assert_eq!((icmp.echo, icmp.error), (Some((7, 9)), false));
    }

    #[test]
    fn a_fragment_has_no_ports() {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2).write(&mut bytes, &[0; 64]).unwrap();
        bytes[4..6].copy_from_slice(&0x1234u16.to_be_bytes());
        bytes[6..8].copy_from_slice(&0x2002u16.to_be_bytes()); // more fragments, offset 16
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.fragment, Some(Fragment { id: 0x1234, offset: 16, more: true }));
        assert_eq!(packet.ports(), (0, 0));
    }

    #[test]
    fn cut_off_headers_are_malformed() {
        let bytes = tcp_v4(&[], b"");
        assert_eq!(Packet::parse(&bytes[..30]), Err(Malformed::Transport(protocol::TCP)));
        assert_eq!(Packet::parse(&bytes[..12]), Err(Malformed::IpHeader));
        assert_eq!(Packet::parse(&[]), Err(Malformed::IpHeader));
        assert_eq!(Packet::parse(&[0x55; 40]), Err(Malformed::IpHeader));
    }

    #[test]
    fn address_types() {
        for (address, expected) in [
            ("10.0.0.1", AddressType::Unicast),
            ("224.0.0.251", AddressType::Multicast),
            ("255.255.255.255", AddressType::Broadcast),
            ("::", AddressType::Unspecified),
            ("ff02::1", AddressType::Multicast),
            ("2001:db8::1", AddressType::Unicast),
        ] {
            assert_eq!(AddressType::of(address.parse().unwrap()), expected, "{address}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..200), v6: bool) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x45 };
            }
            if let Ok(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.len <= bytes.len());
                prop_assert!(packet.ip_header_len <= packet.len);
                prop_assert!(packet.wire_len >= packet.len);
                if packet.fragment.is_none() {
                    prop_assert!(packet.data_offset() <= packet.len);
                }
                let _ = Quoted::parse(&bytes, &packet);
            }
        }
    }
}

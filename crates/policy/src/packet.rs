//! What the headers of an IP packet tell a rule, from the packet's first bytes.

use crate::flow::Headers;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocols of an IPv6 packet that are headers before its payload (RFC 8200 section 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// ICMP and ICMPv6.
const ICMP: [u8; 2] = [1, 58];
/// TCP, UDP, DCCP, SCTP, UDP-Lite: the source port comes first, then the destination port.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// What rules ask of a packet's headers, addresses aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// IP protocol number.
    pub protocol: u8,
    /// The source port; the ICMP type.
    pub local_port: u16,
    /// The destination port; the ICMP code.
    pub remote_port: u16,
    /// How much of that could be read.
    pub headers: Headers,
}

impl Outline {
    /// Whether the ports are an ICMP message's type and code.
    #[must_use]
    pub fn is_icmp(&self) -> bool {
        ICMP.contains(&self.protocol)
    }

    /// Reads a packet that begins with `bytes`. What lies behind them, or is not there, is unreadable.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let payload = match bytes.first().map(|first| first >> 4) {
            Some(4) => v4(bytes),
            Some(6) => v6(bytes),
            _ => None,
        };
        let Some((protocol, payload)) = payload else {
            return Self { headers: Headers::NoProtocol, ..Self::default() };
        };
        let ports = match payload {
            Some([kind, code, ..]) if ICMP.contains(&protocol) => Some((u16::from(*kind), u16::from(*code))),
            Some([a, b, c, d, ..]) if WITH_PORTS.contains(&protocol) => {
                Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
            }
            _ if ICMP.contains(&protocol) || WITH_PORTS.contains(&protocol) => None,
            _ => Some((0, 0)),
        };
        match ports {
            Some((local_port, remote_port)) => Self { protocol, local_port, remote_port, headers: Headers::Whole },
            None => Self { protocol, headers: Headers::NoPorts, ..Self::default() },
        }
    }
}

/// The source and destination address of a packet that begins with `bytes`.
#[must_use]
pub fn addresses(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match bytes.first()? >> 4 {
        4 => {
            let [source, destination] = bytes.get(12..20)?.as_chunks::<4>().0.first_chunk()?;
            Some((Ipv4Addr::from(*source).into(), Ipv4Addr::from(*destination).into()))
        }
        6 => {
            let [source, destination] = bytes.get(8..40)?.as_chunks::<16>().0.first_chunk()?;
            Some((Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into()))
        }
        _ => None,
    }
}

/// The protocol, and the payload where its beginning is here.
type Payload<'b> = (u8, Option<&'b [u8]>);

fn v4(bytes: &[u8]) -> Option<Payload<'_>> {
    let [first, .., protocol] = bytes.first_chunk::<10>()?;
    let [.., high, low] = bytes.first_chunk::<8>()?;
    let later = u16::from_be_bytes([*high, *low]) & 0x1fff != 0;
    let length = usize::from(first & 0xf) * 4;
    Some((*protocol, bytes.get(length..).filter(|_| length >= 20 && !later)))
}

fn v6(bytes: &[u8]) -> Option<Payload<'_>> {
    let mut next = *bytes.get(6)?;
    let mut rest = bytes.get(40..).unwrap_or_default();
    loop {
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION => 8 + 8 * usize::from(*rest.get(1)?),
            FRAGMENT => 8,
            protocol => return Some((protocol, Some(rest))),
        };
        let [following, _, high, low, ..] = rest.first_chunk::<8>()?;
        if next == FRAGMENT && u16::from_be_bytes([*high, *low]) & 0xfff8 != 0 {
            let last = !matches!(*following, HOP_BY_HOP | ROUTING | DESTINATION | FRAGMENT);
            return last.then_some((*following, None));
        }
        next = *following;
        rest = rest.get(length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Headers::{NoPorts, NoProtocol, Whole};

    fn outline(protocol: u8, local_port: u16, remote_port: u16, headers: Headers) -> Outline {
        Outline { protocol, local_port, remote_port, headers }
    }

    /// An IPv4 packet with these words of options and this fragment offset.
    fn four(options: usize, offset: u16, protocol: u8, payload: &[u8]) -> alloc::vec::Vec<u8> {
        let mut bytes = alloc::vec![0; 20 + options * 4];
        bytes[0] = 0x45 + options as u8;
        bytes[6..8].copy_from_slice(&offset.to_be_bytes());
        bytes[9] = protocol;
        bytes.extend(payload);
        bytes
    }

    fn six(next: u8, payload: &[u8]) -> alloc::vec::Vec<u8> {
        let mut bytes = alloc::vec![0; 40];
        (bytes[0], bytes[6]) = (0x60, next);
        bytes.extend(payload);
        bytes
    }

    const PORTS: [u8; 4] = [0xc3, 0x50, 1, 0xbb];

    #[test]
    fn ports_types_and_protocols_are_read() {
        for (bytes, expected) in [
            (four(0, 0, 6, &PORTS), outline(6, 50000, 443, Whole)),
            (four(3, 0x2000, 17, &PORTS), outline(17, 50000, 443, Whole)),
            (four(0, 0x4000, 1, &[8, 0]), outline(1, 8, 0, Whole)),
            (four(0, 0, 47, &[]), outline(47, 0, 0, Whole)),
            (six(132, &PORTS), outline(132, 50000, 443, Whole)),
            (six(58, &[129, 1]), outline(58, 129, 1, Whole)),
            (six(50, &[]), outline(50, 0, 0, Whole)),
            (six(0, &[&[60, 1][..], &[0; 14], &[17, 0], &[0; 6], &PORTS].concat()), outline(17, 50000, 443, Whole)),
            (six(44, &[&[6, 0, 0, 1, 0, 0, 0, 9][..], &PORTS].concat()), outline(6, 50000, 443, Whole)),
        ] {
            assert_eq!(Outline::of(&bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn addresses_are_those_of_the_header() {
        let mut bytes = four(0, 0, 6, &[]);
        bytes[12..20].copy_from_slice(&[10, 0, 0, 1, 203, 0, 113, 9]);
        assert_eq!(addresses(&bytes), Some(([10, 0, 0, 1].into(), [203, 0, 113, 9].into())));
        assert_eq!(addresses(&bytes[..19]), None);
        let mut bytes = six(6, &[]);
        (bytes[23], bytes[39]) = (1, 2);
        let address = |last| IpAddr::V6(Ipv6Addr::from(last));
        assert_eq!(addresses(&bytes), Some((address(1u128), address(2))));
        assert_eq!(addresses(&bytes[..39]), None);
    }

    #[test]
    fn what_is_missing_is_unreadable() {
        for (bytes, expected) in [
            (four(0, 1, 6, &PORTS), outline(6, 0, 0, NoPorts)),
            (four(0, 0, 6, &PORTS[..3]), outline(6, 0, 0, NoPorts)),
            (four(0, 0, 1, &[8]), outline(1, 0, 0, NoPorts)),
            (four(0, 0, 6, &PORTS)[..18].to_vec(), outline(6, 0, 0, NoPorts)),
            (four(0, 0, 6, &PORTS)[..9].to_vec(), outline(0, 0, 0, NoProtocol)),
            ([&[0x44][..], &four(0, 0, 6, &PORTS)[1..]].concat(), outline(6, 0, 0, NoPorts)),
            (six(44, &[&[6, 0, 0, 9, 0, 0, 0, 9][..], &PORTS].concat()), outline(6, 0, 0, NoPorts)),
            (six(44, &[&[60, 0, 0, 9, 0, 0, 0, 9][..], &PORTS].concat()), outline(0, 0, 0, NoProtocol)),
            (six(0, &[6]), outline(0, 0, 0, NoProtocol)),
            (six(43, &[&[6, 9][..], &[0; 14]].concat()), outline(0, 0, 0, NoProtocol)),
            (alloc::vec![0x50; 60], outline(0, 0, 0, NoProtocol)),
            (alloc::vec![], outline(0, 0, 0, NoProtocol)),
        ] {
            assert_eq!(Outline::of(&bytes), expected, "{bytes:?}");
        }
    }
}

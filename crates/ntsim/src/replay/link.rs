//! Finds the IP packet in a captured frame.
//!
//! Header formats: "Link-Layer Header Types" of the tcpdump group (LINKTYPE_*), IEEE 802.1Q and 802.1ad for VLAN tags,
//! RFC 2516 for PPPoE.

use shim::layer::Direction;

/// A link-layer header type (`LINKTYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkType(pub i32);

impl LinkType {
    /// BSD loopback: the protocol family as a 32-bit number in the byte order of the capturing machine.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// Raw IP, by the number of some systems.
    pub const RAW_BSD: Self = Self(12);
    /// Raw IP on OpenBSD.
    pub const RAW_OPENBSD: Self = Self(14);
    /// Raw IPv4 or IPv6.
    pub const RAW: Self = Self(101);
    /// OpenBSD loopback: the protocol family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux "cooked" capture.
    pub const LINUX_SLL: Self = Self(113);
    /// Raw IPv4.
    pub const IPV4: Self = Self(228);
    /// Raw IPv6.
    pub const IPV6: Self = Self(229);
    /// Linux "cooked" capture, version 2.
    pub const LINUX_SLL2: Self = Self(276);
}

/// Why a frame holds nothing to replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoPacket {
    /// Another network protocol, e.g. ARP (0x0806).
    #[error("frames of another network protocol (EtherType {0:#06x})")]
    OtherProtocol(u16),
    /// The link-layer header is cut off.
    #[error("frames whose link-layer header is cut off")]
    CutOff,
    /// An unsupported link type.
    #[error("frames of unknown link type {0}")]
    UnknownLink(i32),
}

/// An IP packet found in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The packet, perhaps followed by link-layer padding.
    pub packet: &'a [u8],
    /// Its direction, where the frame has it.
    pub direction: Option<Direction>,
    /// The frame went to a group of stations, or to all of them.
    pub to_group: bool,
}

/// Fills in the length of an IPv4 packet whose length field is 0: Linux captures a segment like this when the network
/// card splits it into packets and the length does not fit or is left to the card.
pub fn fill_in_length(packet: &mut [u8]) {
    let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    if let [first, _, high @ 0, low @ 0, ..] = packet
        && *first >> 4 == 4
    {
        [*high, *low] = length.to_be_bytes();
    }
}

/// Finds the IP packet in `frame`.
///
/// # Errors
/// [`NoPacket`] when there is none.
pub fn find(link: LinkType, frame: &[u8]) -> Result<Found<'_>, NoPacket> {
    let unknown = |packet| Found { packet, direction: None, to_group: false };
    match link {
        LinkType::ETHERNET => {
            let packet = behind_ether_type(frame, 12)?;
            Ok(Found { to_group: frame[0] & 1 != 0, ..unknown(packet) })
        }
        LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD | LinkType::IPV4 | LinkType::IPV6 => {
            Ok(unknown(frame))
        }
        LinkType::NULL | LinkType::LOOP => {
            let (family, packet) = frame.split_first_chunk::<4>().ok_or(NoPacket::CutOff)?;
            let [a, b, c, d] = family;
            // Families are small numbers, which reveals the byte order.
            let family = match (a, b, c, d) {
                (0, 0, _, _) => u16::from_be_bytes([*c, *d]),
                (_, _, 0, 0) => u16::from_le_bytes([*a, *b]),
                _ => return Err(NoPacket::OtherProtocol(0)),
            };
            match family {
                // AF_INET; AF_INET6 of Linux, Windows, NetBSD and OpenBSD, FreeBSD, Darwin.
                2 | 10 | 23 | 24 | 28 | 30 => Ok(unknown(packet)),
                // Some systems write an EtherType there, which is above every family (IEEE 802.3: 1536 and up).
                ether_type @ 1536.. => behind_vlans(ether_type, packet).map(unknown),
                other => Err(NoPacket::OtherProtocol(other)),
            }
        }
        LinkType::LINUX_SLL => {
            let kind = frame.first_chunk::<2>().ok_or(NoPacket::CutOff)?;
            let packet = behind_ether_type(frame, 14)?;
            let direction = Some(packet_type(u16::from_be_bytes(*kind)));
            Ok(Found { direction, ..unknown(packet) })
        }
        LinkType::LINUX_SLL2 => {
            let header = frame.first_chunk::<20>().ok_or(NoPacket::CutOff)?;
            let packet = behind_vlans(u16::from_be_bytes([header[0], header[1]]), &frame[20..])?;
            Ok(Found { direction: Some(packet_type(u16::from(header[10]))), ..unknown(packet) })
        }
        LinkType(other) => Err(NoPacket::UnknownLink(other)),
    }
}

/// `sll_pkttype`: 4 is a packet this machine sent.
const fn packet_type(kind: u16) -> Direction {
    if kind == 4 { Direction::Outbound } else { Direction::Inbound }
}

/// What follows the EtherType at `at`.
fn behind_ether_type(frame: &[u8], at: usize) -> Result<&[u8], NoPacket> {
    let kind = frame.get(at..at + 2).ok_or(NoPacket::CutOff)?;
    behind_vlans(u16::from_be_bytes([kind[0], kind[1]]), &frame[at + 2..])
}

fn behind_vlans(mut ether_type: u16, mut rest: &[u8]) -> Result<&[u8], NoPacket> {
    loop {
        match ether_type {
            0x0800 | 0x86dd => return Ok(rest),
            0x8100 | 0x88a8 | 0x9100 => {
                let (tag, behind) = rest.split_first_chunk::<4>().ok_or(NoPacket::CutOff)?;
                ether_type = u16::from_be_bytes([tag[2], tag[3]]);
                rest = behind;
            }
            0x8864 => {
                let (header, behind) = rest.split_first_chunk::<8>().ok_or(NoPacket::CutOff)?;
                return match u16::from_be_bytes([header[6], header[7]]) {
                    0x0021 | 0x0057 => Ok(behind),
                    _ => Err(NoPacket::OtherProtocol(0x8864)),
                };
            }
            other => return Err(NoPacket::OtherProtocol(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IP: &[u8] = b"\x45ip packet";

    fn frame(header: &[u8]) -> Vec<u8> {
        [header, IP].concat()
    }

    #[test]
    fn every_link_type() {
        let mut ethernet = vec![0; 12];
        ethernet.extend_from_slice(&[0x08, 0]);
        let mut two_tags = vec![0; 12];
        two_tags.extend_from_slice(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x86, 0xdd]);
        let mut pppoe = vec![0; 12];
        pppoe.extend_from_slice(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 9, 0, 0x21]);
        let mut cooked = vec![0; 14];
        cooked[1] = 4;
        cooked.extend_from_slice(&[0x08, 0]);
        let mut cooked2 = vec![0; 20];
        (cooked2[0], cooked2[1]) = (0x86, 0xdd);
        for (link, header, direction) in [
            (LinkType::ETHERNET, ethernet, None),
            (LinkType::ETHERNET, two_tags, None),
            (LinkType::ETHERNET, pppoe, None),
            (LinkType::RAW, vec![], None),
            (LinkType::NULL, vec![2, 0, 0, 0], None),
            (LinkType::NULL, vec![0, 0, 0, 30], None),
            (LinkType::NULL, vec![10, 0, 0, 0], None),
            (LinkType::NULL, vec![23, 0, 0, 0], None),
            (LinkType::NULL, vec![0, 0, 0, 24], None),
            (LinkType::NULL, vec![28, 0, 0, 0], None),
            (LinkType::NULL, vec![0x00, 0x08, 0, 0], None),
            (LinkType::NULL, vec![0, 0, 0x86, 0xdd], None),
            (LinkType::LOOP, vec![0, 0, 0x08, 0x00], None),
            (LinkType::LOOP, vec![0, 0, 0, 2], None),
            (LinkType::LINUX_SLL, cooked, Some(Direction::Outbound)),
            (LinkType::LINUX_SLL2, cooked2, Some(Direction::Inbound)),
        ] {
            let frame = frame(&header);
            assert_eq!(find(link, &frame), Ok(Found { packet: IP, direction, to_group: false }), "{link:?}");
        }
        let mut broadcast = vec![0xff; 12];
        broadcast.extend_from_slice(&[0x08, 0]);
        let frame = frame(&broadcast);
        assert_eq!(find(LinkType::ETHERNET, &frame).map(|found| found.to_group), Ok(true));
    }

    #[test]
    fn a_length_of_0_is_filled_in() {
        for (first, length, filled) in [(0x45, [0, 0], [0, 40]), (0x45, [0, 39], [0, 39]), (0x60, [0, 0], [0, 0])] {
            let mut packet = [0; 40];
            (packet[0], packet[2], packet[3]) = (first, length[0], length[1]);
            fill_in_length(&mut packet);
            assert_eq!(packet[2..4], filled);
        }
        let mut long = vec![0x45; 70_000];
        long[2..4].fill(0);
        fill_in_length(&mut long);
        assert_eq!(long[2..4], [0xff, 0xff]);
        fill_in_length(&mut []);
    }

    #[test]
    fn what_is_no_ip_packet_says_so() {
        let mut arp = vec![0; 12];
        arp.extend_from_slice(&[0x08, 0x06, 0, 1]);
        assert_eq!(find(LinkType::ETHERNET, &arp), Err(NoPacket::OtherProtocol(0x0806)));
        assert_eq!(find(LinkType::ETHERNET, &arp[..13]), Err(NoPacket::CutOff));
        assert_eq!(find(LinkType(147), &arp), Err(NoPacket::UnknownLink(147)));
        assert_eq!(find(LinkType::NULL, &[7, 0, 0, 0]), Err(NoPacket::OtherProtocol(7)));
    }

    proptest! {
        #[test]
        fn any_frame_is_taken_apart_without_panic(link in 0i32..300, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(found) = find(LinkType(link), &bytes) {
                prop_assert!(bytes.ends_with(found.packet));
            }
        }
    }
}

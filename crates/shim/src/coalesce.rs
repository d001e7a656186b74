//! What a network card does that puts received TCP segments together (receive segment coalescing, RSC): the stack, and
//! each callout, sees one packet of up to 64 KiB in place of many.
//!
//! Source: "Rules for Coalescing TCP/IP Segments" of the Windows driver documentation. Segments with data that follow each
//! other without a gap become one while their headers are alike: addresses, ports, header lengths, no flag but ACK and
//! PSH, no fragment, no IPv4 option. The last acknowledgement and window count, PSH is kept, and checksums are right.

use crate::packet::{Packet, Tcp, Upper, tcp_flag};
use crate::rewrite;

/// The longest packet: what an IPv4 header can say, and an IPv6 one with it.
const LONGEST: usize = 65_535;

/// The packets of one direction as such a card shows them, in their order.
#[must_use]
pub fn coalesce<'a>(packets: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut shown: Vec<Vec<u8>> = Vec::new();
    for packet in packets {
        if !shown.last_mut().is_some_and(|last| join(last, packet)) {
            shown.push(packet.to_vec());
        }
    }
    shown
}

/// A segment that can be joined, its header, and where its data begins.
fn segment(bytes: &[u8]) -> Option<(Packet, Tcp, usize)> {
    let packet = Packet::parse(bytes).ok()?;
    let Upper::Tcp(tcp) = packet.upper else { return None };
    let bare = packet.ip_header_len == if packet.source.is_ipv4() { 20 } else { 40 };
    let data = packet.ip_header_len + tcp.header_len;
    let whole = packet.fragment.is_none() && packet.wire_len == packet.len && data < packet.len;
    (bare && whole && tcp.flags & !tcp_flag::PSH == tcp_flag::ACK).then_some((packet, tcp, data))
}

/// Adds `next` to `first` if both are segments that follow each other.
fn join(first: &mut Vec<u8>, next: &[u8]) -> bool {
    let (Some((a, tcp, data)), Some((b, later, later_data))) = (segment(first), segment(next)) else { return false };
    let alike = (a.source, a.destination, tcp.source, tcp.destination, data)
        == (b.source, b.destination, later.source, later.destination, later_data);
    let follows = later.sequence == tcp.sequence.wrapping_add((a.len - data) as u32);
    let total = a.len + (b.len - data);
    if !alike || !follows || total > LONGEST {
        return false;
    }
    first.truncate(a.len);
    first.extend_from_slice(&next[data..b.len]);
    // Acknowledgement, window and options of the last; the checksum is mended below.
    let header = a.ip_header_len;
    first[header + 8..header + 12].copy_from_slice(&next[header + 8..header + 12]);
    first[header + 13] |= later.flags;
    first[header + 14..data].copy_from_slice(&next[header + 14..data]);
    match a.source.is_ipv4() {
        true => first[2..4].copy_from_slice(&(total as u16).to_be_bytes()),
        false => first[4..6].copy_from_slice(&((total - header) as u16).to_be_bytes()),
    }
    if let Ok(packet) = Packet::parse(first) {
        rewrite::mend(first, &packet);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    fn segment(v6: bool, sequence: u32, push: bool, data: &[u8]) -> Vec<u8> {
        let step = if v6 { PacketBuilder::ipv6([1; 16], [2; 16], 64) } else { PacketBuilder::ipv4([1; 4], [2; 4], 64) };
        let step = step.tcp(80, 50_000, sequence, 1000 + sequence as u16).ack(sequence);
        let step = if push { step.psh() } else { step };
        let mut packet = Vec::new();
        step.write(&mut packet, data).unwrap();
        packet
    }

    fn shown(packets: &[Vec<u8>]) -> Vec<(u32, Vec<u8>)> {
        let shown = coalesce(packets.iter().map(Vec::as_slice));
        let of = |packet: &Vec<u8>| match SlicedPacket::from_ip(packet).unwrap().transport {
            Some(TransportSlice::Tcp(tcp)) => (tcp.sequence_number(), tcp.payload().to_vec()),
            other => panic!("{other:?}"),
        };
        shown.iter().map(of).collect()
    }

    #[test]
    fn segments_that_follow_each_other_are_one_packet() {
        for v6 in [false, true] {
            let packets = [segment(v6, 10, false, b"ab"), segment(v6, 12, false, b"c"), segment(v6, 13, true, b"de")];
            let joined = coalesce(packets.iter().map(Vec::as_slice));
            assert_eq!(shown(&packets), [(10, b"abcde".to_vec())]);
            let packet = Packet::parse(&joined[0]).unwrap();
            // As if it had been sent so, with the last acknowledgement and window.
            let mut sent = joined[0].clone();
            rewrite::mend(&mut sent, &packet);
            assert_eq!((packet.len, &sent), (joined[0].len(), &joined[0]), "lengths and checksums are right");
            let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ip(&joined[0]).unwrap().transport else { panic!() };
            assert_eq!((tcp.acknowledgment_number(), tcp.window_size(), tcp.psh()), (13, 1013, true));
        }
    }

    #[test]
    fn what_does_not_follow_or_is_more_than_data_stays_by_itself() {
        let mut fin = segment(false, 12, false, b"x");
        fin[33] |= 1;
        let gap = [segment(false, 10, false, b"ab"), segment(false, 13, false, b"d")];
        let ends = [segment(false, 10, false, b"ab"), fin];
        let bare = [segment(false, 10, false, b"ab"), segment(false, 12, false, b"")];
        let families = [segment(false, 10, false, b"ab"), segment(true, 12, false, b"c")];
        for packets in [&gap, &ends, &bare, &families] {
            assert_eq!(coalesce(packets.iter().map(Vec::as_slice)), packets.to_vec());
        }
    }

    #[test]
    fn a_packet_is_no_longer_than_its_header_can_say() {
        let packets: Vec<_> = (0..50).map(|n| segment(false, n * 1460, false, &[n as u8; 1460])).collect();
        let shown = shown(&packets);
        assert_eq!(shown.iter().map(|(_, data)| data.len()).collect::<Vec<_>>(), [44 * 1460, 6 * 1460]);
        let all: Vec<u8> = shown.into_iter().flat_map(|(_, data)| data).collect();
        assert!(all.into_iter().eq(packets.iter().flat_map(|packet| packet[40..].to_vec())), "nothing is lost");
    }
}

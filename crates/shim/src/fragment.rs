//! Reassembles fragments.
//!
//! Above the IP layer Windows sees whole datagrams: outbound before they are fragmented, inbound after reassembly
//! ("Packet Inspection Points", windows-driver-docs network/packet-inspection-points.md). So fragments wait here, and
//! one verdict on the whole datagram decides for all of them.

use super::extension::{Chain, FRAGMENT_LEN, FragmentHeader};
use super::layer::Direction;
use super::packet::Packet;
use foldhash::HashMap;
use nt_abi::PacketBuffer;
use std::net::IpAddr;
use std::time::Duration;

/// How long fragments wait for the rest (RFC 8200 section 4.5; RFC 1122 allows 60 to 120 s).
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of all waiting fragments: what a flood of first fragments can cost.
const BYTES_LIMIT: usize = 4 << 20;
/// The longest datagram: 65535 bytes of payload after its header.
const DATAGRAM_LIMIT: usize = 65_535;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    protocol: u8,
    direction: Direction,
}

#[derive(Debug)]
struct Piece {
    offset: usize,
    /// The range of the fragment's payload in its packet.
    payload: std::ops::Range<usize>,
    more: bool,
    packet: PacketBuffer,
}

/// A reassembled datagram.
#[derive(Debug)]
pub struct Datagram {
    /// The whole datagram, as one packet.
    pub whole: PacketBuffer,
    /// Its fragments, in order of arrival, without the last to arrive.
    pub pieces: Vec<PacketBuffer>,
}

/// The result for a fragment.
#[derive(Debug)]
pub enum Added {
    /// It waits for the rest.
    Waiting,
    /// It completes the datagram.
    Whole(Datagram),
    /// It overlaps another fragment or is out of range: the whole datagram is discarded (RFC 5722).
    Discarded,
}

/// Incomplete datagrams.
#[derive(Debug, Default)]
pub struct Reassembly {
    partial: HashMap<Key, (Duration, Vec<Piece>)>,
    bytes: usize,
}

impl Reassembly {
    /// Adds a fragment; `bytes` is its packet, which `packet` describes.
    pub fn add(&mut self, packet: &Packet, bytes: &[u8], direction: Direction, now: Duration) -> Added {
        let Some((fragment, start)) = packet.fragment.zip(payload_start(bytes)) else { return Added::Discarded };
        let key = Key {
            source: packet.source,
            destination: packet.destination,
            id: fragment.id,
            // IPv6 identifies a datagram by its identification alone (RFC 8200 section 4.5).
            protocol: if packet.source.is_ipv4() { packet.protocol } else { 0 },
            direction,
        };
        let payload = start..packet.len;
        let offset = fragment.offset as usize;
        let fits = packet.len == packet.wire_len
            && offset + payload.len() <= DATAGRAM_LIMIT
            && !payload.is_empty()
            && (!fragment.more || payload.len().is_multiple_of(8));
        if !fits || self.bytes + packet.len > BYTES_LIMIT {
            self.forget(&key);
            return Added::Discarded;
        }
        let (_, pieces) = self.partial.entry(key).or_insert_with(|| (now, Vec::new()));
        let end = offset + payload.len();
        if pieces.iter().any(|p| p.offset == offset && p.payload.len() == payload.len()) {
            return Added::Waiting; // a duplicate
        }
        if pieces.iter().any(|p| offset < p.offset + p.payload.len() && p.offset < end) {
            self.forget(&key);
            return Added::Discarded;
        }
        self.bytes += packet.len;
        pieces.push(Piece {
            offset,
            payload,
            more: fragment.more,
            packet: PacketBuffer::copy_of(&bytes[..packet.len]),
        });
        if !is_complete(pieces) {
            return Added::Waiting;
        }
        let pieces = self.forget(&key);
        join(pieces).map_or(Added::Discarded, Added::Whole)
    }

    /// Discards datagrams that have waited too long; returns how many.
    pub fn expire(&mut self, now: Duration) -> usize {
        let before = self.partial.len();
        let bytes = &mut self.bytes;
        self.partial.retain(|_, (since, pieces)| {
            let keep = now.saturating_sub(*since) < TIMEOUT;
            if !keep {
                *bytes -= pieces.iter().map(|p| p.packet.bytes().len()).sum::<usize>();
            }
            keep
        });
        before - self.partial.len()
    }

    fn forget(&mut self, key: &Key) -> Vec<Piece> {
        let pieces = self.partial.remove(key).map(|(_, pieces)| pieces).unwrap_or_default();
        self.bytes -= pieces.iter().map(|p| p.packet.bytes().len()).sum::<usize>();
        pieces
    }
}

/// The start of the fragment's payload: after the IPv4 header or the IPv6 fragment header.
fn payload_start(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? >> 4 {
        4 => Some(usize::from(bytes[0] & 0x0f) * 4),
        _ => fragment_header(bytes).map(|header| header.at + FRAGMENT_LEN),
    }
}

fn fragment_header(bytes: &[u8]) -> Option<FragmentHeader> {
    Chain::follow(bytes).ok()?.fragment
}

fn is_complete(pieces: &[Piece]) -> bool {
    let Some(last) = pieces.iter().find(|p| !p.more) else { return false };
    // Fragments do not overlap, so they cover the datagram exactly when their lengths add up to it.
    pieces.iter().map(|p| p.payload.len()).sum::<usize>() == last.offset + last.payload.len()
}

fn join(mut pieces: Vec<Piece>) -> Option<Datagram> {
    let last_to_arrive = pieces.len() - 1;
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_unstable_by_key(|&i| pieces[i].offset);
    let first = pieces[order[0]].packet.bytes();
    let mut whole = match first[0] >> 4 {
        4 => first[..payload_start(first)?].to_vec(),
        _ => {
            let FragmentHeader { named_at, at, .. } = fragment_header(first)?;
            let mut header = first[..at].to_vec();
            header[named_at] = first[at];
            header
        }
    };
    let header_len = whole.len();
    for &i in &order {
        whole.extend_from_slice(&pieces[i].packet.bytes()[pieces[i].payload.clone()]);
    }
    if first[0] >> 4 == 4 {
        let total = u16::try_from(whole.len()).ok()?;
        whole[2..4].copy_from_slice(&total.to_be_bytes());
        whole[6..8].fill(0);
        whole[10..12].fill(0);
        let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&whole[..header_len]).ones_complement();
        whole[10..12].copy_from_slice(&sum.to_ne_bytes());
    } else {
        let payload = u16::try_from(whole.len() - 40).ok()?;
        whole[4..6].copy_from_slice(&payload.to_be_bytes());
    }
    pieces.truncate(last_to_arrive);
    Some(Datagram {
        whole: PacketBuffer::copy_of(&whole),
        pieces: pieces.into_iter().map(|piece| piece.packet).collect(),
    })
}

#[cfg(test)]
pub(crate) mod cut;

#[cfg(test)]
mod tests {
    use super::super::packet::Upper;
    use super::cut::cut;
    use super::*;
    use etherparse::PacketBuilder;

    fn add(reassembly: &mut Reassembly, bytes: &[u8]) -> Added {
        reassembly.add(&Packet::parse(bytes).unwrap(), bytes, Direction::Inbound, Duration::ZERO)
    }

    fn datagram(v6: bool) -> Vec<u8> {
        let mut whole = Vec::new();
        let payload: Vec<u8> = (0..100).collect();
        if v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 9).udp(7, 53).write(&mut whole, &payload).unwrap();
        } else {
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).udp(7, 53).write(&mut whole, &payload).unwrap();
        }
        whole
    }

    #[test]
    fn pieces_in_any_order_make_the_datagram() {
        for v6 in [false, true] {
            let whole = datagram(v6);
            let pieces = cut(&whole, 40, 77);
            let mut reassembly = Reassembly::default();
            assert!(matches!(add(&mut reassembly, &pieces[2]), Added::Waiting));
            assert!(matches!(add(&mut reassembly, &pieces[0]), Added::Waiting));
            assert!(matches!(add(&mut reassembly, &pieces[0]), Added::Waiting), "a duplicate changes nothing");
            let Added::Whole(datagram) = add(&mut reassembly, &pieces[1]) else { panic!("not whole") };
            assert_eq!(datagram.pieces.iter().map(PacketBuffer::bytes).collect::<Vec<_>>(), [&pieces[2], &pieces[0]]);
            let bytes = datagram.whole.bytes();
            let packet = Packet::parse(bytes).unwrap();
            assert_eq!(packet.upper, Upper::Udp { source: 7, destination: 53 });
            assert_eq!(&bytes[packet.data_offset()..], &whole[whole.len() - 100..]);
            if !v6 {
                let header = etherparse::Ipv4HeaderSlice::from_slice(bytes).unwrap();
                assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            }
            assert_eq!((reassembly.partial.len(), reassembly.bytes), (0, 0));
        }
    }

    #[test]
    fn a_datagram_that_begins_with_destination_options_is_put_together() {
        let whole = datagram(true);
        let mut with_options = whole.clone();
        with_options.splice(40..40, [17, 0, 1, 4, 0, 0, 0, 0]);
        with_options[6] = 60;
        let pieces = cut(&with_options, 40, 3);
        let mut reassembly = Reassembly::default();
        assert!(matches!(add(&mut reassembly, &pieces[0]), Added::Waiting));
        assert!(matches!(add(&mut reassembly, &pieces[2]), Added::Waiting));
        let Added::Whole(datagram) = add(&mut reassembly, &pieces[1]) else { panic!("not whole") };
        let packet = Packet::parse(datagram.whole.bytes()).unwrap();
        assert_eq!(packet.upper, Upper::Udp { source: 7, destination: 53 });
        assert_eq!(datagram.whole.bytes()[48..], whole[40..]);
    }

    #[test]
    fn an_overlap_discards_the_datagram() {
        let pieces = cut(&datagram(false), 40, 5);
        let mut overlapping = pieces[1].clone();
        overlapping[6..8].copy_from_slice(&(0x2000u16 | 4).to_be_bytes()); // offset 32: into the first piece
        let mut reassembly = Reassembly::default();
        assert!(matches!(add(&mut reassembly, &pieces[0]), Added::Waiting));
        assert!(matches!(add(&mut reassembly, &overlapping), Added::Discarded));
        assert_eq!((reassembly.partial.len(), reassembly.bytes), (0, 0));
    }

    #[test]
    fn what_waits_too_long_is_given_up() {
        let pieces = cut(&datagram(true), 40, 5);
        let mut reassembly = Reassembly::default();
        assert!(matches!(add(&mut reassembly, &pieces[0]), Added::Waiting));
        assert_eq!(reassembly.expire(TIMEOUT - Duration::from_secs(1)), 0);
        assert_eq!(reassembly.expire(TIMEOUT), 1);
        assert_eq!(reassembly.bytes, 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "320,000 fragments take Miri too long")]
    fn memory_is_bounded() {
        let mut reassembly = Reassembly::default();
        let first = &cut(&datagram(false), 40, 0)[0];
        for id in 0..=u16::MAX {
            let mut piece = first.clone();
            piece[4..6].copy_from_slice(&id.to_be_bytes());
            add(&mut reassembly, &piece);
        }
        for source in 0..=u8::MAX {
            for id in 0..1000u16 {
                let mut piece = first.clone();
                piece[15] = source;
                piece[4..6].copy_from_slice(&id.to_be_bytes());
                add(&mut reassembly, &piece);
            }
        }
        assert!(reassembly.bytes <= BYTES_LIMIT, "{}", reassembly.bytes);
        assert!(reassembly.bytes > BYTES_LIMIT / 2);
    }
}

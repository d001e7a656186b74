//! From a capture to what each side of each flow sent.

use std::collections::HashMap;

use etherparse::{SlicedPacket, TransportSlice};
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader, traits::PcapNGPacketBlock};

/// One side of a flow: both addresses and ports.
type Side = (Vec<u8>, Vec<u8>, u16, u16);

/// What was sent.
#[derive(Default)]
pub(crate) struct Flows {
    /// Each side of each TCP connection, as far as its bytes follow each other.
    pub(crate) streams: Vec<Vec<u8>>,
    /// Each side of each UDP flow.
    pub(crate) datagrams: Vec<Vec<Vec<u8>>>,
}

/// The segments of one side of a connection.
struct Segments {
    start: u32,
    parts: Vec<(u32, Vec<u8>)>,
}

/// The most bytes of a side that are put together.
const MOST: usize = 64 << 10;

impl Segments {
    /// The bytes from the first on; of bytes that were sent twice, the first.
    fn stream(mut self) -> Vec<u8> {
        self.parts.sort_by_key(|(offset, _)| *offset);
        let mut bytes = Vec::new();
        for (offset, part) in &self.parts {
            let offset = *offset as usize;
            if offset > bytes.len() || bytes.len() > MOST {
                break;
            }
            bytes.extend(part.get(bytes.len() - offset..).unwrap_or_default());
        }
        bytes
    }
}

/// Reads a capture, as far as it can be read.
pub(crate) fn read(file: &[u8]) -> Flows {
    let mut flows = Flows::default();
    let mut tcp = HashMap::<Side, Segments>::new();
    let mut udp = HashMap::<Side, usize>::new();
    frames(file, |link, frame| {
        let packet = match link {
            Linktype::ETHERNET => SlicedPacket::from_ethernet(frame),
            Linktype::LINUX_SLL => SlicedPacket::from_linux_sll(frame),
            Linktype::NULL => SlicedPacket::from_ip(frame.get(4..).unwrap_or_default()),
            _ => SlicedPacket::from_ip(frame),
        };
        let Ok(packet) = packet else { return };
        let addresses = match &packet.net {
            Some(etherparse::NetSlice::Ipv4(ip)) => (ip.header().source().to_vec(), ip.header().destination().to_vec()),
            Some(etherparse::NetSlice::Ipv6(ip)) => (ip.header().source().to_vec(), ip.header().destination().to_vec()),
            _ => return,
        };
        match &packet.transport {
            Some(TransportSlice::Tcp(segment)) => {
                let side = (addresses.0, addresses.1, segment.source_port(), segment.destination_port());
                let sequence = segment.sequence_number();
                let first = sequence.wrapping_add(segment.syn().into());
                let segments = tcp.entry(side).or_insert_with(|| Segments { start: first, parts: Vec::new() });
                // The same ports again: another connection.
                if segment.syn() && !segments.parts.is_empty() && segments.start != first {
                    let before = std::mem::replace(segments, Segments { start: first, parts: Vec::new() });
                    flows.streams.push(before.stream());
                }
                let offset = first.wrapping_sub(segments.start);
                if !segment.payload().is_empty() && offset < 1 << 30 {
                    segments.parts.push((offset, segment.payload().to_vec()));
                }
            }
            Some(TransportSlice::Udp(datagram)) => {
                let side = (addresses.0, addresses.1, datagram.source_port(), datagram.destination_port());
                let at = *udp.entry(side).or_insert(flows.datagrams.len());
                if at == flows.datagrams.len() {
                    flows.datagrams.push(Vec::new());
                }
                flows.datagrams[at].push(datagram.payload().to_vec());
            }
            _ => {}
        }
    });
    flows.streams.extend(tcp.into_values().map(Segments::stream));
    flows
}

/// Hands out the frames of a capture with their link types.
fn frames(file: &[u8], mut each: impl FnMut(Linktype, &[u8])) {
    let Ok(mut reader) = create_reader(1 << 20, file) else { return };
    let mut links = Vec::new();
    loop {
        match reader.next() {
            Ok((size, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => links.push(header.network),
                    PcapBlockOwned::Legacy(block) => each(links[0], block.data),
                    PcapBlockOwned::NG(pcap_parser::Block::InterfaceDescription(interface)) => {
                        links.push(interface.linktype);
                    }
                    PcapBlockOwned::NG(pcap_parser::Block::EnhancedPacket(block)) => {
                        each(links[block.if_id as usize], block.packet_data());
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                reader.consume(size);
            }
            Err(PcapError::Incomplete(_)) => {
                let before = reader.data().len();
                if reader.refill().is_err() || reader.data().len() == before {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

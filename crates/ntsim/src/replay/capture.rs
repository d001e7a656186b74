//! Reading pcap and pcapng files.

use super::link::LinkType;
use pcap_parser::pcapng::{Block, EnhancedPacketBlock, OptionCode};
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{PcapBlockOwned, PcapError, create_reader};
use shim::layer::Direction;
use std::io::Read;
use std::ops::ControlFlow;
use std::time::Duration;

/// The size of the read buffer.
const BUFFER: usize = 1 << 20;
/// The longest block: far above any packet, far below what a damaged length field can claim.
const BUFFER_LIMIT: usize = 64 << 20;

/// Why a capture cannot be read further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// Empty.
    #[error("the capture is empty")]
    Empty,
    /// Neither pcap nor pcapng.
    #[error("this is neither a pcap nor a pcapng file")]
    NotACapture,
    /// Reading failed.
    #[error("reading failed at byte {at}")]
    Read {
        /// Bytes read well before.
        at: usize,
    },
    /// The last block is incomplete.
    #[error("the capture is cut off in the block at byte {at}: it ends before the block does")]
    CutOff {
        /// Where the block starts.
        at: usize,
    },
    /// A block is damaged.
    #[error("the block at byte {at} is damaged ({what})")]
    Damaged {
        /// Where the block starts.
        at: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A packet names an interface that was not described.
    #[error("the packet at byte {at} names interface {interface}, which the capture does not describe")]
    UnknownInterface {
        /// Where its block starts.
        at: usize,
        /// The interface.
        interface: u32,
    },
}

/// A captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// When it was captured, since 1970 UTC.
    pub time: Duration,
    /// Its link type.
    pub link: LinkType,
    /// Its bytes, as far as they were captured.
    pub bytes: &'a [u8],
    /// Its direction, where the capture has it (`epb_flags` of pcapng).
    pub direction: Option<Direction>,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: LinkType,
    /// Time units in a second.
    resolution: u64,
    /// Seconds to add to every time.
    offset: i64,
}

/// Reads a capture and calls `f` with each frame, until it breaks. Memory use does not depend on the file's size.
///
/// # Errors
/// What is wrong with the file and where; `f` has been called with the frames before that place.
pub fn read(input: impl Read + Send, mut f: impl FnMut(Frame<'_>) -> ControlFlow<()>) -> Result<(), CaptureError> {
    let mut reader = create_reader(BUFFER, input).map_err(|error| match error {
        PcapError::Eof => CaptureError::Empty,
        PcapError::ReadError => CaptureError::Read { at: 0 },
        PcapError::Incomplete(_) => CaptureError::CutOff { at: 0 },
        _ => CaptureError::NotACapture,
    })?;
    let mut capacity = BUFFER;
    let mut interfaces = Vec::new();
    loop {
        let at = reader.consumed();
        match reader.next() {
            Ok((size, block)) => {
                let flow = block_frame(&mut interfaces, &block, at)?.map_or(ControlFlow::Continue(()), &mut f);
                drop(block);
                reader.consume(size);
                if flow.is_break() {
                    return Ok(());
                }
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => refill(&mut *reader, at)?,
            Err(PcapError::BufferTooSmall) => {
                // The block may be longer than the buffer, or only extend past its end.
                if reader.position() == 0 {
                    capacity *= 2;
                    if capacity > BUFFER_LIMIT || !reader.grow(capacity) {
                        let what = format!("longer than {} MiB", BUFFER_LIMIT >> 20);
                        return Err(CaptureError::Damaged { at, what });
                    }
                }
                refill(&mut *reader, at)?;
            }
            Err(PcapError::UnexpectedEof) => {
                return if reader.data().is_empty() { Ok(()) } else { Err(CaptureError::CutOff { at }) };
            }
            Err(PcapError::ReadError) => return Err(CaptureError::Read { at }),
            Err(PcapError::NomError(_, kind) | PcapError::OwnedNomError(_, kind)) => {
                return Err(CaptureError::Damaged { at, what: format!("{kind:?}") });
            }
            Err(PcapError::HeaderNotRecognized) => return Err(CaptureError::NotACapture),
        }
    }
}

fn refill(reader: &mut dyn PcapReaderIterator, at: usize) -> Result<(), CaptureError> {
    let before = reader.data().len();
    reader.refill().map_err(|_| CaptureError::Read { at })?;
    if reader.data().len() == before && reader.reader_exhausted() && before > 0 {
        return Err(CaptureError::CutOff { at });
    }
    Ok(())
}

fn block_frame<'a>(
    interfaces: &mut Vec<Interface>,
    block: &'a PcapBlockOwned<'_>,
    at: usize,
) -> Result<Option<Frame<'a>>, CaptureError> {
    let known = |interfaces: &[Interface], interface: u32| {
        interfaces.get(interface as usize).copied().ok_or(CaptureError::UnknownInterface { at, interface })
    };
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
            interfaces.push(Interface { link: LinkType(header.network.0), resolution, offset: 0 });
            Ok(None)
        }
        PcapBlockOwned::Legacy(packet) => {
            let interface = known(interfaces, 0)?;
            let fraction = u128::from(packet.ts_usec) * 1_000_000_000 / u128::from(interface.resolution);
            let time = Duration::from_secs(u64::from(packet.ts_sec)) + Duration::from_nanos(fraction as u64);
            let bytes = &packet.data[..packet.data.len().min(packet.caplen as usize)];
            Ok(Some(Frame { time, link: interface.link, bytes, direction: None }))
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear(); // interface numbers restart in each section
            Ok(None)
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
            let resolution = description.ts_resolution().filter(|r| *r > 0).ok_or_else(|| CaptureError::Damaged {
                at,
                what: format!("time resolution {:#x} is out of range", description.if_tsresol),
            })?;
            let link = LinkType(description.linktype.0);
            interfaces.push(Interface { link, resolution, offset: description.ts_offset() });
            Ok(None)
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let interface = known(interfaces, packet.if_id)?;
            Ok(Some(Frame {
                time: interface.time(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low)),
                link: interface.link,
                bytes: packet.packet_data(),
                direction: direction(packet),
            }))
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let interface = known(interfaces, 0)?;
            // A simple packet has no time.
            Ok(Some(Frame { time: Duration::ZERO, link: interface.link, bytes: packet.packet_data(), direction: None }))
        }
        PcapBlockOwned::NG(_) => Ok(None),
    }
}

impl Interface {
    fn time(&self, units: u64) -> Duration {
        let seconds = (units / self.resolution).saturating_add_signed(self.offset);
        let fraction = u128::from(units % self.resolution) * 1_000_000_000 / u128::from(self.resolution);
        Duration::from_secs(seconds) + Duration::from_nanos(fraction as u64)
    }
}

/// Bits 0 and 1 of `epb_flags`: 1 inbound, 2 outbound.
fn direction(packet: &EnhancedPacketBlock<'_>) -> Option<Direction> {
    let flags = &packet.options.iter().find(|option| option.code == OptionCode(2))?.value;
    let flags: [u8; 4] = flags.get(..4)?.try_into().ok()?;
    // The option is in the section's byte order; the two bits are in its lowest byte.
    let low = if packet.big_endian() { flags[3] } else { flags[0] };
    match low & 3 {
        1 => Some(Direction::Inbound),
        2 => Some(Direction::Outbound),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A pcap file of these frames, one per millisecond.
    pub(crate) fn pcap(link: LinkType, frames: &[&[u8]]) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend_from_slice(&0xa1b2_c3d4u32.to_le_bytes());
        file.extend_from_slice(&[2, 0, 4, 0]);
        file.extend_from_slice(&[0; 8]);
        file.extend_from_slice(&262_144u32.to_le_bytes());
        file.extend_from_slice(&link.0.to_le_bytes());
        for (i, frame) in frames.iter().enumerate() {
            file.extend_from_slice(&1_700_000_000u32.to_le_bytes());
            file.extend_from_slice(&(i as u32 * 1000).to_le_bytes());
            file.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            file.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            file.extend_from_slice(frame);
        }
        file
    }

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = (12 + body.len()) as u32;
        [&kind.to_le_bytes()[..], &len.to_le_bytes(), body, &len.to_le_bytes()].concat()
    }

    /// A pcapng file with one Ethernet interface of nanosecond resolution and one outbound packet.
    fn pcapng() -> Vec<u8> {
        let mut file =
            block(0x0a0d_0d0a, &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        file.extend(block(1, &[1, 0, 0, 0, 0, 0, 4, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]));
        let time = 1_700_000_000_000_000_042u64;
        let mut packet = vec![0; 4];
        packet.extend_from_slice(&((time >> 32) as u32).to_le_bytes());
        packet.extend_from_slice(&(time as u32).to_le_bytes());
        packet.extend_from_slice(&[5, 0, 0, 0, 5, 0, 0, 0]);
        packet.extend_from_slice(b"hello\0\0\0");
        packet.extend_from_slice(&[2, 0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        file.extend(block(6, &packet));
        file
    }

    type Seen = (Duration, LinkType, Vec<u8>, Option<Direction>);

    fn frames(file: &[u8]) -> (Vec<Seen>, Result<(), CaptureError>) {
        let mut seen = Vec::new();
        let result = read(file, |frame| {
            seen.push((frame.time, frame.link, frame.bytes.to_vec(), frame.direction));
            ControlFlow::Continue(())
        });
        (seen, result)
    }

    #[test]
    fn classic_pcap() {
        let (seen, result) = frames(&pcap(LinkType::RAW, &[b"one", b"three"]));
        assert_eq!(result, Ok(()));
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[1].0, Duration::new(1_700_000_000, 1_000_000));
        assert_eq!((seen[1].1, &seen[1].2[..]), (LinkType::RAW, &b"three"[..]));
    }

    #[test]
    fn next_generation_pcap() {
        let (seen, result) = frames(&pcapng());
        assert_eq!(result, Ok(()));
        let time = Duration::new(1_700_000_000, 42);
        assert_eq!(seen, [(time, LinkType::ETHERNET, b"hello".to_vec(), Some(Direction::Outbound))]);
    }

    #[test]
    fn a_frame_longer_than_the_buffer() {
        let long = vec![7; 3 * BUFFER];
        let (seen, result) = frames(&pcap(LinkType::RAW, &[b"x", &long, b"y"]));
        assert_eq!(result, Ok(()));
        assert_eq!(seen.iter().map(|frame| frame.2.len()).collect::<Vec<_>>(), [1, long.len(), 1]);
    }

    #[test]
    fn many_frames_pass_a_small_buffer() {
        let frame = [5; 1000];
        let (seen, result) = frames(&pcap(LinkType::RAW, &vec![&frame[..]; 5000]));
        assert_eq!((seen.len(), result), (5000, Ok(())));
    }

    #[test]
    fn errors_say_where() {
        assert_eq!(frames(b"").1, Err(CaptureError::Empty));
        assert_eq!(frames(&[0x55; 100]).1, Err(CaptureError::NotACapture));
        let file = pcap(LinkType::RAW, &[b"one", b"three"]);
        let (seen, result) = frames(&file[..file.len() - 2]);
        assert_eq!((seen.len(), result), (1, Err(CaptureError::CutOff { at: 24 + 16 + 3 })));
        let mut huge = pcap(LinkType::RAW, &[b"one"]);
        huge[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(frames(&huge).1.is_err());
        let mut unknown = pcapng();
        let packet = unknown.len() - 52 + 8;
        unknown[packet] = 9;
        assert!(matches!(frames(&unknown).1, Err(CaptureError::UnknownInterface { interface: 9, .. })));
    }

    #[test]
    fn reading_stops_when_asked() {
        let mut count = 0;
        read(&pcap(LinkType::RAW, &[b"a", b"b", b"c"])[..], |_| {
            count += 1;
            ControlFlow::Break(())
        })
        .unwrap();
        assert_eq!(count, 1);
    }

    proptest! {
        #[test]
        fn hostile_files_end_in_an_error_not_a_panic(
            ng: bool,
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..12),
            cut in any::<proptest::sample::Index>(),
            tail in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut file = if ng { pcapng() } else { pcap(LinkType::ETHERNET, &[b"some frame", b"another frame"]) };
            for (at, value) in damage {
                let at = at.index(file.len());
                file[at] = value;
            }
            file.truncate(cut.index(file.len() + 1));
            file.extend_from_slice(&tail);
            let _ = frames(&file);
        }
    }
}

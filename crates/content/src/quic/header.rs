//! The part of a long header that is not protected (RFC 9000, 17.2; RFC 9369, 3.2).

/// The bit of a long header.
const LONG: u8 = 0x80;
/// The longest connection identifier of versions 1 and 2.
const LONGEST_ID: usize = 20;

/// A version whose Initial packets can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Initial,
    ZeroRtt,
    Handshake,
    Retry,
}

/// A packet of a known version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'d> {
    pub(super) kind: Kind,
    pub(super) version: Version,
    pub(super) destination: &'d [u8],
    /// All of it, header and payload.
    pub(super) bytes: &'d [u8],
    /// Where its number begins.
    pub(super) number_at: usize,
}

/// What a datagram goes on with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next<'d> {
    Packet(Packet<'d>, &'d [u8]),
    /// A short header, or what is no packet.
    Short,
    /// A packet of a version that is not known.
    Unknown(u32),
    /// What is no long header of its version, or is cut.
    Broken,
}

/// A variable-length integer and what follows (RFC 9000, 16).
fn integer(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (more, rest) = rest.split_at_checked((1 << (first >> 6)) - 1)?;
    let value = more.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, rest))
}

fn identifier(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    (usize::from(*length) <= LONGEST_ID).then(|| rest.split_at_checked(usize::from(*length)))?
}

/// The next packet of a datagram.
pub(super) fn next(datagram: &[u8]) -> Next<'_> {
    let (first, version) = match datagram {
        [first, ..] if first & LONG == 0 => return Next::Short,
        [first, a, b, c, d, ..] => (*first, u32::from_be_bytes([*a, *b, *c, *d])),
        _ => return Next::Broken,
    };
    let version = match version {
        1 => Version::V1,
        0x6b33_43cf => Version::V2,
        other => return Next::Unknown(other),
    };
    let kind = match (first >> 4 & 3, version) {
        (0, Version::V1) | (1, Version::V2) => Kind::Initial,
        (1, Version::V1) | (2, Version::V2) => Kind::ZeroRtt,
        (2, Version::V1) | (3, Version::V2) => Kind::Handshake,
        _ => Kind::Retry,
    };
    match packet(datagram, kind, version) {
        Some((packet, rest)) => Next::Packet(packet, rest),
        None => Next::Broken,
    }
}

fn packet(datagram: &[u8], kind: Kind, version: Version) -> Option<(Packet<'_>, &[u8])> {
    let (destination, rest) = identifier(datagram.get(5..)?)?;
    let (_source, rest) = identifier(rest)?;
    if kind == Kind::Retry {
        return Some((Packet { kind, version, destination, bytes: datagram, number_at: datagram.len() }, &[]));
    }
    let rest = if kind == Kind::Initial {
        let (length, rest) = integer(rest)?;
        rest.get(usize::try_from(length).ok()?..)?
    } else {
        rest
    };
    let (length, rest) = integer(rest)?;
    let number_at = datagram.len() - rest.len();
    let end = number_at.checked_add(usize::try_from(length).ok()?)?;
    let (bytes, rest) = datagram.split_at_checked(end)?;
    Some((Packet { kind, version, destination, bytes, number_at }, rest))
}

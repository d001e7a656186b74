//! The headers between an IPv6 header and what it carries (RFC 8200 section 4).

use super::packet::{Fragment, Malformed, protocol};

/// The length of an IPv6 header, and the offset of its next header field.
const HEADER_LEN: usize = 40;
const NEXT_HEADER: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// The length of a fragment header.
pub(crate) const FRAGMENT_LEN: usize = 8;

/// A fragment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentHeader {
    /// The offset of the byte that names it as next header.
    pub(crate) named_at: usize,
    /// Where it starts.
    pub(crate) at: usize,
    /// Its content.
    pub(crate) piece: Fragment,
}

/// The chain of headers of an IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The protocol after the chain; for a fragment, the one that its fragment header names.
    pub(crate) protocol: u8,
    /// Where that starts.
    pub(crate) end: usize,
    /// The fragment header of a fragment. An atomic one (RFC 6946) is skipped.
    pub(crate) fragment: Option<FragmentHeader>,
}

impl Chain {
    /// Follows the headers in `bytes`, an IPv6 packet without link-layer padding. What follows a fragment header is
    /// part of the original datagram, and is followed in the first fragment only, which must contain everything
    /// "through an Upper-Layer header" (RFC 8200 section 4.5).
    ///
    /// # Errors
    /// [`Malformed::IpHeader`] when a header is cut off, or hop-by-hop options do not come first.
    pub(crate) fn follow(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut named_at, mut at) = (NEXT_HEADER, HEADER_LEN);
        let mut first_piece = None;
        loop {
            let next = *bytes.get(named_at).ok_or(Malformed::IpHeader)?;
            let len = match next {
                HOP_BY_HOP if named_at != NEXT_HEADER => return Err(Malformed::IpHeader),
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (length_field(bytes, at)? + 1) * 8,
                AUTHENTICATION => (length_field(bytes, at)? + 2) * 4,
                FRAGMENT => FRAGMENT_LEN,
                upper if first_piece.is_some() && bytes.len() < at + least(upper) => return Err(Malformed::IpHeader),
                upper => return Ok(first_piece.unwrap_or(Self { protocol: upper, end: at, fragment: None })),
            };
            let header = bytes.get(at..at + len).ok_or(Malformed::IpHeader)?;
            if next == FRAGMENT && first_piece.is_none() {
                let place = u16::from_be_bytes([header[2], header[3]]);
                let piece = Fragment {
                    id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                    offset: u32::from(place & !7),
                    more: place & 1 != 0,
                };
                let fragment = Some(FragmentHeader { named_at, at, piece });
                let chain = Self { protocol: header[0], end: at + len, fragment };
                if piece.offset != 0 {
                    return Ok(chain);
                }
                first_piece = piece.more.then_some(chain);
            }
            (named_at, at) = (at, at + len);
        }
    }
}

fn length_field(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    bytes.get(at + 1).map(|len| usize::from(*len)).ok_or(Malformed::IpHeader)
}

/// The shortest header of an upper-layer protocol that this crate parses.
const fn least(upper: u8) -> usize {
    match upper {
        protocol::TCP => 20,
        protocol::UDP | protocol::ICMPV6 => 8,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv6 packet with these extension headers; `next` is the number of the first.
    fn packet(next: u8, headers: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        (bytes[0], bytes[NEXT_HEADER]) = (0x60, next);
        bytes.extend(headers.concat());
        bytes
    }

    fn fragment(next: u8, offset: u16, more: bool) -> [u8; 8] {
        let [high, low] = (offset | u16::from(more)).to_be_bytes();
        [next, 0, high, low, 0, 0, 0, 9]
    }

    const UDP: [u8; 8] = [0xc3, 0x50, 0, 53, 0, 8, 0, 0];
    const fn options(next: u8) -> [u8; 8] {
        [next, 0, 1, 4, 0, 0, 0, 0]
    }

    fn piece(chain: Chain) -> (u8, usize, Fragment) {
        (chain.protocol, chain.end, chain.fragment.unwrap().piece)
    }

    #[test]
    fn every_header_is_passed_over() {
        let ah = [17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let whole = Chain { protocol: 17, end: 40 + 8 + 8 + 24, fragment: None };
        assert_eq!(Chain::follow(&packet(0, &[&options(43), &options(51), &ah, &UDP])), Ok(whole));
        let atomic = packet(44, &[&fragment(17, 0, false), &UDP]);
        assert_eq!(Chain::follow(&atomic), Ok(Chain { protocol: 17, end: 48, fragment: None }));
        assert_eq!(Chain::follow(&packet(59, &[])), Ok(Chain { protocol: 59, end: 40, fragment: None }));
    }

    #[test]
    fn what_a_fragment_header_names_is_followed_in_the_first_piece_only() {
        let first = Fragment { id: 9, offset: 0, more: true };
        let last = Fragment { id: 9, offset: 32, more: false };
        let chain = Chain::follow(&packet(44, &[&fragment(60, 0, true), &options(17), &UDP])).unwrap();
        assert_eq!(piece(chain), (60, 48, first));
        let chain = Chain::follow(&packet(44, &[&fragment(60, 32, false), &[0xff; 8]])).unwrap();
        assert_eq!(piece(chain), (60, 48, last));
        let ah = [44, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let chain = Chain::follow(&packet(51, &[&ah, &fragment(17, 32, false), &[1; 8]])).unwrap();
        assert_eq!(piece(chain), (17, 72, last));
        assert_eq!((chain.fragment.unwrap().named_at, chain.fragment.unwrap().at), (40, 64));
    }

    #[test]
    fn a_first_piece_without_its_upper_header_is_malformed() {
        for headers in [&[&fragment(60, 0, true)[..], &options(17)][..], &[&fragment(17, 0, true)[..], &UDP[..4]]] {
            assert_eq!(Chain::follow(&packet(44, headers)), Err(Malformed::IpHeader));
        }
    }

    #[test]
    fn a_chain_that_is_cut_off_or_out_of_order_is_malformed() {
        assert_eq!(Chain::follow(&packet(60, &[&options(0), &options(17), &UDP])), Err(Malformed::IpHeader));
        assert_eq!(Chain::follow(&packet(60, &[&[17, 9, 0, 0]])), Err(Malformed::IpHeader));
        assert_eq!(Chain::follow(&packet(44, &[&[17, 0, 0]])), Err(Malformed::IpHeader));
        assert_eq!(Chain::follow(&packet(51, &[])), Err(Malformed::IpHeader));
    }
}

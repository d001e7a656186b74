//! Sets of IP addresses as ascending disjoint ranges.

use std::net::IpAddr;

/// The number of an address: `u32` for IPv4, `u128` for IPv6.
pub trait AddressBits: Copy + Ord + std::fmt::Debug + std::hash::Hash {
    /// How many bits.
    const BITS: u32;
    /// The previous number, if any.
    fn before(self) -> Option<Self>;
    /// The next number, if any.
    fn after(self) -> Option<Self>;
    /// As 128 bits.
    fn wide(self) -> u128;
    /// From 128 bits, truncated.
    fn narrow(wide: u128) -> Self;
}

macro_rules! address_bits {
    ($type:ty) => {
        impl AddressBits for $type {
            const BITS: u32 = <$type>::BITS;
            fn before(self) -> Option<Self> {
                self.checked_sub(1)
            }
            fn after(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn wide(self) -> u128 {
                u128::from(self)
            }
            fn narrow(wide: u128) -> Self {
                wide as Self
            }
        }
    };
}

address_bits!(u32);
address_bits!(u128);

/// Ranges of addresses of one family, ascending, neither touching nor overlapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ranges<A> {
    ranges: Vec<(A, A)>,
}

impl<A> Default for Ranges<A> {
    fn default() -> Self {
        Self { ranges: Vec::new() }
    }
}

impl<A: AddressBits> Ranges<A> {
    /// The union of any ranges.
    #[must_use]
    pub fn new(mut ranges: Vec<(A, A)>) -> Self {
        ranges.retain(|(low, high)| low <= high);
        ranges.sort_unstable();
        let mut kept = 0;
        for index in 0..ranges.len() {
            let (low, high) = ranges[index];
            let touches = kept > 0 && ranges[kept - 1].1.after().is_none_or(|next| low <= next);
            if touches {
                ranges[kept - 1].1 = ranges[kept - 1].1.max(high);
            } else {
                ranges[kept] = (low, high);
                kept += 1;
            }
        }
        ranges.truncate(kept);
        ranges.shrink_to_fit();
        Self { ranges }
    }

    /// The ranges.
    #[must_use]
    pub fn ranges(&self) -> &[(A, A)] {
        &self.ranges
    }

    /// Whether `address` is in the set.
    #[must_use]
    pub fn contains(&self, address: A) -> bool {
        let after = self.ranges.partition_point(|range| range.1 < address);
        self.ranges.get(after).is_some_and(|range| range.0 <= address)
    }

    /// What is in this set but not in `other`; both are walked once.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut holes = other.ranges.iter().copied().peekable();
        for &(low, high) in &self.ranges {
            let mut from = Some(low);
            while let (Some(start), Some(&(first, last))) = (from, holes.peek()) {
                if first > high {
                    break;
                }
                if last >= start {
                    if let Some(before) = first.before().filter(|before| *before >= start) {
                        left.push((start, before));
                    }
                    from = last.after().filter(|next| *next <= high);
                }
                if last > high {
                    break;
                }
                holes.next();
            }
            if let Some(start) = from {
                left.push((start, high));
            }
        }
        Self { ranges: left }
    }

    /// Whether all of `other` is in this set; both are walked once.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mut own = self.ranges.iter().peekable();
        other.ranges.iter().all(|&(low, high)| {
            while own.next_if(|range| range.1 < low).is_some() {}
            own.peek().is_some_and(|range| range.0 <= low && high <= range.1)
        })
    }

    /// The fewest prefixes that make up the set: value and length.
    pub fn prefixes(&self) -> impl Iterator<Item = (A, u8)> + '_ {
        self.ranges.iter().flat_map(|&(low, high)| split(low, high))
    }
}

/// The prefixes of one range, in ascending order.
fn split<A: AddressBits>(low: A, high: A) -> impl Iterator<Item = (A, u8)> {
    let mut next = Some(low.wide());
    let high = high.wide();
    std::iter::from_fn(move || {
        let start = next?;
        let mut size = start.trailing_zeros().min(A::BITS);
        // The largest aligned block that does not extend beyond the range.
        while size > 0 && block_end(start, size) > high {
            size -= 1;
        }
        let end = block_end(start, size);
        next = if end >= high { None } else { Some(end + 1) };
        Some((A::narrow(start), (A::BITS - size) as u8))
    })
}

fn block_end(start: u128, size: u32) -> u128 {
    start | 1u128.checked_shl(size).map_or(u128::MAX, |block| block - 1)
}

/// Addresses of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressSet {
    /// IPv4.
    pub v4: Ranges<u32>,
    /// IPv6.
    pub v6: Ranges<u128>,
}

impl AddressSet {
    /// Whether `address` is in the set.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(address.to_bits()),
            IpAddr::V6(address) => self.v6.contains(address.to_bits()),
        }
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.ranges().is_empty() && self.v6.ranges().is_empty()
    }

    /// Whether all of `other` is in this set.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.v4.covers(&other.v4) && self.v6.covers(&other.v6)
    }
}

/// Addresses being read: ranges of both families in any order.
#[derive(Clone, Debug, Default)]
pub struct AddressCollector {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl AddressCollector {
    /// Adds ranges.
    pub fn add(&mut self, range: AddressRange) {
        match range {
            AddressRange::V4(low, high) => self.v4.push((low, high)),
            AddressRange::V6(low, high) => self.v6.push((low, high)),
        }
    }

    /// Adds a set.
    pub fn add_set(&mut self, set: &AddressSet) {
        self.v4.extend_from_slice(set.v4.ranges());
        self.v6.extend_from_slice(set.v6.ranges());
    }

    /// The union of everything added.
    #[must_use]
    pub fn finish(self) -> AddressSet {
        AddressSet { v4: Ranges::new(self.v4), v6: Ranges::new(self.v6) }
    }
}

/// A range of addresses, first and last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressRange {
    /// IPv4.
    V4(u32, u32),
    /// IPv6.
    V6(u128, u128),
}

/// Why an address, prefix or range cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// Not an address at all.
    Syntax,
    /// The prefix length is not a number up to 32 or 128.
    Length,
    /// Host bits are set; this is the prefix that was probably meant.
    HostBits(IpAddr, u8),
    /// A range that ends before it begins, or of two families.
    Order,
    /// An address with a port.
    Port,
    /// An address with a zone (`%eth0`).
    Zone,
}

/// What was read, with remarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The addresses.
    pub range: AddressRange,
    /// They were written in the IPv6 form of IPv4 (`::ffff:192.0.2.1`), which no packet has.
    pub mapped: bool,
    /// The last group of the IPv6 address is a well-known port, as if a port had been appended without brackets.
    pub port_like: bool,
}

/// Ports that people often append to addresses.
const PORTS: [&str; 14] =
    ["22", "25", "53", "80", "123", "143", "443", "587", "853", "993", "3389", "5060", "8080", "8443"];

/// IPv4 in IPv6 form: `::ffff:0:0/96` (RFC 4291 section 2.5.5.2).
const MAPPED: u128 = 0xffff_0000_0000;

/// Reads `192.0.2.1`, `192.0.2.0/24`, `192.0.2.0/255.255.255.0`, `192.0.2.1-192.0.2.9` and the same for IPv6; anything
/// entirely within IPv4 in IPv6 form becomes IPv4.
///
/// # Errors
/// [`AddressError`].
pub fn parse(text: &str) -> Result<Parsed, AddressError> {
    let range = as_written(text).map_err(|error| match error {
        AddressError::Syntax if has_port(text) => AddressError::Port,
        AddressError::Syntax if text.split_once('%').is_some_and(|(address, _)| is_v6(address)) => AddressError::Zone,
        AddressError::HostBits(IpAddr::V6(network), length) => match unmapped_prefix(network.to_bits(), length) {
            Some((network, length)) => AddressError::HostBits(IpAddr::V4(network.into()), length),
            None => error,
        },
        other => other,
    })?;
    let port_like = match (range, text.split_once("::")) {
        (AddressRange::V6(low, high), Some((_, rest))) if low == high => {
            rest.rsplit_once(':').is_some_and(|(before, last)| !before.is_empty() && PORTS.contains(&last))
        }
        _ => false,
    };
    Ok(match range {
        AddressRange::V6(low, high) if low >> 32 == MAPPED >> 32 && high >> 32 == MAPPED >> 32 => {
            Parsed { range: AddressRange::V4(low as u32, high as u32), mapped: true, port_like: false }
        }
        range => Parsed { range, mapped: false, port_like },
    })
}

/// As [`parse`], without remarks.
///
/// # Errors
/// [`AddressError`].
pub fn parse_range(text: &str) -> Result<AddressRange, AddressError> {
    parse(text).map(|parsed| parsed.range)
}

fn is_v6(text: &str) -> bool {
    text.trim_start_matches('[').trim().parse::<std::net::Ipv6Addr>().is_ok()
}

/// `192.0.2.1:80`, `[2001:db8::1]:80`, or eight groups and one more.
fn has_port(text: &str) -> bool {
    let behind = |(address, port): (&str, &str)| is_v6(address) && port.parse::<u16>().is_ok();
    text.parse::<std::net::SocketAddr>().is_ok() || text.rsplit_once(':').is_some_and(behind)
}

fn unmapped_prefix(network: u128, length: u8) -> Option<(u32, u8)> {
    (length >= 96 && network >> 32 == MAPPED >> 32).then(|| (network as u32, length - 96))
}

fn as_written(text: &str) -> Result<AddressRange, AddressError> {
    if let Some((address, length)) = text.split_once('/') {
        let address: IpAddr = address.trim().parse().map_err(|_| AddressError::Syntax)?;
        let length = prefix_length(address, length.trim())?;
        let range = prefix(address, length);
        let low = match range {
            AddressRange::V4(low, _) => IpAddr::V4(low.into()),
            AddressRange::V6(low, _) => IpAddr::V6(low.into()),
        };
        return if low == address { Ok(range) } else { Err(AddressError::HostBits(low, length)) };
    }
    if let Some((low, high)) = text.split_once('-') {
        let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| AddressError::Syntax);
        return match (parse(low)?, parse(high)?) {
            (IpAddr::V4(low), IpAddr::V4(high)) if low <= high => Ok(AddressRange::V4(low.to_bits(), high.to_bits())),
            (IpAddr::V6(low), IpAddr::V6(high)) if low <= high => Ok(AddressRange::V6(low.to_bits(), high.to_bits())),
            _ => Err(AddressError::Order),
        };
    }
    match text.parse::<IpAddr>().map_err(|_| AddressError::Syntax)? {
        IpAddr::V4(address) => Ok(AddressRange::V4(address.to_bits(), address.to_bits())),
        IpAddr::V6(address) => Ok(AddressRange::V6(address.to_bits(), address.to_bits())),
    }
}

/// All addresses that share the first `length` bits of `address`.
#[must_use]
pub fn prefix(address: IpAddr, length: u8) -> AddressRange {
    match address {
        IpAddr::V4(address) => {
            let rest = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            AddressRange::V4(address.to_bits() & !rest, address.to_bits() | rest)
        }
        IpAddr::V6(address) => {
            let rest = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            AddressRange::V6(address.to_bits() & !rest, address.to_bits() | rest)
        }
    }
}

fn prefix_length(address: IpAddr, text: &str) -> Result<u8, AddressError> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    if let Ok(length) = text.parse::<u8>() {
        return if length <= bits { Ok(length) } else { Err(AddressError::Length) };
    }
    // A netmask in dotted form, as Windows writes it.
    match (address, text.parse::<std::net::Ipv4Addr>()) {
        (IpAddr::V4(_), Ok(mask)) if mask.to_bits().leading_ones() + mask.to_bits().trailing_zeros() >= 32 => {
            Ok(mask.to_bits().leading_ones() as u8)
        }
        _ => Err(AddressError::Length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_make_up_the_range() {
        let ranges = Ranges::<u32>::new(vec![(1, 10), (0xffff_fff0, u32::MAX)]);
        let prefixes: Vec<_> = ranges.prefixes().collect();
        assert_eq!(prefixes, [(1, 32), (2, 31), (4, 30), (8, 31), (10, 32), (0xffff_fff0, 28)]);
        assert_eq!(Ranges::<u128>::new(vec![(0, u128::MAX)]).prefixes().collect::<Vec<_>>(), [(0, 0)]);
        assert_eq!(Ranges::<u32>::new(vec![(0, u32::MAX)]).prefixes().collect::<Vec<_>>(), [(0, 0)]);
    }

    #[test]
    fn takes_away_across_ranges() {
        let own = Ranges::<u32>::new(vec![(0, 10), (20, 30), (40, u32::MAX)]);
        let other = Ranges::<u32>::new(vec![(5, 25), (28, 28), (41, 50), (100, u32::MAX)]);
        assert_eq!(own.without(&other).ranges(), [(0, 4), (26, 27), (29, 30), (40, 40), (51, 99)]);
    }

    #[test]
    fn reads_every_form() {
        assert_eq!(parse_range("10.0.0.0/8"), Ok(AddressRange::V4(0x0a00_0000, 0x0aff_ffff)));
        assert_eq!(parse_range("10.0.0.0/255.255.0.0"), Ok(AddressRange::V4(0x0a00_0000, 0x0a00_ffff)));
        assert_eq!(parse_range("::/0"), Ok(AddressRange::V6(0, u128::MAX)));
        assert_eq!(parse_range("10.0.0.1 - 10.0.0.3"), Ok(AddressRange::V4(0x0a00_0001, 0x0a00_0003)));
        assert_eq!(parse_range("10.0.0.1/8"), Err(AddressError::HostBits("10.0.0.0".parse().unwrap(), 8)));
        assert_eq!(parse_range("10.0.0.0/33"), Err(AddressError::Length));
        assert_eq!(parse_range("10.0.0.9-10.0.0.1"), Err(AddressError::Order));
        assert_eq!(parse_range("10.0.0.9-::1"), Err(AddressError::Order));
        assert_eq!(parse_range("10.0.0"), Err(AddressError::Syntax));
    }

    #[test]
    fn ipv4_in_ipv6_form_is_ipv4() {
        let v4 = |low, high| Ok(Parsed { range: AddressRange::V4(low, high), mapped: true, port_like: false });
        assert_eq!(parse("::ffff:10.0.0.1"), v4(0x0a00_0001, 0x0a00_0001));
        assert_eq!(parse("::FFFF:0a00:0/104"), v4(0x0a00_0000, 0x0aff_ffff));
        assert_eq!(parse("::ffff:0:0/96"), v4(0, u32::MAX));
        assert_eq!(parse("::ffff:10.0.0.1-::ffff:10.0.0.3"), v4(0x0a00_0001, 0x0a00_0003));
        assert_eq!(parse("::ffff:10.0.0.1/104"), Err(AddressError::HostBits("10.0.0.0".parse().unwrap(), 8)));
        // A range that also has other addresses stays as it is.
        assert_eq!(parse_range("::/64"), Ok(AddressRange::V6(0, u128::from(u64::MAX))));
    }

    #[test]
    fn ports_and_zones_are_told() {
        for text in ["10.0.0.1:80", "[2001:db8::1]:443", "2001:db8:0:0:0:0:0:1:443"] {
            assert_eq!(parse(text), Err(AddressError::Port), "{text}");
        }
        for text in ["fe80::1%eth0", "fe80::1%12", "fe80::%3/64"] {
            assert_eq!(parse(text), Err(AddressError::Zone), "{text}");
        }
        for (text, port_like) in [("2001:db8::1:443", true), ("2001:db8::443", false), ("2001:db8::1:444", false)] {
            assert_eq!(parse(text).map(|parsed| parsed.port_like), Ok(port_like), "{text}");
        }
    }
}

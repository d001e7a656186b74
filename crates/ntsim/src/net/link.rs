//! Addresses and routes, through rtnetlink.

use super::error::NetError;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses: `203.0.113.0/24`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// An address of the range.
    pub address: IpAddr,
    /// How many leading bits its addresses share.
    pub length: u8,
}

impl Prefix {
    /// Whether `address` is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(32 - u32::from(self.length)).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(128 - u32::from(self.length)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// The range's first address.
    fn network(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => {
                IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0)).into())
            }
            IpAddr::V6(v6) => {
                IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0)).into())
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A text that is not a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an IP address or prefix; write e.g. 203.0.113.10, 203.0.113.0/24 or 2001:db8::/32")]
pub struct BadPrefix(String);

impl FromStr for Prefix {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<Self, BadPrefix> {
        let bad = || BadPrefix(text.to_owned());
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(bits), str::parse).map_err(|_| bad())?;
        if length > bits { Err(bad()) } else { Ok(Self { address, length }) }
    }
}

/// An rtnetlink socket, in the network namespace of the thread that opened it.
pub struct Links {
    socket: Socket,
    sequence: u32,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Links {
    /// Opens the socket.
    ///
    /// # Errors
    /// When the kernel refuses a netlink socket.
    pub fn open() -> Result<Self, NetError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = open().map_err(NetError::system("open a netlink socket"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Brings an interface up, without multicast, so that only what programs send crosses it.
    ///
    /// # Errors
    /// [`NetError::Link`] with the kernel's error.
    pub fn up(&mut self, name: &str) -> Result<u32, NetError> {
        let index = index_of(name).map_err(|source| link_error(format!("find interface {name}"), source))?;
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up | LinkFlags::Multicast;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.ask(RouteNetlinkMessage::SetLink(message), 0)
            .map_err(|source| link_error(format!("bring interface {name} up"), source))?;
        Ok(index)
    }

    /// Gives an interface an address, usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// [`NetError::Link`] with the kernel's error.
    pub fn add_address(&mut self, index: u32, address: Prefix) -> Result<(), NetError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.address);
        message.header.prefix_len = address.length;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Address(address.address));
        message.attributes.push(AddressAttribute::Local(address.address));
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        self.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(|source| link_error(format!("add address {address}"), source))
    }

    /// Makes an interface the default route of an address family.
    ///
    /// # Errors
    /// [`NetError::Link`] with the kernel's error.
    pub fn add_default_route(&mut self, index: u32, family_of: IpAddr) -> Result<(), NetError> {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(family_of),
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Static,
            scope: RouteScope::Link,
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        message.attributes.push(RouteAttribute::Oif(index));
        self.ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(|source| link_error("add a default route".to_owned(), source))
    }

    /// Makes every address of a range local to this network.
    ///
    /// # Errors
    /// [`NetError::Link`] with the kernel's error.
    pub fn answer_for(&mut self, loopback: u32, range: Prefix) -> Result<(), NetError> {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(range.address),
            destination_prefix_length: range.length,
            table: libc::RT_TABLE_LOCAL,
            protocol: RouteProtocol::Static,
            scope: RouteScope::Host,
            kind: RouteType::Local,
            ..RouteHeader::default()
        };
        message.attributes.push(RouteAttribute::Destination(range.network().into()));
        message.attributes.push(RouteAttribute::Oif(loopback));
        self.ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(|source| link_error(format!("answer for {range}"), source))
    }

    /// Sends one request and waits for the kernel's answer.
    pub(super) fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answer = vec![0; 8192];
        let len = self.socket.recv(&mut &mut answer[..], 0)?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer[..len]).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) => error.code.map_or(Ok(()), |_| Err(error.to_io())),
            _ => Err(io::Error::other("unexpected netlink answer")),
        }
    }
}

pub(super) fn link_error(what: String, source: io::Error) -> NetError {
    NetError::Link { what, source }
}

const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// The index of an interface in this thread's namespace.
fn index_of(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Sets a sysctl of this thread's network namespace.
///
/// # Errors
/// [`NetError::Link`]: where /proc/sys is read-only the kernel's default stays.
pub fn try_sysctl(name: &str, value: &str) -> Result<(), NetError> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::write(&path, value).map_err(|source| link_error(format!("write {value} to {path}"), source))
}

/// Sets a sysctl of this thread's network namespace, where it can be set.
pub fn sysctl(name: &str, value: &str) {
    if let Err(error) = try_sysctl(name, value) {
        tracing::debug!(%error, "sysctl");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_and_hold_what_they_should() {
        let prefix: Prefix = "203.0.113.0/24".parse().unwrap();
        assert!(prefix.contains("203.0.113.255".parse().unwrap()));
        assert!(!prefix.contains("203.0.114.0".parse().unwrap()));
        assert!(!prefix.contains("2001:db8::1".parse().unwrap()));
        let one: Prefix = "2001:db8::10".parse().unwrap();
        assert_eq!(one.length, 128);
        assert!(one.contains("2001:db8::10".parse().unwrap()) && !one.contains("2001:db8::11".parse().unwrap()));
        let all: Prefix = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.1.2.3".parse().unwrap()));
        assert_eq!("198.51.100.77/24".parse::<Prefix>().unwrap().network().to_string(), "198.51.100.0");
        for bad in ["", "1.2.3", "1.2.3.4/33", "::/129", "::/x", "a.b.c.d/8"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }
}

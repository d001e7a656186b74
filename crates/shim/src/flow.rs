//! Flows: who talks to whom, and which process it is on this machine.

use super::layer::{Direction, IpVersion};
use super::packet::{Packet, Upper, protocol};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The key of an ALE flow.
///
/// The five-tuple; for ICMP the type, the code and, in echo messages, the identifier take the place of the ports.
/// Source: "ALE Stateful Filtering", win32 desktop-src/FWP/ale-stateful-filtering.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    local: u128,
    remote: u128,
    /// Local port, or the ICMP type of a flow's requests.
    pub local_port: u16,
    /// Remote port, or the ICMP code.
    pub remote_port: u16,
    icmp_id: u16,
    /// The upper-layer protocol.
    pub protocol: u8,
    v6: bool,
}

/// A local endpoint, on any of the machine's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalEndpoint {
    port: u16,
    icmp_id: u16,
    protocol: u8,
    v6: bool,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl FlowKey {
    /// The flow that `packet` belongs to when it travels in `direction`.
    #[must_use]
    pub fn of(packet: &Packet, direction: Direction) -> Self {
        let (local, remote) = match direction {
            Direction::Outbound => (packet.source, packet.destination),
            Direction::Inbound => (packet.destination, packet.source),
        };
        let (source_port, destination_port) = packet.ports();
        let mut icmp_id = 0;
        let (local_port, remote_port) = match (packet.upper, direction) {
            (Upper::Icmp(icmp), _) => {
                // A reply belongs to the flow of its request, in either direction.
                icmp_id = icmp.echo.map_or(0, |(id, _)| id);
                (u16::from(request_type(packet.protocol, icmp.kind)), u16::from(icmp.code))
            }
            (_, Direction::Outbound) => (source_port, destination_port),
            (_, Direction::Inbound) => (destination_port, source_port),
        };
        Self {
            local: bits(local),
            remote: bits(remote),
            local_port,
            remote_port,
            icmp_id,
            protocol: packet.protocol,
            v6: packet.version() == IpVersion::V6,
        }
    }

    /// The key of a socket that has no other side yet.
    #[must_use]
    pub fn of_socket(protocol: u8, local: SocketAddr) -> Self {
        let v6 = local.is_ipv6();
        Self { local: bits(local.ip()), remote: 0, local_port: local.port(), remote_port: 0, icmp_id: 0, protocol, v6 }
    }

    /// The same flow with other endpoints; `None` when they are of another IP version.
    #[must_use]
    pub fn between(&self, local: SocketAddr, remote: SocketAddr) -> Option<Self> {
        (local.is_ipv6() == self.v6 && remote.is_ipv6() == self.v6).then_some(Self {
            local: bits(local.ip()),
            remote: bits(remote.ip()),
            local_port: local.port(),
            remote_port: remote.port(),
            ..*self
        })
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub const fn version(&self) -> IpVersion {
        if self.v6 { IpVersion::V6 } else { IpVersion::V4 }
    }

    const fn address(&self, bits: u128) -> IpAddr {
        if self.v6 {
            IpAddr::V6(std::net::Ipv6Addr::from_bits(bits))
        } else {
            IpAddr::V4(std::net::Ipv4Addr::from_bits(bits as u32))
        }
    }

    /// This machine's address.
    #[must_use]
    pub const fn local(&self) -> IpAddr {
        self.address(self.local)
    }

    /// The other side's address.
    #[must_use]
    pub const fn remote(&self) -> IpAddr {
        self.address(self.remote)
    }

    /// The identifier of an ICMP echo flow, else 0.
    #[must_use]
    pub const fn icmp_id(&self) -> u16 {
        self.icmp_id
    }

    /// The local endpoint without its address, which identifies an answer to a multicast or broadcast.
    #[must_use]
    pub const fn local_endpoint(&self) -> LocalEndpoint {
        LocalEndpoint { port: self.local_port, icmp_id: self.icmp_id, protocol: self.protocol, v6: self.v6 }
    }

    /// A hash that is equal for both directions of the flow, to spread flows over processors.
    #[must_use]
    pub fn spread(&self) -> u64 {
        let ports = u64::from(self.local_port) ^ u64::from(self.remote_port);
        let folded = self.local ^ self.remote;
        (folded as u64 ^ (folded >> 64) as u64 ^ ports).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
    }
}

/// The ICMP type of the request that a reply of type `kind` answers; any other type is unchanged.
const fn request_type(protocol: u8, kind: u8) -> u8 {
    match (protocol, kind) {
        (protocol::ICMP, 0) => 8,
        (protocol::ICMP, 14 | 16 | 18) => kind - 1,
        (protocol::ICMPV6, 129) => 128,
        _ => kind,
    }
}

/// The process behind a local endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process identifier.
    pub pid: u32,
    /// The user it runs as.
    pub uid: Option<u32>,
    /// The executable as an NT path in lower case, without the terminating NUL: what `ALE_APP_ID` carries.
    pub app_id: Arc<str>,
}

/// Finds the process behind a local endpoint.
pub trait Endpoints {
    /// The owner of the local side of this flow; `None` when it has no owner any more or the owner is unknown.
    fn owner(&mut self, key: &FlowKey) -> Option<Arc<Owner>>;

    /// Whether an address is one of this machine's.
    fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback()
    }

    /// Keeps those of these UDP flows whose socket is closed.
    fn retain_closed(&mut self, flows: &mut Vec<FlowKey>) {
        flows.clear();
    }

    /// Whether there is a socket that a packet of this flow from the other side would reach.
    fn is_open(&mut self, _: &FlowKey) -> bool {
        true
    }

    /// Where the socket that a flow from the other side would reach is bound: its address may be the unspecified one.
    /// `None` when that is not known: then nothing is said of its bind() and listen().
    fn waiting(&mut self, _: &FlowKey) -> Option<SocketAddr> {
        None
    }

    /// Whether a socket of which [`Endpoints::waiting`] told still waits there.
    fn is_waiting(&mut self, _protocol: u8, _local: SocketAddr) -> bool {
        true
    }
}

/// No processes: for captures.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEndpoints;

impl Endpoints for NoEndpoints {
    fn owner(&mut self, _: &FlowKey) -> Option<Arc<Owner>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn packet(build: impl FnOnce(&mut Vec<u8>)) -> Packet {
        let mut bytes = Vec::new();
        build(&mut bytes);
        Packet::parse(&bytes).unwrap()
    }

    #[test]
    fn both_directions_share_a_key() {
        let there =
            packet(|b| PacketBuilder::ipv4([10, 0, 0, 1], [1, 1, 1, 1], 64).udp(5000, 53).write(b, &[]).unwrap());
        let back =
            packet(|b| PacketBuilder::ipv4([1, 1, 1, 1], [10, 0, 0, 1], 64).udp(53, 5000).write(b, &[]).unwrap());
        let key = FlowKey::of(&there, Direction::Outbound);
        assert_eq!(key, FlowKey::of(&back, Direction::Inbound));
        assert_eq!((key.local().to_string(), key.local_port), ("10.0.0.1".into(), 5000));
        assert_eq!((key.remote().to_string(), key.remote_port), ("1.1.1.1".into(), 53));
        assert_eq!(key.spread(), FlowKey::of(&there, Direction::Inbound).spread());
    }

    #[test]
    fn an_echo_reply_belongs_to_its_request() {
        let there =
            packet(|b| PacketBuilder::ipv6([1; 16], [2; 16], 9).icmpv6_echo_request(7, 1).write(b, &[]).unwrap());
        let back = packet(|b| PacketBuilder::ipv6([2; 16], [1; 16], 9).icmpv6_echo_reply(7, 1).write(b, &[]).unwrap());
        let other = packet(|b| PacketBuilder::ipv6([2; 16], [1; 16], 9).icmpv6_echo_reply(8, 1).write(b, &[]).unwrap());
        let key = FlowKey::of(&there, Direction::Outbound);
        assert_eq!(key, FlowKey::of(&back, Direction::Inbound));
        assert_ne!(key, FlowKey::of(&other, Direction::Inbound), "another identifier makes another flow");
    }

    #[test]
    fn v4_and_v6_of_the_same_number_differ() {
        let v4 = packet(|b| PacketBuilder::ipv4([0, 0, 0, 1], [0, 0, 0, 2], 64).udp(1, 2).write(b, &[]).unwrap());
        let mut low = [0; 16];
        low[15] = 1;
        let mut high = [0; 16];
        high[15] = 2;
        let v6 = packet(|b| PacketBuilder::ipv6(low, high, 64).udp(1, 2).write(b, &[]).unwrap());
        assert_ne!(FlowKey::of(&v4, Direction::Outbound), FlowKey::of(&v6, Direction::Outbound));
    }
}

//! What a default never decides: traffic without which a network breaks in ways that nobody traces to a firewall.
//!
//! The model is Windows' own Core Networking rules. A rule that matches decides such a flow like any other; only where
//! none does, and the policy does not say `essential = false`, it is permitted (soft) whatever the default says.

use crate::flow::{Direction, Flow, Sid};
use core::net::IpAddr;

/// Why a flow is beyond the reach of a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Essential {
    /// ICMP says what became of a packet: unreachable (path MTU discovery among it), too big, time exceeded, parameter
    /// problem. Windows hears such a message only if the packet that it quotes is of a flow that it knows.
    IcmpError,
    /// Router and neighbour solicitation and advertisement, and redirect (ICMPv6 133 to 137). Windows refuses those that
    /// a router has passed on.
    NeighbourDiscovery,
    /// Which IPv6 groups a link has listeners of (ICMPv6 130 to 132, and 143).
    MulticastListenerDiscovery,
    /// The same for IPv4 (protocol 2).
    Igmp,
    /// From this machine to itself.
    Loopback,
    /// How the machine gets its addresses: UDP 68 to 67, in IPv6 546 to 547, by an account of the system. To bind the
    /// client's port is part of it.
    Dhcp,
    /// A port that the system chose, for a program that named none: what every connection that this machine opens begins
    /// with, and which is decided then.
    ChosenPort,
}

impl Essential {
    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IcmpError => "ICMP error",
            Self::NeighbourDiscovery => "neighbour discovery",
            Self::MulticastListenerDiscovery => "multicast listener discovery",
            Self::Igmp => "IGMP",
            Self::Loopback => "loopback",
            Self::Dhcp => "DHCP",
            Self::ChosenPort => "port chosen by the system",
        }
    }

    /// Why this flow is; `None` for one that a default may decide.
    #[must_use]
    pub fn of(flow: &Flow<'_>) -> Option<Self> {
        match flow.direction {
            Direction::Outbound | Direction::Inbound => {}
            Direction::Forward => return None, // it is not this machine's
            Direction::Listen | Direction::Bind => return Self::of_endpoint(flow),
        }
        let of_protocol = match (flow.protocol, flow.remote, flow.local) {
            (1, IpAddr::V4(_), _) if matches!(flow.local_port, 3 | 11 | 12) => Some(Self::IcmpError),
            (2, IpAddr::V4(_), _) => Some(Self::Igmp),
            (58, IpAddr::V6(_), _) => match flow.local_port {
                1..=4 => Some(Self::IcmpError),
                130..=132 | 143 => Some(Self::MulticastListenerDiscovery),
                133..=137 => Some(Self::NeighbourDiscovery),
                _ => None,
            },
            (17, IpAddr::V4(_), IpAddr::V4(_)) => dhcp(flow, 68, 67),
            (17, IpAddr::V6(_), IpAddr::V6(_)) => dhcp(flow, 546, 547),
            _ => None,
        };
        of_protocol.or_else(|| is_loopback(flow).then_some(Self::Loopback))
    }
}

impl Essential {
    /// The same of what a program asks of this machine alone. What it may do with a port that the system chose, or within
    /// the machine, is decided when it does it.
    fn of_endpoint(flow: &Flow<'_>) -> Option<Self> {
        if flow.local.to_canonical().is_loopback() {
            return Some(Self::Loopback);
        }
        match (flow.direction, flow.protocol, flow.local, flow.local_port) {
            (Direction::Bind, 17, IpAddr::V4(_), 68) | (Direction::Bind, 17, IpAddr::V6(_), 546) => of_system(flow),
            (Direction::Bind, 6 | 17, ..) if flow.port_chosen => Some(Self::ChosenPort),
            _ => None,
        }
    }
}

/// Any program may bind the client's port, so where the owner is known it must be the system: the DHCP client runs as
/// LOCAL SERVICE.
fn dhcp(flow: &Flow<'_>, client: u16, server: u16) -> Option<Essential> {
    if (flow.local_port, flow.remote_port) != (client, server) {
        return None;
    }
    of_system(flow)
}

fn of_system(flow: &Flow<'_>) -> Option<Essential> {
    let (mut known, mut of_system) = (false, false);
    flow.identities(&mut |sid| {
        known = true;
        of_system |= is_of_system(sid);
    });
    (of_system || !known).then_some(Essential::Dhcp)
}

/// SYSTEM, LOCAL SERVICE and NETWORK SERVICE: S-1-5-18 to 20.
fn is_of_system(sid: Sid<'_>) -> bool {
    matches!(sid.0, [1, 1, 0, 0, 0, 0, 0, 5, 18..=20, 0, 0, 0])
}

/// As the layer tells; by its addresses where none does.
fn is_loopback(flow: &Flow<'_>) -> bool {
    flow.loopback.unwrap_or_else(|| {
        let (remote, local) = (flow.remote.to_canonical(), flow.local.to_canonical());
        remote.is_loopback() || (remote == local && !remote.is_unspecified())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Direction, Identities};

    fn flow(protocol: u8, local: &str, local_port: u16, remote: &str, remote_port: u16) -> Flow<'static> {
        let [local, remote] = [local, remote].map(|address| address.parse::<IpAddr>().unwrap());
        Flow::new(Direction::Inbound, protocol, local, local_port, remote, remote_port)
    }

    fn icmp(kind: u16) -> Option<Essential> {
        Essential::of(&flow(1, "10.0.0.5", kind, "192.0.2.1", 0))
    }

    fn icmp6(kind: u16) -> Option<Essential> {
        Essential::of(&flow(58, "fe80::5", kind, "fe80::1", 0))
    }

    #[test]
    fn icmp_errors_are_and_echoes_and_redirects_of_ipv4_are_not() {
        let essential: Vec<u16> = (0..256).filter(|kind| icmp(*kind).is_some()).collect();
        assert_eq!(essential, [3, 11, 12]);
        assert!(essential.iter().all(|kind| icmp(*kind) == Some(Essential::IcmpError)));
    }

    #[test]
    fn of_icmpv6_errors_neighbours_and_listeners_are() {
        let of = |wanted| -> Vec<u16> { (0..256).filter(|kind| icmp6(*kind) == Some(wanted)).collect() };
        assert_eq!(of(Essential::IcmpError), [1, 2, 3, 4]);
        assert_eq!(of(Essential::MulticastListenerDiscovery), [130, 131, 132, 143]);
        assert_eq!(of(Essential::NeighbourDiscovery), [133, 134, 135, 136, 137]);
        assert_eq!((0..256).filter(|kind| icmp6(*kind).is_some()).count(), 13);
    }

    #[test]
    fn a_protocol_of_the_other_family_is_none_of_them() {
        assert_eq!(Essential::of(&flow(1, "fe80::5", 3, "fe80::1", 0)), None);
        assert_eq!(Essential::of(&flow(2, "fe80::5", 0, "fe80::1", 0)), None);
        assert_eq!(Essential::of(&flow(58, "10.0.0.5", 134, "192.0.2.1", 0)), None);
        assert_eq!(Essential::of(&flow(17, "10.0.0.5", 546, "192.0.2.1", 547)), None);
        assert_eq!(Essential::of(&flow(17, "fe80::5", 68, "fe80::1", 67)), None);
    }

    #[test]
    fn igmp_is() {
        assert_eq!(Essential::of(&flow(2, "10.0.0.5", 0, "224.0.0.22", 0)), Some(Essential::Igmp));
    }

    /// Whoever has these SIDs.
    #[derive(Debug)]
    struct Token(&'static [[u8; 12]]);

    impl Identities for Token {
        fn each(&self, visit: &mut dyn FnMut(Sid<'_>)) {
            self.0.iter().for_each(|sid| visit(Sid(sid)));
        }
    }

    #[test]
    fn dhcp_is_by_the_system_or_by_whom_nobody_knows() {
        const EVERYONE: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        const LOCAL_SERVICE: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 5, 19, 0, 0, 0];
        let client = flow(17, "0.0.0.0", 68, "255.255.255.255", 67);
        assert_eq!(Essential::of(&client), Some(Essential::Dhcp));
        assert_eq!(Essential::of(&client.with_others(&Token(&[EVERYONE, LOCAL_SERVICE]))), Some(Essential::Dhcp));
        assert_eq!(Essential::of(&client.with_others(&Token(&[EVERYONE]))), None);
        assert_eq!(Essential::of(&flow(17, "fe80::5", 546, "ff02::1:2", 547)), Some(Essential::Dhcp));
        assert_eq!(Essential::of(&flow(17, "10.0.0.5", 67, "10.0.0.9", 68)), None, "a server");
        assert_eq!(Essential::of(&flow(6, "10.0.0.5", 68, "10.0.0.9", 67)), None, "not of TCP");
    }

    #[test]
    fn of_ports_those_within_the_machine_the_dhcp_clients_and_the_systems_choice_are() {
        let of = |direction, protocol, local: &str, port| {
            let flow = Flow::of_endpoint(direction, protocol, local.parse().unwrap(), port);
            [flow, flow.with_port_chosen(true)].map(|flow| Essential::of(&flow))
        };
        use Direction::{Bind, Listen};
        for direction in [Listen, Bind] {
            for local in ["127.0.0.1", "::1", "::ffff:127.0.0.9"] {
                assert_eq!(of(direction, 6, local, 80), [Some(Essential::Loopback); 2], "{local}");
            }
        }
        for local in ["0.0.0.0", "10.0.0.5", "::", "2001:db8::5"] {
            assert_eq!(of(Listen, 6, local, 80), [None; 2], "who listens was decided nowhere before");
            assert_eq!(of(Bind, 6, local, 50_000), [None, Some(Essential::ChosenPort)]);
            assert_eq!(of(Bind, 17, local, 50_000), [None, Some(Essential::ChosenPort)]);
            assert_eq!(of(Bind, 1, local, 0), [None; 2], "a raw socket has no port");
        }
        assert_eq!(of(Bind, 17, "0.0.0.0", 68), [Some(Essential::Dhcp); 2]);
        assert_eq!(of(Bind, 17, "::", 546), [Some(Essential::Dhcp); 2]);
        assert_eq!(
            (of(Bind, 17, "::", 68)[0], of(Bind, 6, "0.0.0.0", 68)[0], of(Bind, 17, "0.0.0.0", 67)[0]),
            (None, None, None)
        );
    }

    #[test]
    fn loopback_is_as_the_layer_tells_else_by_its_addresses() {
        for (local, remote, loopback) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("10.0.0.5", "127.8.9.1", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
            ("10.0.0.5", "10.0.0.5", true),
            ("10.0.0.5", "10.0.0.6", false),
            ("0.0.0.0", "0.0.0.0", false),
        ] {
            let flow = flow(6, local, 50_000, remote, 80);
            assert_eq!(Essential::of(&flow), loopback.then_some(Essential::Loopback), "{local} to {remote}");
            assert_eq!(Essential::of(&flow.with_loopback(false)), None);
            assert_eq!(Essential::of(&flow.with_loopback(true)), Some(Essential::Loopback));
        }
    }
}

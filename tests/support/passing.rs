//! What passes a machine at a moment: essential traffic, which must pass always, and what a policy decides about.
#![allow(dead_code, unreachable_pub, reason = "every test program uses a part of this")]

use std::net::Ipv6Addr;

use etherparse::{Icmpv6Type, PacketBuilder};
use ntsim::host::{LocalHost, Stage};
use shim::{layer::Direction, stack::Verdict};
use sluice_control::objects::{Fail, Prefix};

use crate::wire::{Wire, udp};

/// Permits what is asked for below, but for two addresses.
pub const POLICY: &str = r#"
[default]
outbound = "permit"
inbound = "block"
forward = "block"

[[rule]]
name = "quarantine"
action = "block"
remote = ["203.0.113.66", "2001:db8:1::66"]
"#;
/// The network from which the machine is administered, and an address in it.
pub const MANAGEMENT: [&str; 2] = ["198.51.100.0/24", "2001:db8:5::/48"];
pub const MANAGER: [&str; 2] = ["198.51.100.7", "2001:db8:5::7"];
pub const PERMITTED: [&str; 2] = ["203.0.113.10", "2001:db8:1::10"];
pub const FORBIDDEN: [&str; 2] = ["203.0.113.66", "2001:db8:1::66"];

pub fn closed() -> Fail {
    let prefix = |text: &str| text.parse::<Prefix>().expect("a network");
    Fail::Closed { management: MANAGEMENT.map(prefix).to_vec() }
}

/// What passes at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passing {
    pub permitted: bool,
    pub forbidden: bool,
    pub manager: bool,
    pub forwarded: bool,
}

/// Nothing but what stays reachable.
pub const ESSENTIAL: Passing = Passing { permitted: false, forbidden: false, manager: true, forwarded: false };
/// As the policy says.
pub const BY_POLICY: Passing = Passing { permitted: true, forbidden: false, manager: true, forwarded: false };
/// As without a driver.
pub const ALL: Passing = Passing { permitted: true, forbidden: true, manager: true, forwarded: true };

/// Tries new connections, datagrams and passing on, over IPv4 and IPv6. What is essential must pass whatever happens.
pub fn passes(host: &LocalHost) -> Passing {
    let mut wire = Wire::new(host.machine());
    essentials(&mut wire);
    let mut to = |addresses: [&str; 2]| {
        let tries = addresses.map(|address| {
            let (verdict, _) = wire.connect(address, 443);
            let datagram = wire.pass(&udp(address, 4433, Direction::Outbound, b"?"), Direction::Outbound).verdict;
            assert_eq!(verdict == Verdict::Forward, datagram == Verdict::Forward, "{address}");
            verdict == Verdict::Forward
        });
        assert_eq!(tries[0], tries[1], "{addresses:?}");
        tries[0]
    };
    let (permitted, forbidden, manager) = (to(PERMITTED), to(FORBIDDEN), to(MANAGER));
    let mut packet = Vec::new();
    let step = PacketBuilder::ipv4([192, 0, 2, 1], [203, 0, 113, 10], 64).udp(1, 2);
    step.write(&mut packet, b"?").unwrap();
    let forwarded = wire.forward(&packet).verdict == Verdict::Forward;
    wire.finish();
    Passing { permitted, forbidden, manager, forwarded }
}

/// DHCP, neighbour discovery and loopback.
fn essentials(wire: &mut Wire) {
    let link: Ipv6Addr = "fe80::5".parse().unwrap();
    let mut discover = Vec::new();
    PacketBuilder::ipv4([0; 4], [255; 4], 64).udp(68, 67).write(&mut discover, b"discover").unwrap();
    let mut solicit = Vec::new();
    let servers: Ipv6Addr = "ff02::1:2".parse().unwrap();
    PacketBuilder::ipv6(link.octets(), servers.octets(), 1).udp(546, 547).write(&mut solicit, b"solicit").unwrap();
    let mut neighbour = Vec::new();
    let group: Ipv6Addr = "ff02::1:ff00:1".parse().unwrap();
    let kind = Icmpv6Type::Unknown { type_u8: 135, code_u8: 0, bytes5to8: [0; 4] };
    PacketBuilder::ipv6(link.octets(), group.octets(), 255).icmpv6(kind).write(&mut neighbour, &[0; 16]).unwrap();
    let mut own = Vec::new();
    PacketBuilder::ipv4([127, 0, 0, 1], [127, 0, 0, 1], 64).udp(5000, 5001).write(&mut own, b"self").unwrap();
    for (what, packet) in
        [("DHCP", discover), ("DHCPv6", solicit), ("a neighbour solicitation", neighbour), ("loopback", own)]
    {
        assert_eq!(wire.pass(&packet, Direction::Outbound).verdict, Verdict::Forward, "{what}");
    }
}

/// What passes at each stage of the machine's start, the first before any driver is loaded.
pub fn stages(host: &LocalHost) -> (LocalHost, Vec<(Option<Stage>, Passing)>) {
    let mut boot = host.power_on();
    let mut seen = vec![(None, passes(boot.host()))];
    while let Some(stage) = boot.step() {
        seen.push((Some(stage), passes(boot.host())));
    }
    assert!(boot.failed.is_empty(), "{:?}", boot.failed);
    (boot.finish(), seen)
}

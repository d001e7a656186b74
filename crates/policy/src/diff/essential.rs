//! Flows that no default decides.

use crate::{
    essential::Essential,
    flow::{Direction, unspecified},
    model::FlowSpec,
};
use std::net::{IpAddr, Ipv4Addr};

/// A flow of every kind that no default decides, to the machine and from it; and what programs ask of it alone.
pub(crate) fn essential() -> Vec<(Essential, FlowSpec)> {
    let four = [5, 9].map(|last| IpAddr::from([198, 51, 100, last]));
    let six = [5, 9].map(|last| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last]));
    let itself = [IpAddr::V4(Ipv4Addr::LOCALHOST); 2];
    // Protocol, own and other port, own and other address.
    let kinds = [
        (Essential::IcmpError, 1, 3, 4, four),
        (Essential::IcmpError, 58, 2, 0, six),
        (Essential::NeighbourDiscovery, 58, 135, 0, six),
        (Essential::MulticastListenerDiscovery, 58, 143, 0, six),
        (Essential::Igmp, 2, 0, 0, four),
        (Essential::Dhcp, 17, 68, 67, four),
        (Essential::Dhcp, 17, 546, 547, six),
        (Essential::Loopback, 6, 50000, 443, itself),
    ];
    let flow = |direction, protocol, local, remote| FlowSpec {
        direction,
        protocol,
        local,
        remote,
        application: None,
        users: Vec::new(),
        interface: None,
        remote_name: None,
    };
    let of = |direction| {
        kinds.map(|(kind, protocol, own, other, [local, remote])| {
            (kind, flow(direction, protocol, (local, own), (remote, other)))
        })
    };
    let endpoint =
        |direction, protocol, local: IpAddr, port| flow(direction, protocol, (local, port), (unspecified(local), 0));
    let [any4, any6] = [itself[0], six[0]].map(unspecified);
    let endpoints = [
        (Essential::Loopback, endpoint(Direction::Listen, 6, itself[0], 8080)),
        (Essential::Loopback, endpoint(Direction::Bind, 6, itself[0], 8080)),
        (Essential::Dhcp, endpoint(Direction::Bind, 17, any4, 68)),
        (Essential::Dhcp, endpoint(Direction::Bind, 17, any6, 546)),
        (Essential::ChosenPort, endpoint(Direction::Bind, 6, any4, 0)),
    ];
    [Direction::Outbound, Direction::Inbound].into_iter().flat_map(of).chain(endpoints).collect()
}

//! The layers that a flow passes, in their order.

use crate::record::Direction;
use std::net::IpAddr;

/// A place on the path: the layer's name without its IP version, what happens there, and which way the packet goes.
pub(super) type Place = (&'static str, &'static str, Direction);

use Direction::{Forward, In, Out};

// "TCP Packet Flows" and "UDP Packet Flows" (win32 documentation), the latter also for every protocol that is not TCP.
const TCP_OUT: &[Place] = &[
    ("ALE_BIND_REDIRECT", "bind", Out),
    ("ALE_RESOURCE_ASSIGNMENT", "bind", Out),
    ("ALE_CONNECT_REDIRECT", "connect", Out),
    ("ALE_AUTH_CONNECT", "connect", Out),
    ("OUTBOUND_TRANSPORT", "packets out", Out),
    ("OUTBOUND_IPPACKET", "packets out", Out),
    ("INBOUND_IPPACKET", "answers in", In),
    ("INBOUND_TRANSPORT", "answers in", In),
    ("ALE_FLOW_ESTABLISHED", "established", Out),
    ("STREAM", "data", Out),
];
const TCP_IN: &[Place] = &[
    ("ALE_BIND_REDIRECT", "bind", In),
    ("ALE_RESOURCE_ASSIGNMENT", "bind", In),
    ("ALE_AUTH_LISTEN", "listen", In),
    ("INBOUND_IPPACKET", "packets in", In),
    ("INBOUND_TRANSPORT", "packets in", In),
    ("ALE_AUTH_RECV_ACCEPT", "accept", In),
    ("OUTBOUND_TRANSPORT", "answers out", Out),
    ("OUTBOUND_IPPACKET", "answers out", Out),
    ("ALE_FLOW_ESTABLISHED", "established", In),
    ("STREAM", "data", In),
];
const UDP_OUT: &[Place] = &[
    ("ALE_BIND_REDIRECT", "bind", Out),
    ("ALE_RESOURCE_ASSIGNMENT", "bind", Out),
    ("ALE_CONNECT_REDIRECT", "first packet", Out),
    ("ALE_AUTH_CONNECT", "first packet", Out),
    ("ALE_FLOW_ESTABLISHED", "established", Out),
    ("DATAGRAM_DATA", "packets out", Out),
    ("OUTBOUND_TRANSPORT", "packets out", Out),
    ("OUTBOUND_IPPACKET", "packets out", Out),
    ("INBOUND_IPPACKET", "answers in", In),
    ("INBOUND_TRANSPORT", "answers in", In),
    ("DATAGRAM_DATA", "answers in", In),
];
const UDP_IN: &[Place] = &[
    ("ALE_BIND_REDIRECT", "bind", In),
    ("ALE_RESOURCE_ASSIGNMENT", "bind", In),
    ("INBOUND_IPPACKET", "packets in", In),
    ("INBOUND_TRANSPORT", "packets in", In),
    ("ALE_AUTH_RECV_ACCEPT", "first packet", In),
    ("ALE_FLOW_ESTABLISHED", "established", In),
    ("DATAGRAM_DATA", "packets in", In),
    ("DATAGRAM_DATA", "answers out", Out),
    ("OUTBOUND_TRANSPORT", "answers out", Out),
    ("OUTBOUND_IPPACKET", "answers out", Out),
];
const FORWARDED: &[Place] =
    &[("INBOUND_IPPACKET", "arrives", In), ("IPFORWARD", "forwarded", Forward), ("OUTBOUND_IPPACKET", "leaves", Out)];

/// The places of a flow.
pub(super) fn places(protocol: Option<u8>, opened: Direction) -> &'static [Place] {
    match (opened, protocol) {
        (Forward, _) => FORWARDED,
        (Out, Some(6)) => TCP_OUT,
        (In, Some(6)) => TCP_IN,
        (Out, _) => UDP_OUT,
        (In, _) => UDP_IN,
    }
}

/// A layer's name with the IP version of an address.
pub(super) fn versioned(layer: &str, address: Option<IpAddr>) -> String {
    let version = if matches!(address, Some(IpAddr::V6(_))) { 6 } else { 4 };
    format!("{layer}_V{version}")
}

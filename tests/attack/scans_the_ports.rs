//! A remote peer tells closed ports from filtered ones by what answers: a reset, or "port unreachable".

use etherparse::{PacketBuilder, icmpv4, icmpv6};
use shim::{
    layer::{Direction, Layer},
    stack::{Decision, Verdict},
};
use std::net::IpAddr;

use crate::{
    support::Rig,
    wire::{Segment, Tcp, Wire, udp},
};

const PEERS: [&str; 2] = ["203.0.113.10", "2001:db8::10"];
/// Where [`udp`] sends to.
const UDP_PORT: u16 = 40_000;
const TCP_PORT: u16 = 8080;

/// A machine under this policy, on which nobody listens at either port.
fn machine(policy: &str) -> (Rig, Wire) {
    let rig = Rig::with_policy(policy);
    let mut wire = Wire::new(&rig.machine);
    wire.close(UDP_PORT);
    wire.close(TCP_PORT);
    (rig, wire)
}

fn syn(wire: &mut Wire, peer: &str) -> Decision {
    let packet = Tcp::new(peer, 50_000, TCP_PORT).packet(Segment::Syn, Direction::Inbound);
    wire.pass(&packet, Direction::Inbound)
}

/// What UDP has sent about a datagram that no socket wants.
fn port_unreachable(datagram: &[u8], peer: &str) -> Vec<u8> {
    let mut packet = Vec::new();
    match peer.parse().unwrap() {
        IpAddr::V4(peer) => {
            let error = etherparse::Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port);
            PacketBuilder::ipv4([10, 77, 0, 2], peer.octets(), 64).icmpv4(error).write(&mut packet, datagram)
        }
        IpAddr::V6(peer) => {
            let local: std::net::Ipv6Addr = "fd77::2".parse().unwrap();
            let error = etherparse::Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port);
            PacketBuilder::ipv6(local.octets(), peer.octets(), 64).icmpv6(error).write(&mut packet, datagram)
        }
    }
    .unwrap();
    packet
}

/// Sends a datagram to the closed port; what becomes of the answer.
fn knock(wire: &mut Wire, peer: &str) -> Decision {
    let datagram = udp(peer, 53, Direction::Inbound, b"?");
    wire.pass(&datagram, Direction::Inbound);
    wire.pass(&port_unreachable(&datagram, peer), Direction::Outbound)
}

#[test]
fn and_nothing_answers_for_what_is_dropped() {
    let (rig, mut wire) = machine("[default]\ninbound = \"drop\"\n");
    for peer in PEERS {
        let decision = syn(&mut wire, peer);
        assert_eq!(decision.verdict, Verdict::Drop, "{peer}: TCP never sees it, and sends no reset");
        assert_eq!(decision.by.unwrap().layer, Layer::InboundTransportDiscard, "{peer}");
        let answer = knock(&mut wire, peer);
        assert_eq!((answer.verdict, answer.by.unwrap().layer), (Verdict::Drop, Layer::OutboundIcmpError), "{peer}");
    }
    assert_eq!(["discards_silenced", "icmp_errors_silenced"].map(|name| rig.counter(name)), [4, 2]);
    rig.uninstall();
}

#[test]
fn and_is_answered_where_the_policy_does_not_drop() {
    for policy in [
        "[default]\ninbound = \"block\"\n",
        "[default]\ninbound = \"permit\"\n",
        "[default]\ninbound = \"drop\"\n[[rule]]\naction = \"permit\"\nlocal-port = [8080, 40000]\n",
    ] {
        let (rig, mut wire) = machine(policy);
        for peer in PEERS {
            assert_eq!(syn(&mut wire, peer).verdict, Verdict::Forward, "{policy}, {peer}");
            assert_eq!(knock(&mut wire, peer).verdict, Verdict::Forward, "{policy}, {peer}");
        }
        assert_eq!(["discards_silenced", "icmp_errors_silenced"].map(|name| rig.counter(name)), [0, 0]);
        rig.uninstall();
    }
}

/// An error about what this machine passes on quotes a packet to another: it is the router's, and no port's.
#[test]
fn and_a_router_still_says_what_it_cannot_deliver() {
    let (rig, mut wire) = machine("[default]\ninbound = \"drop\"\n");
    let mut quoted = udp(PEERS[0], 53, Direction::Inbound, b"?");
    quoted[16..20].copy_from_slice(&[172, 20, 0, 5]); // its destination
    assert_eq!(wire.pass(&port_unreachable(&quoted, PEERS[0]), Direction::Outbound).verdict, Verdict::Forward);
    rig.uninstall();
}

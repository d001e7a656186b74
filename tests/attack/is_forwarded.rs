//! A virtual machine or container sends what its host may not: its packets pass the host without being the host's.

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, PacketBuilder};
use shim::{layer::Layer, stack::Verdict};
use sluice_control::{EventOptions, Item, events};
use std::{net::IpAddr, ops::ControlFlow};

use crate::{
    support::{BLOCK_ALL, Rig},
    wire::Wire,
};

const GUEST: [&str; 2] = ["172.20.0.5", "fd20::5"];
const SERVER: [&str; 2] = ["203.0.113.9", "2001:db8::9"];

/// A datagram from one to another.
fn udp(source: &str, destination: &str, port: u16) -> Vec<u8> {
    let step = match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => PacketBuilder::ipv4(source.octets(), destination.octets(), 9),
        (IpAddr::V6(source), IpAddr::V6(destination)) => PacketBuilder::ipv6(source.octets(), destination.octets(), 9),
        _ => panic!("two families"),
    };
    let mut packet = Vec::new();
    step.udp(50_000, port).write(&mut packet, b"guest").unwrap();
    packet
}

/// A later piece of a UDP datagram, which has no ports.
fn later_piece(source: &str, destination: &str) -> Vec<u8> {
    let (mut packet, data) = (Vec::new(), [7; 16]);
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = Ipv4Header::new(16, 9, IpNumber::UDP, source.octets(), destination.octets()).unwrap();
            header.fragment_offset = IpFragOffset::try_new(100).unwrap();
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut packet).unwrap();
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 24,
                next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
                hop_limit: 9,
                source: source.octets(),
                destination: destination.octets(),
            };
            header.write(&mut packet).unwrap();
            Ipv6FragmentHeader::new(IpNumber::UDP, IpFragOffset::try_new(100).unwrap(), false, 1)
                .write(&mut packet)
                .unwrap();
        }
        _ => panic!("two families"),
    }
    packet.extend(data);
    packet
}

#[test]
fn past_the_rules_for_the_host_unless_there_are_rules_for_it() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let mut wire = Wire::new(&rig.machine);
    for (guest, server) in GUEST.into_iter().zip(SERVER) {
        assert_eq!(wire.forward(&udp(guest, server, 53)).verdict, Verdict::Forward, "{server}: docs/policy.md says so");
    }
    rig.load("[default]\nforward = \"block\"\nlog = true\n");
    for (guest, server) in GUEST.into_iter().zip(SERVER) {
        let decision = wire.forward(&udp(guest, server, 53));
        assert_eq!((decision.verdict, decision.by.unwrap().layer), (Verdict::Drop, Layer::IpForward), "{server}");
    }
    assert_eq!(["forwards_permitted", "forwards_blocked"].map(|name| rig.counter(name)), [2, 2]);
    let mut seen = Vec::new();
    events(&rig.host, &EventOptions::default(), &mut |item| {
        if let Item::Event(event) = item {
            seen.push((event.direction.to_string(), event.local_address.to_string(), event.remote_address.to_string()));
        }
        ControlFlow::Continue(())
    })
    .expect("events");
    for (guest, server) in GUEST.into_iter().zip(SERVER) {
        assert!(seen.contains(&("forward".to_owned(), guest.to_owned(), server.to_owned())), "{seen:?}");
    }
    rig.uninstall();
}

#[test]
fn to_an_address_and_port_that_a_rule_forbids() {
    let rig = Rig::with_policy(
        r#"
        [default]
        forward = "block"
        [[rule]]
        name = "names"
        action = "permit"
        direction = "forward"
        protocol = "udp"
        local = ["172.16.0.0/12", "fd20::/16"]
        remote-port = [53, 853]
        [[rule]]
        name = "answers"
        action = "permit"
        direction = "forward"
        remote = ["172.16.0.0/12", "fd20::/16"]
        "#,
    );
    let mut wire = Wire::new(&rig.machine);
    for (guest, server) in GUEST.into_iter().zip(SERVER) {
        let mut verdict = |packet: &[u8]| wire.forward(packet).verdict;
        assert_eq!(verdict(&udp(guest, server, 53)), Verdict::Forward, "{server}");
        assert_eq!(verdict(&udp(guest, server, 54)), Verdict::Drop, "{server}");
        assert_eq!(verdict(&udp(server, guest, 53)), Verdict::Forward, "the answer, {server}");
        assert_eq!(verdict(&udp(server, server, 53)), Verdict::Drop, "{server}");
    }
    rig.uninstall();
}

#[test]
fn in_pieces_and_packets_that_have_no_ports() {
    for (undecidable, verdict) in [("skip", Verdict::Forward), ("match", Verdict::Drop)] {
        let head = "[[rule]]\naction = \"block\"\ndirection = \"forward\"\nprotocol = \"udp\"\nremote-port = 53";
        let rig = Rig::with_policy(&format!("{head}\nwhen-undecidable = \"{undecidable}\"\n"));
        let mut wire = Wire::new(&rig.machine);
        for (guest, server) in GUEST.into_iter().zip(SERVER) {
            assert_eq!(wire.forward(&udp(guest, server, 54)).verdict, Verdict::Forward);
            assert_eq!(wire.forward(&udp(guest, server, 53)).verdict, Verdict::Drop);
            assert_eq!(wire.forward(&later_piece(guest, server)).verdict, verdict, "{undecidable}, {server}");
            let whole = udp(guest, server, 53);
            let cut = &whole[..whole.len() - 10]; // three bytes of the UDP header are left
            assert_eq!(wire.forward(cut).verdict, verdict, "{undecidable}, {server}, cut");
        }
        rig.uninstall();
    }
}

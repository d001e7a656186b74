//! The layer NETWORK with its packets taken out of the stack: held, sent again, changed, made up.

use crate::divert::{Address, Filter, Handle, Layer, flag};
use crate::rig::{CURL, DIG, PATIENCE, QUIET, Rig, has_dig};
use std::{
    net::Ipv6Addr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

const SERVERS: [&str; 2] = ["10.77.0.1", "fd77::1"];

/// Lets `each` have what a handle receives while `during` runs.
fn divert<R>(handle: &Handle, mut each: impl FnMut(Vec<u8>, Address) + Send, during: impl FnOnce() -> R) -> R {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                if let Some((packet, address)) = handle.receive(Duration::from_millis(20)) {
                    each(packet, address);
                }
            }
        });
        let result = during();
        done.store(true, Ordering::Release);
        result
    })
}

/// Whether it is UDP from or to this port.
fn is_udp(packet: &[u8], port: u16) -> bool {
    let (protocol, header) = if packet[0] >> 4 == 4 { (packet[9], 20) } else { (packet[6], 40) };
    let at = |offset: usize| u16::from_be_bytes([packet[header + offset], packet[header + offset + 1]]);
    protocol == 17 && (at(0) == port || at(2) == port)
}

fn is_dns(packet: &[u8]) -> bool {
    is_udp(packet, 53)
}

/// Puts `new` where `old` is; both have one length.
fn replace(packet: &mut [u8], old: &[u8], new: &[u8]) -> bool {
    let Some(at) = packet.windows(old.len()).position(|window| window == old) else { return false };
    packet[at..at + new.len()].copy_from_slice(new);
    true
}

#[test]
fn a_held_request_arrives_when_it_is_sent_again_and_only_once() {
    let Some(rig) = Rig::new().filter(|_| has_dig()) else { return };
    let handle = Handle::open(&rig.machine, &Filter::outbound().udp_to(53), Layer::Network, 0, 0).unwrap();
    for server in SERVERS {
        let wire = rig.tap_server();
        let dig = rig.client(&format!("{DIG} @{server} name.test"));
        let (question, address) = handle.receive(PATIENCE).expect("the question");
        assert_eq!(wire.rest(is_dns), Vec::<Vec<u8>>::new(), "it is held");
        handle.send(&question, &address).unwrap();
        assert_eq!(wire.next(PATIENCE, is_dns), Some(question));
        assert_eq!(dig.prints(), "192.0.2.77\n");
        assert_eq!(wire.rest(is_dns).len(), 1, "the answer");
        assert!(handle.receive(QUIET).is_none(), "what a handle sent is not shown to it");
    }
    drop(handle);
    rig.end();
}

#[test]
fn a_held_response_arrives_when_it_is_sent_again_and_only_once() {
    let Some(rig) = Rig::new().filter(|_| has_dig()) else { return };
    let handle = Handle::open(&rig.machine, &Filter::inbound().udp_from(53), Layer::Network, 0, 0).unwrap();
    for server in SERVERS {
        let wire = rig.tap_client();
        let dig = rig.client(&format!("{DIG} @{server} name.test"));
        let (answer, address) = handle.receive(PATIENCE).expect("the answer");
        assert_eq!(wire.rest(is_dns).len(), 1, "the question alone: the answer is held");
        handle.send(&answer, &address).unwrap();
        assert_eq!(wire.next(PATIENCE, is_dns), Some(answer));
        assert_eq!(dig.prints(), "192.0.2.77\n");
        assert!(wire.rest(is_dns).is_empty());
        assert!(handle.receive(QUIET).is_none(), "what a handle sent is not shown to it");
    }
    drop(handle);
    rig.end();
}

#[test]
fn requests_and_responses_are_changed_on_their_way() {
    let Some(rig) = Rig::new() else { return };
    let filters = [Filter::outbound().tcp_to(80), Filter::inbound().tcp_from(80)];
    for (filter, old, new, expected) in [
        (&filters[0], b"/before", b"/after!", "this is /after!\n"),
        (&filters[1], b"this is", b"that is", "that is /before\n"),
    ] {
        let handle = Handle::open(&rig.machine, filter, Layer::Network, 0, 0).unwrap();
        for server in ["203.0.113.10", "[2001:db8:1::10]"] {
            let changed = AtomicUsize::new(0);
            let each = |mut packet: Vec<u8>, address: Address| {
                if replace(&mut packet, old, new) {
                    changed.fetch_add(1, Ordering::Relaxed);
                    // The driver recomputes the checksums.
                    handle.send(&packet, &address.without_checksums()).unwrap();
                } else {
                    handle.send(&packet, &address).unwrap();
                }
            };
            let during = || rig.client(&format!("{CURL} http://{server}/before")).prints();
            assert_eq!(divert(&handle, each, during), expected, "{server}");
            assert_eq!(changed.load(Ordering::Relaxed), 1);
        }
        drop(handle);
    }
    rig.end();
}

#[test]
fn everything_is_diverted_and_arrives_as_it_was_once() {
    let Some(rig) = Rig::new() else { return };
    let handle = Handle::open(&rig.machine, &Filter::all(), Layer::Network, 0, 0).unwrap();
    let (client, server) = (rig.tap_client(), rig.tap_server());
    let told = AtomicUsize::new(0);
    let each = |packet: Vec<u8>, address: Address| {
        told.fetch_add(1, Ordering::Relaxed);
        handle.send(&packet, &address).unwrap();
    };
    let mut commands = vec![format!("{CURL} http://203.0.113.10/a"), format!("{CURL} 'http://[2001:db8:1::10]/b'")];
    if has_dig() {
        commands.extend(SERVERS.map(|server| format!("{DIG} @{server} name.test")));
    }
    let (mut before, mut behind) = divert(&handle, each, || {
        commands.iter().for_each(|command| drop(rig.client(command).prints()));
        (client.rest(|_| true), server.rest(|_| true))
    });
    assert_eq!(told.load(Ordering::Relaxed), behind.len(), "each packet is shown once");
    // The two directions may cross each other on the way.
    before.sort();
    behind.sort();
    assert_eq!(before, behind, "every packet passes once, as it was");
    assert!(before.len() >= 2 * commands.len());
    drop(handle);
    rig.end();
}

#[test]
fn handles_see_a_packet_in_the_order_of_their_priorities_and_once_each() {
    let Some(rig) = Rig::new().filter(|_| has_dig()) else { return };
    let open =
        |priority| Handle::open(&rig.machine, &Filter::outbound().udp_to(53), Layer::Network, priority, 0).unwrap();
    // The one that comes last in the order is opened first.
    let (low, high) = (open(-100), open(100));
    let sniffing = Handle::open(&rig.machine, &Filter::all().udp_to(53), Layer::Network, 50, flag::SNIFF).unwrap();
    let wire = rig.tap_server();
    let dig = rig.client(&format!("{DIG} @10.77.0.1 name.test"));
    let (packet, address) = high.receive(PATIENCE).expect("the highest is first");
    assert!(low.receive(QUIET).is_none() && sniffing.receive(QUIET).is_none());
    high.send(&packet, &address).unwrap();
    assert_eq!(sniffing.receive(PATIENCE).expect("then the one between").0, packet);
    let (same, address) = low.receive(PATIENCE).expect("then the lowest");
    assert_eq!(same, packet);
    assert!(!address.is_impostor(), "it was injected by the driver itself");
    assert!(wire.rest(is_dns).is_empty());
    low.send(&same, &address).unwrap();
    assert_eq!(dig.prints(), "192.0.2.77\n");
    assert_eq!(wire.rest(is_dns).len(), 2, "one question, one answer");
    for handle in [&high, &sniffing, &low] {
        assert!(handle.receive(QUIET).is_none());
    }
    drop((low, high, sniffing));
    rig.end();
}

#[test]
fn closing_lets_held_packets_go() {
    let Some(rig) = Rig::new().filter(|_| has_dig()) else { return };
    for server in SERVERS {
        let handle = Handle::open(&rig.machine, &Filter::outbound().udp_to(53), Layer::Network, 0, 0).unwrap();
        let wire = rig.tap_server();
        let dig = rig.client(&format!("{DIG} @{server} name.test"));
        assert!(wire.rest(is_dns).is_empty(), "nobody reads: it is held");
        drop(handle);
        assert_eq!(dig.prints(), "192.0.2.77\n");
        assert_eq!(wire.rest(is_dns).len(), 2);
    }
    rig.end();
}

#[test]
fn a_packet_that_nobody_sent_arrives_once() {
    let Some(rig) = Rig::new() else { return };
    // The filter is for what nobody sends: this handle only injects.
    let handle = Handle::open(&rig.machine, &Filter::outbound().udp_to(1), Layer::Network, 0, 0).unwrap();
    let (ours, theirs): (Ipv6Addr, Ipv6Addr) = ("fd77::2".parse().unwrap(), "fd77::1".parse().unwrap());
    let made = |outbound: bool, v4: bool| {
        let mut packet = Vec::new();
        let (from, to) = if outbound { (40_000, 4242) } else { (4242, 40_000) };
        let (a, b) = if outbound { ([10, 77, 0, 2], [10, 77, 0, 1]) } else { ([10, 77, 0, 1], [10, 77, 0, 2]) };
        let (c, d) = if outbound { (ours, theirs) } else { (theirs, ours) };
        if v4 {
            etherparse::PacketBuilder::ipv4(a, b, 64).udp(from, to).write(&mut packet, b"made up").unwrap();
        } else {
            etherparse::PacketBuilder::ipv6(c.octets(), d.octets(), 64)
                .udp(from, to)
                .write(&mut packet, b"made up")
                .unwrap();
        }
        packet
    };
    for v4 in [true, false] {
        for outbound in [true, false] {
            let (near, far) =
                if outbound { (rig.tap_client(), rig.tap_server()) } else { (rig.tap_server(), rig.tap_client()) };
            let packet = made(outbound, v4);
            handle.send(&packet, &Address::of_network(outbound, !v4)).unwrap();
            let of_ours = |packet: &[u8]| is_udp(packet, 4242) && packet.ends_with(b"made up");
            assert_eq!(far.next(PATIENCE, of_ours), Some(packet), "IPv4 {v4}, outbound {outbound}");
            assert!(far.rest(of_ours).is_empty() && near.rest(of_ours).is_empty());
        }
    }
    drop(handle);
    rig.end();
}

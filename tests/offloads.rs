//! What sluice.sys leaves to the network card.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/hello.rs"]
mod hello;
mod support;
#[path = "support/wire.rs"]
mod wire;

use filter_engine::offload::Offload;
use shim::{coalesce::coalesce, layer::Direction, stack::Verdict};
use sluice_host::Guid;
use sluice_protocol::object::CALLOUTS;
use support::{PERMIT_ALL, Rig};
use wire::{Segment, Tcp, Wire};

/// A driver without these flags is known to halve the rate of a fast network card.
#[test]
fn no_offload_is_disabled_by_the_driver() {
    let rig = Rig::with_policy(PERMIT_ALL);
    assert_eq!(rig.machine.wfp.engine.refused_offloads(), []);
    let callouts = &rig.machine.wfp.engine.callouts;
    for object in &CALLOUTS {
        assert!(callouts.by_key(Guid(object.callout)).is_some_and(|slot| slot.is_registered()), "{}", object.name);
    }
    rig.uninstall();
}

/// What became of a client's bytes, and what the driver counted.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    passed: bool,
    bytes_in: u64,
    names_found: u64,
    flows_blocked: u64,
}

/// A client of another machine sends `bytes` in segments of `size`, of which the network card shows several as one packet or
/// not. Also how many packets it shows.
fn received(policy: &str, bytes: &[u8], size: usize, card: bool) -> (Outcome, usize) {
    let rig = Rig::with_policy(policy);
    let refused = rig.machine.wfp.engine.refused_offloads();
    assert!(!refused.iter().any(|refusal| refusal.offload == Offload::TcpReceive), "the card may: {refused:?}");
    let mut wire = Wire::new(&rig.machine);
    let mut tcp = Tcp::new("203.0.113.10", 50_000, 80);
    for (segment, direction) in
        [(Segment::Syn, Direction::Inbound), (Segment::SynAck, Direction::Outbound), (Segment::Ack, Direction::Inbound)]
    {
        let packet = tcp.packet(segment, direction);
        assert_eq!(wire.pass(&packet, direction).verdict, Verdict::Forward);
    }
    let data = bytes.chunks(size).map(|part| Segment::Data(Box::leak(part.into())));
    let sent: Vec<Vec<u8>> = data.map(|segment| tcp.packet(segment, Direction::Inbound)).collect();
    let shown = if card { coalesce(sent.iter().map(Vec::as_slice)) } else { sent };
    // Bytes whose name is not known yet are kept back for now.
    let passed = shown.iter().all(|packet| wire.pass(packet, Direction::Inbound).verdict != Verdict::Abort);
    let counters = ["bytes_in", "names_found", "flows_blocked_by_name"].map(|name| rig.counter(name));
    let [bytes_in, names_found, flows_blocked] = counters;
    wire.finish();
    rig.uninstall();
    (Outcome { passed, bytes_in, names_found, flows_blocked }, shown.len())
}

/// Receive segment coalescing: verdicts, names and bytes are as without it. Packets are counted as Windows shows them.
#[test]
fn coalesced_segments_are_decided_and_counted_as_the_segments_are() {
    let rule = "[[rule]]\nname = \"ads\"\naction = \"block\"\nlocal-port = 80\nremote-name = \"ads.example\"\n";
    let names = format!("[default]\noutbound = \"permit\"\ninbound = \"permit\"\n{rule}");
    let long = vec![b'x'; 200_000];
    let get = |host: &str| [format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), &long].concat();
    for (policy, bytes, passes) in [
        (PERMIT_ALL, long.clone(), true),
        (names.as_str(), get("news.example"), true),
        (names.as_str(), get("ads.example"), false),
        (names.as_str(), hello::hello("ads.example", 40), false),
    ] {
        for size in [13, 1460] {
            let bytes = &bytes[..bytes.len().min(size * 300)];
            let (each, packets) = received(policy, bytes, size, false);
            let (coalesced, fewer) = received(policy, bytes, size, true);
            assert!(fewer * 5 <= packets || packets < 8, "{fewer} of {packets}");
            assert_eq!(each.passed, passes, "{} bytes in segments of {size}", bytes.len());
            if passes {
                assert_eq!(coalesced, each);
                assert_eq!(each.bytes_in, bytes.len() as u64);
            } else {
                // Bytes of what is dropped are not the same: more comes with the packet that names it.
                assert_eq!((coalesced.passed, coalesced.flows_blocked), (false, each.flows_blocked));
                assert_eq!((coalesced.names_found, each.names_found), (1, 1));
            }
        }
    }
}

//! Rules on names decide UDP by what it asks for: each question of DNS, and the hello of a QUIC connection.

#[path = "support/hello.rs"]
mod hello;
#[path = "support/quic.rs"]
mod quic;
mod support;
#[path = "support/wire.rs"]
mod wire;

use hello::{message, question};
use ntsim::{machine::Machine, wdf::RegistryValue};
use quic::{crypto, initial};
use shim::{layer::Direction, stack::Verdict};
use support::Rig;
use wire::{Wire, udp};

const ADS: &str = r#"
    [default]
    outbound = "permit"
    inbound = "permit"
    [[rule]]
    name = "ads"
    action = "block"
    remote-name = ".ads.example"
"#;

/// Nothing but these names.
const ONLY: &str = r#"
    [default]
    outbound = "block"
    inbound = "block"
    [[rule]]
    name = "these"
    action = "permit"
    remote-name = ".good.example"
"#;

const REMOTES: [&str; 2] = ["203.0.113.10", "2001:db8:1::10"];

fn send(wire: &mut Wire, remote: &str, port: u16, data: &[u8]) -> Verdict {
    wire.pass(&udp(remote, port, Direction::Outbound, data), Direction::Outbound).verdict
}

fn receive(wire: &mut Wire, remote: &str, port: u16, data: &[u8]) -> Verdict {
    wire.pass(&udp(remote, port, Direction::Inbound, data), Direction::Inbound).verdict
}

/// A hello in one packet, and one that needs two.
fn hellos(server: &str) -> [Vec<Vec<u8>>; 2] {
    let (small, large) = (message(server, 0), message(server, 1500));
    let halves = [crypto(&large, 0, 900), crypto(&large, 900, large.len())];
    [vec![initial(0, &crypto(&small, 0, small.len()))], vec![initial(0, &halves[0]), initial(1, &halves[1])]]
}

fn contexts(rig: &Rig) -> usize {
    rig.machine.wfp.engine.flows.context_count()
}

#[test]
fn every_question_is_decided_by_itself() {
    let rig = Rig::with_policy(ADS);
    let mut wire = Wire::new(&rig.machine);
    for remote in REMOTES {
        assert_eq!(send(&mut wire, remote, 53, &question(1, "news.example")), Verdict::Forward);
        assert_eq!(receive(&mut wire, remote, 53, b"answer"), Verdict::Forward);
        assert_eq!(send(&mut wire, remote, 53, &question(2, "www.ads.example")), Verdict::Drop);
        assert_eq!(send(&mut wire, remote, 53, &question(3, "NEWS.example")), Verdict::Forward);
        assert_eq!(send(&mut wire, remote, 53, b"no question at all"), Verdict::Forward);
        assert_eq!(send(&mut wire, remote, 53, &question(4, "ADS.example")), Verdict::Drop);
    }
    let counters = ["names_found", "names_undecidable", "datagrams_blocked_by_name"].map(|name| rig.counter(name));
    assert_eq!(counters, [8, 2, 4]);
    wire.finish();
    rig.uninstall();
}

#[test]
fn the_hello_of_quic_decides_its_flow() {
    let rig = Rig::with_policy(ADS);
    let mut wire = Wire::new(&rig.machine);
    for (number, remote) in REMOTES.into_iter().enumerate() {
        for (kind, datagrams) in hellos("www.ads.example").iter().enumerate() {
            let port = 1000 + kind as u16;
            let (last, before) = datagrams.split_last().unwrap();
            for datagram in before {
                assert_eq!(send(&mut wire, remote, port, datagram), Verdict::Forward, "no server knows the name yet");
            }
            assert_eq!(send(&mut wire, remote, port, last), Verdict::Drop);
            assert_ne!(send(&mut wire, remote, port, last), Verdict::Forward, "nor anything after it");
        }
        for (kind, datagrams) in hellos("news.example").iter().enumerate() {
            let port = 2000 + kind as u16;
            let before = contexts(&rig);
            for datagram in datagrams {
                assert_eq!(send(&mut wire, remote, port, datagram), Verdict::Forward);
                assert_eq!(receive(&mut wire, remote, port, b"answer"), Verdict::Forward);
            }
            assert_eq!(contexts(&rig), before + 2, "it is not looked at again");
        }
        assert_eq!(rig.counter("flows_blocked_by_name"), 2 * (number as u64 + 1));
    }
    wire.finish();
    rig.uninstall();
}

/// What was dropped while the name was not known is sent again.
#[test]
fn what_only_its_name_permits_passes_once_that_is_known() {
    let rig = Rig::with_policy(ONLY);
    let mut wire = Wire::new(&rig.machine);
    let [small, large] = hellos("www.good.example");
    assert_eq!(send(&mut wire, REMOTES[0], 443, &small[0]), Verdict::Forward);
    assert_eq!(receive(&mut wire, REMOTES[0], 443, b"answer"), Verdict::Forward);
    assert_eq!(send(&mut wire, REMOTES[1], 443, &large[0]), Verdict::Drop);
    assert_eq!(receive(&mut wire, REMOTES[1], 443, b"too early"), Verdict::Drop);
    assert_eq!(send(&mut wire, REMOTES[1], 443, &large[1]), Verdict::Forward);
    assert_eq!(send(&mut wire, REMOTES[1], 443, &large[0]), Verdict::Forward);
    assert_eq!(receive(&mut wire, REMOTES[1], 443, b"answer"), Verdict::Forward);
    assert_eq!(send(&mut wire, REMOTES[0], 444, &hellos("bad.example")[0][0]), Verdict::Drop);

    assert_eq!(receive(&mut wire, REMOTES[0], 444, b"unasked"), Verdict::Drop);
    assert_eq!(send(&mut wire, REMOTES[0], 53, &question(1, "bad.example")), Verdict::Drop);
    assert_eq!(receive(&mut wire, REMOTES[0], 53, b"unasked"), Verdict::Drop);
    assert_eq!(send(&mut wire, REMOTES[0], 53, &question(2, "good.example")), Verdict::Forward);
    assert_eq!(receive(&mut wire, REMOTES[0], 53, b"answer"), Verdict::Forward);
    wire.finish();
    rig.uninstall();
}

#[test]
fn other_datagrams_follow_their_rule() {
    for (policy, then) in [
        (ADS.to_owned(), Verdict::Forward),
        (format!("{ADS}when-undecidable = \"match\"\n"), Verdict::Drop),
        (ONLY.to_owned(), Verdict::Drop),
    ] {
        let rig = Rig::with_policy(&policy);
        let mut wire = Wire::new(&rig.machine);
        for (port, data) in [(3478, &b"\0\x01\0\0\x21\x12\xa4\x42"[..]), (51820, &[1; 148]), (500, &[0xc0; 1300])] {
            assert_eq!(send(&mut wire, REMOTES[0], port, data), then, "{port}\n{policy}");
        }
        // An empty one says nothing, and the next is looked at.
        let waits = if policy == ONLY { Verdict::Drop } else { Verdict::Forward };
        assert_eq!(send(&mut wire, REMOTES[0], 5353, b""), waits, "{policy}");
        let blocked = if policy == ONLY { "bad.example" } else { "www.ads.example" };
        assert_eq!(send(&mut wire, REMOTES[0], 5353, &question(1, blocked)), Verdict::Drop);
        wire.finish();
        rig.uninstall();
    }
}

#[test]
fn a_server_is_asked_for_names_too() {
    let rig = Rig::with_policy(ADS);
    let mut wire = Wire::new(&rig.machine);
    assert_eq!(receive(&mut wire, REMOTES[0], 50_000, &question(1, "www.ads.example")), Verdict::Drop);
    assert_eq!(receive(&mut wire, REMOTES[1], 50_000, &hellos("www.ads.example")[0][0]), Verdict::Drop);
    assert_eq!(receive(&mut wire, REMOTES[1], 50_001, &hellos("news.example")[0][0]), Verdict::Forward);
    assert_eq!(send(&mut wire, REMOTES[1], 50_001, b"answer"), Verdict::Forward);
    wire.finish();
    rig.uninstall();
}

#[test]
fn a_new_policy_decides_by_the_name_that_was_found() {
    let rig = Rig::with_policy(ADS);
    let mut wire = Wire::new(&rig.machine);
    let [small, large] = hellos("news.example");
    assert_eq!(send(&mut wire, REMOTES[0], 443, &small[0]), Verdict::Forward);
    assert_eq!(send(&mut wire, REMOTES[1], 443, &large[0]), Verdict::Forward);
    rig.load(&ADS.replace("ads.example", "news.example"));
    assert_ne!(send(&mut wire, REMOTES[0], 443, b"more"), Verdict::Forward, "its name is known");
    assert_eq!(send(&mut wire, REMOTES[1], 443, &large[1]), Verdict::Drop, "its name was half known");
    wire.finish();
    rig.uninstall();
}

/// Without room for a connection's hello nobody can tell its name.
#[test]
fn without_room_quic_is_undecidable() {
    for (policy, then) in [
        (ADS.to_owned(), Verdict::Forward),
        (format!("{ADS}when-undecidable = \"match\"\n"), Verdict::Drop),
        (ONLY.to_owned(), Verdict::Drop),
    ] {
        let machine = Machine::new();
        machine.set_parameter("Sluice", "MaxFlows", RegistryValue::dword(10));
        let rig = Rig::on(machine);
        rig.load(&policy);
        let mut wire = Wire::new(&rig.machine);
        assert_eq!(send(&mut wire, REMOTES[0], 443, &hellos("www.good.example")[0][0]), then, "{policy}");
        assert_eq!((rig.counter("names_not_looked_for"), rig.counter("names_undecidable")), (1, 1));
        // Questions need no room.
        assert_eq!(send(&mut wire, REMOTES[0], 53, &question(1, "bad.ads.example")), Verdict::Drop);
        wire.finish();
        rig.uninstall();
    }
}

/// Segmentation offload shows datagrams that are sent at once as one, which the network card cuts.
#[test]
fn datagrams_that_are_sent_at_once_hide_nothing_from_each_other() {
    let rig = Rig::with_policy(ADS);
    let mut wire = Wire::new(&rig.machine);
    let at_once = |server: &str| hellos(server)[1].concat();
    assert_eq!(send(&mut wire, REMOTES[0], 443, &at_once("www.ads.example")), Verdict::Drop);
    assert_eq!(send(&mut wire, REMOTES[1], 443, &at_once("news.example")), Verdict::Forward);
    wire.finish();
    rig.uninstall();

    let rig = Rig::with_policy(ONLY);
    let mut wire = Wire::new(&rig.machine);
    assert_eq!(send(&mut wire, REMOTES[0], 443, &at_once("www.good.example")), Verdict::Forward);
    assert_eq!(send(&mut wire, REMOTES[1], 443, &at_once("bad.example")), Verdict::Drop);
    let [good, bad] = ["good.example", "bad.example"].map(|name| question(1, name));
    // An option of EDNS for padding (RFC 7830), as long as it needs to be.
    let padded = |length: u16| {
        let mut padded = good.clone();
        padded[11] += 1;
        padded.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
        padded.extend((length + 4).to_be_bytes());
        padded.extend([0, 12]);
        padded.extend(length.to_be_bytes());
        padded.resize(padded.len() + usize::from(length), 0);
        padded
    };
    for first in [good.clone(), padded(20), padded(700)] {
        assert_eq!(send(&mut wire, REMOTES[0], 53, &first), Verdict::Forward, "{}", first.len());
        assert_eq!(send(&mut wire, REMOTES[0], 53, &[&first[..], &bad].concat()), Verdict::Drop, "{}", first.len());
    }
    wire.finish();
    rig.uninstall();
}

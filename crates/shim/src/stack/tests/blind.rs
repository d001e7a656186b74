//! Segments of somebody who cannot see the connection, SYNs that cross, and what comes after an abort.

use super::*;

const ARRIVES: [&str; 2] = ["INBOUND_IPPACKET", "INBOUND_TRANSPORT"];
const LEAVES: [&str; 2] = ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"];

/// The connection of [`Bench::connected`] still stands: its data is indicated to STREAM.
fn assert_stands(b: &mut Bench) {
    assert_eq!(b.stack.flow_count(), 1);
    assert_eq!(b.send(ACK | PSH, 101, 501, b"x").verdict, Verdict::Forward);
    assert_eq!(b.asked(), ["STREAM x", LEAVES[0], LEAVES[1]]);
    assert!(b.script.ended.is_empty());
}

#[test]
fn a_syn_in_an_established_connection_changes_nothing() {
    versions(|b| {
        b.connected();
        for sequence in [5000, 501] {
            let decision = b.receive(SYN, sequence, 0, b"");
            assert_eq!((decision.verdict, decision.opened), (Verdict::Forward, false), "TCP challenges it");
            assert_eq!(b.asked(), ARRIVES);
        }
        assert_stands(b);
    });
}

#[test]
fn a_reset_counts_with_the_next_sequence_number_only() {
    versions(|b| {
        b.connected();
        for (flags, sequence, acknowledgment) in [(RST, 123_456_789, 0), (RST, 502, 0), (RST | ACK, 500, 101)] {
            assert_eq!(b.receive(flags, sequence, acknowledgment, b"").verdict, Verdict::Forward);
            assert_eq!(b.asked(), ARRIVES, "{sequence}");
        }
        assert_stands(b);
        b.receive(RST, 501, 0, b"");
        assert_eq!(b.script.ended, [1]);
    });
}

#[test]
fn a_reset_in_answer_to_a_syn_must_acknowledge_it() {
    versions(|b| {
        b.send(SYN, 100, 0, b"");
        for (flags, acknowledgment) in [(RST, 0), (RST | ACK, 100), (RST | ACK, 102)] {
            b.receive(flags, 0, acknowledgment, b"");
        }
        b.asked();
        assert_eq!(b.receive(SYN | ACK, 500, 101, b"").verdict, Verdict::Forward);
        assert!(b.asked().contains(&"ALE_FLOW_ESTABLISHED".to_owned()), "the connect still waits");
    });
    versions(|b| {
        b.send(SYN, 100, 0, b"");
        b.receive(RST | ACK, 0, 101, b"");
        b.asked();
        let opened = b.receive(SYN, 900, 0, b"");
        assert!(opened.opened && b.asked().contains(&"ALE_AUTH_RECV_ACCEPT".to_owned()), "the connect is over");
    });
}

#[test]
fn an_answer_to_a_syn_that_was_never_sent_establishes_nothing() {
    versions(|b| {
        b.send(SYN, 100, 0, b"");
        b.asked();
        b.receive(SYN | ACK, 7777, 99, b"");
        assert_eq!(b.asked(), ARRIVES);
        let syn = b.segment_between(Direction::Inbound, 5000, 80, SYN, 900, 0, b"");
        b.pass(Direction::Inbound, &syn);
        let answer = b.segment_between(Direction::Outbound, 80, 5000, SYN | ACK, 300, 901, b"");
        b.pass(Direction::Outbound, &answer);
        b.asked();
        let blind = b.segment_between(Direction::Inbound, 5000, 80, ACK, 901, 77, b"");
        b.pass(Direction::Inbound, &blind);
        assert_eq!(b.asked(), ARRIVES);
        let last = b.segment_between(Direction::Inbound, 5000, 80, ACK, 901, 301, b"");
        b.pass(Direction::Inbound, &last);
        assert_eq!(b.asked(), [ARRIVES[0], ARRIVES[1], "ALE_FLOW_ESTABLISHED"]);
    });
}

#[test]
fn syns_that_cross_make_one_connection() {
    for answer in [SYN | ACK, ACK] {
        versions(|b| {
            assert!(b.send(SYN, 100, 0, b"").opened);
            b.asked();
            assert!(!b.receive(SYN, 500, 0, b"").opened);
            assert_eq!(b.asked(), ARRIVES, "nobody is asked whether to accept it");
            b.send(SYN | ACK, 100, 501, b"");
            b.asked();
            b.receive(answer, if answer == ACK { 501 } else { 500 }, 101, b"");
            assert_eq!(b.asked(), [ARRIVES[0], ARRIVES[1], "ALE_FLOW_ESTABLISHED"]);
            b.send(ACK, 101, 501, b"");
            b.asked();
            assert_stands(b);
        });
    }
}

#[test]
fn a_syn_that_comes_anew_replaces_one_that_was_not_answered() {
    versions(|b| {
        assert!(b.receive(SYN, 500, 0, b"").opened);
        assert!(!b.receive(SYN, 500, 0, b"").opened, "a retransmission");
        assert!(b.receive(SYN, 90_000, 0, b"").opened);
    });
}

#[test]
fn what_comes_after_an_abort_goes_nowhere() {
    versions(|b| {
        b.connected();
        b.script.generation = 1;
        b.script.block = vec![Layer::AleAuthConnect];
        assert_eq!(b.send(ACK, 101, 501, b"x").verdict, Verdict::Abort);
        b.script.block.clear();
        assert_eq!(b.receive(ACK, 501, 102, b"late").verdict, Verdict::Drop);
        assert_eq!(b.send(ACK, 102, 505, b"").verdict, Verdict::Drop);
        assert!(b.send(SYN, 40_000, 0, b"").opened, "a new connection may come");
    });
}

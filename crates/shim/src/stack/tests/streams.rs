//! Stream data, ends of flows, policy changes, fragments, and what is out of the ordinary.

use super::*;

#[test]
fn retransmitted_bytes_are_indicated_once() {
    let b = &mut Bench::new(false);
    b.connected();
    b.send(ACK, 101, 501, b"abc");
    b.send(ACK, 101, 501, b"abc");
    b.send(ACK, 101, 501, b"abcdef");
    b.receive(ACK, 501, 107, b"xyz");
    b.receive(ACK, 501, 107, b"xyz");
    let bytes: Vec<&[u8]> = b.script.stream.iter().map(|(_, bytes)| &bytes[..]).collect();
    assert_eq!(bytes, [b"abc", b"def", b"xyz"]);
    let transport = b.script.log.iter().filter(|entry| entry.contains("OUTBOUND_TRANSPORT")).count();
    assert_eq!(transport, 3, "every segment passes the transport layer");
}

#[test]
fn bytes_out_of_order_are_indicated_in_order() {
    versions(|b| {
        b.connected();
        assert_eq!(b.receive(ACK, 504, 101, b"def").verdict, Verdict::Relayed, "it does not pass before it was shown");
        b.receive(FIN | ACK, 507, 101, b"gh");
        assert!(b.script.stream.is_empty());
        assert!(relayed(b).iter().all(|(direction, ..)| *direction == Direction::Outbound), "acknowledgments only");
        b.receive(ACK, 501, 101, b"abc");
        let bytes: Vec<&[u8]> = b.script.stream.iter().map(|(_, bytes)| &bytes[..]).collect();
        assert_eq!(bytes, [&b"abcdefgh"[..], b""]);
        assert_eq!(b.script.stream[1].0, crate::classifier::stream_flag::RECEIVE_DISCONNECT);
        let data: Vec<u8> =
            relayed(b).into_iter().filter(|one| one.0 == Direction::Inbound).flat_map(|one| one.3).collect();
        assert_eq!(data, b"abcdefgh");
    });
}

#[test]
fn drop_connection_resets_both_ends() {
    versions(|b| {
        b.connected();
        b.send(ACK, 101, 501, b"abc");
        b.receive(ACK, 501, 104, b"xyz");
        b.script.drop_connection = true;
        let decision = b.send(ACK, 104, 504, b"secret");
        assert_eq!((decision.verdict, decision.by.unwrap().layer), (Verdict::Abort, Layer::Stream));
        let to_local = Packet::parse(&b.stack.output.to_local).unwrap();
        let to_remote = Packet::parse(&b.stack.output.to_remote).unwrap();
        let (Upper::Tcp(local), Upper::Tcp(remote)) = (to_local.upper, to_remote.upper) else { panic!("not TCP") };
        assert_eq!((local.source, local.destination, local.sequence), (443, 40000, 504));
        assert_eq!((remote.source, remote.destination, remote.sequence), (40000, 443, 104), "the secret never arrived");
        assert!(local.has(RST) && remote.has(RST));
        assert_eq!(b.script.ended, [1]);
        b.asked();
        b.script.drop_connection = false;
        assert_eq!(b.send(ACK, 104, 504, b"secret").verdict, Verdict::Drop, "nobody is there to send it");
        assert_eq!(b.asked(), ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"], "a late segment belongs to no flow");
    });
}

#[test]
fn an_aborted_flow_is_reset_at_its_next_packet() {
    let b = &mut Bench::new(false);
    b.connected();
    b.script.aborted = vec![1];
    assert_eq!(b.receive(ACK, 501, 101, b"data").verdict, Verdict::Abort);
    assert_eq!(b.script.ended, [1]);
}

#[test]
fn a_packet_blocked_with_an_abort_ends_its_flow_at_once() {
    let b = &mut Bench::new(false);
    b.connected();
    b.script.aborted = vec![1];
    b.script.block = vec![Layer::InboundTransport];
    let decision = b.receive(ACK, 501, 101, b"data");
    assert_eq!((decision.verdict, decision.by.unwrap().layer), (Verdict::Abort, Layer::InboundTransport));
    assert_eq!(b.script.ended, [1]);

    let b = &mut Bench::new(false);
    let out = b.udp(Direction::Outbound, b"q");
    b.pass(Direction::Outbound, &out);
    b.script.aborted = vec![1];
    b.script.block = vec![Layer::OutboundTransport];
    assert_eq!(b.pass(Direction::Outbound, &out).verdict, Verdict::Drop);
    assert_eq!((b.stack.flow_count(), &b.script.ended[..]), (0, &[1][..]));
}

#[test]
fn a_stream_block_takes_the_bytes_out_and_the_rest_goes_on() {
    let b = &mut Bench::new(false);
    b.connected();
    b.script.block = vec![Layer::Stream];
    let decision = b.receive(ACK, 501, 101, b"bad");
    assert_eq!((decision.verdict, decision.by.unwrap().layer), (Verdict::Drop, Layer::Stream));
    assert_eq!(relayed(b), [(Direction::Outbound, 101, 504, vec![])], "the sender is told that they arrived");
    assert_eq!(b.receive(ACK, 501, 101, b"bad").verdict, Verdict::Relayed);
    assert_eq!(b.script.stream.len(), 1, "the verdict was asked for once");
    b.script.block = vec![];
    assert_eq!(b.receive(ACK, 504, 101, b"more").verdict, Verdict::Relayed);
    assert_eq!(relayed(b), [(Direction::Inbound, 501, 101, b"more".to_vec()), (Direction::Outbound, 101, 508, vec![])]);
    assert_eq!(b.send(ACK, 101, 505, b"answer").verdict, Verdict::Relayed);
    assert_eq!(
        relayed(b),
        [(Direction::Outbound, 101, 508, b"answer".to_vec()), (Direction::Inbound, 505, 107, vec![])]
    );
}

/// The segments of the stack's own that came with the last packet: direction, sequence, acknowledgment, data.
fn relayed(b: &Bench) -> Vec<(Direction, u32, u32, Vec<u8>)> {
    let read = |(direction, buffer): &(Direction, PacketBuffer)| {
        let packet = Packet::parse(buffer.bytes()).unwrap();
        let Upper::Tcp(tcp) = packet.upper else { panic!("not TCP") };
        (*direction, tcp.sequence, tcp.acknowledgment, buffer.bytes()[packet.data_offset()..].to_vec())
    };
    b.stack.output.relayed.iter().map(read).collect()
}

#[test]
fn a_policy_change_reauthorizes_at_the_next_packet() {
    versions(|b| {
        b.connected();
        b.script.generation = 1;
        b.receive(ACK, 501, 101, b"in");
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "ALE_AUTH_CONNECT again", "STREAM in"]);
        b.send(ACK, 101, 503, b"out");
        assert_eq!(b.asked(), ["STREAM out", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"], "once is enough");
        b.script.generation = 2;
        b.send(ACK, 104, 503, b"out");
        assert_eq!(b.asked(), ["STREAM out", "ALE_AUTH_CONNECT again", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
        b.script.generation = 3;
        b.script.block = vec![Layer::AleAuthConnect];
        assert_eq!(b.receive(ACK, 503, 107, b"late").verdict, Verdict::Abort);
        assert_eq!(b.script.ended, [1]);
    });
    versions(|b| {
        let out = b.udp(Direction::Outbound, b"q");
        b.pass(Direction::Outbound, &out);
        b.script.generation = 1;
        let back = b.udp(Direction::Inbound, b"a");
        b.asked();
        b.pass(Direction::Inbound, &back);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "ALE_AUTH_CONNECT again", "DATAGRAM_DATA"]);
        b.script.generation = 2;
        b.script.block = vec![Layer::AleAuthConnect];
        assert_eq!(b.pass(Direction::Outbound, &out).verdict, Verdict::Drop);
        assert_eq!((b.stack.flow_count(), b.script.ended.len()), (0, 1));
    });
}

#[test]
fn a_reset_ends_the_flow() {
    let b = &mut Bench::new(false);
    b.connected();
    b.receive(RST | ACK, 501, 101, b"");
    assert_eq!(
        b.asked(),
        [
            "INBOUND_IPPACKET",
            "INBOUND_TRANSPORT",
            "STREAM ",
            "end of flow 1",
            "ALE_ENDPOINT_CLOSURE",
            "ALE_RESOURCE_RELEASE"
        ]
    );
    assert_eq!(b.script.stream[0].0, crate::classifier::stream_flag::RECEIVE_ABORT);
    b.send(SYN, 7000, 0, b"");
    assert_eq!(b.asked()[3], "ALE_AUTH_CONNECT", "the same ports make a new connection");
    b.receive(RST | ACK, 0, 7001, b"");
    assert_eq!(b.script.ended.len(), 1, "a refused connect had no flow yet");
}

#[test]
fn idle_flows_end() {
    let b = &mut Bench::new(false);
    let out = b.udp(Direction::Outbound, b"q");
    b.pass(Direction::Outbound, &out);
    b.now = Duration::from_secs(59);
    b.pass(Direction::Outbound, &out);
    b.now = Duration::from_secs(100);
    b.stack.expire(&mut b.script, b.now);
    assert_eq!(b.stack.flow_count(), 1, "it was used 41 seconds ago");
    b.now = Duration::from_secs(119);
    b.stack.expire(&mut b.script, b.now);
    assert_eq!((b.stack.flow_count(), &b.script.ended[..]), (0, &[1][..]));
    assert_eq!(b.stack.ledger.deadlines.len(), 0);

    b.send(SYN, 100, 0, b"");
    b.now += HANDSHAKE_TIMEOUT;
    b.stack.expire(&mut b.script, b.now);
    assert_eq!(b.stack.flow_count(), 0, "nobody answered the SYN");

    b.connected();
    b.receive(RST | ACK, 501, 101, b"");
    assert_eq!(b.stack.flow_count(), 1, "remembered for its last segments");
    b.now += CLOSED_TIMEOUT;
    b.stack.expire(&mut b.script, b.now);
    assert_eq!(b.stack.flow_count(), 0);
}

#[test]
fn finish_ends_every_flow() {
    let b = &mut Bench::new(true);
    b.connected();
    let out = b.udp(Direction::Outbound, b"q");
    b.pass(Direction::Outbound, &out);
    b.stack.finish(&mut b.script);
    assert_eq!((b.script.ended.len(), b.stack.flow_count()), (2, 0));
    assert!(b.stack.ledger.binds.is_empty());
}

#[test]
fn fragments_wait_for_one_verdict() {
    versions(|b| {
        let datagram = b.udp(Direction::Outbound, &[9; 3000]);
        let pieces = crate::fragment::cut::cut(&datagram, 1480, 99);
        assert_eq!(b.pass(Direction::Outbound, &pieces[0]).verdict, Verdict::Hold);
        assert_eq!(b.pass(Direction::Outbound, &pieces[2]).verdict, Verdict::Hold);
        assert!(b.asked().is_empty(), "fragments are not indicated on their way out");
        assert_eq!(b.pass(Direction::Outbound, &pieces[1]).verdict, Verdict::Forward);
        assert_eq!(
            b.stack.output.earlier.iter().map(PacketBuffer::bytes).collect::<Vec<_>>(),
            [&pieces[0], &pieces[2]]
        );
        assert_eq!(b.asked()[5], "DATAGRAM_DATA");
        let shown = b.script.shown.iter().find(|(layer, ..)| *layer == Layer::DatagramData).unwrap();
        assert_eq!(shown.1.len(), 3008);

        let datagram = b.udp(Direction::Inbound, &[8; 2000]);
        let pieces = crate::fragment::cut::cut(&datagram, 1480, 98);
        b.pass(Direction::Inbound, &pieces[0]);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET"]);
        assert_eq!(b.script.flags.last(), Some(&(Layer::InboundIpPacket, condition_flag::IS_FRAGMENT)));
    });
}

#[test]
fn a_connection_under_way_is_picked_up_as_after_a_policy_change() {
    for v6 in [false, true] {
        let b = &mut Bench::with(v6, Config { pick_up: true });
        let decision = b.send(ACK, 2000, 9000, b"mid");
        assert!(decision.opened);
        assert_eq!(decision.by, Some(By { layer: Layer::AleAuthConnect, filter_id: 7 }));
        assert_eq!(b.asked(), ["STREAM mid", "ALE_AUTH_CONNECT again", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
        b.receive(ACK, 9000, 2003, b"dle");
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "STREAM dle"]);
    }
    let b = &mut Bench::new(false);
    assert!(!b.send(ACK, 2000, 9000, b"mid").opened);
    assert_eq!(b.asked(), ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"], "a stray segment has no flow");
    let b = &mut Bench::with(false, Config { pick_up: true });
    let served = b.segment_between(Direction::Inbound, 50000, 80, ACK, 1, 1, b"x");
    b.pass(Direction::Inbound, &served);
    assert_eq!(b.asked()[2], "ALE_AUTH_RECV_ACCEPT again", "the lower port accepted");
}

#[test]
fn data_with_the_syn_is_indicated_when_the_connection_stands() {
    let b = &mut Bench::new(false);
    b.send(SYN, 100, 0, b"fast");
    b.receive(SYN | ACK, 500, 105, b"");
    b.asked();
    b.send(ACK, 105, 501, b"open");
    let bytes: Vec<&[u8]> = b.script.stream.iter().map(|(_, bytes)| &bytes[..]).collect();
    assert_eq!(bytes, [b"fast", b"open"]);
}

#[test]
fn flow_established_may_refuse() {
    let b = &mut Bench::new(false);
    b.script.block = vec![Layer::AleFlowEstablished];
    b.send(SYN, 100, 0, b"");
    assert_eq!(b.receive(SYN | ACK, 500, 101, b"").verdict, Verdict::Abort);
    let Upper::Tcp(tcp) = Packet::parse(&b.stack.output.to_local).unwrap().upper else { panic!("not TCP") };
    assert_eq!((tcp.flags, tcp.acknowledgment), (RST | ACK, 101), "acceptable in SYN-SENT");
    assert_eq!(b.script.ended, [1]);
}

#[test]
fn layers_nobody_filters_are_not_asked() {
    let b = &mut Bench::new(false);
    b.script.unwanted = Layer::ALL.to_vec();
    b.connected();
    b.send(ACK, 101, 501, b"abc");
    b.receive(ACK, 600, 104, b"early");
    assert!(b.asked().is_empty());
    assert_eq!(b.script.flows, 1);
}

#[test]
fn who_spoke_first_is_local() {
    let b = &mut Bench::new(false);
    let direction = |b: &Bench, bytes: &[u8]| b.stack.direction_by_first_speaker(&Packet::parse(bytes).unwrap());
    let syn = b.segment(Direction::Outbound, SYN, 1, 0, b"");
    let answer = b.segment(Direction::Inbound, SYN | ACK, 1, 2, b"");
    assert_eq!(direction(b, &syn), Direction::Outbound);
    assert_eq!(direction(b, &answer), Direction::Inbound);
    let from_server = b.segment(Direction::Inbound, ACK, 1, 2, b"x");
    assert_eq!(direction(b, &from_server), Direction::Inbound, "its port is the lower one");
    let datagram = b.udp(Direction::Inbound, b"x");
    assert_eq!(direction(b, &datagram), Direction::Outbound, "nothing is known of this flow");
    let out = b.udp(Direction::Outbound, b"x");
    b.pass(Direction::Outbound, &out);
    assert_eq!(direction(b, &datagram), Direction::Inbound, "now there is");
}

#[test]
fn malformed_packets_reach_no_layer() {
    let b = &mut Bench::new(false);
    let syn = b.segment(Direction::Outbound, SYN, 1, 0, b"");
    assert!(matches!(b.pass(Direction::Outbound, &syn[..30]).verdict, Verdict::Malformed(_)));
    assert!(b.asked().is_empty());
}

//! Which layers are asked, in which order, and what they are shown.

use super::*;

#[test]
fn outbound_tcp_from_connect_to_close() {
    versions(|b| {
        let opened = b.send(SYN, 100, 0, b"");
        assert_eq!(opened.verdict, Verdict::Forward);
        assert!(opened.opened);
        assert_eq!(opened.by, Some(By { layer: Layer::AleAuthConnect, filter_id: 7 }));
        assert_eq!(
            b.asked(),
            [
                "ALE_BIND_REDIRECT",
                "ALE_RESOURCE_ASSIGNMENT",
                "ALE_CONNECT_REDIRECT",
                "ALE_AUTH_CONNECT",
                "OUTBOUND_TRANSPORT",
                "OUTBOUND_IPPACKET"
            ]
        );
        b.receive(SYN | ACK, 500, 101, b"");
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "ALE_FLOW_ESTABLISHED"]);
        b.send(ACK, 101, 501, b"");
        assert_eq!(b.asked(), ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
        b.send(ACK | PSH, 101, 501, b"GET");
        assert_eq!(b.asked(), ["STREAM GET", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
        b.receive(ACK | PSH, 501, 104, b"200");
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "STREAM 200"]);
        b.send(FIN | ACK, 104, 504, b"");
        assert_eq!(b.asked(), ["STREAM ", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
        b.receive(FIN | ACK, 504, 105, b"");
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "STREAM "]);
        b.send(ACK, 105, 505, b"");
        assert_eq!(
            b.asked(),
            [
                "OUTBOUND_TRANSPORT",
                "OUTBOUND_IPPACKET",
                "end of flow 1",
                "ALE_ENDPOINT_CLOSURE",
                "ALE_RESOURCE_RELEASE"
            ]
        );
        use crate::classifier::stream_flag::*;
        let flags: Vec<u32> = b.script.stream.iter().map(|(flags, _)| *flags).collect();
        assert_eq!(flags, [SEND, RECEIVE | RECEIVE_PUSH, SEND_DISCONNECT, RECEIVE_DISCONNECT]);
        assert_eq!(b.owners.0.borrow().len(), 1, "the owner is looked up once a flow");
        assert!(b.stack.ledger.binds.is_empty());
    });
}

#[test]
fn inbound_tcp() {
    versions(|b| {
        let syn = b.segment_between(Direction::Inbound, 50000, 80, SYN, 900, 0, b"");
        let decision = b.pass(Direction::Inbound, &syn);
        assert!(decision.opened);
        assert_eq!(decision.by.unwrap().layer, Layer::AleAuthRecvAccept);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "ALE_AUTH_RECV_ACCEPT"]);
        assert_eq!(b.script.flags[1], (Layer::InboundTransport, condition_flag::REQUIRES_ALE_CLASSIFY));
        let answer = b.segment_between(Direction::Outbound, 80, 50000, SYN | ACK, 30, 901, b"");
        b.pass(Direction::Outbound, &answer);
        assert_eq!(b.asked(), ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
        let last = b.segment_between(Direction::Inbound, 50000, 80, ACK, 901, 31, b"hello");
        b.pass(Direction::Inbound, &last);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "ALE_FLOW_ESTABLISHED", "STREAM hello"]);
    });
}

#[test]
fn udp_both_ways() {
    versions(|b| {
        let out = b.udp(Direction::Outbound, b"question");
        let back = b.udp(Direction::Inbound, b"answer");
        assert!(b.pass(Direction::Outbound, &out).opened);
        assert_eq!(
            b.asked(),
            [
                "ALE_BIND_REDIRECT",
                "ALE_RESOURCE_ASSIGNMENT",
                "ALE_CONNECT_REDIRECT",
                "ALE_AUTH_CONNECT",
                "ALE_FLOW_ESTABLISHED",
                "DATAGRAM_DATA",
                "OUTBOUND_TRANSPORT",
                "OUTBOUND_IPPACKET"
            ]
        );
        assert!(!b.pass(Direction::Inbound, &back).opened);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "DATAGRAM_DATA"]);
        b.pass(Direction::Outbound, &out);
        assert_eq!(b.asked(), ["DATAGRAM_DATA", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
    });
    versions(|b| {
        let first = b.udp(Direction::Inbound, b"knock");
        b.pass(Direction::Inbound, &first);
        assert_eq!(
            b.asked(),
            ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "ALE_AUTH_RECV_ACCEPT", "ALE_FLOW_ESTABLISHED", "DATAGRAM_DATA"]
        );
    });
}

#[test]
fn icmp_echo_is_a_flow_and_an_error_is_not() {
    versions(|b| {
        let (mut request, mut reply, mut error) = (Vec::new(), Vec::new(), Vec::new());
        let dropped = b.udp(Direction::Outbound, b"lost");
        if b.v6 {
            b.ip(Direction::Outbound).icmpv6_echo_request(5, 1).write(&mut request, b"ping").unwrap();
            b.ip(Direction::Inbound).icmpv6_echo_reply(5, 1).write(&mut reply, b"ping").unwrap();
            b.ip(Direction::Inbound).icmpv6_raw(1, 4, [0; 4]).write(&mut error, &dropped).unwrap();
        } else {
            b.ip(Direction::Outbound).icmpv4_echo_request(5, 1).write(&mut request, b"ping").unwrap();
            b.ip(Direction::Inbound).icmpv4_echo_reply(5, 1).write(&mut reply, b"ping").unwrap();
            b.ip(Direction::Inbound).icmpv4_raw(3, 3, [0; 4]).write(&mut error, &dropped).unwrap();
        }
        b.pass(Direction::Outbound, &request);
        assert_eq!(b.asked()[1..4], ["ALE_AUTH_CONNECT", "ALE_FLOW_ESTABLISHED", "DATAGRAM_DATA"]);
        b.pass(Direction::Inbound, &reply);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "DATAGRAM_DATA"]);
        b.pass(Direction::Inbound, &error);
        assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "INBOUND_ICMP_ERROR"]);
        // Data offsets: an inbound ICMP message is shown from its header, an error from the packet it quotes.
        let ip_header = if b.v6 { 40 } else { 20 };
        let shown = |layer| b.script.shown.iter().rfind(|(l, ..)| *l == layer).map(|(_, _, offset)| *offset);
        assert_eq!(shown(Layer::DatagramData), Some(ip_header));
        assert_eq!(shown(Layer::InboundIcmpError), Some(ip_header + 8));
        b.pass(Direction::Outbound, &error_out(b));
        assert_eq!(b.asked(), ["OUTBOUND_ICMP_ERROR", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"]);
    });
}

fn error_out(b: &Bench) -> Vec<u8> {
    let mut error = Vec::new();
    let quoted = b.udp(Direction::Inbound, b"unwanted");
    match b.v6 {
        true => b.ip(Direction::Outbound).icmpv6_raw(1, 4, [0; 4]).write(&mut error, &quoted).unwrap(),
        false => b.ip(Direction::Outbound).icmpv4_raw(3, 3, [0; 4]).write(&mut error, &quoted).unwrap(),
    }
    error
}

#[test]
fn each_layer_sees_its_part_of_the_packet() {
    versions(|b| {
        b.connected();
        b.script.shown.clear();
        b.send(ACK, 101, 501, b"out");
        b.receive(ACK, 501, 104, b"in");
        let ip = if b.v6 { 40 } else { 20 };
        let summary: Vec<(Layer, usize, usize)> =
            b.script.shown.iter().map(|(layer, bytes, offset)| (*layer, bytes.len(), *offset)).collect();
        assert_eq!(
            summary,
            [
                (Layer::OutboundTransport, 20 + 3, 0),
                (Layer::OutboundIpPacket, ip + 20 + 3, 0),
                (Layer::InboundIpPacket, ip + 20 + 2, ip),
                (Layer::InboundTransport, ip + 20 + 2, ip + 20),
            ]
        );
    });
}

#[test]
fn only_binding_and_connecting_happen_at_passive_level() {
    let b = &mut Bench::new(false);
    b.connected();
    b.send(ACK, 101, 501, b"x");
    b.script.generation = 1;
    b.send(ACK, 102, 501, b"y");
    let passive: Vec<Layer> =
        b.script.irqls.iter().filter(|(_, irql)| *irql == nt_abi::Irql::PASSIVE).map(|(layer, _)| *layer).collect();
    assert_eq!(
        passive,
        [Layer::AleBindRedirect, Layer::AleResourceAssignment, Layer::AleConnectRedirect, Layer::AleAuthConnect],
        "the reauthorization comes with a packet"
    );
}

#[test]
fn a_blocked_connect_is_refused_and_leaves_nothing() {
    versions(|b| {
        b.script.block = vec![Layer::AleAuthConnect];
        let decision = b.send(SYN, 100, 0, b"");
        assert_eq!(decision.verdict, Verdict::Refuse);
        assert_eq!(decision.by, Some(By { layer: Layer::AleAuthConnect, filter_id: 7 }));
        let reset = Packet::parse(&b.stack.output.to_local).unwrap();
        let Upper::Tcp(tcp) = reset.upper else { panic!("not TCP") };
        assert_eq!((tcp.flags, tcp.acknowledgment, tcp.source), (RST | ACK, 101, 443));
        assert!(b.stack.output.to_remote.is_empty());
        assert_eq!((b.stack.flow_count(), b.stack.ledger.binds.len()), (0, 0));
        assert_eq!(
            b.asked(),
            [
                "ALE_BIND_REDIRECT",
                "ALE_RESOURCE_ASSIGNMENT",
                "ALE_CONNECT_REDIRECT",
                "ALE_AUTH_CONNECT",
                "ALE_RESOURCE_RELEASE"
            ]
        );

        let datagram = b.udp(Direction::Outbound, b"question");
        assert_eq!(b.pass(Direction::Outbound, &datagram).verdict, Verdict::Refuse);
        let error = Packet::parse(&b.stack.output.to_local).unwrap();
        assert!(matches!(error.upper, Upper::Icmp(icmp) if icmp.error));
        assert_eq!(b.stack.flow_count(), 0);
    });
}

#[test]
fn an_absorbed_connect_is_told_to_nobody() {
    let b = &mut Bench::new(false);
    b.script.block = vec![Layer::AleAuthConnect];
    b.script.absorb = true;
    assert_eq!(b.send(SYN, 100, 0, b"").verdict, Verdict::Drop);
    assert!(b.stack.output.to_local.is_empty());
}

#[test]
fn a_blocked_accept_or_transport_is_silent() {
    versions(|b| {
        b.script.block = vec![Layer::AleAuthRecvAccept];
        let syn = b.segment_between(Direction::Inbound, 50000, 80, SYN, 900, 0, b"");
        assert_eq!(b.pass(Direction::Inbound, &syn).verdict, Verdict::Drop);
        b.script.block = vec![Layer::OutboundTransport];
        let decision = b.send(SYN, 100, 0, b"");
        assert_eq!((decision.verdict, decision.by.unwrap().layer), (Verdict::Drop, Layer::OutboundTransport));
        assert!(b.stack.output.to_local.is_empty());
        b.asked();
        b.script.block.clear();
        b.send(SYN, 100, 0, b"");
        assert_eq!(
            b.asked(),
            ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"],
            "a retransmitted SYN connects no second time"
        );
    });
}

#[test]
fn a_server_binds_listens_and_accepts() {
    versions(|b| {
        let local = if b.v6 { "[::]:80" } else { "0.0.0.0:80" }.parse().unwrap();
        let request = Request { protocol: 6, local, owner: None, kind: RequestKind::Port };
        let socket = b.stack.bind(&mut b.script, request).expect("nobody refuses it");
        b.stack.listen(&mut b.script, socket).expect("nobody refuses it");
        let syn = b.segment_between(Direction::Inbound, 50000, 80, SYN, 900, 0, b"");
        assert_eq!(b.pass(Direction::Inbound, &syn).verdict, Verdict::Forward);
        b.stack.close_socket(&mut b.script, socket);
        assert_eq!(
            b.asked(),
            [
                "ALE_BIND_REDIRECT",
                "ALE_RESOURCE_ASSIGNMENT",
                "ALE_AUTH_LISTEN",
                "INBOUND_IPPACKET",
                "INBOUND_TRANSPORT",
                "ALE_AUTH_RECV_ACCEPT",
                "ALE_RESOURCE_RELEASE"
            ]
        );
        let passive = [Layer::AleBindRedirect, Layer::AleResourceAssignment, Layer::AleAuthListen];
        assert!(b.script.irqls.iter().all(|(layer, irql)| !passive.contains(layer) || *irql == nt_abi::Irql::PASSIVE));
    });
}

#[test]
fn what_a_socket_asks_for_is_in_the_flags() {
    let b = &mut Bench::new(false);
    for (protocol, kind, flags) in [
        (6, RequestKind::Port, 0),
        (17, RequestKind::ChosenPort, condition_flag::IS_WILDCARD_BIND),
        (1, RequestKind::Raw, condition_flag::IS_RAW_ENDPOINT),
        (0, RequestKind::Promiscuous(0x9800_0001), condition_flag::IS_RAW_ENDPOINT),
    ] {
        b.script.flags.clear();
        let request = Request { protocol, local: "0.0.0.0:1".parse().unwrap(), owner: None, kind };
        b.stack.bind(&mut b.script, request).expect("nobody refuses it");
        let redirects = matches!(protocol, 6 | 17).then_some((Layer::AleBindRedirect, 0));
        let expected: Vec<_> = redirects.into_iter().chain([(Layer::AleResourceAssignment, flags)]).collect();
        assert_eq!(b.script.flags, expected, "{kind:?}");
    }
}

#[test]
fn a_bind_or_listen_that_is_refused_leaves_no_socket() {
    let b = &mut Bench::new(false);
    let request =
        || Request { protocol: 6, local: "0.0.0.0:80".parse().unwrap(), owner: None, kind: RequestKind::Port };
    b.script.block = vec![Layer::AleAuthListen];
    let socket = b.stack.bind(&mut b.script, request()).expect("nobody refuses it");
    let refused = b.stack.listen(&mut b.script, socket);
    assert_eq!(refused, Err(By { layer: Layer::AleAuthListen, filter_id: 7 }));
    b.script.block = vec![Layer::AleResourceAssignment];
    let refused = b.stack.bind(&mut b.script, request());
    assert_eq!(refused, Err(By { layer: Layer::AleResourceAssignment, filter_id: 7 }));
    b.asked();
    b.stack.finish(&mut b.script);
    assert_eq!(b.asked(), ["ALE_RESOURCE_RELEASE"], "the one that is bound");
}

#[test]
fn an_address_that_goes_takes_its_flows_and_sockets_along() {
    versions(|b| {
        let own: IpAddr = if b.v6 { CLIENT6.into() } else { CLIENT4.into() };
        let bind = |b: &mut Bench, address: IpAddr| {
            let request = Request { protocol: 17, local: (address, 53).into(), owner: None, kind: RequestKind::Port };
            b.stack.bind(&mut b.script, request).expect("nobody refuses it")
        };
        let every: IpAddr = if b.v6 { [0; 16].into() } else { [0; 4].into() };
        bind(b, own);
        bind(b, every);
        b.connected();
        b.asked();
        b.stack.lose_address(&mut b.script, [192, 0, 2, 1].into());
        assert_eq!(b.asked(), [""; 0], "another address");
        b.stack.lose_address(&mut b.script, own);
        let asked = b.asked();
        assert_eq!(b.stack.flow_count(), 0);
        assert_eq!(asked, ["end of flow 1", "ALE_ENDPOINT_CLOSURE", "ALE_RESOURCE_RELEASE", "ALE_RESOURCE_RELEASE"]);
    });
}

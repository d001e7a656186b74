//! Groups and broadcasts, packets from the machine to itself, and sockets that are closed.

use super::*;

/// A machine with addresses, whose sockets may all be closed.
#[derive(Default)]
struct Local {
    closed: bool,
}

impl Endpoints for Local {
    fn owner(&mut self, _: &FlowKey) -> Option<Arc<Owner>> {
        None
    }

    fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || [IpAddr::from(CLIENT4), IpAddr::from([10, 77, 0, 3])].contains(&address)
    }

    fn is_open(&mut self, _: &FlowKey) -> bool {
        !self.closed
    }

    fn retain_closed(&mut self, flows: &mut Vec<FlowKey>) {
        if !self.closed {
            flows.clear();
        }
    }
}

const GROUP: [u8; 4] = [239, 255, 255, 250];
const ACCEPTS: &str = "ALE_AUTH_RECV_ACCEPT_V4";

fn udp(source: ([u8; 4], u16), destination: ([u8; 4], u16)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ip = PacketBuilder::ipv4(source.0, destination.0, 64);
    ip.udp(source.1, destination.1).write(&mut bytes, b"data").unwrap();
    bytes
}

fn at(b: &mut Bench, milliseconds: u64, direction: Direction, packet: &[u8]) -> Decision {
    b.now = Duration::from_millis(milliseconds);
    b.pass(direction, packet)
}

#[test]
fn whoever_answers_a_group_or_a_broadcast_may_for_four_seconds() {
    for group in [GROUP, [255; 4]] {
        let b = &mut Bench::new(false);
        let question = udp((CLIENT4, 50_000), (group, 1900));
        assert!(at(b, 0, Direction::Outbound, &question).opened);
        b.script.block = vec![Layer::AleAuthRecvAccept];
        let answers = [
            udp(([10, 77, 0, 9], 1900), (CLIENT4, 50_000)),
            udp(([10, 77, 0, 8], 60_000), (CLIENT4, 50_000)),
            udp(([10, 77, 0, 7], 1900), (group, 50_000)),
        ];
        for answer in &answers {
            b.asked();
            let decision = at(b, 3999, Direction::Inbound, answer);
            assert_eq!((decision.verdict, decision.opened), (Verdict::Forward, false));
            assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "DATAGRAM_DATA"]);
        }
        let other_port = udp(([10, 77, 0, 9], 1900), (CLIENT4, 50_001));
        assert_eq!(at(b, 3999, Direction::Inbound, &other_port).verdict, Verdict::Drop);
        assert_eq!(at(b, 4000, Direction::Inbound, &answers[0]).verdict, Verdict::Drop, "an answer refreshes nothing");
        assert!(b.stack.groups.is_empty());
    }
}

#[test]
fn another_datagram_to_the_group_gives_four_seconds_more() {
    let b = &mut Bench::new(false);
    let question = udp((CLIENT4, 5353), ([224, 0, 0, 251], 5353));
    at(b, 0, Direction::Outbound, &question);
    at(b, 3000, Direction::Outbound, &question);
    b.script.block = vec![Layer::AleAuthRecvAccept];
    let answer = udp(([10, 77, 0, 9], 5353), (CLIENT4, 5353));
    assert_eq!(at(b, 6999, Direction::Inbound, &answer).verdict, Verdict::Forward);
    assert_eq!(at(b, 7000, Direction::Inbound, &answer).verdict, Verdict::Drop);
}

#[test]
fn a_group_that_may_not_be_asked_may_not_answer() {
    let b = &mut Bench::new(false);
    b.script.block = vec![Layer::AleAuthConnect, Layer::AleAuthRecvAccept];
    assert_eq!(at(b, 0, Direction::Outbound, &udp((CLIENT4, 50_000), (GROUP, 1900))).verdict, Verdict::Refuse);
    let answer = udp(([10, 77, 0, 9], 1900), (CLIENT4, 50_000));
    assert_eq!(at(b, 1, Direction::Inbound, &answer).verdict, Verdict::Drop);
}

fn within(b: &mut Bench, packet: &[u8]) -> (Decision, Option<Decision>) {
    let mut buffer = PacketBuffer::copy_of(packet);
    b.stack.send(&mut b.script, &mut Local::default(), &mut buffer, |_| true, b.now)
}

#[test]
fn both_ends_of_loopback_are_asked_and_told() {
    for (from, to) in [([127, 0, 0, 1], [127, 0, 0, 1]), (CLIENT4, CLIENT4), (CLIENT4, [10, 77, 0, 3])] {
        let b = &mut Bench::new(false);
        let (sent, arrived) = within(b, &udp((from, 50_000), (to, 53)));
        assert!(sent.opened && arrived.unwrap().opened, "each end has its flow");
        assert_eq!(b.stack.flow_count(), 2);
        let asked = b.script.log.clone();
        assert!(asked.iter().any(|layer| layer == "ALE_AUTH_CONNECT_V4") && asked.iter().any(|layer| layer == ACCEPTS));
        assert!(b.script.flags.iter().all(|(_, flags)| flags & condition_flag::IS_LOOPBACK != 0));
        let (back, arrived) = within(b, &udp((to, 53), (from, 50_000)));
        assert!(!back.opened && !arrived.unwrap().opened);

        let b = &mut Bench::new(false);
        b.script.block = vec![Layer::AleAuthRecvAccept];
        assert_eq!(within(b, &udp((from, 50_000), (to, 53))).1.unwrap().verdict, Verdict::Drop);
        b.script.block = vec![Layer::AleAuthConnect];
        assert_eq!(within(b, &udp((from, 50_001), (to, 53))).1, None, "what does not leave does not arrive");
    }
}

#[test]
fn a_connection_from_the_machine_to_itself_stands_at_both_ends() {
    let b = &mut Bench::new(false);
    let segment = |out: bool, flags: u8, sequence: u32, acknowledgment: u32| {
        let (from, to) = if out { (50_000, 8080) } else { (8080, 50_000) };
        let mut header = TcpHeader::new(from, to, sequence, 100);
        (header.syn, header.ack) = (flags & SYN != 0, flags & ACK != 0);
        header.acknowledgment_number = acknowledgment;
        let mut bytes = Vec::new();
        PacketBuilder::ipv4(CLIENT4, CLIENT4, 64).tcp_header(header).write(&mut bytes, &[]).unwrap();
        bytes
    };
    for packet in [segment(true, SYN, 100, 0), segment(false, SYN | ACK, 500, 101), segment(true, ACK, 101, 501)] {
        assert_eq!(within(b, &packet).1.unwrap().verdict, Verdict::Forward);
    }
    let established = b.script.log.iter().filter(|layer| *layer == "ALE_FLOW_ESTABLISHED_V4").count();
    assert_eq!((established, b.stack.flow_count()), (2, 2));
}

#[test]
fn pieces_of_a_datagram_arrive_at_the_other_end() {
    let b = &mut Bench::new(false);
    let whole = udp((CLIENT4, 50_000), (CLIENT4, 53));
    let pieces = crate::fragment::cut::cut(&whole, 8, 7);
    let (first, last) = (within(b, &pieces[0]), within(b, &pieces[1]));
    assert_eq!((first.0.verdict, first.1), (Verdict::Hold, None));
    assert_eq!(last.1.map(|arrived| (arrived.verdict, arrived.opened)), Some((Verdict::Forward, true)));
}

#[test]
fn the_flows_of_a_closed_socket_end() {
    let b = &mut Bench::new(false);
    let packet = udp((CLIENT4, 50_000), (SERVER4, 53));
    b.pass(Direction::Outbound, &packet);
    assert!(b.send(SYN, 100, 0, b"").opened);
    let look = |b: &mut Bench, closed, now| b.stack.end_closed(&mut b.script, &mut Local { closed }, now);
    look(b, false, b.now);
    look(b, true, b.now + CLOSED_CHECK - Duration::from_nanos(1));
    assert!(b.script.ended.is_empty(), "open, and then not looked at so soon");
    look(b, true, b.now + CLOSED_CHECK);
    assert_eq!((b.script.ended.as_slice(), b.stack.flow_count()), (&[1][..], 1), "a connection has an end of its own");
    assert!(b.pass(Direction::Outbound, &packet).opened, "the next socket with that port is asked about");
}

#[test]
fn what_no_socket_wants_is_discarded_and_tcp_answers_unless_that_is_absorbed() {
    versions(|b| {
        for (bytes, tcp) in
            [(b.segment(Direction::Inbound, SYN, 500, 0, b""), true), (b.udp(Direction::Inbound, b"?"), false)]
        {
            for (blocked, absorbed) in [(false, false), (true, false), (true, true)] {
                b.script.block = if blocked { vec![Layer::InboundTransportDiscard] } else { Vec::new() };
                b.script.absorb = absorbed;
                let mut buffer = PacketBuffer::copy_of(&bytes);
                let mut local = Local { closed: true };
                let decision = b.stack.process(&mut b.script, &mut local, &mut buffer, Direction::Inbound, b.now);
                assert_eq!(b.asked(), ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "INBOUND_TRANSPORT_DISCARD"]);
                let silent = tcp && absorbed;
                assert_eq!(decision.verdict, if silent { Verdict::Drop } else { Verdict::Forward });
                assert!(!decision.opened && b.stack.flow_count() == 0);
            }
        }
    });
}

#[test]
fn packets_and_pieces_between_others_pass_the_forward_layer_alone() {
    versions(|b| {
        let whole = b.udp(Direction::Outbound, b"guest");
        let cut = &whole[..whole.len() - 9];
        for bytes in [&whole[..], cut] {
            let forward = |b: &mut Bench| {
                let mut buffer = PacketBuffer::copy_of(bytes);
                b.stack.forward(&mut b.script, &mut b.owners, &mut buffer, b.now).verdict
            };
            assert_eq!(forward(b), Verdict::Forward);
            assert_eq!(b.asked(), ["IPFORWARD"]);
            let (layer, shown, offset) = b.script.shown.pop().unwrap();
            assert_eq!((layer, &shown[..], offset), (Layer::IpForward, bytes, 0), "from its IP header");
            b.script.block = vec![Layer::IpForward];
            assert_eq!(forward(b), Verdict::Drop);
            b.script.block.clear();
            b.asked();
        }
        assert_eq!(b.stack.flow_count(), 0);
    });
}

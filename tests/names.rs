//! Rules on names decide by what a flow's first bytes ask for: on the real driver, with TCP clients that send them in
//! every way there is.

#[path = "support/hello.rs"]
mod hello;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::ops::ControlFlow;

use etherparse::{SlicedPacket, TransportSlice};
use hello::hello;
use ntsim::{machine::Machine, wdf::RegistryValue};
use shim::{layer::Direction, stack::Verdict};
use sluice_control::{EventLine, EventOptions, Item, events};
use sluice_host::Host;
use sluice_protocol::object::{CALLOUTS, Point};
use support::Rig;
use wire::{Segment, Tcp, Wire};

const ADS: &str = r#"
    [default]
    outbound = "permit"
    inbound = "permit"
    [[rule]]
    name = "ads"
    action = "block"
    remote-name = ".ads.example"
    log = true
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

fn get(host: &str) -> Vec<u8> {
    format!("GET /secret HTTP/1.1\r\nHost: {host}\r\nCookie: secret\r\n\r\n").into_bytes()
}

/// A connection, and what its server has received of it.
struct Talk<'w> {
    wire: &'w mut Wire,
    tcp: Tcp,
    client: Direction,
    received: Vec<u8>,
}

fn payload(packet: &[u8]) -> Vec<u8> {
    match SlicedPacket::from_ip(packet).unwrap().transport {
        Some(TransportSlice::Tcp(tcp)) => tcp.payload().to_vec(),
        _ => Vec::new(),
    }
}

impl<'w> Talk<'w> {
    /// This machine is the client.
    fn to(wire: &'w mut Wire, remote: &str) -> Self {
        let tcp = wire.establish(remote, 443);
        Self { wire, tcp, client: Direction::Outbound, received: Vec::new() }
    }

    /// This machine is the server.
    fn from(wire: &'w mut Wire, remote: &str, port: u16) -> Self {
        let mut tcp = Tcp::new(remote, port, 80);
        for (segment, direction) in [
            (Segment::Syn, Direction::Inbound),
            (Segment::SynAck, Direction::Outbound),
            (Segment::Ack, Direction::Inbound),
        ] {
            let packet = tcp.packet(segment, direction);
            assert_eq!(wire.pass(&packet, direction).verdict, Verdict::Forward);
        }
        Self { wire, tcp, client: Direction::Inbound, received: Vec::new() }
    }

    fn pass(&mut self, segment: Segment, direction: Direction) -> Verdict {
        let packet = self.tcp.packet(segment, direction);
        let verdict = self.wire.pass(&packet, direction).verdict;
        if verdict == Verdict::Forward && direction == self.client {
            self.received.extend(payload(&packet));
        }
        for (direction, packet) in self.wire.relayed() {
            if direction == self.client {
                self.received.extend(payload(&packet));
            }
        }
        verdict
    }

    /// The client sends bytes in segments of at most so many. What became of the last, or of the one that ended it.
    fn say(&mut self, bytes: &[u8], segment: usize) -> Verdict {
        let mut verdict = Verdict::Forward;
        for piece in bytes.chunks(segment) {
            verdict = self.pass(Segment::Data(Box::leak(piece.into())), self.client);
            if verdict == Verdict::Abort {
                break;
            }
        }
        verdict
    }

    fn answer(&mut self, bytes: &[u8]) -> Verdict {
        self.pass(Segment::Data(Box::leak(bytes.into())), self.client.reverse())
    }
}

fn drain(rig: &Rig) -> Vec<EventLine> {
    let mut lines = Vec::new();
    events(&rig.host, &EventOptions::default(), &mut |item| {
        if let Item::Event(line) = item {
            lines.push((**line).clone());
        }
        ControlFlow::Continue(())
    })
    .expect("events");
    lines
}

/// How many contexts flows carry: one for each transport layer, and one more where content is looked at.
fn contexts(rig: &Rig) -> usize {
    rig.machine.wfp.engine.flows.context_count()
}

#[test]
fn a_blocked_name_ends_the_connection_and_not_a_byte_arrives() {
    let rig = Rig::with_policy(ADS);
    let mut wire = Wire::new(&rig.machine);
    let mut blocked = 0;
    for remote in ["203.0.113.10", "2001:db8:1::10"] {
        for request in [get("www.ads.example"), hello("ads.example", 9999), hello("x.ads.example", 20)] {
            for segment in [usize::MAX, 1, 100] {
                let mut talk = Talk::to(&mut wire, remote);
                assert_eq!(talk.say(&request, segment), Verdict::Abort, "{remote}, segments of {segment}");
                assert_eq!(talk.received, b"", "{remote}, segments of {segment}");
                blocked += 1;
            }
        }
    }
    assert_eq!(rig.counter("flows_blocked_by_name"), blocked);
    assert_eq!((rig.counter("names_awaited"), rig.counter("names_found")), (blocked, blocked));
    let lines = drain(&rig);
    assert_eq!(lines.len() as u64, blocked, "one for each: what is let through is not logged");
    let line = lines[0].to_string();
    assert!(line.contains(" block  out tcp ") && line.contains(" rule \"ads\" "), "{line}");
    assert!(line.contains(" STREAM_V4 asks for www.ads.example ") && line.contains("[by content]"), "{line}");
    wire.finish();
    rig.uninstall();
}

/// Once decided, a permitted flow costs nothing at the stream layer: its context there is given back while the callout
/// runs, and WFP holds it until then.
#[test]
fn a_permitted_flow_passes_whole_and_is_never_looked_at_again() {
    let rig = Rig::with_policy(ADS);
    let mut wire = Wire::new(&rig.machine);
    for request in [get("news.example"), hello("news.example", 9999), hello("news.example", 20)] {
        for segment in [usize::MAX, 1, 100] {
            let before = contexts(&rig);
            let mut talk = Talk::to(&mut wire, "203.0.113.10");
            assert_eq!(contexts(&rig), before + 3);
            talk.say(&request, segment);
            assert_eq!(talk.received, request, "segments of {segment}");
            assert_eq!(contexts(&rig), before + 2, "the stream layer's is gone");
            let later = get("www.ads.example");
            talk.say(&later, usize::MAX);
            assert_eq!(talk.received, [request.clone(), later].concat(), "a second request is not looked at");
        }
    }
    assert_eq!((rig.counter("names_found"), rig.counter("flows_blocked_by_name")), (9, 0));
    wire.finish();
    rig.uninstall();
}

/// Where no rule before the deciding one asks for a name, nothing is looked at.
#[test]
fn a_flow_whose_name_does_not_matter_is_not_looked_at() {
    let rig = Rig::with_policy(
        &format!("[[rule]]\nname = \"first\"\naction = \"permit\"\nremote-port = 443\n{ADS}").replacen(
            "[default]\n    outbound = \"permit\"\n    inbound = \"permit\"",
            "",
            1,
        ),
    );
    let mut wire = Wire::new(&rig.machine);
    let mut talk = Talk::to(&mut wire, "203.0.113.10");
    talk.say(&get("www.ads.example"), usize::MAX);
    assert_eq!(talk.received, get("www.ads.example"));
    assert_eq!((contexts(&rig), rig.counter("names_awaited")), (2, 0));
    wire.finish();
    rig.uninstall();
}

#[test]
fn what_only_its_name_permits_carries_nothing_before() {
    let rig = Rig::with_policy(ONLY);
    let mut wire = Wire::new(&rig.machine);
    let mut talk = Talk::to(&mut wire, "203.0.113.10");
    let request = hello("www.good.example", 30);
    talk.say(&request, 50);
    assert_eq!(talk.received, request);
    assert_eq!(talk.answer(b"welcome"), Verdict::Relayed);
    for other in [hello("bad.example", 9999), get("bad.example"), b"SSH-2.0-client\r\n".to_vec()] {
        let mut talk = Talk::to(&mut wire, "203.0.113.10");
        assert_eq!(talk.say(&other, usize::MAX), Verdict::Abort);
        assert_eq!(talk.received, b"");
    }
    // Nobody asks for a name where the server speaks first.
    let mut talk = Talk::to(&mut wire, "203.0.113.10");
    assert_eq!(talk.answer(b"220 mail.example\r\n"), Verdict::Abort);
    wire.finish();
    rig.uninstall();
}

/// A name may only make a difference if a rule that permits waits for it.
#[test]
fn a_connection_that_no_name_can_permit_is_refused_at_once() {
    let rig = Rig::with_policy(&ADS.replace("\"permit\"", "\"block\""));
    let mut wire = Wire::new(&rig.machine);
    assert_eq!(wire.connect("203.0.113.10", 443).0, Verdict::Refuse);
    assert_eq!((rig.counter("names_awaited"), rig.counter("connects_blocked")), (0, 1));
    wire.finish();
    rig.uninstall();
}

#[test]
fn what_cannot_be_read_follows_its_rule() {
    let strange: [&[u8]; 4] =
        [b"SSH-2.0-client\r\n", b"\x16\x03\x01\x00\x05\x02....", b"GET / HTTP/1.0\r\n\r\n", &[0; 300]];
    for matches in [false, true] {
        let rule = if matches { "remote-name = \".ads.example\"\nwhen-undecidable = \"match\"" } else { "" };
        let rig =
            Rig::with_policy(&ADS.replace(
                "remote-name = \".ads.example\"",
                if matches { rule } else { "remote-name = \".ads.example\"" },
            ));
        let mut wire = Wire::new(&rig.machine);
        for bytes in strange {
            for segment in [usize::MAX, 1] {
                let mut talk = Talk::to(&mut wire, "203.0.113.10");
                let verdict = talk.say(bytes, segment);
                assert_eq!(verdict == Verdict::Abort, matches, "{bytes:?}");
                assert_eq!(talk.received, if matches { b"" } else { bytes }, "{bytes:?}");
            }
        }
        assert_eq!(rig.counter("names_undecidable"), 8);
        assert_eq!(rig.counter("flows_blocked_by_name"), if matches { 8 } else { 0 });
        wire.finish();
        rig.uninstall();
    }
}

/// Nothing waits for bytes that do not come: a server may speak first, and a client may end before it is understood.
#[test]
fn an_inspected_stream_does_not_stall() {
    let rig = Rig::with_policy(ADS);
    let mut wire = Wire::new(&rig.machine);
    let mut talk = Talk::to(&mut wire, "203.0.113.10");
    assert_eq!(talk.answer(b"220 mail.example\r\n"), Verdict::Forward);
    talk.say(b"EHLO client.example\r\n", usize::MAX);
    assert_eq!(talk.received, b"EHLO client.example\r\n");

    let mut talk = Talk::to(&mut wire, "203.0.113.10");
    let half = &hello("news.example", 9999)[..40];
    assert_eq!(talk.say(half, usize::MAX), Verdict::Relayed);
    assert_eq!(talk.received, b"");
    talk.pass(Segment::Fin, Direction::Outbound);
    assert_eq!(talk.received, half, "it ends without a name, which this policy permits");
    assert_eq!(rig.counter("names_undecidable"), 2);

    // One that says nothing at all.
    let mut talk = Talk::to(&mut wire, "203.0.113.10");
    assert_eq!(talk.pass(Segment::Fin, Direction::Outbound), Verdict::Forward);
    wire.finish();
    rig.uninstall();
}

/// What was shown before is gone when more comes: nothing but what the parser knows is kept.
#[test]
fn no_pointer_is_kept_past_a_classify() {
    let rig = Rig::with_policy(ADS);
    let mut wires: Vec<_> = (0..8).map(|_| Wire::new(&rig.machine)).collect();
    let mut talks: Vec<_> = wires.iter_mut().map(|wire| Talk::to(wire, "203.0.113.10")).collect();
    let requests: Vec<_> = ["news.example", "www.ads.example"].iter().map(|host| get(host)).collect();
    for at in 0..requests[0].len().max(requests[1].len()) {
        for (number, talk) in talks.iter_mut().enumerate() {
            if let Some(byte) = requests[number % 2].get(at..=at) {
                talk.say(byte, 1);
            }
        }
    }
    for (number, talk) in talks.iter().enumerate() {
        assert_eq!(talk.received, if number % 2 == 0 { &requests[0][..] } else { b"" }, "{number}");
    }
    drop(talks);
    wires.iter_mut().for_each(Wire::finish);
    rig.uninstall();
}

#[test]
fn a_server_is_asked_for_names_too() {
    let rig = Rig::with_policy(ADS);
    let mut wire = Wire::new(&rig.machine);
    let mut talk = Talk::from(&mut wire, "198.51.100.9", 50_001);
    assert_eq!(talk.say(&get("www.ads.example"), 10), Verdict::Abort);
    assert_eq!(talk.received, b"");
    let mut talk = Talk::from(&mut wire, "2001:db8::9", 50_002);
    talk.say(&get("news.example"), 10);
    assert_eq!(talk.received, get("news.example"));
    wire.finish();
    rig.uninstall();
}

#[test]
fn a_new_policy_decides_what_is_half_asked_for() {
    let rig = Rig::with_policy(ADS);
    let mut wire = Wire::new(&rig.machine);
    for (host, policy, passes) in [
        ("www.ads.example", ADS.replace("ads.example", "news.example"), true),
        ("www.news.example", ADS.replace("ads.example", "news.example"), false),
        ("www.ads.example", "[default]\noutbound = \"permit\"\n".to_owned(), true),
        ("www.ads.example", ONLY.to_owned(), false),
        ("www.good.example", ONLY.to_owned(), true),
    ] {
        rig.load(ADS);
        let request = hello(host, 30);
        let mut talk = Talk::to(&mut wire, "203.0.113.10");
        talk.say(&request[..60], 25);
        assert_eq!(talk.received, b"");
        rig.load(&policy);
        talk.say(&request[60..], 25);
        assert_eq!(talk.received, if passes { &request[..] } else { b"" }, "{host}\n{policy}");
    }
    wire.finish();
    rig.uninstall();
}

#[test]
fn a_name_is_remembered_for_the_next_policy() {
    let rig = Rig::with_policy(ADS);
    let mut wire = Wire::new(&rig.machine);
    for (host, then) in [
        ("www.news.example", Verdict::Forward),
        ("www.good.example", Verdict::Forward),
        ("bad.example", Verdict::Abort),
    ] {
        rig.load(ADS);
        let mut talk = Talk::to(&mut wire, "203.0.113.10");
        assert_eq!(talk.say(&get(host), usize::MAX), Verdict::Forward);
        rig.load(&ONLY.replace("\".good.example\"", "[\".good.example\", \"*.news.example\"]"));
        assert_eq!(talk.say(b"more", usize::MAX), then, "{host}");
    }
    // Nobody looked at this one's beginning.
    rig.load("[default]\noutbound = \"permit\"\n");
    let mut talk = Talk::to(&mut wire, "203.0.113.10");
    talk.say(&get("www.good.example"), usize::MAX);
    rig.load(ADS);
    assert_eq!(talk.say(b"more", usize::MAX), Verdict::Forward, "undecidable, and skipped");
    rig.load(ONLY);
    assert_eq!(talk.say(b"more", usize::MAX), Verdict::Abort);
    wire.finish();
    rig.uninstall();
}

/// Which bytes a server takes for the request when some are urgent is its own affair.
#[test]
fn stream_data_out_of_band_is_not_a_name() {
    for (policy, then) in [
        (ADS.to_owned(), Verdict::Forward),
        (ADS.replace("log = true", "when-undecidable = \"match\""), Verdict::Abort),
    ] {
        let rig = Rig::with_policy(&policy);
        let mut wire = Wire::new(&rig.machine);
        let mut talk = Talk::to(&mut wire, "203.0.113.10");
        let request: &'static [u8] = Box::leak(get("www.ads.example").into());
        assert_eq!(talk.pass(Segment::Urgent(request), Direction::Outbound), then);
        assert_eq!((rig.counter("names_found"), rig.counter("names_undecidable")), (0, 1));
        wire.finish();
        rig.uninstall();
    }
}

/// A machine whose driver may track so many flows.
fn limited(flows: u32) -> Rig {
    let machine = Machine::new();
    for name in ["MaxFlows", "MaxFlowsPerProcess"] {
        machine.set_parameter("Sluice", name, RegistryValue::dword(flows));
    }
    Rig::on(machine)
}

#[test]
fn without_room_for_progress_bytes_are_read_again() {
    let rig = limited(4);
    rig.load(ADS);
    let mut wire = Wire::new(&rig.machine);
    for (host, passes) in [("news.example", true), ("www.ads.example", false)] {
        let mut talk = Talk::to(&mut wire, "203.0.113.10");
        let request = hello(host, 20);
        talk.say(&request, 1);
        assert_eq!(talk.received, if passes { &request[..] } else { b"" });
    }
    wire.finish();
    rig.uninstall();
}

/// Nobody looks at a flow without a context, so its name is undecidable from the start.
#[test]
fn a_flow_that_cannot_be_tracked_has_no_name() {
    for (policy, passes) in [
        (ADS.to_owned(), true),
        (ADS.replace("log = true", "when-undecidable = \"match\""), false),
        (ONLY.to_owned(), false),
    ] {
        let rig = limited(0);
        rig.load(&policy);
        let mut wire = Wire::new(&rig.machine);
        let (verdict, mut tcp) = wire.connect("203.0.113.10", 443);
        assert_eq!(verdict, Verdict::Forward);
        let established = [wire.receive(&mut tcp, Segment::SynAck), wire.send(&mut tcp, Segment::Data(b"GET"))];
        assert_eq!(established == [Verdict::Forward; 2], passes, "{established:?}\n{policy}");
        let counters =
            ["names_not_looked_for", "flows_untracked", "flows_blocked_by_name"].map(|name| rig.counter(name));
        assert_eq!(counters, [1, 1, u64::from(!passes)]);
        wire.finish();
        rig.uninstall();
    }
}

/// What was there before the driver has no name that can be read, and Windows asks about it again.
#[test]
fn a_connection_older_than_the_driver_has_no_name() {
    for (policy, then) in [(ADS, Verdict::Forward), (ONLY, Verdict::Abort)] {
        let machine = Machine::new();
        let mut wire = Wire::new(&machine);
        let mut tcp = wire.establish("203.0.113.10", 443);
        let rig = Rig::on(machine);
        rig.load(policy);
        assert_eq!(wire.send(&mut tcp, Segment::Data(b"more")), then, "{policy}");
        wire.finish();
        rig.uninstall();
    }
}

/// A connection may be let through for its name to be looked for. Whoever lets it through must not be there before those
/// that look, or it passes unseen while the driver starts.
#[test]
fn who_lets_connections_through_is_registered_last() {
    let rig = Rig::with_policy(ONLY);
    let listed = rig.host.open_engine().unwrap().list().unwrap().callouts;
    // The engine numbers callouts as they are registered.
    let number = |key: u128| listed.iter().find(|listed| listed.callout.key.0 == key).expect("registered").id;
    let numbers = |lets_through: bool| {
        let chosen =
            CALLOUTS.iter().filter(move |one| matches!(one.point, Point::Connect | Point::Accept) == lets_through);
        chosen.map(|one| number(one.callout))
    };
    assert!(numbers(true).min() > numbers(false).max());
    rig.uninstall();
}

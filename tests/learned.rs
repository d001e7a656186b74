//! Names learned from the answers to this machine's own questions decide at connect().

#[path = "support/hello.rs"]
mod hello;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{net::IpAddr, ops::ControlFlow, time::Duration};

use hello::{answer, labels, question};
use ntsim::{machine::Machine, wdf::RegistryValue};
use shim::{layer::Direction, stack::Verdict};
use sluice_control::{EventOptions, Item, events, forget_names, names};
use support::Rig;
use wire::{Segment, Wire, udp};

const ADS: &str = r#"
    [default]
    outbound = "permit"
    [[rule]]
    name = "ads"
    action = "block"
    remote-name = ".ads.example"
    log = true
"#;
const ONLY: &str = r#"
    [default]
    outbound = "block"
    [[rule]]
    name = "resolver"
    action = "permit"
    direction = "outbound"
    remote-port = 53
    [[rule]]
    name = "these"
    action = "permit"
    direction = "outbound"
    remote-name = ".good.example"
"#;

const RESOLVERS: [&str; 2] = ["203.0.113.53", "2001:db8:1::53"];
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

fn bytes(address: &str) -> Vec<u8> {
    match address.parse().unwrap() {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// One address of a name.
fn record<'n>(name: &'n str, address: &str) -> (&'n str, u16, u32, Vec<u8>) {
    (name, if address.contains(':') { AAAA } else { A }, 600, bytes(address))
}

fn ask(wire: &mut Wire, resolver: &str, message: &[u8]) -> Verdict {
    wire.pass(&udp(resolver, 53, Direction::Outbound, message), Direction::Outbound).verdict
}

fn hear(wire: &mut Wire, resolver: &str, message: &[u8]) -> Verdict {
    wire.pass(&udp(resolver, 53, Direction::Inbound, message), Direction::Inbound).verdict
}

/// Asks for a name, and is told these addresses.
fn resolve(wire: &mut Wire, id: u16, name: &str, addresses: &[&str]) {
    // The kind of the question is A; what an answer adds counts too.
    let records: Vec<_> = addresses.iter().map(|address| record(name, address)).collect();
    assert_eq!(ask(wire, RESOLVERS[usize::from(id % 2)], &question(id, name)), Verdict::Forward);
    assert_eq!(hear(wire, RESOLVERS[usize::from(id % 2)], &answer(id, name, &records)), Verdict::Forward);
}

fn listed(rig: &Rig) -> Vec<(String, String)> {
    names(&rig.host).unwrap().into_iter().map(|one| (one.address.to_string(), one.name)).collect()
}

#[test]
fn a_blocked_name_is_refused_at_connect() {
    // Another rule decides about the resolver, so that its questions pass.
    let rig = Rig::with_policy(&format!("{ADS}[[rule]]\nname = \"none\"\naction = \"block\"\nremote-port = 1\n").replace(
        "[[rule]]\n    name = \"ads\"",
        "[[rule]]\n    name = \"resolver\"\n    action = \"permit\"\n    remote-port = 53\n    [[rule]]\n    name = \"ads\"",
    ));
    let mut wire = Wire::new(&rig.machine);
    resolve(&mut wire, 1, "www.ads.example", &["198.51.100.1", "2001:db8:2::1"]);
    resolve(&mut wire, 2, "news.example", &["198.51.100.2"]);
    for (address, verdict) in [
        ("198.51.100.1", Verdict::Refuse),
        ("2001:db8:2::1", Verdict::Refuse),
        ("198.51.100.2", Verdict::Forward),
        ("198.51.100.3", Verdict::Forward),
    ] {
        assert_eq!(wire.connect(address, 443).0, verdict, "{address}");
    }
    assert_eq!((rig.counter("names_learned"), rig.counter("decided_by_learned_name")), (3, 2));
    let mut lines = Vec::new();
    events(&rig.host, &EventOptions::default(), &mut |item| {
        if let Item::Event(line) = item {
            lines.push(line.to_string());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("ALE_AUTH_CONNECT_V4 asks for www.ads.example") && lines[0].contains("[learned]"));
    wire.finish();
    rig.uninstall();
}

/// A spoofed answer must not open or close anything.
#[test]
fn only_answers_to_questions_of_this_machine_count() {
    let rig = Rig::with_policy(ONLY);
    let mut wire = Wire::new(&rig.machine);
    let good = "www.good.example";
    let [first, second] = RESOLVERS;
    let told = |id, name: &str| answer(id, name, &[record(name, "198.51.100.7")]);
    // Nobody asked; to another number, another name, another kind; a question; an error; broken; then twice.
    hear(&mut wire, first, &told(7, good));
    ask(&mut wire, first, &question(7, good));
    hear(&mut wire, first, &told(8, good));
    hear(&mut wire, first, &told(7, "xww.good.example"));
    let mut other_kind = told(7, good);
    other_kind[12 + labels(good).len() + 1] = 28;
    hear(&mut wire, first, &other_kind);
    hear(&mut wire, first, &question(7, good));
    let mut refused = told(7, good);
    refused[3] |= 5;
    hear(&mut wire, first, &refused);
    hear(&mut wire, second, &told(7, good));
    assert_eq!(listed(&rig), []);
    // An answer that is broken uses its question up.
    let whole = told(7, good);
    hear(&mut wire, first, &whole[..whole.len() - 1]);
    hear(&mut wire, first, &whole);
    assert_eq!(listed(&rig), []);
    ask(&mut wire, first, &question(9, good));
    hear(&mut wire, first, &told(9, good));
    assert_eq!(listed(&rig), [("198.51.100.7".to_owned(), good.to_owned())]);
    // Records of other names are no answer to this question.
    ask(&mut wire, first, &question(10, good));
    hear(&mut wire, first, &answer(10, good, &[record("bank.example", "198.51.100.8"), record(good, "198.51.100.9")]));
    assert_eq!(listed(&rig).len(), 2);
    wire.finish();
    rig.uninstall();
}

#[test]
fn aliases_are_followed_to_the_name_that_was_asked_about() {
    let rig = Rig::with_policy(ADS);
    let mut wire = Wire::new(&rig.machine);
    let records = [
        ("shop.example", CNAME, 600, labels("edge.cdn.example")),
        ("edge.cdn.example", CNAME, 600, labels("x.cdn.example")),
        record("x.cdn.example", "198.51.100.4"),
    ];
    ask(&mut wire, RESOLVERS[0], &question(1, "shop.example"));
    hear(&mut wire, RESOLVERS[0], &answer(1, "shop.example", &records));
    assert_eq!(listed(&rig), [("198.51.100.4".to_owned(), "shop.example".to_owned())]);
    wire.finish();
    rig.uninstall();
}

/// Where the name at connect permits, the content still has the last word, and where that has none the name does.
#[test]
fn a_learned_name_stands_in_for_one_that_cannot_be_read() {
    let rig = Rig::with_policy(ONLY);
    let mut wire = Wire::new(&rig.machine);
    resolve(&mut wire, 1, "git.good.example", &["198.51.100.5"]);
    let mut ssh = wire.establish("198.51.100.5", 22);
    assert_eq!(wire.receive(&mut ssh, Segment::Data(b"SSH-2.0-server\r\n")), Verdict::Forward);
    assert_eq!(wire.send(&mut ssh, Segment::Data(b"SSH-2.0-client\r\n")), Verdict::Forward);
    let mut other = wire.establish("198.51.100.5", 80);
    let get = b"GET / HTTP/1.1\r\nHost: bad.example\r\n\r\n";
    assert_eq!(wire.send(&mut other, Segment::Data(get)), Verdict::Abort);
    let mut unknown = wire.establish("198.51.100.6", 22);
    assert_eq!(wire.receive(&mut unknown, Segment::Data(b"SSH-2.0-server\r\n")), Verdict::Abort);
    assert_eq!(rig.counter("decided_by_learned_name"), 1);
    wire.finish();
    rig.uninstall();
}

/// A session lasts longer than what DNS told when it began.
#[test]
fn a_new_policy_decides_by_the_learned_name_that_permitted() {
    let rig = Rig::with_policy(ONLY);
    let mut wire = Wire::new(&rig.machine);
    resolve(&mut wire, 1, "git.good.example", &["198.51.100.5"]);
    let mut ssh = wire.establish("198.51.100.5", 22);
    assert_eq!(wire.receive(&mut ssh, Segment::Data(b"SSH-2.0-server\r\n")), Verdict::Forward);
    forget_names(&rig.host).unwrap();
    rig.load(ONLY);
    assert_eq!(wire.send(&mut ssh, Segment::Data(b"SSH-2.0-client\r\n")), Verdict::Forward);
    rig.load(&ONLY.replace(".good.example", ".other.example"));
    assert_ne!(wire.send(&mut ssh, Segment::Data(b"more")), Verdict::Forward);
    wire.finish();
    rig.uninstall();
}

#[test]
fn an_address_of_several_names_follows_the_strictest_unless_shared() {
    for shared in [false, true] {
        let option = if shared { "[names]\nshared = \"permit\"\n" } else { "" };
        let rig = Rig::with_policy(&format!(
            "{option}{ADS}[[rule]]\nname = \"good\"\naction = \"permit\"\nremote-name = \"cdn.example\"\n"
        ));
        let mut wire = Wire::new(&rig.machine);
        resolve(&mut wire, 1, "cdn.example", &["198.51.100.1", "198.51.100.2"]);
        resolve(&mut wire, 2, "unlisted.example", &["198.51.100.1", "198.51.100.3"]);
        assert_eq!(wire.connect("198.51.100.1", 443).0, Verdict::Forward);
        for (id, name) in [(3, "www.ads.example"), (4, "www2.ads.example")] {
            // The question itself is not let out by this policy, so the rule is not there when it is asked.
            rig.load(&format!("{option}{}", ADS.replace(".ads.example", "some.example")));
            resolve(&mut wire, id, name, &["198.51.100.1", "198.51.100.4"]);
            rig.load(&format!(
                "{option}{ADS}[[rule]]\nname = \"good\"\naction = \"permit\"\nremote-name = \"cdn.example\"\n"
            ));
        }
        let verdict = if shared { Verdict::Forward } else { Verdict::Refuse };
        assert_eq!(wire.connect("198.51.100.1", 443).0, verdict, "shared: {shared}");
        assert_eq!(wire.connect("198.51.100.4", 443).0, Verdict::Refuse, "both names are blocked");
        assert_eq!(wire.connect("198.51.100.2", 443).0, Verdict::Forward);
        wire.finish();
        rig.uninstall();
    }
}

/// An address keeps no name for ever: not when the name has moved, nor when the answers to it end.
#[test]
fn a_name_that_moved_to_another_address_leaves_the_old_one() {
    let rig = Rig::with_policy(ONLY);
    let mut wire = Wire::new(&rig.machine);
    resolve(&mut wire, 1, "www.good.example", &["198.51.100.5"]);
    let seconds = |rig: &Rig| names(&rig.host).unwrap().iter().map(|one| one.seconds).collect::<Vec<_>>();
    assert!(matches!(seconds(&rig)[..], [595..=600]), "{:?}", seconds(&rig));
    // An answer's time has a floor of five minutes and a ceiling of a day.
    for (id, told, least, most) in [(2, 1, 295, 300), (3, 10_000_000, 86_395, 86_400)] {
        ask(&mut wire, RESOLVERS[0], &question(id, "www.good.example"));
        let records = [("www.good.example", A, told, bytes("198.51.100.5"))];
        hear(&mut wire, RESOLVERS[0], &answer(id, "www.good.example", &records));
        assert!(matches!(seconds(&rig)[..], [left] if (least..=most).contains(&left)), "{:?}", seconds(&rig));
    }
    forget_names(&rig.host).unwrap();
    assert_eq!(listed(&rig), []);
    resolve(&mut wire, 4, "www.good.example", &["198.51.100.6"]);
    let mut old = wire.establish("198.51.100.5", 22);
    assert_eq!(
        wire.receive(&mut old, Segment::Data(b"SSH-2.0-server\r\n")),
        Verdict::Abort,
        "not its address any more"
    );
    let mut new = wire.establish("198.51.100.6", 22);
    assert_eq!(wire.receive(&mut new, Segment::Data(b"SSH-2.0-server\r\n")), Verdict::Forward);
    wire.finish();
    rig.uninstall();
}

/// By the machine's clock: five minutes at least, a day at most, and in between as long as the answer says. Of a chain of
/// aliases the least counts. What has ended decides nothing and is not listed.
#[test]
fn a_name_ends_when_its_time_is_over() {
    let policy = ADS.replace(
        "    [[rule]]",
        "    [[rule]]\n    name = \"resolver\"\n    action = \"permit\"\n    remote-port = 53\n    [[rule]]",
    );
    let plain = |seconds| vec![("www.ads.example", A, seconds, bytes("198.51.100.5"))];
    let chain = |[first, second, third]: [u32; 3]| {
        vec![
            ("www.ads.example", CNAME, first, labels("edge.cdn.example")),
            ("edge.cdn.example", CNAME, second, labels("x.cdn.example")),
            ("x.cdn.example", A, third, bytes("198.51.100.5")),
        ]
    };
    for (records, lasts) in [
        (plain(0), 300),
        (plain(299), 300),
        (plain(900), 900),
        (plain(86_399), 86_399),
        (plain(86_401), 86_400),
        (plain(u32::MAX >> 1), 86_400),
        (chain([7200, 600, 1200]), 600),
        (chain([1, 7200, 7200]), 300),
        (chain([100_000, 100_000, 1800]), 1800),
    ] {
        let rig = Rig::with_policy(&policy);
        let mut wire = Wire::new(&rig.machine);
        ask(&mut wire, RESOLVERS[0], &question(1, "www.ads.example"));
        hear(&mut wire, RESOLVERS[0], &answer(1, "www.ads.example", &records));
        // A few seconds either way: the test takes some, too.
        rig.machine.clock.push(Duration::from_secs(lasts - 30));
        assert_eq!(wire.connect("198.51.100.5", 443).0, Verdict::Refuse, "{lasts}: {records:?}");
        assert_eq!(listed(&rig).len(), 1, "{lasts}: {records:?}");
        rig.machine.clock.push(Duration::from_secs(31));
        assert_eq!(wire.connect("198.51.100.5", 443).0, Verdict::Forward, "{lasts}: {records:?}");
        assert_eq!(listed(&rig), [], "{lasts}: {records:?}");
        wire.finish();
        rig.uninstall();
    }
}

/// A machine that slept has not heard what names became meanwhile; one whose clock is set back keeps none for years.
#[test]
fn names_end_while_the_machine_sleeps_and_when_its_clock_is_set_back() {
    const DAY: i64 = 86_400;
    let rig = Rig::with_policy(ONLY);
    let mut wire = Wire::new(&rig.machine);
    resolve(&mut wire, 1, "www.good.example", &["198.51.100.5"]);
    rig.machine.sleep(Duration::from_secs(540));
    assert_eq!(listed(&rig).len(), 1);
    rig.machine.sleep(Duration::from_secs(61));
    assert_eq!(listed(&rig), []);
    resolve(&mut wire, 2, "www.good.example", &["198.51.100.5"]);
    rig.machine.clock.set(-400 * DAY * 10_000_000);
    assert_eq!(listed(&rig), [], "it would last for more than a year");
    for id in 3..12 {
        resolve(&mut wire, id, &format!("w{id}.good.example"), &["198.51.100.5"]);
    }
    assert_eq!(listed(&rig).len(), 8, "what has ended makes room");
    wire.finish();
    rig.uninstall();
}

/// However many names there are, they take the room that the table has; each address keeps eight.
#[test]
fn names_are_bounded() {
    let machine = Machine::new();
    machine.set_parameter("Sluice", "MaxFlows", RegistryValue::dword(256));
    let rig = Rig::on(machine);
    let before = rig.machine.pool.usage().1;
    rig.load(ADS);
    let mut wire = Wire::new(&rig.machine);
    for id in 0..600_u16 {
        let name = format!("host{id}.news.example");
        let address = if id < 20 { "198.51.100.1".to_owned() } else { format!("198.51.{}.{}", id / 200, id % 200) };
        resolve(&mut wire, id, &name, &[&address]);
        if id == 19 {
            assert_eq!(listed(&rig).len(), 8);
        }
    }
    let known = listed(&rig).len();
    assert!((40..=64).contains(&known), "{known}");
    assert!(rig.machine.pool.usage().1 - before < 64 * 129 + 8192, "{}", rig.machine.pool.usage().1 - before);
    wire.wait(Duration::from_secs(1));
    wire.finish();
    rig.uninstall();
}

/// All of these addresses would share one of the table's eight places by a hash without a key.
#[test]
fn an_attacker_does_not_choose_which_names_are_forgotten() {
    let unkeyed = |address: [u8; 4]| {
        let number = 0xffff_0000_0000 | u64::from(u32::from_be_bytes(address));
        number.rotate_left(17).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61
    };
    let all = (0..=255u8).flat_map(|third| (1..=250u8).map(move |last| [198, 51, third, last]));
    let chosen: Vec<[u8; 4]> = all.filter(|address| unkeyed(*address) == 3).take(40).collect();
    let machine = Machine::new();
    machine.set_parameter("Sluice", "MaxFlows", RegistryValue::dword(256));
    let rig = Rig::on(machine);
    rig.load(ADS);
    let mut wire = Wire::new(&rig.machine);
    for (id, [a, b, c, d]) in (0..).zip(chosen) {
        resolve(&mut wire, id, &format!("host{id}.news.example"), &[&format!("{a}.{b}.{c}.{d}")]);
    }
    // One place would hold eight of them.
    let known = listed(&rig).len();
    assert!(known > 16, "{known}");
    wire.finish();
    rig.uninstall();
}

/// Over TCP a message is behind its length, in whatever segments.
#[test]
fn names_are_learned_over_tcp_too() {
    let resolver = "[[rule]]\nname = \"resolver\"\naction = \"permit\"\nremote-port = 53\n";
    let first = ADS.replace("    [[rule]]", &format!("    {resolver}    [[rule]]"));
    for policy in [ADS, &first] {
        let rig = Rig::with_policy(policy);
        let mut wire = Wire::new(&rig.machine);
        let mut tcp = wire.establish(RESOLVERS[0], 53);
        let mut say = |wire: &mut Wire, message: Vec<u8>, direction: Direction, size: usize| {
            let bytes = hello::sized(2, &message);
            let mut verdict = Verdict::Forward;
            for piece in bytes.chunks(size) {
                let packet = tcp.packet(Segment::Data(Box::leak(piece.into())), direction);
                verdict = wire.pass(&packet, direction).verdict;
            }
            verdict
        };
        for (id, name, size) in [(1, "one.example", 1000), (2, "two.example", 7), (3, "three.example", 1)] {
            let records = [record(name, "198.51.100.1"), record(name, "198.51.100.2")];
            say(&mut wire, question(id, name), Direction::Outbound, size);
            say(&mut wire, answer(id + 1, name, &records), Direction::Inbound, size);
            say(&mut wire, answer(id, name, &records), Direction::Inbound, size);
        }
        assert_eq!(listed(&rig).len(), 6, "{policy}");
        if policy == ADS {
            let mut other = wire.establish(RESOLVERS[0], 53);
            let asked = hello::sized(2, &question(4, "www.ads.example"));
            assert_eq!(wire.send(&mut other, Segment::Data(Box::leak(asked.into()))), Verdict::Abort);
        }
        wire.finish();
        rig.uninstall();
    }
}

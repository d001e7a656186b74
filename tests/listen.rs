//! Who may have a port, and who may listen on it: the real driver at ALE_RESOURCE_ASSIGNMENT and ALE_AUTH_LISTEN.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::ops::ControlFlow;

use shim::{
    layer::Layer,
    stack::{RequestKind, Verdict},
};
use sluice_control::{EventLine, EventOptions, Item, events};
use support::Rig;
use wire::{PID, Segment, Tcp, Wire};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// SIO_RCVALL (mstcpip.h).
const SIO_RCVALL: u32 = 0x9800_0001;
/// Every address, and one of the machine's, of each family.
const LOCALS: [[&str; 2]; 2] = [["0.0.0.0", "10.77.0.2"], ["[::]", "[fd77::2]"]];

/// Only curl serves, and nobody but it listens on every address.
const SERVERS: &str = r#"
[default]
inbound = "permit"

[[rule]]
name = "the server"
action = "permit"
direction = "listen"
application = '\Device\HarddiskVolume1\usr\bin\curl'
local-port = 8080
log = true

[[rule]]
name = "no other"
action = "block"
direction = "listen"
log = true

[[rule]]
name = "low ports"
action = "block"
direction = "bind"
local-port = "1-1023"
log = true
"#;

/// What the driver has recorded.
fn recorded(rig: &Rig) -> Vec<EventLine> {
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

fn listens(wire: &mut Wire, local: &str) -> Result<(), Layer> {
    let socket = wire.bind(TCP, local.parse().expect("an end"), RequestKind::Port).map_err(|by| by.layer)?;
    wire.listen(socket).map_err(|by| by.layer)
}

#[test]
fn a_program_listens_where_the_policy_lets_it() {
    let rig = Rig::with_policy(SERVERS);
    let mut wire = Wire::new(&rig.machine);
    let mut other = Wire::of_program(&rig.machine, 77, r"\device\harddiskvolume1\usr\bin\nc");
    for local in LOCALS.concat() {
        assert_eq!(listens(&mut wire, &format!("{local}:8080")), Ok(()), "{local}");
        assert_eq!(listens(&mut wire, &format!("{local}:8081")), Err(Layer::AleAuthListen), "{local}");
        assert_eq!(listens(&mut other, &format!("{local}:8080")), Err(Layer::AleAuthListen), "{local}");
        assert_eq!(listens(&mut wire, &format!("{local}:80")), Err(Layer::AleResourceAssignment), "{local}");
        assert!(wire.bind(UDP, format!("{local}:53").parse().unwrap(), RequestKind::Port).is_err(), "{local}");
        assert!(wire.bind(UDP, format!("{local}:5353").parse().unwrap(), RequestKind::Port).is_ok(), "{local}");
    }
    // The rules are about ports: who connects is not asked by them.
    assert_eq!(wire.connect("203.0.113.10", 80).0, Verdict::Forward);
    assert_eq!((rig.counter("listens_permitted"), rig.counter("listens_blocked")), (4, 8));
    assert_eq!(rig.counter("binds_blocked"), 8);
    wire.finish();
    other.finish();
    rig.uninstall();
}

#[test]
fn an_event_says_who_asked_for_which_port() {
    let rig = Rig::with_policy(SERVERS);
    let mut wire = Wire::new(&rig.machine);
    assert_eq!(listens(&mut wire, "[::]:8080"), Ok(()));
    assert_eq!(listens(&mut wire, "10.77.0.2:22"), Err(Layer::AleResourceAssignment));
    let lines = recorded(&rig);
    let [listened, bound] = &lines[..] else { panic!("{lines:?}") };
    let filter = |name| rig.status().filters.into_iter().find(|filter| filter.layer == name).expect("it is there").id;
    for (line, what, rule, layer) in [
        (listened, "permit listen tcp [::]:8080 rule", 0, "ALE_AUTH_LISTEN_V6"),
        (bound, "block  bind tcp 10.77.0.2:22 rule", 2, "ALE_RESOURCE_ASSIGNMENT_V4"),
    ] {
        assert!(line.to_string().contains(what), "{line}");
        assert_eq!((line.rule, line.process_id, line.filter_id), (Some(rule), Some(PID), filter(layer)), "{line}");
        assert_eq!(line.layer, layer);
        assert!(line.application.is_some(), "{line}");
    }
    rig.load("[default]\nbind = \"block\"\nlog = true\n");
    assert!(wire.bind(0, "0.0.0.0:0".parse().unwrap(), RequestKind::Promiscuous(SIO_RCVALL)).is_err());
    assert!(wire.bind(UDP, "0.0.0.0:50000".parse().unwrap(), RequestKind::ChosenPort).is_ok());
    let lines: Vec<String> = recorded(&rig).iter().map(ToString::to_string).collect();
    let [.., promiscuous, chosen] = &lines[..] else { panic!("{lines:?}") };
    assert!(promiscuous.contains(" default ") && promiscuous.ends_with("[asks for every packet]"), "{promiscuous}");
    assert!(chosen.contains(" essential: port chosen by the system "), "{chosen}");
    wire.finish();
    rig.uninstall();
}

/// Without a word about ports nothing is decided there, however strict the rest is.
#[test]
fn a_policy_that_says_nothing_about_ports_decides_nothing_about_them() {
    let rig = Rig::with_policy(
        "[default]\noutbound = \"block\"\ninbound = \"block\"\nlog = true\n[[rule]]\naction = \"block\"\n",
    );
    let mut wire = Wire::new(&rig.machine);
    for local in LOCALS.concat() {
        assert_eq!(listens(&mut wire, &format!("{local}:80")), Ok(()));
    }
    assert_ne!(wire.connect("203.0.113.10", 80).0, Verdict::Forward);
    for counter in ["binds_permitted", "binds_blocked", "listens_permitted", "listens_blocked"] {
        assert_eq!(rig.counter(counter), 0, "{counter}");
    }
    wire.finish();
    rig.uninstall();
}

/// A default that blocks breaks no connection: what the system chose, and what stays within the machine, is beyond it.
#[test]
fn a_default_spares_ports_that_nobody_named() {
    let rig = Rig::with_policy("[default]\nbind = \"block\"\nlisten = \"block\"\n");
    let mut wire = Wire::new(&rig.machine);
    for (local, remote) in [("0.0.0.0", "203.0.113.10"), ("[::]", "2001:db8::10")] {
        assert_eq!(wire.connect(remote, 443).0, Verdict::Forward, "{remote}");
        for (protocol, kind, permitted) in [
            (TCP, RequestKind::ChosenPort, true),
            (UDP, RequestKind::ChosenPort, true),
            (UDP, RequestKind::Port, false),
            (1, RequestKind::Raw, false),
            (0, RequestKind::Promiscuous(SIO_RCVALL), false),
        ] {
            let bound = wire.bind(protocol, format!("{local}:50000").parse().unwrap(), kind);
            assert_eq!(bound.is_ok(), permitted, "{local}, {protocol}, {kind:?}");
            if let Some(socket) = bound.ok().filter(|_| protocol == TCP) {
                assert_eq!(wire.listen(socket).map_err(|by| by.layer), Err(Layer::AleAuthListen));
            }
        }
    }
    for local in ["127.0.0.1:80", "[::1]:80"] {
        assert_eq!(listens(&mut wire, local), Ok(()), "{local}");
    }
    wire.finish();
    rig.uninstall();
}

/// Windows does not ask again about a socket that is open ("ALE Reauthorization"), but its connections are decided.
#[test]
fn a_socket_that_listens_already_goes_on_and_its_connections_are_decided() {
    let rig = Rig::with_policy("[default]\ninbound = \"permit\"\n");
    let mut wire = Wire::new(&rig.machine);
    assert_eq!(listens(&mut wire, "0.0.0.0:8080"), Ok(()));
    rig.load("[default]\ninbound = \"permit\"\n[[rule]]\naction = \"block\"\ndirection = \"listen\"\n");
    let mut tcp = Tcp::new("203.0.113.10", 50_000, 8080);
    assert_eq!(wire.receive(&mut tcp, Segment::Syn), Verdict::Forward);
    assert_eq!(listens(&mut wire, "0.0.0.0:8081"), Err(Layer::AleAuthListen));
    rig.load("[default]\ninbound = \"block\"\n");
    let mut tcp = Tcp::new("203.0.113.11", 50_000, 8080);
    assert_ne!(wire.receive(&mut tcp, Segment::Syn), Verdict::Forward);
    wire.finish();
    rig.uninstall();
}

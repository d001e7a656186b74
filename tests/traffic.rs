//! The real driver decides packets that pass through the simulated stack in Windows' order.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use filter_engine::{Classify, LayerData, layers::LayerId};
use nt_abi::{
    Irql,
    fwp::{FwpsIncomingMetadataValues0, value::Incoming},
};
use ntsim::cpu;
use shim::{
    layer::Direction,
    stack::{HANDSHAKE_TIMEOUT, Verdict},
};
use sluice_control::load_image;
use support::{BLOCK_ALL, PERMIT_ALL, Rig};
use wire::{Segment, Wire, ping, udp};

const QUARANTINE: &str = r#"
    [default]
    outbound = "permit"
    inbound = "block"

    [[rule]]
    name = "quarantine"
    action = "block"
    remote = ["203.0.113.66", "2001:db8:1::66"]
"#;

#[test]
fn without_a_policy_everything_passes_undecided() {
    let rig = Rig::install();
    let mut wire = Wire::new(&rig.machine);
    for remote in ["203.0.113.66", "2001:db8:1::66"] {
        wire.establish(remote, 443);
    }
    wire.finish();
    assert_eq!(rig.counter("connects_permitted") + rig.counter("connects_blocked"), 0);
    rig.uninstall();
}

#[test]
fn a_blocked_connect_is_refused_at_once_v4_and_v6() {
    let rig = Rig::with_policy(QUARANTINE);
    let mut wire = Wire::new(&rig.machine);
    for (blocked, permitted) in [("203.0.113.66", "203.0.113.10"), ("2001:db8:1::66", "2001:db8:1::10")] {
        assert_eq!(wire.connect(blocked, 443).0, Verdict::Refuse, "{blocked}");
        wire.establish(permitted, 443);
    }
    wire.finish();
    assert_eq!((rig.counter("connects_blocked"), rig.counter("connects_permitted")), (2, 2));
    rig.uninstall();
}

#[test]
fn an_inbound_connection_is_decided_as_inbound() {
    let rig = Rig::with_policy(QUARANTINE);
    let mut wire = Wire::new(&rig.machine);
    let mut tcp = wire::Tcp::new("198.51.100.9", 50_555, 22);
    let verdict = wire.receive(&mut tcp, Segment::Syn);
    assert_ne!(verdict, Verdict::Forward);
    assert_eq!((rig.counter("accepts_blocked"), rig.counter("accepts_permitted")), (1, 0));
    rig.load(PERMIT_ALL);
    let mut tcp = wire::Tcp::new("198.51.100.9", 50_556, 22);
    assert_eq!(wire.receive(&mut tcp, Segment::Syn), Verdict::Forward);
    wire.finish();
    rig.uninstall();
}

/// Only user 1000 may do this.
const ONE_USER: &str = r#"
    [default]
    outbound = "permit"
    inbound = "permit"

    [[rule]]
    name = "one user"
    action = "block"
    user = "S-1-22-1-1000"
"#;

#[test]
fn a_rule_on_a_user_decides_for_that_user_alone() {
    let rig = Rig::with_policy(ONE_USER);
    for (uid, expected) in [(Some(1000), Verdict::Refuse), (Some(1001), Verdict::Forward), (None, Verdict::Forward)] {
        let mut wire = Wire::of_user(&rig.machine, uid);
        for remote in ["203.0.113.10", "2001:db8:1::10"] {
            assert_eq!(wire.connect(remote, 443).0, expected, "{uid:?} to {remote}");
        }
        wire.finish();
    }
    rig.uninstall();
}

#[test]
fn a_new_rule_on_a_user_revokes_that_users_flows() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let mut wires = [Some(1000), Some(1001)].map(|uid| Wire::of_user(&rig.machine, uid));
    let mut flows = wires.each_mut().map(|wire| wire.establish("203.0.113.10", 443));
    rig.load(ONE_USER);
    let verdicts = [0, 1].map(|n| wires[n].send(&mut flows[n], Segment::Data(b"more")));
    assert_ne!(verdicts[0], Verdict::Forward);
    assert_eq!(verdicts[1], Verdict::Forward);
    assert_eq!(rig.counter("flows_revoked"), 1);
    wires.iter_mut().for_each(Wire::finish);
    rig.uninstall();
}

#[test]
fn a_rule_on_a_group_decides_for_all_its_members_then_and_later() {
    let blocked = |rule: &str| {
        format!(
            "[default]\noutbound = \"permit\"\ninbound = \"permit\"\n[[rule]]\nname = \"who\"\naction = \"block\"\n{rule}\n"
        )
    };
    for (rule, user, root) in [
        ("user = \"Everyone\"", false, false),
        ("group = \"Users\"", false, true),
        ("group = \"Administrators\"", true, false),
        ("user = \"S-1-22-1-1000\"\ngroup = \"Authenticated Users\"", false, true),
        ("service = \"Dnscache\"", true, true),
        ("package = \"Microsoft.WindowsStore_8wekyb3d8bbwe\"", true, true),
    ] {
        let rig = Rig::with_policy(PERMIT_ALL);
        let mut wires = [Some(1000), Some(0)].map(|uid| Wire::of_user(&rig.machine, uid));
        let mut flows = wires.each_mut().map(|wire| wire.establish("203.0.113.10", 443));
        rig.load(&blocked(rule));
        for (index, passes) in [user, root].into_iter().enumerate() {
            let later = wires[index].send(&mut flows[index], Segment::Data(b"more"));
            assert_eq!(later == Verdict::Forward, passes, "{rule}: flow {index}");
            let new = wires[index].connect("203.0.113.11", 443).0;
            assert_eq!(new == Verdict::Forward, passes, "{rule}: connection {index}");
        }
        wires.iter_mut().for_each(Wire::finish);
        rig.uninstall();
    }
}

#[test]
fn a_rule_on_an_interface_decides_at_every_layer() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let mut wire = Wire::new(&rig.machine);
    for (interface, verdict) in [("ethernet", Verdict::Forward), ("wireless", Verdict::Refuse)] {
        rig.load(&format!(
            "[default]\noutbound = \"block\"\ninbound = \"block\"\n\
             [[rule]]\nname = \"by interface\"\naction = \"permit\"\ninterface = \"{interface}\"\n"
        ));
        assert_eq!(wire.connect("203.0.113.10", 443).0, verdict, "{interface}: TCP");
        let echo = wire.pass(&ping("203.0.113.10"), Direction::Outbound).verdict;
        assert_eq!(echo == Verdict::Forward, verdict == Verdict::Forward, "{interface}: ICMP, {echo:?}");
    }
    wire.finish();
    rig.uninstall();
}

#[test]
fn datagrams_are_decided_by_their_flow() {
    let rig = Rig::with_policy(QUARANTINE);
    let mut wire = Wire::new(&rig.machine);
    for (blocked, permitted) in [("203.0.113.66", "203.0.113.10"), ("2001:db8:1::66", "2001:db8:1::10")] {
        assert_eq!(
            wire.pass(&udp(blocked, 53, Direction::Outbound, b"?"), Direction::Outbound).verdict,
            Verdict::Refuse
        );
        let question = udp(permitted, 53, Direction::Outbound, b"?");
        assert_eq!(wire.pass(&question, Direction::Outbound).verdict, Verdict::Forward);
        let answer = udp(permitted, 53, Direction::Inbound, b"!");
        assert_eq!(wire.pass(&answer, Direction::Inbound).verdict, Verdict::Forward, "the answer belongs to the flow");
    }
    wire.finish();
    rig.uninstall();
}

#[test]
fn pings_are_decided() {
    let rig = Rig::with_policy(
        r#"
        [[rule]]
        name = "no pings"
        action = "block"
        protocol = "icmp"
        [[rule]]
        name = "nor there"
        action = "block"
        protocol = "icmpv6"
        remote = "2001:db8:1::66"
        "#,
    );
    let mut wire = Wire::new(&rig.machine);
    assert_ne!(wire.pass(&ping("203.0.113.10"), Direction::Outbound).verdict, Verdict::Forward);
    assert_ne!(wire.pass(&ping("2001:db8:1::66"), Direction::Outbound).verdict, Verdict::Forward);
    assert_eq!(wire.pass(&ping("2001:db8:1::10"), Direction::Outbound).verdict, Verdict::Forward);
    wire.finish();
    rig.uninstall();
}

#[test]
fn flows_are_counted_in_packets_and_bytes() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let mut wire = Wire::new(&rig.machine);
    let mut tcp = wire.establish("203.0.113.10", 80);
    assert_eq!(wire.send(&mut tcp, Segment::Data(b"GET / HTTP/1.0\r\n\r\n")), Verdict::Forward);
    assert_eq!(wire.receive(&mut tcp, Segment::Data(b"HTTP/1.0 200 OK\r\n\r\nhello")), Verdict::Forward);
    assert_eq!(wire.send(&mut tcp, Segment::Ack), Verdict::Forward);
    assert_eq!((rig.counter("bytes_out"), rig.counter("bytes_in")), (18, 24));
    assert_eq!((rig.counter("flows_opened"), rig.counter("flows_closed")), (1, 0));
    assert!(rig.counter("packets_out") >= 2 && rig.counter("packets_in") >= 1);
    for (send, segment) in [(true, Segment::Fin), (false, Segment::Fin), (true, Segment::Ack)] {
        let verdict = if send { wire.send(&mut tcp, segment) } else { wire.receive(&mut tcp, segment) };
        assert_eq!(verdict, Verdict::Forward);
    }
    wire.finish();
    assert_eq!(rig.counter("flows_closed"), 1);
    assert_eq!(rig.counter("flows_untracked"), 0);
    rig.uninstall();
}

#[test]
fn a_flow_that_a_new_policy_forbids_ends_at_its_next_packet() {
    for outbound_first in [true, false] {
        let rig = Rig::with_policy(PERMIT_ALL);
        let mut wire = Wire::new(&rig.machine);
        let mut doomed = wire.establish("203.0.113.66", 80);
        let mut other = wire.establish("203.0.113.10", 80);
        assert_eq!(wire.send(&mut doomed, Segment::Data(b"before")), Verdict::Forward);
        rig.load(QUARANTINE);
        assert_eq!(rig.counter("flows_revoked"), 0, "nothing happens before the next packet");
        let verdict = if outbound_first {
            wire.send(&mut doomed, Segment::Data(b"after"))
        } else {
            wire.receive(&mut doomed, Segment::Data(b"after"))
        };
        assert_eq!(verdict, Verdict::Abort, "both ends learn of it");
        assert_eq!(rig.counter("flows_revoked"), 1);
        assert_eq!(wire.send(&mut other, Segment::Data(b"still here")), Verdict::Forward);
        assert_eq!(wire.connect("203.0.113.66", 80).0, Verdict::Refuse);
        wire.finish();
        rig.uninstall();
    }
}

/// A connection ends and another program opens one with the same addresses and ports: nothing of the first is left.
#[test]
fn a_reused_port_does_not_inherit_a_verdict() {
    const ONE_PROGRAM: &str = r#"
        [default]
        outbound = "permit"
        inbound = "permit"

        [[rule]]
        name = "one program"
        action = "block"
        application = '\device\harddiskvolume1\blocked.exe'
    "#;
    let rig = Rig::with_policy(ONE_PROGRAM);
    let program = |name: &str| Wire::of_program(&rig.machine, 7000, &format!(r"\device\harddiskvolume1\{name}.exe"));
    let (mut blocked, mut permitted) = (program("blocked"), program("permitted"));
    let same = || wire::Tcp::new("203.0.113.10", 443, 51_000);
    for _ in 0..3 {
        assert_eq!(blocked.send(&mut same(), Segment::Syn), Verdict::Refuse);
        let mut tcp = same();
        for (segment, outbound) in [(Segment::Syn, true), (Segment::SynAck, false), (Segment::Ack, true)] {
            let verdict =
                if outbound { permitted.send(&mut tcp, segment) } else { permitted.receive(&mut tcp, segment) };
            assert_eq!(verdict, Verdict::Forward);
        }
        assert_eq!(permitted.send(&mut tcp, Segment::Data(b"mine")), Verdict::Forward);
        permitted.finish();
    }
    assert_eq!(rig.counter("flows_opened"), 3);
    assert_eq!(rig.counter("flows_closed"), 3);
    // The other way round: a flow that a policy revoked does not take the next one with it.
    let mut doomed = same();
    for (segment, outbound) in [(Segment::Syn, true), (Segment::SynAck, false), (Segment::Ack, true)] {
        let _ = if outbound { permitted.send(&mut doomed, segment) } else { permitted.receive(&mut doomed, segment) };
    }
    rig.load(BLOCK_ALL);
    assert_eq!(permitted.send(&mut doomed, Segment::Data(b"late")), Verdict::Abort);
    rig.load(PERMIT_ALL);
    assert_eq!(permitted.send(&mut same(), Segment::Syn), Verdict::Forward);
    permitted.finish();
    rig.uninstall();
}

#[test]
fn unload_with_flows_alive_leaves_nothing() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let mut wire = Wire::new(&rig.machine);
    for port in 1..=50 {
        wire.establish("203.0.113.10", port);
        wire.establish("2001:db8:1::10", port);
    }
    assert_eq!(rig.counter("flows_opened"), 100);
    assert_eq!(rig.counter("flows_closed"), 0);
    let machine = rig.machine.clone();
    rig.uninstall();
    // The flows continue without us.
    let mut tcp = wire::Tcp::new("203.0.113.10", 99, 51_999);
    assert_eq!(wire.send(&mut tcp, Segment::Syn), Verdict::Forward);
    wire.finish();
    assert!(machine.stopped().is_none());
}

#[test]
fn policies_swap_under_traffic() {
    const SWAPS: u32 = 200;
    let rig = Rig::with_policy(PERMIT_ALL);
    let (permit, block) = (rig.compile(PERMIT_ALL), rig.compile(BLOCK_ALL));
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::new([const { AtomicU64::new(0) }; 2]);
    let senders: Vec<_> = (0..2)
        .map(|_| {
            let (machine, stop, seen) = (rig.machine.clone(), stop.clone(), seen.clone());
            thread::spawn(move || {
                let mut wire = Wire::new(&machine);
                while !stop.load(Ordering::Relaxed) {
                    let verdict = wire.connect("203.0.113.10", 443).0;
                    // Nobody answers. However many connects a fast machine makes, only one is in progress at a time,
                    // and ending it does not ask the driver.
                    wire.wait(HANDSHAKE_TIMEOUT);
                    let outcome = match verdict {
                        Verdict::Forward => 0,
                        Verdict::Refuse => 1,
                        other => panic!("a connect can be permitted or refused, not {other:?}"),
                    };
                    seen[outcome].fetch_add(1, Ordering::Relaxed);
                }
                wire.finish();
            })
        })
        .collect();
    for swap in 0..SWAPS {
        load_image(&rig.host, if swap % 2 == 0 { &block } else { &permit }).expect("every swap succeeds");
    }
    // Both verdicts must also be seen after the last swap.
    while seen.iter().any(|outcome| outcome.load(Ordering::Relaxed) == 0) {
        load_image(&rig.host, &block).expect("every swap succeeds");
        thread::yield_now();
        load_image(&rig.host, &permit).expect("every swap succeeds");
    }
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.join().expect("no verdict was torn");
    }
    let [permitted, refused] = [0, 1].map(|outcome| seen[outcome].load(Ordering::Relaxed));
    assert_eq!(rig.counter("connects_permitted"), permitted);
    assert_eq!(rig.counter("connects_blocked"), refused);
    assert!(rig.counter("policies_loaded") > u64::from(SWAPS));
    rig.uninstall();
}

#[test]
fn a_rule_on_an_interface_by_its_alias_decides_for_that_interface() {
    let rig = Rig::install();
    for (alias, expected) in [("ethernet", Verdict::Refuse), ("Wi-Fi", Verdict::Forward)] {
        rig.load(&format!("[[rule]]\nname = \"one\"\naction = \"block\"\ninterface = \"alias:{alias}\"\n"));
        let mut wire = Wire::new(&rig.machine);
        for remote in ["203.0.113.10", "2001:db8:1::10"] {
            assert_eq!(wire.connect(remote, 443).0, expected, "{alias} to {remote}");
        }
        wire.finish();
    }
    rig.uninstall();
}

/// A layer that does not report what a decision needs: nothing is decided, and that is counted.
#[test]
fn a_layer_without_an_address_or_protocol_is_counted() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let fields = ["IP_PROTOCOL", "IP_LOCAL_ADDRESS", "IP_REMOTE_ADDRESS"];
    let layers = [LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_RECV_ACCEPT_V4, LayerId::OUTBOUND_TRANSPORT_V4];
    let mut missing = 0;
    for layer in layers {
        let table = rig.machine.wfp.engine.layers().get(layer).expect("a layer of the table");
        for left_out in fields.into_iter().map(Some).chain([None]) {
            let mut values = Incoming::new(table.fields.len());
            for field in fields.into_iter().filter(|field| left_out != Some(*field)) {
                let at = table.field_index(field).expect("a field of the layer");
                if field == "IP_PROTOCOL" { values.u8(at, 1) } else { values.u32(at, 0xC000_0207) }
            }
            let call = Classify {
                layer,
                values: values.values(),
                metadata: &FwpsIncomingMetadataValues0::default(),
                layer_data: LayerData::None,
                flow: None,
                request: None,
            };
            cpu::enter(&rig.machine, Irql::DISPATCH, || {
                rig.machine.wfp.classify(&call, 0, None);
            })
            .expect("no bugcheck");
            missing += u64::from(left_out.is_some());
            assert_eq!(rig.counter("fields_missing"), missing, "{layer:?} without {left_out:?}");
        }
    }
    rig.uninstall();
}

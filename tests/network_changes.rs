//! What becomes of flows, names and verdicts when the machine sleeps and when its network changes.
//!
//! The driver has no power callbacks: it has a control device and no hardware, and nothing of what it keeps is lost in a
//! sleep. That must be right afterwards all the same.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::time::Duration;

use shim::stack::Verdict;
use sluice_control::flows;
use support::Rig;
use wire::{Segment, Tcp, Wire};

const POLICY: &str = r#"
[default]
outbound = "permit"
inbound = "block"
[[rule]]
name = "bad"
action = "block"
remote = "203.0.113.66"
"#;
/// Of each family, the machine's address, the one that it gets, and another machine's.
const ADDRESSES: [[&str; 3]; 2] = [["10.77.0.2", "10.77.0.9", "203.0.113.10"], ["fd77::2", "fd77::9", "2001:db8::10"]];

#[test]
fn flows_and_verdicts_outlast_a_sleep() {
    let rig = Rig::with_policy(POLICY);
    let mut wire = Wire::new(&rig.machine);
    let mut open = ADDRESSES.map(|[_, _, remote]| wire.establish(remote, 443));
    for hours in [1, 48] {
        rig.machine.sleep(Duration::from_secs(3600 * hours));
        for tcp in &mut open {
            assert_eq!(wire.send(tcp, Segment::Data(b"still here")), Verdict::Forward);
        }
        assert_eq!(flows(&rig.host).unwrap().len(), 2);
        assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    }
    // A policy that is loaded after the sleep decides them like any.
    rig.load("[default]\noutbound = \"block\"\n");
    for tcp in &mut open {
        assert_ne!(wire.send(tcp, Segment::Data(b"more")), Verdict::Forward);
    }
    wire.finish();
    assert_eq!((rig.counter("flows_opened"), rig.counter("flows_closed")), (2, 2));
    rig.uninstall();
}

/// Windows ends the flows of an address that goes; what uses the new one is decided for itself.
#[test]
fn an_address_that_changes_leaves_no_flow_and_no_verdict_behind() {
    let rig = Rig::with_policy(POLICY);
    let mut wire = Wire::new(&rig.machine);
    for [old, new, remote] in ADDRESSES {
        let before = wire.establish(remote, 443);
        let mut other = wire.establish(remote, 444);
        wire.lose_address(old.parse().unwrap());
        assert_eq!(flows(&rig.host).unwrap().len(), 0, "{old}");
        // What is left of the old connection is none of this machine's.
        wire.send(&mut other, Segment::Data(b"late"));
        assert_eq!(flows(&rig.host).unwrap().len(), 0, "{old}");
        // The same ports from the new address: a connection of its own, by the policy in force.
        let mut again = Tcp::new(remote, 443, before.local_port()).from(new.parse().unwrap());
        assert_eq!(wire.send(&mut again, Segment::Syn), Verdict::Forward);
        assert_eq!(wire.receive(&mut again, Segment::SynAck), Verdict::Forward);
        assert_eq!(wire.send(&mut again, Segment::Ack), Verdict::Forward);
        let listed = flows(&rig.host).unwrap();
        assert_eq!(listed.iter().map(|flow| flow.local_address.to_string()).collect::<Vec<_>>(), [new]);
        rig.load(&POLICY.replace("203.0.113.66", &format!("{remote}\"\nlocal = \"{new}")));
        assert_ne!(wire.send(&mut again, Segment::Data(b"more")), Verdict::Forward);
        wire.lose_address(new.parse().unwrap());
        rig.load(POLICY);
    }
    wire.finish();
    rig.uninstall();
}

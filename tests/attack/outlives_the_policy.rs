//! A program opens its connections before the policy or the driver is loaded, and keeps them.

use ntsim::machine::Machine;
use shim::{layer::Direction, stack::Verdict};

use crate::{
    support::{BLOCK_ALL, PERMIT_ALL, Rig},
    wire::{Segment, Tcp, Wire, udp},
};

/// Conversations that began before the driver was loaded.
struct Old {
    wire: Wire,
    tcp: Vec<Tcp>,
}

const REMOTES: [&str; 2] = ["203.0.113.10", "2001:db8:1::10"];

fn datagram(remote: &str, direction: Direction) -> Vec<u8> {
    udp(remote, 53, direction, b"datagram")
}

impl Old {
    fn on(machine: &std::sync::Arc<Machine>) -> Self {
        let mut wire = Wire::new(machine);
        let tcp = REMOTES.iter().map(|remote| wire.establish(remote, 443)).collect();
        let mut old = Self { wire, tcp };
        assert_eq!(old.verdicts(), [Verdict::Forward; 6]);
        old
    }

    /// The verdict on one more packet of each: TCP out, UDP out, UDP in, for IPv4 and for IPv6.
    fn verdicts(&mut self) -> [Verdict; 6] {
        let Self { wire, tcp } = self;
        let mut verdicts = [Verdict::Forward; 6];
        for (n, (remote, tcp)) in REMOTES.iter().zip(tcp).enumerate() {
            verdicts[3 * n] = wire.send(tcp, Segment::Data(b"more"));
            let mut pass = |direction| wire.pass(&datagram(remote, direction), direction).verdict;
            verdicts[3 * n + 1] = pass(Direction::Outbound);
            verdicts[3 * n + 2] = pass(Direction::Inbound);
        }
        verdicts
    }
}

#[test]
fn with_connections_older_than_the_driver() {
    let machine = Machine::new();
    let mut old = Old::on(&machine);
    let rig = Rig::on(machine);
    // The filters that `install` adds make Windows reauthorize once, before there is a policy.
    assert_eq!(old.verdicts(), [Verdict::Forward; 6]);
    rig.load(PERMIT_ALL);
    assert_eq!(old.verdicts(), [Verdict::Forward; 6], "a policy that permits them lets them continue");
    rig.load(BLOCK_ALL);
    let verdicts = old.verdicts();
    assert!(verdicts.iter().all(|verdict| *verdict != Verdict::Forward), "{verdicts:?}");
    assert_eq!((verdicts[0], verdicts[3]), (Verdict::Abort, Verdict::Abort), "TCP learns of it at both ends");
    assert_eq!(rig.counter("reauthorizations_refused"), 0);
    old.wire.finish();
    rig.uninstall();
}

#[test]
fn with_connections_of_the_time_between_install_and_load() {
    let rig = Rig::install();
    let mut old = Old::on(&rig.machine);
    rig.load(BLOCK_ALL);
    let verdicts = old.verdicts();
    assert!(verdicts.iter().all(|verdict| *verdict != Verdict::Forward), "{verdicts:?}");
    old.wire.finish();
    rig.uninstall();
}

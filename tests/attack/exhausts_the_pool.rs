//! A program, or datagrams from forged addresses, make so many flows that nonpaged pool runs out.

use std::sync::Arc;

use ntsim::{machine::Machine, wdf::RegistryValue};
use shim::{
    layer::{Direction, Layer},
    stack::Verdict,
};

use crate::{
    support::{BLOCK_ALL, PERMIT_ALL, Rig},
    wire::{Wire, udp},
};

const FLOWS: u16 = 1000;

/// A machine whose driver tracks at most this many flows.
fn limited(limits: &[(&str, u32)]) -> Rig {
    let machine = Machine::new();
    for (name, value) in limits {
        machine.set_parameter("Sluice", name, RegistryValue::dword(*value));
    }
    let rig = Rig::on(machine);
    rig.load(PERMIT_ALL);
    rig
}

/// Sends a datagram to this many endpoints; all are permitted.
fn spread(wire: &mut Wire, flows: u16) {
    for port in 1..=flows {
        let datagram = udp("203.0.113.10", port, Direction::Outbound, b"?");
        assert_eq!(wire.pass(&datagram, Direction::Outbound).verdict, Verdict::Forward, "port {port}");
    }
}

/// Bytes of pool that the driver holds.
fn pool(machine: &Arc<Machine>) -> usize {
    machine.pool.usage().1
}

#[test]
fn with_many_endpoints_and_a_long_path() {
    let rig = limited(&[]);
    let path = format!(r"\device\harddiskvolume1\{}", "x".repeat(32_000));
    let mut wire = Wire::of_program(&rig.machine, 4000, &path);
    spread(&mut wire, 1);
    let before = pool(&rig.machine);
    spread(&mut wire, FLOWS);
    let (opened, each) = (rig.counter("flows_opened"), (pool(&rig.machine) - before) / usize::from(FLOWS - 1));
    assert_eq!(opened, u64::from(FLOWS));
    // The pool adds 16 bytes to each block (POOL_HEADER), which is not in the requested size.
    assert!(each + 16 <= 128, "{each} bytes a flow");
    wire.finish();
    rig.uninstall();
}

#[test]
fn with_more_flows_than_one_process_may_have() {
    let rig = limited(&[("MaxFlowsPerProcess", 10)]);
    let mut greedy = Wire::of_program(&rig.machine, 4000, r"\device\harddiskvolume1\greedy.exe");
    let mut modest = Wire::of_program(&rig.machine, 4004, r"\device\harddiskvolume1\modest.exe");
    spread(&mut greedy, 25);
    spread(&mut modest, 5);
    let counters = ["flows_opened", "flows_untracked", "flows_refused"].map(|name| rig.counter(name));
    assert_eq!(counters, [15, 15, 15], "ten of the one, five of the other");
    // Flows without a context are decided all the same.
    rig.load(BLOCK_ALL);
    for (wire, flows) in [(&mut greedy, 25), (&mut modest, 5)] {
        for port in 1..=flows {
            let datagram = udp("203.0.113.10", port, Direction::Outbound, b"?");
            assert_ne!(wire.pass(&datagram, Direction::Outbound).verdict, Verdict::Forward, "port {port}");
        }
        wire.finish();
    }
    rig.load(PERMIT_ALL);
    spread(&mut greedy, 10);
    assert_eq!(rig.counter("flows_refused"), 15, "flows that ended make room");
    greedy.finish();
    rig.uninstall();
}

#[test]
fn with_more_flows_than_the_machine_tracks() {
    let rig = limited(&[("MaxFlows", 20), ("MaxFlowsPerProcess", 15)]);
    let mut wires: Vec<_> =
        (0..3).map(|n| Wire::of_program(&rig.machine, 4000 + 4 * n, r"\device\harddiskvolume1\one.exe")).collect();
    wires.iter_mut().for_each(|wire| spread(wire, 10));
    assert_eq!(rig.counter("flows_opened") - rig.counter("flows_closed"), 20);
    assert_eq!(rig.counter("flows_refused"), 10);
    wires.iter_mut().for_each(Wire::finish);
    rig.uninstall();
}

/// The second flow has no context. A packet of it that comes in meets the transport layer before Windows asks the ALE
/// layer again: there it is decided by its addresses and ports, unless the policy asks whose it is.
#[test]
fn so_that_a_flow_is_not_tracked_when_the_policy_changes() {
    let rig = limited(&[("MaxFlows", 1), ("MaxFlowsPerProcess", 1)]);
    let mut wire = Wire::new(&rig.machine);
    spread(&mut wire, 2);
    assert_eq!(rig.counter("flows_refused"), 1);
    let answer = |wire: &mut Wire| {
        let datagram = udp("203.0.113.10", 2, Direction::Inbound, b"!");
        let decision = wire.pass(&datagram, Direction::Inbound);
        (decision.verdict, decision.by.map(|by| by.layer))
    };
    assert_eq!(answer(&mut wire).0, Verdict::Forward);
    rig.load("[default]\noutbound = \"permit\"\ninbound = \"block\"\n");
    assert_eq!(answer(&mut wire).0, Verdict::Forward, "this machine opened it");
    rig.load(BLOCK_ALL);
    assert_eq!(answer(&mut wire), (Verdict::Drop, Some(Layer::InboundTransport)), "each packet of it");
    assert_eq!(answer(&mut wire), (Verdict::Drop, Some(Layer::InboundTransport)));
    rig.load(&format!("{BLOCK_ALL}[[rule]]\naction = \"permit\"\nservice = \"BITS\"\n"));
    assert_eq!(answer(&mut wire), (Verdict::Drop, Some(Layer::AleAuthConnect)), "it may be that service's");
    wire.finish();
    rig.uninstall();
}

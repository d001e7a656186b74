//! What a packet of a permitted flow costs in sluice.sys, by the number of flows that are live.
//!
//! `./dev bench flows`. The flows' packets come in a random order, so that with many of them each finds its flow's context
//! in memory and not in a cache. Only the driver's classifyFn is timed ([`ntsim::trace::times`]). Cases take turns in each
//! round; the medians of the rounds are printed.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "support/calls.rs"]
mod calls;
#[path = "../tests/support/mod.rs"]
mod support;

use calls::Layer;
use filter_engine::{flow::Flow, layers::LayerId};
use nt_abi::Irql;
use ntsim::{cpu, machine::Machine, trace::times, wdf::RegistryValue};

use sluice_protocol::SERVICE_NAME;
use std::sync::Arc;
use support::{PERMIT_ALL, Rig};

const FLOWS: [usize; 4] = [1, 1_000, 100_000, 1_000_000];
const ROUNDS: usize = 15;
const CALLS: usize = 200_000;

/// Nanoseconds in the driver for each of so many packets of random flows.
fn time(machine: &Arc<Machine>, transport: &Layer, flows: &[Arc<Flow>]) -> f64 {
    let timing = times::start();
    cpu::enter(machine, Irql::DISPATCH, || {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..CALLS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            transport.classify(machine, &flows[random as usize % flows.len()]);
        }
    })
    .expect("no bugcheck");
    let taken = timing.taken();
    let row = taken.iter().find(|row| row.layer == transport.id).expect("the driver was called");
    assert_eq!(row.calls as usize, CALLS, "for each packet");
    row.nanoseconds / CALLS as f64
}

/// A machine whose driver may track a million flows.
fn roomy() -> Rig {
    let machine = Machine::new();
    for name in ["MaxFlows", "MaxFlowsPerProcess"] {
        machine.set_parameter(SERVICE_NAME, name, RegistryValue::dword(2_000_000));
    }
    Rig::on(machine)
}

fn main() {
    let rig = roomy();
    rig.load(PERMIT_ALL);
    let machine = &rig.machine;
    let established = Layer::new(machine, LayerId::ALE_FLOW_ESTABLISHED_V4);
    let transport = Layer::new(machine, LayerId::OUTBOUND_TRANSPORT_V4);
    let most = FLOWS.iter().copied().max().unwrap_or(0);
    let flows: Vec<Arc<Flow>> = (0..most).map(|_| machine.wfp.engine.flows.create()).collect();
    cpu::enter(machine, Irql::DISPATCH, || {
        for flow in &flows {
            established.classify(machine, flow);
            transport.classify(machine, flow); // decided now
        }
    })
    .expect("no bugcheck");
    assert_eq!(rig.counter("flows_untracked"), 0, "every flow has a context");
    let mut samples = FLOWS.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (count, samples) in FLOWS.iter().zip(&mut samples) {
            samples.push(time(machine, &transport, &flows[..*count]));
        }
    }
    println!("{:>10} {:>10}   (a function that only returns: {:.1})", "flows", "ns/packet", times::start().floor());
    for (count, samples) in FLOWS.iter().zip(&mut samples) {
        samples.sort_by(f64::total_cmp);
        println!("{count:>10} {:>10.1}", samples[samples.len() / 2]);
    }
}

//! What a packet of a permitted flow costs in sluice.sys, by the number of flows that are live.
//!
//! `./dev bench flows`. The flows' packets come in a random order, so that with many of them each finds its flow's context
//! in memory and not in a cache. Only the driver's classifyFn is timed ([`ntsim::trace::times`]). Cases take turns in each
//! round; the medians of the rounds are printed.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "../tests/support/mod.rs"]
mod support;

use filter_engine::{Classify, LayerData, flow::Flow, layers::LayerId};
use nt_abi::{
    Irql,
    fwp::{FwpsIncomingMetadataValues0, consts::FWPS_METADATA_FIELD_FLOW_HANDLE, value::Incoming},
};
use ntsim::{cpu, machine::Machine, trace::times, wdf::RegistryValue};

use sluice_protocol::SERVICE_NAME;
use std::{hint::black_box, sync::Arc};
use support::{PERMIT_ALL, Rig};

const FLOWS: [usize; 4] = [1, 1_000, 100_000, 1_000_000];
const ROUNDS: usize = 15;
const CALLS: usize = 200_000;

struct Layer {
    id: LayerId,
    values: Incoming,
}

fn layer(machine: &Machine, id: LayerId) -> Layer {
    let table = machine.wfp.engine.layers().get(id).expect("a layer of the table");
    let mut values = Incoming::new(table.fields.len());
    let at = |name| table.field_index(name).expect("a field of the layer");
    values.u8(at("IP_PROTOCOL"), 6);
    values.u32(at("IP_LOCAL_ADDRESS"), 0x0A4D_0002);
    values.u32(at("IP_REMOTE_ADDRESS"), 0xC000_0207);
    values.u16(at("IP_REMOTE_PORT"), 443);
    values.u16(at("IP_LOCAL_PORT"), 50_000);
    if let Some(direction) = table.field_index("DIRECTION") {
        values.u32(direction, 0);
    }
    Layer { id, values }
}

fn classify(machine: &Machine, layer: &Layer, flow: &Arc<Flow>) {
    let metadata = FwpsIncomingMetadataValues0 {
        current_metadata_values: FWPS_METADATA_FIELD_FLOW_HANDLE,
        flow_handle: flow.id(),
        ..Default::default()
    };
    let data = LayerData::None;
    let values = layer.values.values();
    let call =
        Classify { layer: layer.id, values, metadata: &metadata, layer_data: data, flow: Some(flow), request: None };
    black_box(&machine.wfp.classify(black_box(&call), 0, None));
}

/// Nanoseconds in the driver for each of so many packets of random flows.
fn time(machine: &Arc<Machine>, transport: &Layer, flows: &[Arc<Flow>]) -> f64 {
    let timing = times::start();
    cpu::enter(machine, Irql::DISPATCH, || {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..CALLS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            classify(machine, transport, &flows[random as usize % flows.len()]);
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
    let established = layer(machine, LayerId::ALE_FLOW_ESTABLISHED_V4);
    let transport = layer(machine, LayerId::OUTBOUND_TRANSPORT_V4);
    let most = FLOWS.iter().copied().max().unwrap_or(0);
    let flows: Vec<Arc<Flow>> = (0..most).map(|_| machine.wfp.engine.flows.create()).collect();
    cpu::enter(machine, Irql::DISPATCH, || {
        for flow in &flows {
            classify(machine, &established, flow);
            classify(machine, &transport, flow); // decided now
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
    println!("{:>10} {:>10}", "flows", "ns/packet");
    for (count, samples) in FLOWS.iter().zip(&mut samples) {
        samples.sort_by(f64::total_cmp);
        println!("{count:>10} {:>10.1}", samples[samples.len() / 2]);
    }
}

//! The cost of a decision of sluice.sys, at the IRQL at which the engine calls it.
//!
//! `./dev bench decide`, or `SLUICE_SYS=a.sys cargo bench --bench decide` for another build of the driver, with
//! `SLUICE_IMAGE=a.img` if its images are of another version. The time is that of the engine's classify call including the
//! driver; the engine's share is the same for every driver (crates/ntsim/benches/classify.rs). Cases take turns in each
//! round; the medians of the rounds are printed.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{env, fs, hint::black_box, time::Instant};

use filter_engine::{Classify, LayerData, layers::LayerId};
use nt_abi::{
    Irql,
    fwp::{FwpsIncomingMetadataValues0, consts::FWPS_METADATA_FIELD_FLOW_HANDLE, value::Incoming},
};
use ntsim::cpu;
use shim::layer::Direction;
use sluice_control::device::upload;
use sluice_host::Host;
use sluice_protocol::DEVICE_PATH;
use support::Rig;

const ROUNDS: usize = 101;
const CALLS: u32 = 20_000;
const PERMIT: &str = "[default]\noutbound = \"permit\"\ninbound = \"permit\"\n";

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn main() {
    let rig = Rig::install();
    // Not by `load`, which queries the status first: an older driver's status has another length.
    let device = rig.host.open_device(DEVICE_PATH).expect("the device opens");
    let image = env::var_os("SLUICE_IMAGE").map(|path| fs::read(path).expect("the image"));
    let image = image.unwrap_or_else(|| rig.compile(PERMIT));
    let reply = upload(&*device, &image).expect("the device answers");
    assert_eq!(reply.reason(), None, "the policy is in force");
    let machine = &rig.machine;
    let flow = machine.wfp.engine.flows.create();
    let metadata = FwpsIncomingMetadataValues0 {
        current_metadata_values: FWPS_METADATA_FIELD_FLOW_HANDLE,
        flow_handle: flow.id(),
        ..Default::default()
    };
    let layers = [LayerId::ALE_FLOW_ESTABLISHED_V4, LayerId::ALE_AUTH_CONNECT_V4, LayerId::OUTBOUND_TRANSPORT_V4];
    let tables = layers.map(|layer| machine.wfp.engine.layers().get(layer).expect("a layer of the table"));
    let mut values = tables.map(|table| Incoming::new(table.fields.len()));
    for (table, incoming) in tables.iter().zip(&mut values) {
        let at = |name| table.field_index(name).expect("a field of the layer");
        incoming.u8(at("IP_PROTOCOL"), 6);
        incoming.u32(at("IP_LOCAL_ADDRESS"), 0x0A4D_0002);
        incoming.u32(at("IP_REMOTE_ADDRESS"), 0xC000_0207);
        incoming.u16(at("IP_REMOTE_PORT"), 443);
        incoming.u16(at("IP_LOCAL_PORT"), 50_000);
        // Without its direction a flow gets no context, and its packets are no decided flow's.
        if let Some(direction) = table.field_index("DIRECTION") {
            incoming.u32(direction, Direction::Outbound as u32);
        }
    }
    let time = |place: usize, irql: Irql, calls: u32| {
        let call = Classify {
            layer: layers[place],
            values: values[place].values(),
            metadata: &metadata,
            layer_data: LayerData::None,
            flow: Some(&flow),
            request: None,
        };
        let elapsed = cpu::enter(machine, irql, || {
            let start = Instant::now();
            for _ in 0..calls {
                black_box(&machine.wfp.classify(black_box(&call), 0, None));
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
        });
        elapsed.expect("no bugcheck")
    };
    time(0, Irql::DISPATCH, 1);
    let cases = [
        ("ALE_AUTH_CONNECT at PASSIVE_LEVEL", 1, Irql::PASSIVE),
        ("ALE_AUTH_CONNECT at DISPATCH_LEVEL", 1, Irql::DISPATCH),
        ("a decided flow's packet at PASSIVE_LEVEL", 2, Irql::PASSIVE),
        ("a decided flow's packet at DISPATCH_LEVEL", 2, Irql::DISPATCH),
    ];
    let mut samples = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for ((_, place, irql), samples) in cases.iter().zip(&mut samples) {
            samples.push(time(*place, *irql, CALLS));
        }
    }
    println!("{:<44} {:>8}", "case", "ns/call");
    for ((name, ..), samples) in cases.iter().zip(samples) {
        println!("{name:<44} {:>8.1}", median(samples));
    }
}

//! The cost of a decision of sluice.sys, at the IRQL at which the engine calls it.
//!
//! `./dev bench decide`, or `SLUICE_SYS=a.sys cargo bench --bench decide` for another build of the driver, with
//! `SLUICE_IMAGE=a.img` if its images are of another version. The time is that of the engine's classify call including the
//! driver; the engine's share is the same for every driver (crates/ntsim/benches/classify.rs). Cases take turns in each
//! round; the medians of the rounds are printed. The second column is the driver's classifyFn alone, timed apart
//! ([`ntsim::trace::times`]), with its calls of the simulated kernel; its last line is a function that only returns.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "support/calls.rs"]
mod calls;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{env, fs, time::Instant};

use calls::Layer;
use filter_engine::layers::LayerId;
use nt_abi::Irql;
use ntsim::{cpu, trace::times};
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
    let layers = [LayerId::ALE_FLOW_ESTABLISHED_V4, LayerId::ALE_AUTH_CONNECT_V4, LayerId::OUTBOUND_TRANSPORT_V4];
    let layers = layers.map(|layer| Layer::new(machine, layer));
    let time = |place: usize, irql: Irql, calls: u32| {
        let elapsed = cpu::enter(machine, irql, || {
            let start = Instant::now();
            for _ in 0..calls {
                layers[place].classify(machine, &flow);
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
    let alone = |place: usize, irql: Irql| {
        let timing = times::start();
        time(place, irql, CALLS);
        let taken = timing.taken();
        let row = taken.iter().find(|row| row.layer == layers[place].id).expect("the driver was called");
        row.nanoseconds / row.calls as f64
    };
    let mut samples = vec![[Vec::new(), Vec::new()]; cases.len()];
    for _ in 0..ROUNDS {
        for ((_, place, irql), [whole, driver]) in cases.iter().zip(&mut samples) {
            whole.push(time(*place, *irql, CALLS));
            driver.push(alone(*place, *irql));
        }
    }
    println!("{:<44} {:>8} {:>10}", "case", "ns/call", "classifyFn");
    for ((name, ..), samples) in cases.iter().zip(samples) {
        let [whole, driver] = samples.map(median);
        println!("{name:<44} {whole:>8.1} {driver:>10.1}");
    }
    println!("{:<44} {:>8} {:>10.1}", "nothing", "", times::start().floor());
}

//! What a packet costs in a driver: sluice.sys beside WinDivert64.sys 2.2, over the same capture, in turns.
//!
//! `cargo bench -p ntsim --bench drivers` prints a table: the whole replay, and the classify calls alone, timed around
//! each call of a classifyFn ([`ntsim::trace::times`]). WinDivert has one handle open at the layer NETWORK, with a filter
//! that no packet matches; sluice.sys has a policy of one rule, which permits every flow. Both must be there: sluice.sys
//! by `./dev build`, WinDivert by the package index of Python.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(dead_code, unreachable_pub, reason = "modules of another program's tests")]

#[path = "support/capture.rs"]
mod capture;
#[path = "../tests/foreign/divert.rs"]
mod divert;
#[path = "../tests/foreign/fetch.rs"]
mod fetch;

use divert::{Filter, Handle, Layer};
use filter_engine::layers::LayerId;
use ntsim::{
    machine::Machine,
    replay::{self, Options},
    tcpip::verdicts::Verdicts,
    trace::times,
};
use std::{fs, path::Path, sync::Arc, time::Instant};

const ROUNDS: usize = 9;
/// A port that no packet of the capture has.
const NO_PORT: u16 = 7;

/// What one round measured, in nanoseconds for each packet of the capture.
struct Round {
    replay: f64,
    /// By layer: calls for each packet and nanoseconds for each call.
    calls: Vec<(LayerId, f64, f64)>,
}

fn round(machine: &Arc<Machine>, file: &[u8], packets: u64, timed: bool) -> Round {
    let timing = timed.then(times::start);
    let mut verdicts = Verdicts::new(None);
    let start = Instant::now();
    replay::run(machine, file, &Options::default(), &mut verdicts).expect("no bugcheck");
    let replay = start.elapsed().as_secs_f64() * 1e9 / packets as f64;
    assert_eq!(verdicts.totals.forwarded, packets, "{:?}", verdicts.totals);
    let taken = timing.map(|timing| timing.taken()).unwrap_or_default();
    let calls =
        taken.iter().map(|row| (row.layer, row.calls as f64 / packets as f64, row.nanoseconds / row.calls as f64));
    Round { replay, calls: calls.collect() }
}

fn median(samples: impl IntoIterator<Item = f64>) -> f64 {
    let mut samples: Vec<f64> = samples.into_iter().collect();
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn main() {
    let sluice = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/sluice/x86_64/sluice.sys");
    let Some(windivert) = fetch::windivert().filter(|_| sluice.exists()) else {
        println!("{} and WinDivert are needed", sluice.display());
        return;
    };
    let (file, packets, _) = capture::web();
    let divert = Machine::new();
    let image = fs::read(windivert).expect("the driver is readable");
    divert.load_driver("WinDivert", &image).unwrap_or_else(|error| panic!("{error}"));
    let filter = Filter::all().tcp_to(NO_PORT);
    let handle = Handle::open(&divert, &filter, Layer::Network, 0, 0).expect("a handle");
    let machines =
        [("no driver", Machine::new()), ("sluice.sys", capture::machine(Some(&sluice))), ("WinDivert64.sys", divert)];
    let mut rounds: [Vec<(Round, Round)>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for ((_, machine), rounds) in machines.iter().zip(&mut rounds) {
            rounds.push((round(machine, &file, packets, false), round(machine, &file, packets, true)));
        }
    }
    println!("{packets} packets; medians of {ROUNDS} turns, ns");
    println!("{:<16} {:>14} {:>24}", "driver", "replay/packet", "classify calls/packet");
    for ((name, _), rounds) in machines.iter().zip(&rounds) {
        let replay = median(rounds.iter().map(|(plain, _)| plain.replay));
        let all = |round: &Round| round.calls.iter().map(|(_, calls, each)| calls * each).sum::<f64>();
        println!("{name:<16} {replay:>14.0} {:>24.1}", median(rounds.iter().map(|(_, timed)| all(timed))));
    }
    println!("\na classifyFn that only returns: {:.1} ns", times::start().floor());
    println!("\n{:<16} {:<30} {:>14} {:>10}", "driver", "layer", "calls/packet", "ns/call");
    for ((name, machine), rounds) in machines.iter().zip(&rounds) {
        let Some((_, first)) = rounds.first() else { continue };
        for &(layer, calls, _) in &first.calls {
            let each = |round: &Round| round.calls.iter().find(|row| row.0 == layer).map_or(0.0, |row| row.2);
            let shown = machine.wfp.engine.layers().get(layer).map_or("?", |layer| layer.name);
            println!(
                "{name:<16} {shown:<30} {calls:>14.3} {:>10.1}",
                median(rounds.iter().map(|(_, timed)| each(timed)))
            );
        }
    }
    drop(handle);
}

//! How fast a capture passes through the simulated stack, and the driver in it.
//!
//! `cargo bench -p ntsim --bench replay` prints a table. The capture is made in memory. Cases take turns within each
//! round; medians are printed. The real driver is included when it is built (`./dev build`).
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(dead_code, unreachable_pub, reason = "a module of several benchmarks")]

#[path = "support/capture.rs"]
mod capture;

use capture::{GENERATIONS, SIDE_BY_SIDE, machine};
use ntsim::machine::Machine;
use ntsim::replay::{self, Options};
use ntsim::tcpip::verdicts::Verdicts;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const ROUNDS: usize = 7;
fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn main() {
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/sluice/x86_64/sluice.sys");
    let (file, packets, bytes) = capture::web();
    let mut cases: Vec<(String, Arc<Machine>, Options)> = Vec::new();
    for processors in [1, 2] {
        let options = || Options { processors, ..Options::default() };
        cases.push((format!("no driver, {processors} processors"), machine(None), options()));
        if driver.exists() {
            cases.push((format!("sluice.sys, {processors} processors"), machine(Some(&driver)), options()));
        } else {
            println!("{} is not built", driver.display());
        }
    }
    let mut samples = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for ((name, machine, options), samples) in cases.iter().zip(&mut samples) {
            let mut verdicts = Verdicts::new(None);
            let start = Instant::now();
            replay::run(machine, &file[..], options, &mut verdicts).expect("no bugcheck");
            samples.push(start.elapsed().as_secs_f64());
            let totals = verdicts.totals;
            assert_eq!((totals.packets, totals.forwarded), (packets, packets), "{name}: {totals:?}");
        }
    }
    println!("{packets} packets, {} connections", SIDE_BY_SIDE * GENERATIONS);
    println!("{:<28} {:>10} {:>12} {:>10}", "case", "ns/packet", "packets/s", "Gbit/s");
    for ((name, _, _), samples) in cases.iter().zip(&mut samples) {
        let seconds = median(samples);
        let rate = packets as f64 / seconds;
        println!("{name:<28} {:>10.0} {rate:>12.0} {:>10.1}", 1e9 / rate, bytes as f64 * 8e-9 / seconds);
    }
}

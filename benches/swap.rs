//! Loading and swapping a policy of a million entries in the real sluice.sys, while connections are decided.
//!
//! `cargo bench --bench swap` needs the driver (`./dev build`, or `SLUICE_SYS`). It prints how long validation takes,
//! how long the request that puts the image in force takes, and how long a connect() takes between and during swaps.

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/support/wire.rs"]
mod wire;

use std::{
    collections::BTreeMap,
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sluice_control::load_image;
use sluice_policy::{CompileOptions, Image, compile, parse};
use support::Rig;
use wire::Wire;

const ENTRIES: u32 = 1_000_000;
const SWAPS: usize = 15;

/// A policy that blocks a million hosts, not including the one connected to.
fn image(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let list: String = (0..ENTRIES)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Outside 203.0.0.0/8, where the connections go.
            format!("{}\n", Ipv4Addr::from_bits((state >> 20) as u32 % 0xcb00_0000))
        })
        .collect();
    let text = "[default]\noutbound = \"permit\"\n[list.all]\nfile = \"list\"\n[[rule]]\naction = \"block\"\nremote = \"@all\"\n";
    let files = BTreeMap::from([(PathBuf::from("list"), list.into_bytes())]);
    let policy = parse(Path::new("policy.toml"), text, &files).expect("it parses");
    let options = CompileOptions { application: &|path| Ok(path.to_owned()), key: [7; 16], at: None };
    compile(&policy, &options).expect("it compiles")
}

/// Connects until told to stop; returns how long each connect took.
fn connects(machine: &Arc<ntsim::machine::Machine>, stop: &AtomicBool) -> Vec<(Instant, Duration)> {
    let mut wire = Wire::new(machine);
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        wire.connect("203.0.113.10", 443);
        times.push((start, start.elapsed()));
    }
    wire.finish();
    times
}

fn quantile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * part) as usize]
}

fn main() {
    let rig = Rig::install();
    let images = [image(88_172_645_463_325_252), image(2_463_534_242)];
    let mut validated: Vec<Duration> = (0..SWAPS)
        .map(|turn| {
            let start = Instant::now();
            assert!(Image::validate(&images[turn % 2][..]).is_ok());
            start.elapsed()
        })
        .collect();
    load_image(&rig.host, &images[1]).expect("the driver takes it");

    let stop = Arc::new(AtomicBool::new(false));
    let connecting = {
        let (machine, stop) = (rig.machine.clone(), stop.clone());
        thread::spawn(move || connects(&machine, &stop))
    };
    let mut swaps: Vec<(Instant, Duration)> = Vec::new();
    for turn in 0..SWAPS {
        thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        load_image(&rig.host, &images[turn % 2]).expect("every swap succeeds");
        swaps.push((start, start.elapsed()));
    }
    thread::sleep(Duration::from_millis(20));
    stop.store(true, Ordering::Relaxed);
    let times = connecting.join().expect("nothing was torn");
    let during = |at: &Instant| swaps.iter().any(|(start, took)| *at >= *start && *at <= *start + *took);
    let (mut beside, mut between): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    for (at, took) in &times {
        if during(at) { &mut beside } else { &mut between }.push(*took);
    }
    let mut took: Vec<Duration> = swaps.iter().map(|(_, took)| *took).collect();
    let text = format!(
        "{ENTRIES} entries, {} bytes, {SWAPS} swaps\n\
         validate  median {:?}, worst {:?}\n\
         swap      median {:?}, worst {:?}\n\
         connect between swaps: {} of them, median {:?}, 99.9% {:?}, worst {:?}\n\
         connect during swaps:  {} of them, median {:?}, 99.9% {:?}, worst {:?}\n",
        images[0].len(),
        quantile(&mut validated, 0.5),
        quantile(&mut validated, 1.0),
        quantile(&mut took, 0.5),
        quantile(&mut took, 1.0),
        between.len(),
        quantile(&mut between, 0.5),
        quantile(&mut between, 0.999),
        quantile(&mut between, 1.0),
        beside.len(),
        quantile(&mut beside, 0.5),
        quantile(&mut beside, 0.999),
        quantile(&mut beside, 1.0),
    );
    std::io::stdout().write_all(text.as_bytes()).expect("standard output takes the report");
    rig.uninstall();
}

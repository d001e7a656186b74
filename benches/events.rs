//! What recording an event costs, with one processor and with two that record at the same time.
//!
//! `./dev bench events`, or `SLUICE_SYS=a.sys cargo bench --bench events` for another build of the driver. Timed is the
//! engine's classify call at ALE_AUTH_CONNECT: recorded, since a handle has asked for every decision; not recorded; and
//! beyond the budget of its source. The differences to the second are what is asked for. The cases take turns in short
//! slices; two processors begin each slice together.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "support/calls.rs"]
mod calls;
#[path = "../tests/support/mod.rs"]
mod support;

use calls::{Layer, low_and_median};
use filter_engine::{flow::Flow, layers::LayerId};
use nt_abi::Irql;
use ntsim::{cpu, machine::Machine};
use sluice_control::device::upload;
use sluice_host::Host;
use sluice_protocol::{DEVICE_PATH, ioctl};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};
use support::Rig;

const ROUNDS: usize = 400;
const CALLS: u32 = 1500;
const CASES: [&str; 3] = ["not recorded", "recorded", "beyond the budget"];
const QUIET: &str = "[default]\noutbound = \"permit\"\ninbound = \"permit\"\n";
const LOGGED: &str = "[default]\noutbound = \"permit\"\ninbound = \"permit\"\nlog = true\n";

/// How many processors have begun a slice, and how many have ended it.
#[derive(Default)]
struct Together {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

/// Nanoseconds a call, of a slice in which `processors` run at once from the first call to the last.
fn slice(machine: &Arc<Machine>, layer: &Layer, flow: &Arc<Flow>, together: &Together, processors: usize) -> f64 {
    let taken = cpu::enter(machine, Irql::DISPATCH, || {
        together.begun.fetch_add(1, Ordering::SeqCst);
        while together.begun.load(Ordering::SeqCst) < processors {
            std::hint::spin_loop(); // not asleep: who has to be woken comes too late
        }
        let start = Instant::now();
        for _ in 0..CALLS {
            layer.classify(machine, flow);
        }
        let taken = start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS);
        together.ended.fetch_add(1, Ordering::SeqCst);
        while together.ended.load(Ordering::SeqCst) < processors {
            layer.classify(machine, flow);
        }
        taken
    });
    taken.expect("no bugcheck")
}

/// Slices of every processor for a case.
fn round(machine: &Arc<Machine>, layer: &Layer, flows: &[Arc<Flow>]) -> Vec<f64> {
    let together = Together::default();
    thread::scope(|scope| {
        let slices: Vec<_> =
            flows.iter().map(|flow| scope.spawn(|| slice(machine, layer, flow, &together, flows.len()))).collect();
        slices.into_iter().map(|slice| slice.join().expect("a processor")).collect()
    })
}

fn main() {
    let rig = Rig::install();
    let machine = &rig.machine;
    let layer = Layer::new(machine, LayerId::ALE_AUTH_CONNECT_V4);
    let flows: Vec<_> = (0..2).map(|_| machine.wfp.engine.flows.create()).collect();
    let images = [QUIET, LOGGED].map(|policy| rig.compile(policy));
    let open = || rig.host.open_device(DEVICE_PATH).expect("the device opens");
    let mut samples: [[Vec<f64>; 3]; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (case, image) in [(0, &images[0]), (1, &images[0]), (2, &images[1])] {
            let device = open();
            let reply = upload(&*device, image).expect("the driver answers");
            assert_eq!(reply.reason(), None, "the policy is in force");
            if case == 1 {
                device.control(ioctl::RECORD_ALL, &[], &mut []).expect("every decision");
            }
            for processors in [1, 2] {
                samples[processors - 1][case].extend(round(machine, &layer, &flows[..processors]));
            }
        }
    }
    println!("ns a call: the lowest tenth and the median of {ROUNDS} slices of {CALLS} calls");
    println!("{:<20} {:>18} {:>18}", "", "1 processor", "2 processors");
    let mut base = [(0.0, 0.0); 2];
    for (case, name) in CASES.iter().enumerate() {
        let shown = [0, 1].map(|processors| low_and_median(&mut samples[processors][case]));
        let [one, two] = shown.map(|(low, median)| format!("{low:.1} {median:.1}"));
        println!("{name:<20} {one:>18} {two:>18}");
        if case == 0 {
            base = shown;
        } else {
            let more = |processors: usize| {
                let ((low, median), (plain, usual)) = (shown[processors], base[processors]);
                format!("+{:.1} +{:.1}", low - plain, median - usual)
            };
            println!("{:<20} {:>18} {:>18}", "  more than that", more(0), more(1));
        }
    }
}

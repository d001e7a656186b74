//! What it takes the driver to find the name in a flow's first bytes, and to decide by it.
//!
//! `./dev bench names`. Real packets go through the stack of ntsim; timed are the driver's classifyFn calls at STREAM or
//! DATAGRAM_DATA alone ([`ntsim::trace::times`]), everything in them included: the bytes are mapped and copied, parsed, the
//! name is looked up, the flow's standing is written, its context is taken away from the layer. The parsers alone are
//! timed by `cargo bench -p sluice-content`. Kinds take turns; the lowest tenth and the median of the rounds are printed.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(dead_code, reason = "modules of tests")]

#[path = "support/calls.rs"]
mod calls;
#[path = "../tests/support/hello.rs"]
mod hello;
#[path = "../tests/support/quic.rs"]
mod quic;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/support/wire.rs"]
mod wire;

use calls::low_and_median;
use filter_engine::layers::LayerId;
use hello::{message, question, sized};
use ntsim::trace::times;
use quic::{crypto, initial};
use shim::{layer::Direction, stack::Verdict};
use support::Rig;
use wire::{Segment, Wire, udp};

const ROUNDS: usize = 60;
const FLOWS: usize = 200;
const NAME: &str = "www.news.example";
/// Ten rules on names, none of which is asked for.
fn policy() -> String {
    let rule = |number| {
        format!("[[rule]]\nname = \"r{number}\"\naction = \"block\"\nremote-name = \".ads{number}.example\"\n")
    };
    let rules: String = (0..10).map(rule).collect();
    format!("[default]\noutbound = \"permit\"\ninbound = \"permit\"\n{rules}")
}

/// A kind of beginning: its name, what is sent to which port, and the layer that sees it.
struct Kind {
    name: &'static str,
    layer: LayerId,
    port: u16,
    bytes: &'static [u8],
}

fn kinds() -> [Kind; 5] {
    let record = |before| [&[22, 3, 1][..], &sized(2, &message(NAME, before))].concat();
    let get = format!("GET /index.html HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n");
    let hello = message(NAME, 200);
    let initial = initial(0, &crypto(&hello, 0, hello.len()));
    let (stream, data) = (LayerId::STREAM_V4, LayerId::DATAGRAM_DATA_V4);
    [
        ("TLS ClientHello of 150 bytes", stream, 443, record(0)),
        ("TLS ClientHello of 550 bytes", stream, 443, record(400)),
        ("HTTP Host", stream, 80, get.into_bytes()),
        ("DNS question", data, 53, question(1, NAME)),
        ("QUIC Initial", data, 443, initial),
    ]
    .map(|(name, layer, port, bytes)| Kind { name, layer, port, bytes: Box::leak(bytes.into()) })
}

/// Nanoseconds in the driver for each flow, and how often it was called for one.
fn time(rig: &Rig, kind: &Kind) -> (f64, f64) {
    let mut wire = Wire::new(&rig.machine);
    let timing = times::start();
    for flow in 0..FLOWS {
        let remote = format!("198.18.{}.{}", flow / 200, flow % 200 + 1);
        let verdict = if kind.layer == LayerId::STREAM_V4 {
            let mut tcp = wire.establish(&remote, kind.port);
            wire.send(&mut tcp, Segment::Data(kind.bytes))
        } else {
            wire.pass(&udp(&remote, kind.port, Direction::Outbound, kind.bytes), Direction::Outbound).verdict
        };
        assert_eq!(verdict, Verdict::Forward);
    }
    let taken = timing.taken();
    drop(timing);
    wire.finish();
    let row = taken.iter().find(|row| row.layer == kind.layer).expect("the driver was called");
    (row.nanoseconds / FLOWS as f64, row.calls as f64 / FLOWS as f64)
}

fn main() {
    let rig = Rig::with_policy(&policy());
    let kinds = kinds();
    let mut samples = kinds.each_ref().map(|_| Vec::new());
    let mut calls = kinds.each_ref().map(|_| 0.0);
    let found = rig.counter("names_found");
    for _ in 0..ROUNDS {
        for ((kind, samples), calls) in kinds.iter().zip(&mut samples).zip(&mut calls) {
            let (nanoseconds, count) = time(&rig, kind);
            samples.push(nanoseconds);
            *calls = count;
        }
    }
    assert_eq!(rig.counter("names_found") - found, (ROUNDS * FLOWS * kinds.len()) as u64, "each name is found");
    println!("{:<30} {:>8} {:>8} {:>11}", "ns of classify for a flow", "lowest", "median", "calls/flow");
    for ((kind, samples), calls) in kinds.iter().zip(&mut samples).zip(calls) {
        let (low, median) = low_and_median(samples);
        println!("{:<30} {low:>8.0} {median:>8.0} {calls:>11.1}", kind.name);
    }
}

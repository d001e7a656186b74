//! Looks for the image and flow whose decision takes the most steps: none takes more than validation said of the image.
//! What a fuzzer cannot guess of an image is put right first. Flows are taken from the image's own bytes, so that they
//! are near what its entries ask for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_policy::{
    AppId, Direction, Flow, Identities, Image, Name, Sid,
    image::{MOST_STEPS, put_right},
};
use std::{collections::BTreeSet, hint::black_box, net::IpAddr};

/// How many places of an image are taken for flows.
const PLACES: usize = 32;
/// The bytes that make a flow.
const FLOW: usize = 48;

fuzz_target!(|input: &[u8]| {
    let mut bytes = input.to_vec();
    put_right(&mut bytes);
    let Ok(image) = Image::validate(&bytes[..]) else { return };
    let most = u64::from(image.most_steps());
    assert!(most <= u64::from(MOST_STEPS));
    let mut slowest = 0;
    for place in (0..bytes.len() - FLOW).step_by((bytes.len() / PLACES).max(1)) {
        let sids = Told(&bytes[place..]);
        for flow in flows(&bytes[place..]) {
            for flow in [flow, flow.with_others(&sids)] {
                let (decision, steps) = image.decide_counting(&flow);
                assert!(steps <= most, "{steps} steps of {most}: {flow:?}");
                assert!(!decision.over_budget);
                slowest = slowest.max(steps);
            }
        }
    }
    reached(slowest);
});

/// SIDs at places of some bytes, none told twice.
#[derive(Debug)]
struct Told<'a>(&'a [u8]);

impl Identities for Told<'_> {
    fn each(&self, visit: &mut dyn FnMut(Sid<'_>)) {
        let mut told = BTreeSet::new();
        self.0.windows(12).step_by(4).take(100).filter(|sid| told.insert(*sid)).for_each(|sid| visit(Sid(sid)));
    }
}

/// Flows of some bytes: of both families and directions, with and without a name.
fn flows(bytes: &[u8]) -> Vec<Flow<'_>> {
    let narrow = |place: usize| u32::from_le_bytes(std::array::from_fn(|index| bytes[place + index]));
    let wide = |place: usize| u128::from_le_bytes(std::array::from_fn(|index| bytes[place + index]));
    let port = |place: usize| u16::from_le_bytes([bytes[place], bytes[place + 1]]);
    let ends = [
        (IpAddr::V4(narrow(4).into()), IpAddr::V4(narrow(0).into())),
        (IpAddr::V6(wide(16).into()), IpAddr::V6(wide(0).into())),
    ];
    let mut flows = Vec::new();
    for direction in [Direction::Outbound, Direction::Inbound] {
        for (local, remote) in ends {
            for name in [Name::Unknown, Name::Known(&bytes[..FLOW])] {
                let flow = Flow::new(direction, bytes[18], local, port(12), remote, port(8)).with_name(name);
                flows.push(flow.with_application(AppId(bytes)).with_interface(u64::from(port(20)) << 48));
            }
        }
    }
    flows
}

/// A branch for each number of bits, for the fuzzer to see that it came further.
fn reached(steps: u64) {
    macro_rules! bits {
        ($($bits:literal)*) => {
            match u64::BITS - steps.leading_zeros() { $($bits => { black_box($bits); })* _ => {} }
        };
    }
    bits!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18);
}

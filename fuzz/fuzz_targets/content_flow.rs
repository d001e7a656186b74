//! Any bytes as a stream and as datagrams of an unknown protocol.
#![no_main]

mod cuts;

use libfuzzer_sys::fuzz_target;
use sluice_content::{
    flow::{Datagrams, Stream},
    quic::Window,
};

fuzz_target!(|input: &[u8]| {
    cuts::agree(input, Stream::new, |stream, bytes| format!("{:?}", stream.push(bytes)));
    let Some((_, pieces)) = cuts::cut(input) else { return };
    let (mut flow, mut window) = (Datagrams::new(), Window::new());
    let mut last = format!("{:?}", flow.decided());
    for datagram in pieces {
        let next = format!("{:?}", flow.push(datagram, &mut window));
        assert!(last == "Undecided" || last == next);
        last = next;
    }
});

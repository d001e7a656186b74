//! Any bytes, cut in any way, get one answer.
#![no_main]

mod cuts;

use libfuzzer_sys::fuzz_target;
use sluice_content::tls::ClientHello;

fuzz_target!(|input: &[u8]| {
    cuts::agree(input, ClientHello::new, |parser, bytes| cuts::checked(parser.push(bytes)));
});

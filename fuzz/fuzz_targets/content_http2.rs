//! Any bytes, cut in any way, get one answer.
#![no_main]

mod cuts;

use libfuzzer_sys::fuzz_target;
use sluice_content::http2::Connection;

fuzz_target!(|input: &[u8]| {
    cuts::agree(input, Connection::new, |parser, bytes| cuts::checked(parser.push(bytes)));
});

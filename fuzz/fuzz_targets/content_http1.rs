//! Any bytes, cut in any way, get one answer.
#![no_main]

mod cuts;

use libfuzzer_sys::fuzz_target;
use sluice_content::http1::Request;

fuzz_target!(|input: &[u8]| {
    cuts::agree(input, Request::new, |parser, bytes| cuts::checked(parser.push(bytes)));
});

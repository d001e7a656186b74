//! Any file as one of `netsh wfp`, or as a cabinet with one: it is read or refused, with a line that it has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_diagnose::read::{Cabinet, is_cabinet, read};
use std::io::{Cursor, Read};
use std::ops::ControlFlow;

fn whole(input: impl Read, most: u64) {
    if let Err(error) = read(input, &mut |_| ControlFlow::Continue(())) {
        assert!(error.line <= most + 1 && !error.what.is_empty());
    }
}

fuzz_target!(|bytes: &[u8]| {
    whole(bytes, bytes.len() as u64);
    if is_cabinet(bytes)
        && let Ok(mut cabinet) = Cabinet::open(Cursor::new(bytes))
        && let Ok(xml) = cabinet.xml()
    {
        whole(xml.take(1 << 20), 1 << 20);
    }
});

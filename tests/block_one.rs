//! The example of crates/wfp-sys, driver/block-one, does what it says.
//!
//! `./dev test` builds it; so does `cargo xtask build --only planted`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/wire.rs"]
mod wire;

use std::{fs, path::Path};

use ntsim::machine::Machine;
use shim::stack::Verdict;
use wire::Wire;

#[test]
fn the_example_blocks_one_address_and_leaves_nothing_behind() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/sluice/x86_64/block-one.sys");
    let image = fs::read(&file).unwrap_or_else(|error| {
        panic!("{}: {error}; run `cargo xtask build --only planted`", file.display());
    });
    let machine = Machine::new();
    let verdicts = || {
        let mut wire = Wire::new(&machine);
        let verdicts = ["203.0.113.66", "203.0.113.67", "2001:db8::66"].map(|remote| wire.connect(remote, 443).0);
        wire.finish();
        verdicts
    };
    machine.load_driver("block-one", &image).unwrap();
    assert_eq!(verdicts(), [Verdict::Refuse, Verdict::Forward, Verdict::Forward]);

    let report = machine.unload_driver("block-one").unwrap();
    assert!(report.is_clean(), "the driver left behind: {report}");
    assert_eq!(verdicts(), [Verdict::Forward; 3]);
    if let Some(bugcheck) = machine.stopped() {
        panic!("{bugcheck}");
    }
}

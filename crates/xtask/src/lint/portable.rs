//! The crates that any platform can use, checked for two that are not this one.

use std::{path::Path, process::Command};

use xtask::process;

use crate::{Error, places::Places, toolchain::host_cargo};

/// The crates.
const CRATES: [&str; 3] = ["filter-engine", "shim", "sluice-content"];

/// What a program on Windows could link, and a Linux that is not x86-64.
const TARGETS: [&str; 2] = ["x86_64-pc-windows-gnu", "aarch64-unknown-linux-gnu"];

/// Checks the crates for each target whose library is there (`rustup target add`), and says which is not.
pub(super) fn check(places: &Places) -> Result<(), Error> {
    let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    for target in TARGETS {
        if !Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib").is_dir() {
            eprintln!("{} were not checked for {target}: this Rust has no library for it", CRATES.join(", "));
            continue;
        }
        process::run(
            host_cargo(places).args(["check", "--target", target]).args(CRATES.map(|name| format!("-p={name}"))),
        )?;
    }
    Ok(())
}

//! Checks the platform-independent crates for two other platforms.

use std::{path::Path, process::Command};

use xtask::process;

use crate::{Error, places::Places, toolchain::host_cargo};

/// The crates.
const CRATES: [&str; 3] = ["filter-engine", "shim", "sluice-content"];

/// A target for programs on Windows, and a Linux that is not x86-64.
const TARGETS: [&str; 2] = ["x86_64-pc-windows-gnu", "aarch64-unknown-linux-gnu"];

/// Checks the crates for each target whose library is installed (`rustup target add`), and reports the others.
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

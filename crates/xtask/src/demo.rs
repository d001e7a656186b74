//! The demonstration: examples/demo, with everything it starts.

use std::process::Command;

use xtask::process;

use crate::{
    Error,
    build::{self, Product},
    places::Places,
    toolchain::host_cargo,
};

/// Builds the driver and the programs, and lets curl run into the driver's decisions.
pub(crate) fn run(places: &Places) -> Result<(), Error> {
    build::one(places, Product::DriverX64)?;
    // The first demonstration should start soon: unoptimized programs build in half the time, and one call of cargo
    // builds ntsim only once. The example finds it in the folder above its own.
    let mut programs = host_cargo(places);
    process::run(programs.args(["build", "-p", "ntsim", "-p", "sluice", "--bin", "ntsim", "--example", "demo"]))?;
    let mut demo = Command::new(places.target.join("debug/examples/demo"));
    Ok(process::run_for_user(demo.current_dir(&places.root))?)
}

//! The demonstration: examples/demo, with all that it starts.

use crate::{
    Error,
    build::{self, Product, Profile},
    places::Places,
    process,
    toolchain::host_cargo,
};

/// Builds the driver and the programs, and lets curl run into the driver's decisions.
pub(crate) fn run(places: &Places) -> Result<(), Error> {
    build::one(places, Product::DriverX64)?;
    // The first demonstration should come soon: unoptimized programs are built in half the time. The example finds ntsim
    // and sluice in the folder above its own.
    build::host_programs(places, Profile::Dev)?;
    process::run(host_cargo(places).args(["build", "--example", "demo"]))?;
    let mut demo = std::process::Command::new(places.target.join("debug/examples/demo"));
    Ok(process::run_for_user(demo.current_dir(&places.root))?)
}

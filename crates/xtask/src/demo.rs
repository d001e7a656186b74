//! The demonstration.

use crate::{
    Error,
    build::{self, Product},
    places::Places,
    process,
    toolchain::host_cargo,
};

/// Builds the driver and the programs, and lets real connections run into it.
pub(crate) fn run(places: &Places) -> Result<(), Error> {
    build::one(places, Product::DriverX64)?;
    let mut programs = host_cargo(places);
    programs.args(["build", "--profile", "demo", "-p", "ntsim", "-p", "sluice", "--bin", "ntsim", "--example", "demo"]);
    process::run(&mut programs)?;
    Ok(process::run_for_user(&mut std::process::Command::new(places.target.join("demo/examples/demo")))?)
}

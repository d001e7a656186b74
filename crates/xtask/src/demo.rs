//! The demonstration.

use crate::{
    Error,
    build::{self, Product, host_command},
    places::Places,
    process,
};

/// Builds the driver and the programs, and loads the driver into the simulated kernel.
pub(crate) fn run(places: &Places) -> Result<(), Error> {
    build::one(places, Product::DriverX64)?;
    build::one(places, Product::Host)?;
    let driver = places.products.join("x86_64/sluice.sys");
    Ok(process::run_for_user(host_command(places, "ntsim").arg("load").arg(driver))?)
}

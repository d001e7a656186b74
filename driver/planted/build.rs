//! Links the examples as the real driver is linked.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let config = wdk_build::Config::from_env_auto().map_err(|error| error.to_string())?;
    // The published wdk-build links a package's cdylib only. On Windows these drivers are compiled but not linked: they
    // are for ntsim, which does not run there.
    #[cfg(windows)]
    config.configure_library_build().map_err(|error| error.to_string())?;
    #[cfg(not(windows))]
    config.configure_examples_build().map_err(|error| error.to_string())?;
    Ok(())
}

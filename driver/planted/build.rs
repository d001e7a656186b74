//! Links the examples as the real driver is linked.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    wdk_build::Config::from_env_auto()
        .and_then(|config| config.configure_examples_build())
        .map_err(|e| e.to_string())?;
    Ok(())
}

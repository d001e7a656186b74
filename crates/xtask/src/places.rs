//! Where things are in the repository and in its build output.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The folders of one checkout.
pub(crate) struct Places {
    /// Top of the repository.
    pub(crate) root: PathBuf,
    /// The driver's workspace.
    pub(crate) driver: PathBuf,
    /// Build output of the driver's workspace. It must be inside the driver's folder: wdk-build finds the manifest by
    /// walking up from there.
    pub(crate) driver_target: PathBuf,
    /// Build output of the programs: `CARGO_TARGET_DIR`, or target/.
    pub(crate) target: PathBuf,
    /// The products, one folder for each architecture.
    pub(crate) products: PathBuf,
}

impl Places {
    pub(crate) fn here() -> Self {
        let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = crate_folder.ancestors().nth(2).unwrap_or(crate_folder).to_owned();
        let driver = root.join("driver");
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder));
        Self { driver_target: driver.join("target"), driver, target, products: root.join("target/sluice"), root }
    }
}

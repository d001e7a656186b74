//! The configuration of a driver build, as read from the manifest and from Cargo's environment.

use std::env;

use crate::{ConfigError, metadata, tree::Tree};

/// How a driver is to be built: driver model, architecture, and the tree of headers and libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The driver model of the workspace.
    pub driver_config: DriverConfig,
    pub(crate) architecture: CpuArchitecture,
    pub(crate) tree: Tree,
}

/// The driver model and its version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DriverConfig {
    /// A driver without a framework.
    Wdm,
    /// The kernel-mode framework.
    Kmdf(KmdfConfig),
    /// The user-mode framework; never chosen here, `wdk-sys` names it.
    Umdf(UmdfConfig),
}

/// Version of the kernel-mode framework.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KmdfConfig {
    /// Major version.
    pub kmdf_version_major: u8,
    /// Minor version whose headers the driver is built with.
    pub target_kmdf_version_minor: u8,
    /// Lowest minor version the driver runs on, if different.
    pub minimum_kmdf_version_minor: Option<u8>,
}

/// Version of the user-mode framework.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UmdfConfig {
    /// Major version.
    pub umdf_version_major: u8,
    /// Minor version whose headers the driver is built with.
    pub target_umdf_version_minor: u8,
    /// Lowest minor version the driver runs on, if different.
    pub minimum_umdf_version_minor: Option<u8>,
}

/// Architectures that Windows drivers are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CpuArchitecture {
    /// x86_64.
    Amd64,
    /// aarch64.
    Arm64,
}

/// Parts of the WDK that bindings can be generated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after its headers")]
pub enum ApiSubset {
    Base,
    Wdf,
    Gpio,
    Hid,
    ParallelPorts,
    Spb,
    Storage,
    Usb,
}

impl Config {
    /// Reads the driver model from the manifests of the workspace that is being built, and the rest from Cargo's
    /// environment.
    ///
    /// # Errors
    /// When no manifest, or more than one, says what kind of driver this is; when drivers are not built for the
    /// target's architecture; when `WDKContentRoot` does not name a WDK.
    pub fn from_env_auto() -> Result<Self, ConfigError> {
        let driver_config = metadata::driver_config_of_workspace()?;
        let architecture = match cargo_variable("CARGO_CFG_TARGET_ARCH")?.as_str() {
            "x86_64" => CpuArchitecture::Amd64,
            "aarch64" => CpuArchitecture::Arm64,
            other => return Err(ConfigError::UnsupportedArchitecture(other.to_owned())),
        };
        Ok(Self { driver_config, architecture, tree: Tree::from_env()? })
    }

    /// Declares the cfg that [`Config::configure_library_build`] may set.
    pub fn emit_check_cfg_settings() {
        println!("cargo::rustc-check-cfg=cfg(driver_model__driver_type, values(\"WDM\",\"KMDF\",\"UMDF\"))");
    }

    /// Sets the cfg that tells the crates of windows-drivers-rs which driver model to use.
    ///
    /// # Errors
    /// None; the published crate can fail here.
    pub fn configure_library_build(&self) -> Result<(), ConfigError> {
        let driver_type = match self.driver_config {
            DriverConfig::Wdm => "WDM",
            DriverConfig::Kmdf(_) => "KMDF",
            DriverConfig::Umdf(_) => "UMDF",
        };
        Self::emit_check_cfg_settings();
        println!("cargo::rustc-cfg=driver_model__driver_type=\"{driver_type}\"");
        Ok(())
    }

    /// Name of the variable that points at the framework's table, such as `WdfFunctions_01015`. `None` for WDM.
    #[must_use]
    pub fn compute_wdffunctions_symbol_name(&self) -> Option<String> {
        let (major, minor) = match self.driver_config {
            DriverConfig::Wdm => return None,
            DriverConfig::Kmdf(kmdf) => (kmdf.kmdf_version_major, kmdf.target_kmdf_version_minor),
            DriverConfig::Umdf(umdf) => (umdf.umdf_version_major, umdf.target_umdf_version_minor),
        };
        Some(format!("WdfFunctions_{major:02}0{minor:02}"))
    }
}

/// A variable that Cargo sets for every build script.
pub(crate) fn cargo_variable(name: &'static str) -> Result<String, ConfigError> {
    env::var(name).map_err(|_| ConfigError::NotInABuildScript(name))
}

/// Whether the code being built runs on Windows. It does not when the driver's unit tests are built for a Linux host.
pub(crate) fn target_is_windows() -> Result<bool, ConfigError> {
    Ok(cargo_variable("CARGO_CFG_TARGET_OS")? == "windows")
}

#[cfg(test)]
pub(crate) fn kmdf_1_15(architecture: CpuArchitecture) -> Config {
    let kmdf = KmdfConfig { kmdf_version_major: 1, target_kmdf_version_minor: 15, minimum_kmdf_version_minor: None };
    Config { driver_config: DriverConfig::Kmdf(kmdf), architecture, tree: Tree::Own }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_symbol_follows_the_version() {
        let mut config = kmdf_1_15(CpuArchitecture::Amd64);
        assert_eq!(config.compute_wdffunctions_symbol_name().as_deref(), Some("WdfFunctions_01015"));
        config.driver_config = DriverConfig::Wdm;
        assert_eq!(config.compute_wdffunctions_symbol_name(), None);
    }
}

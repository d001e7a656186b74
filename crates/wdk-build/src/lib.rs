//! Stand-in for the published `wdk-build`, for hosts that are not Windows.
//!
//! The crates of windows-drivers-rs (`wdk-sys`, `wdk`, `wdk-alloc`, `wdk-panic`, `wdk-macros`) build unmodified on Linux;
//! only `wdk-build`, which finds the Windows Driver Kit and configures bindgen and the linker, needs a Windows host.
//! This crate replaces it there through `[patch.crates-io]` (driver/.cargo/linux.toml), with the part of its interface
//! that those crates and a driver call.
//!
//! What it builds against:
//! - with `WDKContentRoot` set, the Windows Driver Kit in that folder: its headers in any letter case
//!   ([`letter_case`]), and those libraries that it has;
//! - otherwise the headers in `headers/`, written for this project.
//!
//! Import libraries that no kit supplies are made from the lists in `def/`.
//!
//! A host target (`cargo test` on Linux) gets bindings with the layout of x86_64 Windows from the headers in `headers/`,
//! and no linker arguments.

mod bindings;
mod config;
mod error;
mod letter_case;
mod link;
mod metadata;
mod tools;
mod tree;

pub use bindings::BuilderExt;
pub use config::{ApiSubset, Config, CpuArchitecture, DriverConfig, KmdfConfig, UmdfConfig};
pub use error::{ConfigError, IoError};

/// Configures the build of a library that depends on the WDK. For build scripts.
///
/// # Errors
/// See [`Config::from_env_auto`]. A workspace without a `metadata.wdk` section is not an error here: the library then
/// builds without a driver model.
pub fn configure_wdk_library_build() -> Result<(), ConfigError> {
    configure_wdk_library_build_and_then(|_| Ok(()))
}

/// As [`configure_wdk_library_build`], then passes the configuration to `build`.
///
/// # Errors
/// See [`Config::from_env_auto`], or the error of `build`.
pub fn configure_wdk_library_build_and_then<F, E>(mut build: F) -> Result<(), E>
where
    F: FnMut(Config) -> Result<(), E>,
    E: From<ConfigError>,
{
    match Config::from_env_auto() {
        Ok(config) => {
            config.configure_library_build()?;
            build(config)
        }
        Err(ConfigError::NoWdkConfigurationsDetected) => {
            Config::emit_check_cfg_settings();
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Configures the build of a driver: cfg settings, import libraries and linker arguments. For build scripts.
///
/// # Errors
/// See [`Config::from_env_auto`] and [`Config::configure_binary_build`].
pub fn configure_wdk_binary_build() -> Result<(), ConfigError> {
    Config::from_env_auto()?.configure_binary_build()
}

//! What can go wrong while a build is being configured.

use std::{io, path::PathBuf};

/// A file operation that failed, with the file.
#[derive(Debug, thiserror::Error)]
#[error("cannot read or write {}", path.display())]
pub struct IoError {
    path: PathBuf,
    source: io::Error,
}

impl IoError {
    /// Names the file or program that `source` is about.
    #[must_use]
    pub fn with_path(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self { path: path.into(), source }
    }
}

/// Why a build could not be configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file operation failed.
    #[error(transparent)]
    IoError(#[from] IoError),
    /// No manifest in the workspace has a `metadata.wdk.driver-model` section.
    #[error(
        "no manifest of the workspace has a section [package.metadata.wdk.driver-model] or [workspace.metadata.wdk.driver-model]"
    )]
    NoWdkConfigurationsDetected,
    /// Two manifests of the workspace ask for different driver models.
    #[error("the manifests of the workspace ask for different driver models (metadata.wdk.driver-model): {0} and {1}")]
    ConflictingWdkConfigurations(String, String),
    /// A key of the driver-model section is missing or has a value that cannot be used.
    #[error("metadata.wdk.driver-model: {key} is {found}, expected {expected}")]
    BadMetadata {
        /// The key.
        key: &'static str,
        /// Its value as written.
        found: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// The build does not run inside a workspace folder.
    #[error(
        "no Cargo.lock in any folder above the build output {}: the target directory must lie inside the driver's workspace",
        out_dir.display()
    )]
    WorkspaceNotFound {
        /// The output folder of the build script.
        out_dir: PathBuf,
    },
    /// `cargo metadata` failed or answered nonsense.
    #[error("cargo metadata for {}: {why}", manifest.display())]
    CargoMetadata {
        /// The manifest it was asked about.
        manifest: PathBuf,
        /// What it said.
        why: String,
    },
    /// Cargo did not set a variable that every build script has.
    #[error("the environment variable {0} is not set: this is meant to run in a build script")]
    NotInABuildScript(&'static str),
    /// The target is none that Windows drivers are built for.
    #[error("no drivers are built for the architecture {0}, only for x86_64 and aarch64")]
    UnsupportedArchitecture(String),
    /// The tree of headers lacks a folder.
    #[error("{} is not a folder; WDKContentRoot must name the folder that holds Include and Lib", folder.display())]
    DirectoryNotFound {
        /// The folder that should be there.
        folder: PathBuf,
    },
    /// The folder of the WDK is not given in full.
    #[error("WDKContentRoot is {}; it must be an absolute path", .0.display())]
    RelativeRoot(PathBuf),
    /// A path in which wdk-sys would take every header for one of the framework.
    #[error(
        "{} has the letters wdf in it, by which wdk-sys knows the framework's headers: build in another folder",
        folder.display()
    )]
    WdfInPath {
        /// A folder with headers of the kernel.
        folder: PathBuf,
    },
    /// Headers that only a real WDK has.
    #[error("the headers of {0:?} are not among those of this crate: set WDKContentRoot to a Windows Driver Kit")]
    HeadersNotIncluded(crate::ApiSubset),
    /// A program of the LLVM tool chain is missing.
    #[error(
        "{name} was not found, neither as {name}-22 nor as {name}: install LLVM 22 (llvm-22, lld-22, clang-22) or set {variable}"
    )]
    ToolNotFound {
        /// Name without a version.
        name: &'static str,
        /// The variable that overrides the search.
        variable: &'static str,
    },
    /// A program of the LLVM tool chain failed.
    #[error("{command} ended with {status}")]
    ToolFailed {
        /// The command line.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// bindgen does not know the Rust version it was asked to write for.
    #[error("bindgen: {0}")]
    Bindgen(String),
}

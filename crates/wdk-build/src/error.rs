//! Errors of configuring a build.

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
    /// Two manifests of the workspace name different driver models.
    #[error("the manifests of the workspace name different driver models (metadata.wdk.driver-model): {0} and {1}")]
    ConflictingWdkConfigurations(String, String),
    /// A key of the driver-model section is missing or has a value that cannot be used.
    #[error("metadata.wdk.driver-model: {key} is {found}, expected {expected}")]
    BadMetadata {
        /// The key.
        key: &'static str,
        /// Its value as written.
        found: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// The build does not run inside a workspace folder.
    #[error(
        "no Cargo.lock in any folder above the build output {}: the target directory must be inside the driver's workspace",
        out_dir.display()
    )]
    WorkspaceNotFound {
        /// The output folder of the build script.
        out_dir: PathBuf,
    },
    /// `cargo metadata` failed or its answer cannot be parsed.
    #[error("cargo metadata for {}: {why}", manifest.display())]
    CargoMetadata {
        /// The manifest it was run for.
        manifest: PathBuf,
        /// Its message.
        why: String,
    },
    /// Cargo did not set a variable that every build script has.
    #[error("the environment variable {0} is not set: this must run in a build script")]
    NotInABuildScript(&'static str),
    /// Windows drivers are not built for the target.
    #[error("drivers are built for x86_64 and aarch64, not for the architecture {0}")]
    UnsupportedArchitecture(String),
    /// The tree of headers lacks a folder.
    #[error("{} is not a folder; WDKContentRoot must name the folder that holds Include and Lib", folder.display())]
    DirectoryNotFound {
        /// The folder that should be there.
        folder: PathBuf,
    },
    /// The folder of the WDK is not an absolute path.
    #[error("WDKContentRoot is {}; it must be an absolute path", .0.display())]
    RelativeRoot(PathBuf),
    /// A path that would make wdk-sys take every header for one of the framework.
    #[error(
        "{} contains the letters wdf, by which wdk-sys recognizes the framework's headers: build in another folder",
        folder.display()
    )]
    WdfInPath {
        /// A folder of kernel headers.
        folder: PathBuf,
    },
    /// Headers that only a real WDK has.
    #[error("the headers of {0:?} are not among those of this crate: set WDKContentRoot to a Windows Driver Kit")]
    HeadersNotIncluded(crate::ApiSubset),
    /// A program of the LLVM tool chain is missing.
    #[error("neither {name}-22 nor {name} was found: install LLVM 22 (llvm-22, lld-22, clang-22) or set {variable}")]
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
        /// Its exit status.
        status: std::process::ExitStatus,
    },
    /// bindgen does not know the Rust version it was asked to write for.
    #[error("bindgen: {0}")]
    Bindgen(String),
}

//! Chooses the Rust that compiles for Windows: rustup's, with the target's library installed, or Debian's, which builds
//! the library from source (`-Zbuild-std`). `./dev` installs one of the two; this module finds it.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use xtask::process::{self, ProcessError};

use crate::places::Places;

const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_LIBRARY_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/Cargo.lock";

/// Overrides the choice: `rustup` or `debian`.
const CHOICE: &str = "SLUICE_TOOLCHAIN";

/// Why no toolchain can build for a target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolchainError {
    /// Neither is installed.
    #[error(
        "no Rust on this machine builds for {target}: run `./dev`, or `rustup target add {target}`, or on Debian \
         `apt-get install rustc-web cargo-web rust-web-src`"
    )]
    NotInstalled { target: &'static str },
    /// The override has an unknown value.
    #[error("{CHOICE} is {0:?}, expected rustup or debian")]
    UnknownChoice(String),
    /// rustc failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// A Rust that compiles for a Windows target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The `cargo` that runs this program; the target's library is installed.
    Installed,
    /// Debian's /usr/bin/cargo; the target's library is built from source.
    DebianBuildStd,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Installed => "the installed Rust and its library for the target",
            Self::DebianBuildStd => "Debian's Rust in /usr/bin, building the library from source",
        })
    }
}

impl Toolchain {
    /// Chooses the toolchain for `target`.
    pub(crate) fn for_target(target: &'static str) -> Result<Self, ToolchainError> {
        let missing = || ToolchainError::NotInstalled { target };
        let installed = || -> Result<bool, ToolchainError> {
            let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
            Ok(Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib").is_dir())
        };
        let debian =
            || [DEBIAN_CARGO, DEBIAN_RUSTC, DEBIAN_LIBRARY_SOURCE].iter().all(|file| Path::new(file).is_file());
        match env::var(CHOICE).as_deref() {
            Ok("rustup") => installed()?.then_some(Self::Installed).ok_or_else(missing),
            Ok("debian") => debian().then_some(Self::DebianBuildStd).ok_or_else(missing),
            Ok(other) if !other.is_empty() => Err(ToolchainError::UnknownChoice(other.to_owned())),
            _ if cfg!(windows) || installed()? => Ok(Self::Installed),
            _ if debian() => Ok(Self::DebianBuildStd),
            _ => Err(missing()),
        }
    }

    /// `cargo VERB` for a Windows target, which builds the named crates of the library if it has to.
    pub(crate) fn cargo(self, verb: &str, target: &str, library: &str) -> Command {
        match self {
            Self::Installed => {
                let mut cargo = Command::new(installed_cargo());
                cargo.args([verb, "--target", target]);
                cargo
            }
            Self::DebianBuildStd => {
                let mut cargo = Command::new(DEBIAN_CARGO);
                // Variables that rustup's cargo set for this process must not reach the other toolchain.
                for variable in ["CARGO", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"] {
                    cargo.env_remove(variable);
                }
                // Before PATH's: cargo looks for cargo-clippy there.
                let path = env::var_os("PATH").unwrap_or_default();
                let path = env::join_paths(std::iter::once(PathBuf::from("/usr/bin")).chain(env::split_paths(&path)));
                if let Ok(path) = path {
                    cargo.env("PATH", path);
                }
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo.args([verb, "--target", target, &format!("-Zbuild-std={library}")]);
                cargo
            }
        }
    }

    /// `cargo VERB` in the driver's workspace, for a target of the driver.
    pub(crate) fn driver_cargo(self, places: &Places, verb: &str, target: &str) -> Command {
        let mut cargo = self.cargo(verb, target, "core,alloc,compiler_builtins");
        in_driver_workspace(places, &mut cargo);
        cargo
    }
}

/// The cargo that runs this program.
fn installed_cargo() -> std::ffi::OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// `cargo` in the workspace of the programs, for this machine.
pub(crate) fn host_cargo(places: &Places) -> Command {
    let mut cargo = Command::new(installed_cargo());
    cargo.current_dir(&places.root).env("CARGO_TARGET_DIR", &places.target);
    cargo
}

/// `cargo` in the driver's workspace, for this machine: unit tests of its crates.
pub(crate) fn driver_host_cargo(places: &Places, verb: &str) -> Command {
    let mut cargo = Command::new(installed_cargo());
    cargo.arg(verb);
    in_driver_workspace(places, &mut cargo);
    cargo
}

/// `cargo metadata` of a workspace, for one target.
pub(crate) fn metadata(places: &Places, target: &str, driver: bool) -> Command {
    let mut cargo = Command::new(installed_cargo());
    cargo.current_dir(if driver { &places.driver } else { &places.root });
    cargo.args(["metadata", "--format-version", "1", "--filter-platform", target]);
    if driver && !cfg!(windows) {
        cargo.args(["--config", ".cargo/linux.toml"]);
    }
    cargo
}

fn in_driver_workspace(places: &Places, cargo: &mut Command) {
    cargo.current_dir(&places.driver).env_remove("CARGO_TARGET_DIR").arg("--target-dir").arg(&places.driver_target);
    if !cfg!(windows) {
        cargo.args(["--config", ".cargo/linux.toml"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debian_builds_the_library_and_runs_clean_of_rustup() {
        let installed = Toolchain::Installed.cargo("build", "x86_64-pc-windows-msvc", "core");
        assert!(!installed.get_args().any(|argument| argument.to_string_lossy().contains("build-std")));

        let debian = Toolchain::DebianBuildStd.cargo("build", "x86_64-pc-windows-msvc", "core,alloc");
        assert!(debian.get_args().any(|argument| argument == "-Zbuild-std=core,alloc"));
        let removed = |name: &str| debian.get_envs().any(|(variable, value)| variable == name && value.is_none());
        assert!(removed("RUSTUP_TOOLCHAIN") && removed("CARGO"));
    }
}

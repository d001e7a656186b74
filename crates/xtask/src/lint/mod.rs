//! Format, clippy, and the project's own rules.

mod portable;
mod rules;
mod walls;

use std::{fs, process::Command};

use xtask::process::{self, ProcessError};

use crate::{
    Error,
    places::Places,
    toolchain::{Toolchain, driver_host_cargo, host_cargo},
};

const DRIVER_TARGET: &str = "x86_64-pc-windows-msvc";

/// Folders of the crates of the driver's workspace.
const DRIVER_CRATES: [&str; 7] = [
    "driver",
    "driver/block-one",
    "driver/planted",
    "crates/kernel",
    "crates/wfp-sys",
    "crates/kmdf-entry",
    "crates/wdk-build",
];

/// Runs every check, so that one run shows everything that is wrong, and fails if any of them failed.
pub(crate) fn run(places: &Places) -> Result<(), Error> {
    let mut outcome = Ok(());
    let mut check = |what: &str, result: Result<(), Error>| {
        if let Err(error) = result {
            eprintln!("{what}: {error}");
            if outcome.is_ok() {
                outcome = Err(error);
            }
        }
    };
    check("format of the programs", plain(host_cargo(places).args(["fmt", "--all", "--check"])));
    check("format of the driver", driver_format(places));
    check(
        "clippy of the programs",
        plain(host_cargo(places).args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    );
    check("clippy of the driver", driver_clippy(places));
    check("the crates for any platform", portable::check(places));
    check("walls between the crates", walls::check(places));
    check("rules of the project", project_rules(places));
    outcome
}

fn plain(command: &mut Command) -> Result<(), Error> {
    Ok(process::run(command)?)
}

/// rustfmt alone: `cargo fmt` would read the driver's workspace without driver/.cargo/linux.toml and rewrite its
/// Cargo.lock.
fn driver_format(places: &Places) -> Result<(), Error> {
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.current_dir(&places.root).args(["--check", "--edition", "2024"]);
    for folder in DRIVER_CRATES {
        for file in ["src/lib.rs", "build.rs", "build/main.rs"] {
            let file = places.root.join(folder).join(file);
            if file.is_file() {
                rustfmt.arg(file);
            }
        }
    }
    let planted = places.driver.join("planted/examples");
    for file in fs::read_dir(&planted).map_err(Error::file(&planted))? {
        rustfmt.arg(file.map_err(Error::file(&planted))?.path());
    }
    plain(&mut rustfmt)
}

/// Clippy over the driver for the target it ships on, and over the stand-in for wdk-build, which runs here.
fn driver_clippy(places: &Places) -> Result<(), Error> {
    let toolchain = Toolchain::for_target(DRIVER_TARGET)?;
    let mut cargo = toolchain.driver_cargo(places, "clippy", DRIVER_TARGET);
    plain(
        cargo
            .args(["-p", "sluice-driver", "-p", "sluice-kernel", "-p", "wfp-sys", "-p", "kmdf-entry"])
            .args(["--", "-D", "warnings"]),
    )?;
    if cfg!(windows) {
        return Ok(());
    }
    let mut cargo = toolchain.driver_cargo(places, "clippy", DRIVER_TARGET);
    plain(cargo.args(["-p", "planted", "-p", "block-one", "--lib", "--examples", "--", "-D", "warnings"]))?;
    plain(driver_host_cargo(places, "clippy").args(["-p", "wdk-build", "--all-targets", "--", "-D", "warnings"]))
}

/// The rules of [`rules`], over every file that git knows and the latest commits.
fn project_rules(places: &Places) -> Result<(), Error> {
    let git = |arguments: &[&str]| -> Result<String, ProcessError> {
        process::output(Command::new("git").current_dir(&places.root).args(arguments))
    };
    let mut broken = Vec::new();
    for file in git(&["ls-files", "--cached", "--others", "--exclude-standard"])?.lines() {
        // A file that is not text, or was just removed, has no lines to check.
        if let Ok(text) = fs::read_to_string(places.root.join(file)) {
            broken.extend(rules::broken_by_file(file, &text));
        }
    }
    for subject in git(&["log", "--no-merges", "--max-count=20", "--format=%s"])?.lines() {
        broken.extend(rules::broken_by_subject(subject));
    }
    for rule in &broken {
        eprintln!("{rule}");
    }
    if broken.is_empty() { Ok(()) } else { Err(Error::Lint(broken.len())) }
}

//! Build steps that cargo cannot do alone. `./dev VERB` installs what a verb needs and then runs this; on Windows, and
//! wherever everything is installed, `cargo xtask VERB` does the same.

mod build;
mod demo;
mod lint;
mod pack;
mod places;
mod test;
mod toolchain;

use std::{
    ffi::OsString,
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use clap::{Parser, Subcommand};
use xtask::{image, package::PackageError, picture, process};

use crate::{build::Product, places::Places};

#[derive(Parser)]
#[command(name = "xtask", about = "Builds, checks and runs Sluicegate", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Builds sluice.sys for x86_64 and aarch64 and sluice.exe into target/sluice, and checks each driver image
    Build {
        /// Build only this product
        #[arg(long)]
        only: Option<Product>,
    },
    /// Builds what `build` builds, signs it and packs it: target/sluice/package/sluice-VERSION-{x64,arm64}.zip
    Package(pack::Options),
    /// Builds what the tests need, runs every test, and prints the runners' summaries last
    Test {
        /// Passed on to the test runner of the programs
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Shows the driver deciding over real connections in a simulated Windows kernel
    Demo,
    /// Runs the simulated kernel: `ntsim load target/sluice/x86_64/sluice.sys`
    Ntsim {
        /// Passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Runs the sluice command
    Sluice {
        /// Passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Runs the benchmarks, and builds nothing else: `bench classify replay`, or all of them
    Bench {
        /// Benchmarks by name; `*` and `?` stand for any letters
        names: Vec<OsString>,
        /// Passed on to the benchmarks
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Checks format, clippy (programs and driver) and the project's own rules
    Lint,
    /// Draws docs/driver.svg anew
    Picture,
    /// Draws docs/pictures anew: what a terminal shows of some verbs, for README
    Pictures,
    /// Checks that Windows would load a driver image and that this project would ship it
    CheckImage {
        /// The .sys file
        file: PathBuf,
    },
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Process(#[from] process::ProcessError),
    #[error(transparent)]
    Toolchain(#[from] toolchain::ToolchainError),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{} cannot be shipped:\n{}", path.display(), defects.iter().map(|d| format!("  - {d}")).collect::<Vec<_>>().join("\n"))]
    Image { path: PathBuf, defects: Vec<image::Defect> },
    #[error("{}: {source}", path.display())]
    Identity { path: PathBuf, source: image::identity::IdentityError },
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error("{}", if cfg!(windows) { "--certificate is a .pfx file, which holds the key: --key is not taken" } else { "--certificate needs --key" })]
    Credentials,
    #[error("the time of the source is {0:?}: expected seconds since 1970, from SOURCE_DATE_EPOCH or the last commit")]
    SourceTime(String),
    #[error("{0} rule(s) of the project broken, listed above")]
    Lint(usize),
}

impl Error {
    fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        // A program that failed has reported why; we return its status.
        Err(Error::Process(process::ProcessError::Failed { status, reported: true, .. })) => {
            ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<(), Error> {
    let places = Places::here();
    match verb {
        Verb::Build { only: Some(product) } => build::one(&places, product),
        Verb::Build { only: None } => Product::SHIPPED.iter().try_for_each(|product| build::one(&places, *product)),
        Verb::Package(options) => pack::run(&places, options),
        Verb::Test { arguments } => test::run(&places, &arguments),
        Verb::Demo => demo::run(&places),
        Verb::Ntsim { arguments } => build::host_program(&places, "ntsim", &arguments),
        Verb::Sluice { arguments } => build::host_program(&places, "sluice", &arguments),
        Verb::Bench { names, arguments } => {
            build::one(&places, Product::DriverX64)?;
            Ok(process::run(&mut bench_cargo(&places, names, arguments))?)
        }
        Verb::Lint => lint::run(&places),
        Verb::Picture => {
            let file = places.root.join("docs/driver.svg");
            fs::write(&file, picture::draw()).map_err(Error::file(file))
        }
        Verb::Pictures => pictures(&places),
        Verb::CheckImage { file } => check_image(&file),
    }
}

/// The tests that compare the pictures write them.
fn pictures(places: &Places) -> Result<(), Error> {
    build::one(places, Product::DriverX64)?;
    let mut programs = toolchain::host_cargo(places);
    process::run(programs.args(["build", "-p", "ntsim", "-p", "sluice", "--bin", "ntsim", "--example", "demo"]))?;
    let mut cargo = toolchain::host_cargo(places);
    cargo.args(["test", "-p", "sluice", "--test", "pictures"]).env("SLUICE_PICTURES", "write");
    Ok(process::run(&mut cargo)?)
}

/// `cargo bench` for benchmarks only: without target names it would also build every unit test, as "ignored".
fn bench_cargo(places: &Places, names: Vec<OsString>, arguments: Vec<OsString>) -> Command {
    let mut cargo = toolchain::host_cargo(places);
    cargo.args(["bench", "--workspace"]);
    let names = if names.is_empty() { vec![OsString::from("*")] } else { names };
    for name in names {
        cargo.arg("--bench").arg(name);
    }
    cargo.arg("--").args(arguments);
    cargo
}

/// Checks a driver image and reports what it imports from where.
fn check_image(file: &std::path::Path) -> Result<(), Error> {
    let bytes = fs::read(file).map_err(Error::file(file))?;
    let summary = image::check(&bytes).map_err(|defects| Error::Image { path: file.to_owned(), defects })?;
    eprintln!("{}: {summary}", file.display());
    Ok(())
}

//! Builds the products into target/sluice.

use std::{ffi::OsString, fs, path::Path, process::Command};

use clap::ValueEnum;

use xtask::{image::identity, process};

use crate::{
    Error, check_image,
    places::Places,
    toolchain::{Toolchain, host_cargo},
};

pub(crate) const COMMAND_TARGET: &str = if cfg!(windows) { "x86_64-pc-windows-msvc" } else { "x86_64-pc-windows-gnu" };

/// A product that can be built alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Product {
    /// sluice.sys for x86_64
    DriverX64,
    /// sluice.sys for aarch64
    DriverArm64,
    /// sluice.exe for x86_64 Windows
    Command,
    /// The drivers with one defect each that ntsim is tested with, and the example driver of wfp-sys, for x86_64
    Planted,
    /// ntsim and sluice for this machine
    Host,
}

impl Product {
    /// What `build` makes without `--only`.
    pub(crate) const SHIPPED: [Self; 3] = [Self::DriverX64, Self::DriverArm64, Self::Command];
}

/// Builds one product and checks it.
pub(crate) fn one(places: &Places, product: Product) -> Result<(), Error> {
    match product {
        Product::DriverX64 => driver(places, "x86_64", "x86_64-pc-windows-msvc"),
        Product::DriverArm64 => driver(places, "aarch64", "aarch64-pc-windows-msvc"),
        Product::Command => command(places),
        Product::Planted => planted(places),
        Product::Host => {
            Ok(process::run(host_cargo(places).args(["build", "--release", "-p", "ntsim", "-p", "sluice"]))?)
        }
    }
}

/// Builds a driver, puts it in place under its name and checks the image.
fn driver(places: &Places, architecture: &str, target: &'static str) -> Result<(), Error> {
    let toolchain = Toolchain::for_target(target)?;
    eprintln!("driver for {architecture}: {toolchain}");
    process::run(toolchain.driver_cargo(places, "build", target).arg("--release"))?;
    let built = places.driver_target.join(target).join("release");
    let shipped = places.products.join(architecture);
    let (linked, symbols) = (built.join("sluice.dll"), built.join("sluice.pdb"));
    let mut image = fs::read(&linked).map_err(Error::file(&linked))?;
    let mut pdb = fs::read(&symbols).map_err(Error::file(symbols))?;
    // Microsoft's linker needs no help with this, and its symbol files may not hold the identity exactly once.
    if !cfg!(windows) {
        identity::settle(&mut image, &mut pdb).map_err(|source| Error::Identity { path: linked, source })?;
    }
    fs::create_dir_all(&shipped).map_err(Error::file(&shipped))?;
    for (name, content) in [("sluice.sys", image), ("sluice.pdb", pdb)] {
        let path = shipped.join(name);
        fs::write(&path, content).map_err(Error::file(path))?;
    }
    check_image(&shipped.join("sluice.sys"))
}

/// Builds every driver with a defect, all in one run of cargo, into `planted/` beside the real one. Their images are
/// not checked: their defects are the point.
fn planted(places: &Places) -> Result<(), Error> {
    const TARGET: &str = "x86_64-pc-windows-msvc";
    let toolchain = Toolchain::for_target(TARGET)?;
    eprintln!("planted drivers: {toolchain}");
    let packages = ["--release", "-p", "planted", "-p", "block-one", "--lib", "--examples"];
    process::run(toolchain.driver_cargo(places, "build", TARGET).args(packages))?;
    let release = places.driver_target.join(TARGET).join("release");
    put(&release.join("block_one.dll"), &places.products.join("x86_64/block-one.sys"))?;
    let sources = places.driver.join("planted/examples");
    let built = release.join("examples");
    let folder = places.products.join("x86_64/planted");
    for source in fs::read_dir(&sources).map_err(Error::file(&sources))? {
        let source = source.map_err(Error::file(&sources))?.path();
        if source.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = source.file_stem()
        {
            put(&built.join(name).with_extension("dll"), &folder.join(name).with_extension("sys"))?;
        }
    }
    Ok(())
}

/// Builds the sluice command for Windows.
fn command(places: &Places) -> Result<(), Error> {
    let toolchain = Toolchain::for_target(COMMAND_TARGET)?;
    eprintln!("sluice.exe: {toolchain}");
    let mut cargo = toolchain.cargo("build", COMMAND_TARGET, "std,panic_abort");
    cargo.current_dir(&places.root).env("CARGO_TARGET_DIR", &places.target);
    process::run(cargo.args(["--release", "-p", "sluice", "--bin", "sluice"]))?;
    let built = places.target.join(COMMAND_TARGET).join("release/sluice.exe");
    put(&built, &places.products.join("x86_64/sluice.exe"))
}

/// Builds one of the programs for this machine and runs it for the user.
pub(crate) fn host_program(places: &Places, name: &str, arguments: &[OsString]) -> Result<(), Error> {
    let mut cargo = host_cargo(places);
    process::run(cargo.args(["build", "--release", "--quiet", "-p", name, "--bin", name]))?;
    let program = [name, std::env::consts::EXE_SUFFIX].concat();
    Ok(process::run_for_user(Command::new(places.target.join("release").join(program)).args(arguments))?)
}

fn put(from: &Path, to: &Path) -> Result<(), Error> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(Error::file(folder))?;
    }
    fs::copy(from, to).map(drop).map_err(Error::file(from))
}

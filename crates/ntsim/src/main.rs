//! The `ntsim` command.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::Cli::parse().run()
}

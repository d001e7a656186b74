//! The `sluice` command: installs the Sluicegate driver, loads policies into it, and shows what it does.

mod cli;
mod doctor;
mod events;
mod failure;
mod install;
mod load;
mod machine;
mod output;
mod policy;
mod status;

use clap::Parser;
use cli::{Cli, Command};
use failure::Failure;
use output::Output;
use sluice_control::Shrinking;
use sluice_control::install::Options;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut output = Output::new(cli.json, cli.color);
    match run(&cli, &mut output) {
        Ok(code) => code,
        Err(failure) => output.failure(&failure),
    }
}

fn run(cli: &Cli, output: &mut Output) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Install { driver, policy, dry_run } => {
            let driver = driver.clone().map_or_else(install::beside_this_program, Ok)?;
            let options = Options { driver: &driver, policy: policy.as_deref(), dry_run: *dry_run };
            install::install(&*machine::open(cli)?, &options, output)
        }
        Command::Uninstall => install::uninstall(&*machine::open(cli)?, output),
        Command::Load { policy, check: true, .. } => load::check(policy, output),
        Command::Load { policy, watch, accept_shrunk, .. } => {
            let shrinking = if *accept_shrunk { Shrinking::Accepted } else { Shrinking::Refused };
            let load = if *watch { load::watch } else { load::load };
            load(&*machine::open(cli)?, policy, shrinking, output)
        }
        Command::Status => status::status(&*machine::open(cli)?, output),
        Command::Doctor => doctor::doctor(&*machine::open(cli)?, output),
        Command::Events(options) => events::events(&*machine::open(cli)?, options, output),
        Command::Policy(command) => policy::run(command, output),
    }
}

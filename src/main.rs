//! The `sluice` command: installs the Sluicegate driver, loads policies into it, and shows what it does.

mod ask;
mod bundle;
mod capture;
mod cli;
mod doctor;
mod events;
mod failure;
mod flows;
mod install;
mod load;
mod machine;
mod manual;
mod names;
mod native;
mod output;
mod page;
mod platform;
mod policy;
mod service;
mod status;
mod switch;
mod top;
mod verify;

use clap::Parser;
use cli::{Cli, Color, Command};
use failure::Failure;
use output::Output;
use sluice_control::install::Options;
use sluice_control::native::NativeOptions;
use sluice_control::{ApplyOptions, Loading, Shrinking};
use sluice_policy::text::harmless;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let json = std::env::args_os().skip(1).take_while(|one| one != "--").any(|one| one == "--json");
            return Output::new(json, Color::Auto).usage(&harmless_usage(error));
        }
    };
    let mut output = Output::new(cli.json, cli.color);
    match run(&cli, &mut output) {
        Ok(code) => code,
        Err(failure) => output.failure(&failure),
    }
}

/// What is wrong with the command line, of arguments as they are shown: what clap says of them would act on the terminal,
/// and clap's way out of that is to leave it out.
fn harmless_usage(error: clap::Error) -> clap::Error {
    let shown = |one: OsString| harmless(&one.to_string_lossy()).into_owned();
    Cli::try_parse_from(std::env::args_os().map(shown)).err().unwrap_or(error)
}

fn run(cli: &Cli, output: &mut Output) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Install { driver, policy, start, fail, management, trust, dry_run } => {
            let fail = install::fail(*fail, management)?;
            let driver = driver.clone().map_or_else(install::beside_this_program, Ok)?;
            let options = Options {
                driver: &driver,
                policy: policy.as_deref(),
                start: start.map(install::start_type),
                fail: fail.as_ref(),
                trust: trust.as_ref(),
                dry_run: *dry_run,
            };
            install::install(&*machine::open(cli)?, &options, output)
        }
        Command::Uninstall => install::uninstall(&*machine::open(cli)?, output),
        Command::Top(options) => top::top(&*machine::open(cli)?, options, cli.json, output),
        Command::Flows => flows::flows(&*machine::open(cli)?, output),
        Command::Enable => switch::enable(&*machine::open(cli)?, output),
        Command::Disable => switch::disable(&*machine::open(cli)?, output),
        Command::Completions { shell } => manual::completions(*shell, output),
        Command::Man { verb } => manual::page(verb, output),
        Command::Load { policy, native: true, leave_out_blocks, check, no_test, .. } => {
            let options = NativeOptions { leave_out_blocks: *leave_out_blocks, test: !no_test };
            if *check {
                native::check(policy, options, output)
            } else {
                native::load(&*machine::open(cli)?, policy, options, output)
            }
        }
        Command::Unload => native::unload(&*machine::open(cli)?, output),
        Command::Load { policy, check: true, deny_warnings, .. } => load::check(policy, *deny_warnings, output),
        Command::Load { policy, watch, accept_shrunk, once, no_test, .. } => {
            let shrinking = if *accept_shrunk { Shrinking::Accepted } else { Shrinking::Refused };
            let load = if *watch { load::watch } else { load::load };
            load(&*machine::open(cli)?, policy, Loading { shrinking, once: *once, test: !no_test }, output)
        }
        Command::Apply { bundle, check, allow_rollback, accept_shrunk } => {
            let shrinking = if *accept_shrunk { Shrinking::Accepted } else { Shrinking::Refused };
            let options = ApplyOptions { rollback: *allow_rollback, shrinking, check: *check };
            bundle::apply(&*machine::open(cli)?, bundle, options, output)
        }
        Command::Trust { key, remove } => bundle::trust_key(&*machine::open(cli)?, key.as_ref(), *remove, output),
        Command::Service(command) => service::run(cli, command, output),
        Command::Bundle(command) => bundle::run(command, output),
        Command::Status => status::status(&*machine::open(cli)?, output),
        Command::Doctor { file } => doctor::doctor(cli, file.as_deref(), output),
        Command::Events(options) => events::events(&*machine::open(cli)?, options, output),
        Command::Ask(options) => ask::ask(&*machine::open(cli)?, options, output),
        Command::Names { flush } => names::names(&*machine::open(cli)?, *flush, output),
        Command::Platform(command) => platform::run(cli, command, output),
        Command::Capture(what) => capture::capture(&*machine::open(cli)?, what, output),
        Command::Verify(arguments) => verify::run(cli, arguments, output),
        Command::Policy(command) => policy::run(command, &|| machine::open(cli), output),
    }
}

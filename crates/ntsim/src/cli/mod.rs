//! The commands of `ntsim`, one file each.

mod load;
mod net;
mod replay;
mod rig;
mod show;
mod trace;

use clap::{Parser, Subcommand};
use ntsim::cpu::Bugcheck;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Exit codes, as `--help` lists them.
pub(crate) mod exit {
    /// The driver stopped the machine, or left something behind when it was unloaded.
    pub(crate) const DRIVER: u8 = 70;
    /// Anything else that keeps ntsim from doing its job.
    pub(crate) const FAILED: u8 = 125;
    /// The command was found but cannot be run.
    pub(crate) const CANNOT_RUN: u8 = 126;
    /// The command was not found.
    pub(crate) const NOT_FOUND: u8 = 127;
    /// Added to the number of the signal that ended the command.
    pub(crate) const SIGNAL: u8 = 128;
}

const EXIT_CODES: &str = "\
Exit codes:
  70       the driver stopped the machine (a bugcheck), or left something behind when it was unloaded
  125      ntsim failed: bad arguments are 2, everything else that goes wrong on the way is this
  126      `net`: COMMAND cannot be run
  127      `net`: COMMAND was not found
  128+N    `net`: COMMAND was ended by signal N
  else     `net`: that of COMMAND; 0 for the others

NTSIM_LOG sets what is logged to standard error, e.g. NTSIM_LOG=debug (default: warn).";

/// A simulated Windows kernel that loads a real driver (.sys) and runs it at native speed.
#[derive(Debug, Parser)]
#[command(name = "ntsim", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load a driver, show what it made, unload it and report what it left behind
    Load(load::LoadArgs),
    /// Run a command on a network whose every packet passes the driver
    Net(net::Args),
    /// Pass a capture (pcap, pcapng) through the driver; needs no privilege
    Replay(replay::Args),
    /// Do what load, net or replay do, and write every call between driver and kernel
    Trace(trace::Args),
    /// Show the filters and providers of a machine with the driver loaded, as `netsh wfp show filters` would
    Filters(show::Args),
    /// Show layers, callouts, filters and the rest of the Filtering Platform, as `netsh wfp show state` would
    State(show::Args),
}

/// Why a command failed: one message and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    pub(crate) fn new(error: impl Display) -> Self {
        Self { message: error.to_string(), code: exit::FAILED }
    }

    pub(crate) fn with(code: u8, error: impl Display) -> Self {
        Self { message: error.to_string(), code }
    }

    /// The machine stopped.
    pub(crate) fn stopped(bugcheck: &Bugcheck) -> Self {
        Self::with(exit::DRIVER, format!("the driver stopped the machine: {bugcheck}"))
    }

    /// A function that adds context to an error.
    pub(crate) fn context<E: Display>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |error| Self::new(format!("{what}: {error}"))
    }
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        let filter = tracing_subscriber::EnvFilter::try_from_env("NTSIM_LOG").unwrap_or_else(|_| "warn".into());
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).without_time().init();
        let mut out = io::BufWriter::new(io::stdout());
        let result = match &self.command {
            Command::Load(args) => load::run(args, None, &mut out),
            Command::Net(args) => net::run(args, None),
            Command::Replay(args) => replay::run(args, None, &mut out),
            Command::Trace(args) => trace::run(args, &mut out),
            Command::Filters(args) => show::run(args, show::What::Filters, &mut out),
            Command::State(args) => show::run(args, show::What::State, &mut out),
        };
        // A reader that went away (`ntsim ... | head`) is not a failure.
        let flushed = out.flush();
        match (result, flushed) {
            (Ok(code), Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                report(&Failure::context("writing the output")(error));
                let _ = code;
                ExitCode::from(exit::FAILED)
            }
            (Ok(code), _) => code,
            (Err(failure), _) => report(&failure),
        }
    }
}

fn report(failure: &Failure) -> ExitCode {
    let _ = writeln!(io::stderr(), "ntsim: {}", failure.message); // nowhere else to report it
    ExitCode::from(failure.code)
}

//! What the command line says, and one module for each verb.

mod load;

use clap::{Parser, Subcommand};
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// A simulated Windows kernel that runs real drivers on Linux
#[derive(Debug, Parser)]
#[command(name = "ntsim", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Load a driver, show what it made, unload it and report what it left behind
    Load(load::LoadArgs),
}

/// Runs the verb of the command line.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::stdout().lock();
    let ended = match &cli.verb {
        Verb::Load(args) => load::run(args, &mut out),
    };
    match ended.and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => code,
        // Whoever reads the output has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _unheard = writeln!(io::stderr(), "ntsim: {error}");
            ExitCode::from(2)
        }
    }
}

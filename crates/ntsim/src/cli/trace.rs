//! `ntsim trace`.

use super::{Failure, load, net, replay};
use ntsim::machine::Machine;
use ntsim::trace::{Form, Tracer};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Do what `load`, `net` or `replay` do, and write every call between driver and kernel, both ways
///
/// A line has the thread (T), the processor (P), the IRQL, the call with its arguments, who made it, and what it
/// returned. Calls inside a call are indented; `->` is a call into the driver (classifyFn, notifyFn, EvtIoRead, ...).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    run: Run,
}

/// How the trace is written.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these functions: a name or module!name, with * and ?, case-insensitive; may be given more than once. The
    /// others run at full speed
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Write one JSON object for each call and each return
    #[arg(long)]
    json: bool,
    /// Where to write it (default: standard error)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Run {
    /// As `ntsim load`
    Load(load::LoadArgs),
    /// As `ntsim net`
    Net(net::Args),
    /// As `ntsim replay`
    Replay(replay::Args),
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let options = Some(&args.options);
    match &args.run {
        Run::Load(load) => load::run(load, options, out),
        Run::Net(net) => net::run(net, options),
        Run::Replay(replay) => replay::run(replay, options, out),
    }
}

impl Options {
    /// Where the trace goes, unless to standard error.
    pub(super) fn output(&self) -> Option<&Path> {
        self.output.as_deref()
    }

    /// Traces `machine`, on which nothing is loaded yet.
    pub(super) fn start(&self, machine: &Machine) -> Result<(), Failure> {
        let out: Box<dyn Write + Send> = match &self.output {
            Some(path) => Box::new(BufWriter::new(File::create(path).map_err(Failure::context(path.display()))?)),
            None => Box::new(io::stderr()),
        };
        let form = if self.json { Form::Json } else { Form::Text };
        machine.hooks.trace(Tracer::new(out, form, &self.only)).map_err(|_| Failure::new("it is already traced"))
    }
}

/// Flushes a machine's trace.
pub(super) fn finish(machine: &Machine) -> Result<(), Failure> {
    match machine.hooks.tracer().map(Tracer::finish) {
        Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::context("writing the trace")(error))
        }
        _ => Ok(()),
    }
}

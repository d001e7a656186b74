//! `ntsim replay`.

use super::rig::{Driver, Record, Rig, keep_apart};
use super::{Failure, trace};
use ntsim::net::Prefix;
use ntsim::replay::{self, Options, ReplayError};
use ntsim::tcpip::verdicts::{Detail, Verdicts};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Pass a capture through the driver
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    driver: Driver,
    #[command(flatten)]
    record: Record,
    /// An address or prefix of the simulated machine; may be given more than once. Without it, the capture's own marks
    /// of direction decide, and where it has none, the side that spoke first is local (the sender of a SYN or of a
    /// flow's first packet; in an established connection the side with the higher port)
    #[arg(long, value_name = "PREFIX")]
    local: Vec<Prefix>,
    /// The machine forwards: packets between addresses that are not --local pass it on their way, by the forwarding layer
    #[arg(long, requires = "local")]
    forward: bool,
    /// How many processors take packets at once. With more than one, flows are not decided in the order of the capture,
    /// and what the driver injects or completes later is not carried
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64),
        conflicts_with = "json")]
    processors: u16,
    /// Print every verdict as one JSON object a line, instead of the table
    #[arg(long)]
    json: bool,
    /// Rows of the table
    #[arg(long, value_name = "N", default_value_t = 40)]
    rows: usize,
    /// The capture: pcap or pcapng, `-` for standard input
    #[arg(value_name = "CAPTURE")]
    capture: PathBuf,
}

pub(crate) fn run(args: &Args, traced: Option<&trace::Options>, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let context = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", args.capture.display()));
    let input: Box<dyn io::Read + Send> = if args.capture.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(sluice_files::open(&args.capture).map_err(|error| context(&error))?)
    };
    keep_apart(&[&args.capture], &[args.record.netevents(), traced.and_then(trace::Options::output)])?;
    let rig = Rig::start(&args.driver, &args.record, traced)?;
    let json: Option<(Box<dyn Write + Send>, Detail)> =
        args.json.then(|| (Box::new(io::BufWriter::new(io::stdout())) as _, Detail::Packets));
    let mut verdicts = Verdicts::new(json);
    let result = replay::run(
        &rig.machine,
        input,
        &Options { local: args.local.clone(), forward: args.forward, processors: args.processors.into() },
        &mut verdicts,
    );
    let table = !args.json && (result.is_ok() || verdicts.totals.packets > 0);
    let written = verdicts.finish().and_then(|()| if table { verdicts.write_table(out, args.rows) } else { Ok(()) });
    let passed_over = result.as_ref().map(|passed_over| passed_over.0.clone()).unwrap_or_default();
    for (reason, count) in passed_over {
        let _ = writeln!(io::stderr(), "ntsim: skipped {count} {reason}");
    }
    let ended = rig.end();
    let totals = verdicts.totals;
    match result {
        Ok(_) if totals.packets == totals.malformed => {
            let what = match totals.packets {
                0 => "no packet to replay was found",
                _ => "none of its packets could be read",
            };
            return Err(context(&what));
        }
        Ok(_) => {}
        Err(ReplayError::Capture(error)) => return Err(context(&error)),
        Err(ReplayError::Bugcheck(bugcheck)) => return Err(Failure::stopped(&bugcheck)),
    }
    ended?;
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::context("writing the output")(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

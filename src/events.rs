//! `sluice events`.

use crate::cli::EventArgs;
use crate::failure::Failure;
use crate::output::{BAD, GOOD, Output, WARNING};
use sluice_control::{EventFilter, EventOptions, Item};
use sluice_host::Host;
use std::ops::ControlFlow;
use std::process::ExitCode;

pub(crate) fn events(host: &dyn Host, options: &EventArgs, output: &mut Output) -> Result<ExitCode, Failure> {
    let mut failed = None;
    let filter = EventFilter {
        verdict: options.verdict.map(|verdict| verdict.word().to_owned()),
        rule: options.rule.clone(),
        application: options.application.clone(),
        direction: options.direction.map(|direction| direction.word().to_owned()),
    };
    let EventArgs { follow, count, timeout, all, new, .. } = *options;
    let wanted = EventOptions { follow, count, timeout, all, new, filter };
    let seen = sluice_control::events(host, &wanted, &mut |item| {
        let printed = output.report(item, |out| match item {
            Item::Event(event) => {
                let style = match event.verdict.as_ref() {
                    "permit" => GOOD,
                    "block" => BAD,
                    _ => WARNING,
                };
                // The verdict is the second word of the line.
                let line = event.to_string();
                match line.split_once(' ') {
                    Some((time, rest)) => {
                        let rest = rest.strip_prefix(event.verdict.as_ref()).unwrap_or(rest);
                        writeln!(out, "{time} {style}{}{style:#}{rest}", event.verdict)
                    }
                    None => writeln!(out, "{line}"),
                }
            }
            Item::NotRestored { time, why } => {
                let time = time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
                writeln!(
                    out,
                    "{time} {BAD}the kept policy was not put in force{BAD:#} when the driver was loaded: {why}"
                )
            }
            Item::Lost { count } => {
                writeln!(out, "{WARNING}{count} events were lost here{WARNING:#}: they came faster than they were read")
            }
            Item::Unrecorded { count } => {
                writeln!(
                    out,
                    "{WARNING}{count} decisions were not recorded{WARNING:#}: too many of one source in a second"
                )
            }
        });
        match printed {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    match options.count {
        Some(wanted) if seen < wanted => Err(Failure::FewerEvents { seen, wanted }),
        _ => Ok(ExitCode::SUCCESS),
    }
}

//! `sluice doctor`.

use crate::failure::Failure;
use crate::output::{BAD, GOOD, Output};
use sluice_host::Host;
use std::process::ExitCode;

pub(crate) fn doctor(host: &dyn Host, output: &mut Output) -> Result<ExitCode, Failure> {
    let report = sluice_control::doctor(host)?;
    output.report(&report, |out| {
        for note in &report.notes {
            writeln!(out, "{GOOD}note{GOOD:#}   {note}")?;
        }
        for finding in &report.findings {
            writeln!(out, "{BAD}wrong{BAD:#}  {}", finding.what)?;
            writeln!(out, "       {}", finding.mend)?;
        }
        Ok(())
    })?;
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

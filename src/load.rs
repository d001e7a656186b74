//! `sluice load`.

use crate::failure::Failure;
use crate::output::{GOOD, Output, WARNING};
use sluice_control::Host;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn check(policy: &Path, output: &mut Output) -> Result<ExitCode, Failure> {
    let report = sluice_control::check(policy)?;
    output.warnings(&report.warnings)?;
    output.report(&report, |out| {
        let (rules, bytes) = (report.rules, report.bytes);
        writeln!(out, "{GOOD}valid{GOOD:#}: {} with {rules} rules, {bytes} bytes compiled", policy.display())
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn load(host: &dyn Host, policy: &Path, output: &mut Output) -> Result<ExitCode, Failure> {
    let report = sluice_control::load(host, policy)?;
    output.warnings(&report.warnings)?;
    output.report(&report, |out| {
        let (rules, bytes) = (report.rules, report.bytes);
        writeln!(out, "{GOOD}in force{GOOD:#}: {} with {rules} rules, {bytes} bytes compiled", policy.display())?;
        writeln!(out, "  identity {}, generation {}", report.identity, report.epoch)?;
        if let Some(at) = &report.schedules_judged_at {
            writeln!(
                out,
                "  {WARNING}rules with a schedule are judged at {at}{WARNING:#}: load again when it changes"
            )?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

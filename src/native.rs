//! `sluice load --native` and `sluice unload`: filters of Windows instead of the driver.

use crate::failure::Failure;
use crate::output::{GOOD, Output, WARNING};
use serde_json::json;
use sluice_control::native::{self, NativeOptions, NativeReport};
use sluice_host::Host;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn check(policy: &Path, options: NativeOptions, output: &mut Output) -> Result<ExitCode, Failure> {
    said("valid", policy, &native::check(policy, options)?, output)
}

pub(crate) fn load(
    host: &dyn Host,
    policy: &Path,
    options: NativeOptions,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    said("in force without the driver", policy, &native::load(host, policy, options)?, output)
}

fn said(what: &str, policy: &Path, report: &NativeReport, output: &mut Output) -> Result<ExitCode, Failure> {
    output.warnings(&report.warnings)?;
    output.report(report, |out| {
        let NativeReport { rules, filters, .. } = report;
        writeln!(out, "{GOOD}{what}{GOOD:#}: {} with {rules} rules as {filters} filters of Windows", policy.display())?;
        if report.replaced > 0 {
            writeln!(out, "  {} filters of an earlier load were replaced", report.replaced)?;
        }
        if report.expectations > 0 {
            writeln!(out, "  what its {} expectations say of the driver's decisions holds", report.expectations)?;
        }
        for left in &report.left_out {
            writeln!(out, "  {WARNING}left out{WARNING:#} {left}")?;
        }
        for alias in &report.missing_interfaces {
            writeln!(out, "  {WARNING}not on this machine{WARNING:#}: interface {alias}")?;
        }
        for program in &report.missing_programs {
            writeln!(out, "  {WARNING}not on this machine{WARNING:#}: {program}")?;
        }
        report.notes.iter().try_for_each(|note| writeln!(out, "  {note}"))
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn unload(host: &dyn Host, output: &mut Output) -> Result<ExitCode, Failure> {
    let removed = native::unload(host)?;
    output.report(&json!({ "filters_removed": removed }), |out| match removed {
        Some(count) => writeln!(out, "{GOOD}removed{GOOD:#}: {count} filters that decided without the driver"),
        None => writeln!(out, "there are no filters of `load --native`"),
    })?;
    Ok(ExitCode::SUCCESS)
}

//! `sluice enable` and `sluice disable`.

use crate::failure::Failure;
use crate::output::{GOOD, Output, WARNING};
use sluice_host::Host;
use std::process::ExitCode;

pub(crate) fn enable(host: &dyn Host, output: &mut Output) -> Result<ExitCode, Failure> {
    let report = sluice_control::enable(host)?;
    output.report(&report, |out| {
        let already = if report.changed { "" } else { " already" };
        writeln!(out, "{GOOD}on{GOOD:#}: all {} filters are there{already}", report.filters)
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn disable(host: &dyn Host, output: &mut Output) -> Result<ExitCode, Failure> {
    let report = sluice_control::disable(host)?;
    output.report(&report, |out| {
        let already = if report.changed { "" } else { ", and was already" };
        writeln!(out, "{WARNING}off{WARNING:#}{already}: nothing is decided here until `sluice enable`")
    })?;
    Ok(ExitCode::SUCCESS)
}

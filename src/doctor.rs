//! `sluice doctor`.

use crate::cli::Cli;
use crate::failure::Failure;
use crate::machine;
use crate::output::{BAD, GOOD, Output, WARNING};
use crate::platform::{paragraph, platform_of};
use serde_json::json;
use sluice_control::DoctorReport;
use sluice_diagnose::neighbours::{Warning, warnings};
use sluice_diagnose::{Key, Platform, live};
use sluice_host::{Guid, ServiceState};
use sluice_protocol::object::{PROVIDER, native};
use std::path::Path;
use std::process::ExitCode;

/// Examines this installation, or, in a file of netsh, only the filters of the machine that wrote it.
pub(crate) fn doctor(cli: &Cli, file: Option<&Path>, output: &mut Output) -> Result<ExitCode, Failure> {
    if let Some(file) = file {
        let platform = platform_of(cli, file)?;
        let warnings = warnings(&platform, &ours(&platform), &|_| None);
        return said(&DoctorReport::default(), &warnings, output);
    }
    let host = machine::open(cli)?;
    let report = sluice_control::doctor(&*host)?;
    // What keeps the engine from answering is a finding of the report.
    let platform = host.open_engine().and_then(|mut engine| live::platform(&mut *engine)).ok();
    let exists = |service: &str| host.service_state(service).ok().map(|state| state != ServiceState::Absent);
    let warnings = platform.map_or_else(Vec::new, |platform| warnings(&platform, &ours(&platform), &exists));
    said(&report, &warnings, output)
}

/// The provider of our filters: those of `load --native` where they decide, and otherwise the driver's.
fn ours(platform: &Platform) -> Key {
    let native = Key::Guid(Guid(native::PROVIDER));
    let decides = platform.filters.iter().any(|filter| filter.provider.as_ref() == Some(&native));
    if decides { native } else { Key::Guid(Guid(PROVIDER)) }
}

fn said(report: &DoctorReport, warnings: &[Warning], output: &mut Output) -> Result<ExitCode, Failure> {
    let whole = json!({ "findings": report.findings, "notes": report.notes, "warnings": warnings });
    output.report(&whole, |out| {
        for note in &report.notes {
            writeln!(out, "{GOOD}note{GOOD:#}   {note}")?;
        }
        for warning in warnings {
            paragraph(out, "", ("warns ", Some(WARNING)), &warning.what, 7)?;
            paragraph(out, "      ", ("", None), &format!(" {}", warning.mend), 7)?;
        }
        for finding in &report.findings {
            writeln!(out, "{BAD}wrong{BAD:#}  {}", finding.what)?;
            writeln!(out, "       {}", finding.mend)?;
        }
        Ok(())
    })?;
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

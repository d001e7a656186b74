//! `sluice install` and `sluice uninstall`.

use crate::failure::Failure;
use crate::output::{GOOD, Output, WARNING};
use sluice_host::Host;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn install(host: &dyn Host, driver: &Path, output: &mut Output) -> Result<ExitCode, Failure> {
    let report = sluice_control::install(host, driver)?;
    output.report(&report, |out| {
        if !report.changed() {
            return writeln!(out, "{} is installed already, with nothing missing", report.driver);
        }
        writeln!(out, "{GOOD}installed{GOOD:#} {}", report.driver)?;
        if report.service_created {
            writeln!(out, "  the service was created; it starts on demand")?;
        }
        if report.driver_loaded {
            writeln!(out, "  the driver was loaded")?;
        }
        if report.objects_written {
            writeln!(out, "  {} filters were added", report.filters.len())?;
        }
        writeln!(out, "  it permits what other filters permit until `sluice load` gives it a policy")
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn uninstall(host: &dyn Host, output: &mut Output) -> Result<ExitCode, Failure> {
    let report = sluice_control::uninstall(host)?;
    output.report(&report, |out| {
        if !report.changed() {
            return writeln!(out, "nothing of Sluicegate is installed");
        }
        writeln!(out, "{GOOD}uninstalled{GOOD:#}")?;
        if report.objects_removed > 0 {
            writeln!(out, "  {} filters, callouts and what they belong to were removed", report.objects_removed)?;
        }
        if report.driver_unloaded && !report.waiting {
            writeln!(out, "  the driver was unloaded")?;
        }
        if report.service_deleted && !report.waiting {
            writeln!(out, "  the service was deleted")?;
        }
        if report.waiting {
            writeln!(
                out,
                "  {WARNING}the driver stays loaded{WARNING:#} until the last program that has its device open closes \
                 it; then driver and service go by themselves"
            )?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

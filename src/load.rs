//! `sluice load`.

use crate::failure::Failure;
use crate::output::{BAD, GOOD, Output, WARNING};
use sluice_control::watch::LocalClock;
use sluice_control::{LoadReport, Loading};
use sluice_host::Host;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

/// The exit status when the driver has the policy but it is not in force: the same as without the driver.
const NOT_IN_FORCE: u8 = 3;

/// `load --check` and `policy check`.
pub(crate) fn check(policy: &Path, deny_warnings: bool, output: &mut Output) -> Result<ExitCode, Failure> {
    let report = sluice_control::check(policy)?;
    output.warnings(&report.warnings)?;
    output.report(&report, |out| {
        let (rules, bytes, count) = (report.rules, report.bytes, report.warnings.len());
        let warned = if count > 0 { format!(", {count} warnings") } else { String::new() };
        writeln!(out, "{GOOD}valid{GOOD:#}: {} with {rules} rules, {bytes} bytes compiled{warned}", policy.display())?;
        for list in &report.lists {
            let unit = if list.entries == 1 { "entry" } else { "entries" };
            writeln!(out, "  list `{}`: {} {unit}", list.name, list.entries)?;
        }
        Ok(())
    })?;
    match report.warnings.len() {
        count if count > 0 && deny_warnings => Err(Failure::Warnings { count }),
        _ => Ok(ExitCode::SUCCESS),
    }
}

pub(crate) fn load(host: &dyn Host, policy: &Path, loading: Loading, output: &mut Output) -> Result<ExitCode, Failure> {
    let report = sluice_control::load_with(host, policy, loading)?;
    output.warnings(&report.warnings)?;
    loaded(policy, &report, output)?;
    Ok(if report.lacks.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_IN_FORCE) })
}

pub(crate) fn watch(
    host: &dyn Host,
    policy: &Path,
    loading: Loading,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let mut failed = None;
    let mut first = true;
    let mut told = String::new();
    sluice_control::watch(host, policy, loading, &mut LocalClock, &mut |report| {
        let said = match report {
            Ok(report) => {
                told.clear();
                let warned = if std::mem::take(&mut first) { output.warnings(&report.warnings) } else { Ok(()) };
                warned.and_then(|()| loaded(policy, report, output))
            }
            // Reported once, however often the load is retried.
            Err(error) if error.to_string() == told => Ok(()),
            Err(error) => {
                told = error.to_string();
                output.trouble(&format!("not loaded, will retry: {told}"))
            }
        };
        match said {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn loaded(policy: &Path, report: &LoadReport, output: &mut Output) -> Result<(), Failure> {
    output.report(report, |out| {
        let (rules, bytes) = (report.rules, report.bytes);
        let policy = policy.display();
        if report.lacks.is_empty() {
            writeln!(out, "{GOOD}in force{GOOD:#}: {policy} with {rules} rules, {bytes} bytes compiled")?;
        } else {
            writeln!(
                out,
                "{BAD}not in force{BAD:#}: the driver has {policy} with {rules} rules, {bytes} bytes compiled, and is not \
                 asked about everything"
            )?;
            report.lacks.iter().try_for_each(|what| writeln!(out, "  {what}"))?;
            writeln!(out, "  `sluice install` fixes this")?;
        }
        let kept = if report.kept { "kept for the next start" } else { "not kept: it ends with the driver" };
        writeln!(out, "  identity {}, generation {}, {kept}", report.identity, report.epoch)?;
        if let Some(status) = &report.not_asked_again {
            writeln!(
                out,
                "  {WARNING}existing connections keep their verdict{WARNING:#}: the filter engine returned {status}"
            )?;
        }
        if let Some(at) = &report.schedules_judged_at {
            let until = report.schedules_change_at.as_deref().map_or("forever".to_owned(), |at| format!("until {at}"));
            writeln!(out, "  {WARNING}schedules were evaluated for {at}{WARNING:#}; the result holds {until}")?;
        }
        if report.expectations > 0 {
            writeln!(out, "  what its {} expectations say holds", report.expectations)?;
        }
        for moved in &report.differs {
            let what = "not as on the machine it was compiled for, so rules on it match nothing";
            writeln!(out, "  {WARNING}{what}{WARNING:#}: {moved}")?;
        }
        for moved in &report.moved {
            writeln!(out, "  {WARNING}until now rules on it matched nothing{WARNING:#}: {moved}")?;
        }
        for alias in &report.missing_interfaces {
            writeln!(out, "  {WARNING}not on this machine{WARNING:#}: interface {alias}")?;
        }
        for program in &report.missing_programs {
            writeln!(out, "  {WARNING}not on this machine{WARNING:#}: {program}")?;
        }
        Ok(())
    })
}

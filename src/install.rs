//! `sluice install` and `sluice uninstall`.

use crate::cli;
use crate::failure::Failure;
use crate::output::{BAD, GOOD, LABEL, Output, WARNING};
use sluice_control::install::{FILE, InstallReport, Options, Step, install_with};
use sluice_control::objects::{Fail, MAX_MANAGEMENT, Prefix};
use sluice_host::system::{Signature, Trust};
use sluice_host::{Host, StartType};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// The driver file beside this program, where a package puts it.
pub(crate) fn beside_this_program() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?;
    let path = program.with_file_name(FILE);
    if path.is_file() { Ok(path) } else { Err(Failure::NoDriver(path)) }
}

/// What a machine is to do without its driver.
pub(crate) fn fail(fail: Option<cli::Fail>, management: &[Prefix]) -> Result<Option<Fail>, Failure> {
    match fail {
        None => Ok(None),
        Some(cli::Fail::Closed) if management.len() <= MAX_MANAGEMENT => {
            Ok(Some(Fail::Closed { management: management.to_vec() }))
        }
        Some(cli::Fail::Open) if management.is_empty() => Ok(Some(Fail::Open)),
        Some(cli::Fail::Closed) => {
            Err(Failure::Usage(format!("--management was given more than {MAX_MANAGEMENT} times")))
        }
        Some(cli::Fail::Open) => Err(Failure::Usage("--management goes with --fail closed".to_owned())),
    }
}

pub(crate) const fn start_type(start: cli::Start) -> StartType {
    match start {
        cli::Start::Boot => StartType::Boot,
        cli::Start::System => StartType::System,
        cli::Start::Demand => StartType::Demand,
    }
}

pub(crate) fn install(host: &dyn Host, options: &Options<'_>, output: &mut Output) -> Result<ExitCode, Failure> {
    let report = install_with(host, options)?;
    if let Some(policy) = &report.policy {
        output.warnings(&policy.warnings)?;
    }
    output.report(&report, |out| text(&report, out))?;
    Ok(if report.obstacles.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(report: &InstallReport, out: &mut dyn Write) -> io::Result<()> {
    if report.dry_run {
        writeln!(out, "{LABEL}Windows{LABEL:#}   build {}, {}", report.system.build, demands(report))?;
        writeln!(out, "{LABEL}driver{LABEL:#}    {}", signature(&report.signature))?;
        for obstacle in &report.obstacles {
            writeln!(out, "{BAD}obstacle{BAD:#}  {}", obstacle.what)?;
            writeln!(out, "          {}", obstacle.remedy)?;
        }
    }
    match (report.dry_run, report.changed()) {
        (_, false) => writeln!(out, "{} is already installed, and nothing is missing", report.driver)?,
        (true, true) => writeln!(out, "an installation would")?,
        (false, true) => writeln!(out, "{GOOD}installed{GOOD:#} {}", report.driver)?,
    }
    for step in &report.steps {
        writeln!(out, "  {step}")?;
    }
    for note in &report.notes {
        writeln!(out, "{WARNING}note{WARNING:#}: {note}")?;
    }
    let policy = report.steps.iter().any(|step| matches!(step, Step::LoadPolicy { .. }));
    if !report.dry_run && report.changed() && !policy {
        writeln!(out, "without a policy it decides nothing: `sluice load` gives it one")?;
    }
    Ok(())
}

/// What this Windows requires of drivers.
fn demands(report: &InstallReport) -> String {
    use sluice_host::system::CodeIntegrity;
    let integrity = report.system.integrity;
    let state = |option| if integrity.has(option) { "on" } else { "off" };
    let secure_boot = match report.system.secure_boot {
        Some(true) => "on",
        Some(false) => "off",
        None => "absent",
    };
    format!(
        "code integrity {}, test signing {}, memory integrity {}, Secure Boot {secure_boot}",
        state(CodeIntegrity::ENABLED),
        state(CodeIntegrity::TEST_SIGNING),
        state(CodeIntegrity::HVCI),
    )
}

fn signature(signature: &Signature) -> String {
    match signature {
        Signature::None => "not signed".to_owned(),
        Signature::Broken => "changed since it was signed".to_owned(),
        Signature::Signed { by, trust } => {
            let by = by.as_ref().map_or_else(String::new, |by| format!(" by `{by}`"));
            let trust = match trust {
                Trust::Microsoft => "Microsoft's driver signing".to_owned(),
                Trust::Machine => "trusted by this machine".to_owned(),
                Trust::Nobody(code) => format!("not trusted here ({code:#010x})"),
            };
            format!("signed{by}, {trust}")
        }
    }
}

pub(crate) fn uninstall(host: &dyn Host, output: &mut Output) -> Result<ExitCode, Failure> {
    let report = sluice_control::uninstall(host)?;
    output.report(&report, |out| {
        if !report.changed() && report.left.is_empty() {
            return writeln!(out, "Sluicegate is not installed");
        }
        writeln!(out, "{GOOD}uninstalled{GOOD:#}")?;
        if report.keeper_removed {
            writeln!(out, "  the service that kept the policy up to date was stopped and deleted")?;
        }
        if report.objects_removed > 0 {
            writeln!(
                out,
                "  {} filters, callouts and the objects they belong to were removed",
                report.objects_removed
            )?;
        }
        if report.driver_unloaded && !report.waiting {
            writeln!(out, "  the driver was unloaded")?;
        }
        if report.service_deleted && !report.waiting {
            writeln!(out, "  the service was deleted")?;
        }
        for file in &report.files_deleted {
            writeln!(out, "  {file} was deleted")?;
        }
        if report.waiting {
            writeln!(
                out,
                "  {WARNING}the driver stays loaded{WARNING:#} until the last program that has its device open closes \
                 it; then the driver and its service go away by themselves"
            )?;
        }
        match &report.left[..] {
            [] => writeln!(out, "nothing of it is left on this machine"),
            left => left.iter().try_for_each(|what| writeln!(out, "{WARNING}left{WARNING:#}: {what}")),
        }
    })?;
    Ok(if report.engine_stopped { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

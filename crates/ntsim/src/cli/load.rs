//! `ntsim load`: load a driver, list what it made, unload it.

use super::exit::{DRIVER as WRONG, FAILED as REFUSED};
use super::rig::{Windows, keep_apart};
use super::{Failure, trace};
use clap::Args;
use ntsim::cpu::Bugcheck;
use ntsim::machine::{Config, DriverInfo, LeakReport, Machine, UnloadError};
use ntsim::nt::io::DeviceInfo;
use ntsim::pe::{Image, Import, LoadError, LoadOptions, MAX_FILE, Target, unknown_imports};
use ntsim::verifier::low_resources::{self, Survey};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Loads a driver, runs its entry point, lists what it made, unloads it and reports what it left behind.
///
/// Exit status: 0 when all is well; 70 when the driver did something wrong (a bugcheck, a leak, a failing entry point);
/// 125 when it cannot be loaded (it is not a driver image, or with `--strict-imports` it has an import that ntsim does
/// not have) or read.
#[derive(Args, Clone, Debug)]
pub(super) struct LoadArgs {
    /// The driver
    file: PathBuf,
    /// Write one JSON document instead of text
    #[arg(long)]
    json: bool,
    /// List every import with the highest IRQL it may be called at
    #[arg(long)]
    imports: bool,
    /// The name of its service; by default the file's name without its ending
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// How many processors the machine has
    #[arg(long, value_name = "COUNT", default_value_t = Config::default().processors)]
    processors: u32,
    #[command(flatten)]
    windows: Windows,
    /// Put every pool block before a guard page, and paged pool out of reach at DISPATCH_LEVEL
    #[arg(long)]
    special_pool: bool,
    /// Let every allocation and other fallible import fail once for each call stack, in turn
    #[arg(long)]
    low_resources: bool,
    /// Refuse a driver with imports that ntsim does not have, as Windows refuses what a module does not export, instead
    /// of binding them to stubs that stop the machine when called
    #[arg(long)]
    strict_imports: bool,
    /// Load sections that are writable and executable
    #[arg(long)]
    allow_writable_code: bool,
}

/// The result.
#[derive(Debug, Default, Serialize)]
struct Report {
    file: PathBuf,
    service: String,
    /// What was refused, or what the driver did wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bugcheck: Option<Bugcheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<DriverInfo>,
    /// Imports that ntsim does not have, as `module!name`: each stops the machine when it is called.
    missing_imports: Vec<String>,
    devices: Vec<DeviceInfo>,
    callouts: Vec<Callout>,
    debug_output: Vec<String>,
    unloaded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaks: Option<LeakReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    low_resources: Option<Survey>,
}

#[derive(Debug, Serialize)]
struct Callout {
    key: String,
    id: u32,
}

/// Runs `ntsim load`.
///
/// # Errors
/// When the report or the trace cannot be written.
pub(super) fn run(args: &LoadArgs, traced: Option<&trace::Options>, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    keep_apart(&[&args.file], &[traced.and_then(trace::Options::output)])?;
    let config = Config {
        processors: args.processors,
        special_pool: args.special_pool,
        windows: args.windows.version,
        ..Config::default()
    };
    let machine = Machine::with(config.clone());
    if let Some(options) = traced {
        options.start(&machine)?;
    }
    let (report, status) = examine(args, &machine, &config);
    trace::finish(&machine)?;
    let written = if args.json {
        serde_json::to_writer_pretty(&mut *out, &report).map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        write_text(&report, args.imports, out)
    };
    written.map_err(Failure::context("writing the report"))?;
    Ok(ExitCode::from(status))
}

fn examine(args: &LoadArgs, machine: &Arc<Machine>, config: &Config) -> (Report, u8) {
    let service = args.service.clone().unwrap_or_else(|| service_name(&args.file));
    let mut report = Report { file: args.file.clone(), service, ..Report::default() };
    let bytes = match sluice_files::read(&args.file, MAX_FILE) {
        Ok(bytes) => bytes,
        Err(error) => {
            report.error = Some(format!("cannot read {}: {error}", args.file.display()));
            return (report, REFUSED);
        }
    };
    let options =
        LoadOptions { allow_unknown_imports: !args.strict_imports, allow_writable_code: args.allow_writable_code };
    // Listed before the entry point runs, which may stop at one of them; the load refuses what is not a driver.
    let image = Image::parse(&bytes, true);
    report.missing_imports = image.as_ref().map_or_else(|_| Vec::new(), unknown_imports);
    drop(image);
    let status = load_and_unload(machine, &bytes, options, &mut report);
    report.debug_output = machine.log.lines();
    if status != 0 || !args.low_resources {
        return (report, status);
    }
    let name = report.service.clone();
    let survey = low_resources::survey(config, |machine| {
        let mut run = Report { service: name.clone(), ..Report::default() };
        load_and_unload(machine, &bytes, options, &mut run);
        match run.leaks {
            Some(leaks) if !leaks.is_clean() => Err(format!("left behind: {leaks}")),
            _ => Ok(()),
        }
    });
    match survey {
        Ok(survey) => {
            let status = if survey.casualties.is_empty() { 0 } else { WRONG };
            report.low_resources = Some(survey);
            (report, status)
        }
        Err(what) => {
            report.error = Some(what);
            (report, WRONG)
        }
    }
}

fn load_and_unload(machine: &Arc<Machine>, bytes: &[u8], options: LoadOptions, report: &mut Report) -> u8 {
    match machine.load_driver_with(&report.service, bytes, options) {
        Ok(driver) => report.driver = Some(driver),
        Err(LoadError::Bugcheck(bugcheck)) => return stopped(report, bugcheck),
        Err(LoadError::EntryFailed { status, leaks }) => {
            report.error = Some(format!("the driver's entry point returned {status}"));
            report.leaks = Some(*leaks);
            return WRONG;
        }
        Err(error) => {
            report.error = Some(error.to_string());
            return REFUSED;
        }
    }
    report.devices = machine.io.devices();
    let registered = machine.wfp.engine.callouts.registered();
    report.callouts = registered.iter().map(|c| Callout { key: c.key().to_string(), id: c.id() }).collect();
    match machine.unload_driver(&report.service) {
        Ok(leaks) => {
            report.unloaded = true;
            let clean = leaks.is_clean();
            report.leaks = Some(leaks);
            if clean { 0 } else { WRONG }
        }
        // Windows keeps such a driver until shutdown, which is not a fault of the driver.
        Err(UnloadError::NoUnloadRoutine(_)) => 0,
        Err(UnloadError::Bugcheck(bugcheck)) => stopped(report, bugcheck),
        Err(error) => {
            report.error = Some(error.to_string());
            WRONG
        }
    }
}

fn stopped(report: &mut Report, bugcheck: Bugcheck) -> u8 {
    report.error = Some(bugcheck.to_string());
    report.bugcheck = Some(bugcheck);
    WRONG
}

/// The service name for a file.
fn service_name(file: &Path) -> String {
    let stem = file.file_stem().map_or_else(|| "driver".into(), |stem| stem.to_string_lossy());
    stem.chars().filter(|c| !"/\\".contains(*c)).collect()
}

fn write_text(report: &Report, imports: bool, out: &mut dyn Write) -> io::Result<()> {
    let file = report.file.display();
    if let Some(driver) = &report.driver {
        write_driver(&file, driver, imports, out)?;
        for device in &report.devices {
            let links = if device.links.is_empty() { String::new() } else { format!(" ({})", device.links.join(", ")) };
            writeln!(out, "  device      {}{links}", name_or(&device.name, "unnamed"))?;
            if !device.sddl.is_empty() {
                writeln!(out, "              {}", device.sddl)?;
            }
        }
        for Callout { key, id } in &report.callouts {
            writeln!(out, "  callout     {{{key}}} id {id}")?;
        }
    }
    for import in &report.missing_imports {
        writeln!(out, "  missing     {import}: stops the machine when called")?;
    }
    for line in &report.debug_output {
        writeln!(out, "  says        {line}")?;
    }
    if report.unloaded {
        writeln!(out, "  unloaded")?;
    } else if report.error.is_none() {
        writeln!(out, "  has no unload routine: Windows keeps it until it is shut down")?;
    }
    for line in report.leaks.iter().flat_map(LeakReport::lines) {
        writeln!(out, "  left behind {line}")?;
    }
    if report.leaks.as_ref().is_some_and(LeakReport::is_clean) {
        writeln!(out, "  nothing left behind")?;
    }
    if let Some(survey) = &report.low_resources {
        writeln!(out, "  low resources: {survey}")?;
    }
    if let Some(error) = &report.error {
        writeln!(out, "{file}: {error}")?;
    }
    Ok(())
}

fn write_driver(file: &dyn std::fmt::Display, driver: &DriverInfo, all: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{file}: loaded as {}, {} bytes at {:#x}", driver.name, driver.size, driver.base)?;
    writeln!(out, "  entry point +{:#x}", driver.entry)?;
    for section in &driver.sections {
        let flag = |set, letter| if set { letter } else { '-' };
        let rights = [flag(true, 'r'), flag(section.writable, 'w'), flag(section.executable, 'x')];
        let rights: String = rights.iter().collect();
        let discardable = if section.discardable { ", discarded after the entry point" } else { "" };
        writeln!(out, "  section     {:8} {rights} {} bytes{discardable}", section.name, section.size)?;
    }
    let mut modules: BTreeMap<&str, Vec<&Import>> = BTreeMap::new();
    for import in &driver.imports {
        modules.entry(&import.module).or_default().push(import);
    }
    for (module, list) in modules {
        writeln!(out, "  imports     {} from {module}", list.len())?;
        for import in list.into_iter().filter(|_| all) {
            let bound = match import.target {
                Target::Function { max_irql } => format!("up to {max_irql}"),
                Target::Variable => "a variable".to_owned(),
                Target::Unknown => "missing".to_owned(),
            };
            writeln!(out, "              {}, {bound}", import.name)?;
        }
    }
    for warning in &driver.warnings {
        writeln!(out, "  odd         {warning}")?;
    }
    Ok(())
}

fn name_or<'a>(name: &'a str, other: &'a str) -> &'a str {
    if name.is_empty() { other } else { name }
}

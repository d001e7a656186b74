//! `sluice policy`: everything about policies that needs no driver.

mod args;
mod compile;
mod explain;
mod files;

pub(crate) use args::{Command, EXIT_STATUS, Flow};
pub(crate) use explain::spec as flow_spec;

use crate::failure::Failure;
use crate::output::{BAD, GOOD, LABEL, Output};
use files::{invalid, options};
use sluice_control::read_policy_elsewhere;
use sluice_host::Host;
use sluice_policy::import::{Source, import, import_complete};
use sluice_policy::model::Decider;
use sluice_policy::text::{Encoding, NotText, decode};
use sluice_policy::{CompileOptions, Diagnostic, Difference, Image, Policy, Shown, Verdict, diff, lint, show, test};
use std::path::Path;
use std::process::ExitCode;

/// Runs one of the commands.
pub(crate) fn run(
    command: &Command,
    machine: &dyn Fn() -> Result<Box<dyn Host>, Failure>,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    match command {
        Command::Check { file, deny_warnings } => crate::load::check(file, *deny_warnings, output),
        Command::Compile { file, image, key, drive, alias, at } => {
            compile::compile(file, image, *key, drive, alias, at.at, output)
        }
        Command::Show { image } => show_image(image, output),
        Command::Diff { old, new: Some(new), limit, at, .. } => {
            let (old, new) = (read_policy_elsewhere(old)?, read_policy_elsewhere(new)?);
            difference(diff(&old, &new, &options(at.at)).map_err(invalid)?, *limit as usize, output)
        }
        Command::Diff { old: file, new: None, limit, at, .. } => {
            difference(sluice_control::diff_in_force(&*machine()?, file, at.at)?, *limit as usize, output)
        }
        Command::Explain { file, flow, at } => explain::explain(file, flow, at.at, output),
        Command::Test { file } => test_file(file, output),
        Command::Import { file, from, encoding, complete } => {
            import_file(file, from.map(Into::into), *encoding, *complete, output)
        }
    }
}

/// What is questionable, the parser's findings first.
fn warnings(policy: &Policy) -> Vec<Diagnostic> {
    policy.warnings.iter().cloned().chain(lint(policy)).collect()
}

/// The image of a policy, checked by the driver's own validator.
fn image(policy: &Policy, options: &CompileOptions<'_>) -> Result<Image<Vec<u8>>, Failure> {
    let bytes = sluice_policy::compile(policy, options).map_err(invalid)?;
    files::validate(&policy.path, bytes)
}

fn show_image(path: &Path, output: &mut Output) -> Result<ExitCode, Failure> {
    let shown = show(&files::validate(path, files::bytes(path)?)?);
    output.report(&shown, |out| {
        let (bytes, version) = (shown.bytes, shown.version);
        writeln!(out, "{LABEL}identity{LABEL:#}  {}, {bytes} bytes, version {version}", shown.identity)?;
        let Shown { default_outbound, default_inbound, default_forward, default_listen, default_bind, .. } = shown;
        let [outbound, inbound, forward, listen, bind] =
            [default_outbound, default_inbound, default_forward, default_listen, default_bind].map(|said| said.action);
        let beyond = if shown.essential { "; essential traffic passes" } else { "" };
        let embedded = if shown.embedded_ipv4 { "; embedded IPv4 is seen" } else { "" };
        write!(out, "{LABEL}default{LABEL:#}   outbound {outbound}, inbound {inbound}, forward {forward}, ")?;
        write!(out, "listen {listen}, bind {bind}")?;
        let shared = if shown.shared_permit { "; shared addresses follow a name that permits" } else { "" };
        writeln!(out, "{beyond}{embedded}{shared}")?;
        writeln!(out, "{LABEL}rules{LABEL:#}")?;
        for (index, rule) in shown.rules.iter().enumerate() {
            let strength = match (rule.said.answer_within, rule.said.when_unanswered) {
                (Some(seconds), Some(Verdict::Permit)) => format!("{seconds} s, then permit"),
                (Some(seconds), _) => format!("{seconds} s, then block"),
                (None, _) => if rule.said.hard { "hard" } else { "soft" }.to_owned(),
            };
            let log = if rule.said.log { ", logged" } else { "" };
            let idle = if rule.entries == 0 { ", never used" } else { "" };
            writeln!(out, "{index:>6}  {:<6}  {strength}{log}{idle}  {}", rule.said.action, rule.name)?;
        }
        writeln!(out, "{LABEL}sections{LABEL:#}")?;
        for section in &shown.sections {
            writeln!(out, "  {:<20} {:>10} records {:>12} bytes", section.name, section.records, section.bytes)?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn difference(mut found: Difference, limit: usize, output: &mut Output) -> Result<ExitCode, Failure> {
    found.changes.truncate(limit);
    output.report(&found, |out| {
        let rest = if found.complete { "" } else { ", not every overlap of rules among them" };
        if found.pairs == 0 {
            return writeln!(out, "{GOOD}no difference{GOOD:#} was found with {} flows{rest}", found.tried);
        }
        for change in &found.changes {
            let side = |rule: &Option<String>, decision: &_| {
                let by = Decider::of(decision, rule.as_deref());
                format!("{} by {by}", explain::said(decision))
            };
            let (before, after) = (side(&change.old_rule, &change.old), side(&change.new_rule, &change.new));
            writeln!(out, "{LABEL}{before} -> {after}{LABEL:#}")?;
            writeln!(out, "  {}", change.example)?;
        }
        let left_out = found.pairs - found.changes.len();
        if left_out > 0 || !found.complete {
            writeln!(out, "{left_out} more pairs of rules are not shown; {} flows were tried{rest}", found.tried)?;
        }
        Ok(())
    })?;
    Ok(if found.pairs == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn test_file(file: &Path, output: &mut Output) -> Result<ExitCode, Failure> {
    let policy = read_policy_elsewhere(file)?;
    let tested = test(&policy, &options(None)).map_err(invalid)?;
    let failed = tested.iter().filter(|one| one.failure.is_some()).count();
    output.report(&tested, |out| {
        for one in &tested {
            if let Some(failure) = &one.failure {
                writeln!(out, "{BAD}failed{BAD:#}  {}:{}: {}", file.display(), one.line, one.flow)?;
                writeln!(out, "        {failure}")?;
            } else if one.decision.essential.is_some() {
                let decider = Decider::of(&one.decision, None);
                writeln!(out, "{GOOD}holds{GOOD:#}   {}:{}: {}", file.display(), one.line, one.flow)?;
                writeln!(out, "        {decider}")?;
            }
        }
        let colour = if failed == 0 { GOOD } else { BAD };
        writeln!(out, "{colour}{} of {} expectations hold{colour:#}", tested.len() - failed, tested.len())
    })?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn import_file(
    file: &Path,
    from: Option<Source>,
    encoding: Option<Encoding>,
    complete: bool,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let text = decode(&files::bytes(file)?, encoding).map_err(|error| match error {
        NotText::Line(_) if encoding.is_none() => {
            files::unusable(file, format!("{error}: name the encoding with --encoding"))
        }
        _ => files::unusable(file, error),
    })?;
    let source = from
        .or_else(|| Source::detect(&text))
        .ok_or_else(|| files::unusable(file, "not a known firewall's export: name its format with --from"))?;
    let imported = if complete { import_complete(source, &text) } else { import(source, &text) };
    let imported = imported.map_err(|error| files::unusable(file, error))?;
    output.report(&imported, |out| imported.toml.lines().try_for_each(|line| writeln!(out, "{line}")))?;
    let disabled = imported.toml.lines().filter(|line| *line == "enabled = false").count();
    if !imported.notes.is_empty() {
        output.trouble(&format!(
            "{disabled} of {} rules are disabled; {} notes at the top of the policy say what to look at",
            imported.rules,
            imported.notes.len()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

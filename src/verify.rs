//! `sluice verify`.

use crate::cli::Cli;
use crate::cli::VerifyArgs;
use crate::failure::Failure;
use crate::machine;
use crate::output::{BAD, GOOD, LABEL, Output, WARNING};
use serde_json::json;
use sluice_control::verify::{self, Endpoint, Judgement, Verified};
use sluice_control::{assumed_app_id, read_policy_elsewhere};
use sluice_host::Host;
use sluice_policy::CompileOptions;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) fn run(cli: &Cli, arguments: &VerifyArgs, output: &mut Output) -> Result<ExitCode, Failure> {
    // A dry run of a policy that is named needs no machine.
    let offline = arguments.dry_run && arguments.policy.is_some();
    let host = if offline { None } else { Some(machine::open(cli)?) };
    let file = match (&arguments.policy, &host) {
        (Some(file), _) => file.clone(),
        (None, Some(host)) => in_force(&**host)?,
        (None, None) => return Err(Failure::NoMachine),
    };
    let endpoints = planned(&file, host.as_deref(), arguments)?;
    if arguments.dry_run {
        return listed(&endpoints, output);
    }
    if !endpoints.iter().any(|endpoint| endpoint.allowed) {
        return Err(Failure::Usage(
            "no connection is allowed: name endpoints (--to ADDRESS:PORT) or networks (--allow PREFIX); --dry-run lists what \
             the policy speaks of"
                .to_owned(),
        ));
    }
    let host = host.ok_or(Failure::NoMachine)?;
    checked(&*host, &endpoints, arguments, output)
}

/// The file that the policy in force was loaded from.
fn in_force(host: &dyn Host) -> Result<PathBuf, Failure> {
    let status = sluice_control::status(host)?;
    let origin = status.driver.and_then(|driver| driver.policy).and_then(|policy| policy.origin);
    match origin {
        Some(origin) if origin.image.is_none() => Ok(PathBuf::from(origin.file)),
        _ => Err(Failure::Usage("the policy in force does not say which file it is from: name it".to_owned())),
    }
}

fn planned(file: &std::path::Path, host: Option<&dyn Host>, arguments: &VerifyArgs) -> Result<Vec<Endpoint>, Failure> {
    let policy = read_policy_elsewhere(file)?;
    let application = |path: &str| match host.map(|host| host.app_id(path)) {
        Some(Ok(id)) => Ok(id),
        _ => assumed_app_id(path),
    };
    let options = CompileOptions { application: &application, key: [0; 16], at: Some(sluice_control::local_moment()) };
    let program = std::env::current_exe().ok().map(|path| path.to_string_lossy().into_owned());
    verify::plan(&policy, &options, program.as_deref(), &arguments.to, &arguments.allow)
        .map_err(|errors| sluice_control::ControlError::Policy(errors).into())
}

/// What would be connected to, and what not.
fn listed(endpoints: &[Endpoint], output: &mut Output) -> Result<ExitCode, Failure> {
    output.report(&json!({ "endpoints": endpoints }), |out| {
        for Endpoint { remote, from, allowed, expected, by } in endpoints {
            let (style, what) = if *allowed { (GOOD, "would connect") } else { (WARNING, "not allowed  ") };
            let expected = expected.unwrap_or("not judged");
            writeln!(out, "{style}{what}{style:#} {remote} ({from}): {expected}, {by}")?;
        }
        writeln!(out, "{} endpoints; no connection was made", endpoints.len())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn checked(
    host: &dyn Host,
    endpoints: &[Endpoint],
    arguments: &VerifyArgs,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let mut all: Vec<Verified> = Vec::new();
    verify::verify(host, endpoints, arguments.timeout, &mut |one| {
        all.push(one.clone());
        ControlFlow::Continue(())
    })?;
    let count = |judgement| all.iter().filter(|one| one.judgement == judgement).count();
    let (expected, otherwise) = (count(Judgement::AsExpected), count(Judgement::Otherwise));
    let skipped = endpoints.len() - all.len();
    output.report(&json!({ "verified": all, "not_allowed": skipped }), |out| {
        for one in &all {
            let (style, what) = match one.judgement {
                Judgement::AsExpected => (GOOD, "as expected"),
                Judgement::Otherwise => (BAD, "otherwise  "),
                Judgement::NotJudged => (WARNING, "not judged "),
            };
            let Endpoint { remote, from, expected, by, .. } = &one.endpoint;
            writeln!(out, "{style}{what}{style:#} {remote} ({from})")?;
            writeln!(out, "  {LABEL}expected{LABEL:#}  {}, {by}", expected.unwrap_or("unknown"))?;
            writeln!(out, "  {LABEL}happened{LABEL:#}  {}", one.happened.said())?;
            if let Some(decided) = &one.decided {
                let name = decided.filter_name.as_deref().unwrap_or("not listed any more");
                let provider = decided.provider.as_ref().map_or(String::new(), |name| format!(" of {name}"));
                let rule = decided.rule.as_ref().map_or(String::new(), |rule| format!(", {rule}"));
                let verdict = &decided.verdict;
                writeln!(
                    out,
                    "  {LABEL}recorded{LABEL:#}  {verdict} by filter {}, {name}{provider}{rule}",
                    decided.filter
                )?;
            }
        }
        let judged = expected + otherwise;
        write!(out, "{expected} of {judged} as expected")?;
        if skipped > 0 {
            write!(out, "; {skipped} endpoints of the policy are not in an allowed network and were left alone")?;
        }
        writeln!(out)
    })?;
    Ok(if otherwise == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

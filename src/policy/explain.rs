//! `sluice policy explain`.

use super::args::Flow;
use super::files::{invalid, options};
use crate::failure::Failure;
use crate::output::{BAD, GOOD, LABEL, Output};
use serde_json::json;
use sluice_control::{assumed_app_id, read_policy_elsewhere};
use sluice_policy::model::{Decider, FlowSpec, Moment, SidBuf};
use sluice_policy::{
    Decision, Direction, Outcome, Possible, Reference, Verdict, depends_on, parse_endpoint, parse_flow, possible,
};
use std::path::Path;
use std::process::ExitCode;

/// Outcomes that are listed for people.
const SHOWN: usize = 8;

pub(super) fn explain(file: &Path, flow: &Flow, at: Option<Moment>, output: &mut Output) -> Result<ExitCode, Failure> {
    let policy = read_policy_elsewhere(file)?;
    let flow = spec(flow).map_err(Failure::Usage)?;
    let options = options(at);
    let reference = Reference::new(&policy, &options);
    let image = super::image(&policy, &options)?;
    let (explained, decided) = flow
        .with(&assumed_app_id, |flow| (reference.explain(flow), image.decide(flow)))
        .map_err(|problem| Failure::Usage(format!("--app: {problem}")))?;
    // The driver consults the image, so a difference between image and rules matters most.
    let agrees = explained.decision == decided;
    let rule = decided.rule.and_then(|rule| image.rule_name(rule));
    let outcomes = possible(&policy, &options, &flow).map_err(invalid)?;
    let depends = depends_on(&outcomes);
    let report = json!({
        "flow": flow, "embedded": explained.embedded, "tried": explained.tried, "decision": decided, "rule": rule,
        "image_agrees": agrees, "depends_on": depends, "outcomes": outcomes
    });
    output.report(&report, |out| {
        writeln!(out, "{LABEL}{flow}{LABEL:#}")?;
        if let Some(inside) = explained.embedded {
            writeln!(out, "  rules see {inside} inside the remote address too")?;
        }
        for tried in &explained.tried {
            let (style, word) = match tried.outcome {
                Outcome::Decides => (GOOD, "decides"),
                Outcome::DoesNotMatch => (BAD, "no match"),
                Outcome::WaitsForName => (LABEL, "waits for the name"),
                Outcome::Inactive => (LABEL, "inactive"),
            };
            let reasons = tried.reasons.join("; ");
            let reasons = if reasons.is_empty() { reasons } else { format!(": {reasons}") };
            writeln!(out, "  rule {} `{}` {style}{word}{style:#}{reasons}", tried.rule, tried.name)?;
        }
        match Decider::of(&decided, rule) {
            Decider::Rule(_) => {}
            Decider::Default => writeln!(out, "  no rule matches: the default decides")?,
            essential => writeln!(out, "  no rule matches, and no default decides: {essential}")?,
        }
        let provisional = match (decided.needs_name, decided.verdict) {
            (false, _) => "",
            (true, _) if decided.asks.is_some() => ", and if permitted, until its name is known",
            (true, Verdict::Permit) => ", until its name is known",
            (true, Verdict::Block) => ", but let through until its name is known",
        };
        let style = |decision: &Decision| match (decision.asks, decision.verdict) {
            (Some(_), _) => LABEL,
            (None, Verdict::Permit) => GOOD,
            (None, Verdict::Block) => BAD,
        };
        let colour = style(&decided);
        if depends.is_empty() {
            writeln!(out, "{colour}{}{colour:#}{provisional}", said(&decided))?;
        } else {
            let facts: Vec<&str> = depends.iter().map(|fact| fact.name()).collect();
            writeln!(out, "depends on {}:", facts.join(" and "))?;
            // Those that come to another verdict first: they are why it depends.
            let (same, other): (Vec<&Possible>, Vec<_>) =
                outcomes.iter().skip(1).partition(|one| said(&one.decision) == said(&decided));
            for one in other.into_iter().chain(same).take(SHOWN) {
                let colour = style(&one.decision);
                let at = one.at.as_ref().map_or(String::new(), |at| format!(", at {at}"));
                let decider = Decider::of(&one.decision, one.rule.as_deref());
                writeln!(out, "  {colour}{}{colour:#} by {decider}: {}{at}", said(&one.decision), one.flow)?;
            }
            if outcomes.len() > SHOWN + 1 {
                writeln!(out, "  and {} more, all of them with --json", outcomes.len() - SHOWN - 1)?;
            }
            let decider = Decider::of(&decided, rule);
            writeln!(out, "  {colour}{}{colour:#} by {decider}: otherwise{provisional}", said(&decided))?;
        }
        if !agrees {
            writeln!(out, "{BAD}the image and the rules disagree: this is a bug, please report it{BAD:#}")?;
        }
        Ok(())
    })?;
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// A decision in words.
pub(super) fn said(decision: &Decision) -> String {
    if let Some(seconds) = decision.asks {
        return format!(
            "ask ({seconds} s, then {})",
            if decision.verdict == Verdict::Permit { "permit" } else { "block" }
        );
    }
    format!("{} ({})", decision.word(), if decision.hard { "hard" } else { "soft" })
}

pub(crate) fn spec(flow: &Flow) -> Result<FlowSpec, String> {
    let spec = match (&flow.listen, flow.bind.as_deref()) {
        (Some(local), _) => parse_endpoint("tcp", local, Direction::Listen, flow.app.as_deref())?,
        (_, Some([protocol, local])) => parse_endpoint(protocol, local, Direction::Bind, flow.app.as_deref())?,
        _ => between(flow)?,
    };
    owned(spec, flow)
}

/// A flow between two ends.
fn between(flow: &Flow) -> Result<FlowSpec, String> {
    let ends = [("tcp", &flow.tcp), ("udp", &flow.udp), ("icmp", &flow.icmp)];
    let named = ends.into_iter().find_map(|(protocol, ends)| ends.as_deref().map(|ends| (protocol, ends)));
    let other = flow.protocol.as_deref().and_then(|words| words.split_first().map(|(one, ends)| (one.as_str(), ends)));
    let Some((protocol, [local, remote])) = named.or(other) else {
        return Err("expected one of --tcp, --udp, --icmp, --protocol, --listen and --bind".to_owned());
    };
    // An IPv6 address has at least two colons, an IPv4 endpoint at most one.
    let v6 = remote.bytes().filter(|byte| *byte == b':').count() > 1;
    parse_flow(
        if protocol == "icmp" && v6 { "icmpv6" } else { protocol },
        local,
        remote,
        match (flow.inbound, flow.forward) {
            (true, _) => Direction::Inbound,
            (_, true) => Direction::Forward,
            _ => Direction::Outbound,
        },
        flow.app.as_deref(),
        None,
        flow.interface.as_deref(),
        flow.name.as_deref(),
    )
}

/// The same, of its owner.
fn owned(mut spec: FlowSpec, flow: &Flow) -> Result<FlowSpec, String> {
    for user in &flow.user {
        let sid = SidBuf::parse(user);
        spec.users.push(sid.ok_or_else(|| format!("the user `{user}` is not valid: expected a SID"))?);
    }
    for service in &flow.service {
        spec.users.push(SidBuf::of_service(service).ok_or_else(|| format!("`{service}` is not a service name"))?);
    }
    if let Some(package) = &flow.package {
        let sid = SidBuf::of_package(package);
        spec.users.push(sid.map_err(|expected| format!("the package `{package}` is not valid: expected {expected}"))?);
    }
    Ok(spec)
}

//! `sluice explain`.

use super::layout::paragraph;
use super::{ExplainArgs, ours, source};
use crate::cli::Cli;
use crate::failure::Failure;
use crate::machine;
use crate::output::{BAD, GOOD, LABEL, Output, WARNING};
use crate::page::Style;
use serde_json::json;
use sluice_control::{assumed_app_id, read_policy_elsewhere};
use sluice_diagnose::explain::{
    Explanation, LayerExplained, Outcome, Result as Became, SublayerExplained, explain, svg,
};
use sluice_diagnose::query::protocol_name;
use sluice_diagnose::record::{Direction as Way, Filter, Value};
use sluice_diagnose::traffic::Traffic;
use sluice_diagnose::{Answer, Platform, Sid, Verdict};
use sluice_policy::model::FlowSpec;
use sluice_policy::{CompileOptions, Decision, Direction, Reference, flow::unspecified};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

pub(super) fn run(cli: &Cli, args: &ExplainArgs, output: &mut Output) -> Result<ExitCode, Failure> {
    let spec = crate::policy::flow_spec(&args.flow).map_err(Failure::Usage)?;
    let opened = match spec.direction {
        Direction::Outbound => Way::Out,
        Direction::Inbound => Way::In,
        Direction::Forward => Way::Forward,
        Direction::Listen | Direction::Bind => {
            let instead = "a whole flow is explained, with its bind and listen: say --tcp or --udp, with --inbound; \
                           `sluice policy explain` says what a policy decides about a port alone";
            return Err(Failure::Usage(instead.to_owned()));
        }
    };
    let decision = args.policy.as_deref().map(|policy| decided(policy, &spec)).transpose()?;
    let platform = source::platform(cli, args.file.as_deref())?;
    let mut assumed = vec![
        "an ordinary first packet: no raw socket, no IPsec, no reauthorization (`depends on` names what else is not known)"
            .to_owned(),
    ];
    let app = spec.application.as_deref().map(|path| app(cli, args, &platform, path, &mut assumed)).transpose()?;
    let traffic = traffic(&spec, args, app, &mut assumed);
    let explanation = explain(&platform, &traffic, opened, &|filter| answer(filter, decision.as_ref()));
    let title = title(&spec);
    if let Some(path) = &args.svg {
        let read: Vec<_> = args.file.iter().chain(&args.policy).cloned().collect();
        if sluice_files::is_stdout(path) {
            output.report_aside();
        }
        sluice_files::replace(path, svg(&explanation, &title).as_bytes(), &read)
            .map_err(|source| Failure::Write { path: path.clone(), source })?;
    }
    let report = json!({ "format": 1, "assumed": assumed, "explanation": explanation });
    output.report(&report, |out| text(&explanation, &title, &assumed, out))?;
    Ok(ExitCode::SUCCESS)
}

/// What a policy decides about the flow, and about the port that it begins with.
struct Decided {
    flow: Decision,
    bind: Decision,
    listen: Decision,
}

/// What a policy decides.
fn decided(policy: &Path, spec: &FlowSpec) -> Result<Decided, Failure> {
    let policy = read_policy_elsewhere(policy)?;
    let options = CompileOptions { application: &assumed_app_id, key: [0; 16], at: None };
    let reference = Reference::new(&policy, &options);
    let decide = |spec: &FlowSpec| {
        spec.with(&assumed_app_id, |flow| reference.decide(flow))
            .map_err(|problem| Failure::Usage(format!("--app: {problem}")))
    };
    // Who opens a connection mostly names no port of its own.
    let port = if spec.direction == Direction::Outbound { 0 } else { spec.local.1 };
    let socket = |direction| FlowSpec {
        direction,
        local: (spec.local.0, port),
        remote: (unspecified(spec.local.0), 0),
        ..spec.clone()
    };
    let (bind, listen) = (decide(&socket(Direction::Bind))?, decide(&socket(Direction::Listen))?);
    Ok(Decided { flow: decide(spec)?, bind, listen })
}

/// What our driver's callout will say, by the policy. Until the content's name is known, that is open.
fn answer(filter: &Filter, decided: Option<&Decided>) -> Option<Answer> {
    let layer = filter.layer.short();
    let is = |name: &str| layer.starts_with(name);
    let decision = decided.map(|decided| match () {
        () if is("ALE_RESOURCE_ASSIGNMENT") => &decided.bind,
        () if is("ALE_AUTH_LISTEN") => &decided.listen,
        () => &decided.flow,
    });
    let decision = decision.filter(|decision| ours::is_ours(filter) && !decision.needs_name)?;
    let blocks = decision.verdict == sluice_policy::Verdict::Block;
    let decides = is("ALE_AUTH_") || is("IPFORWARD") || is("ALE_RESOURCE_ASSIGNMENT");
    Some(match (decides, blocks) {
        (_, true) => Answer::Decides { verdict: Verdict::Block, hard: decision.hard },
        (true, false) => Answer::Decides { verdict: Verdict::Permit, hard: decision.hard },
        // Of a flow that it permits, the driver lets the packets pass.
        (false, false) => Answer::Nothing,
    })
}

/// The program's NT path. A drive's volume differs between machines: a filter on the same path tells it, or the machine.
fn app(
    cli: &Cli,
    args: &ExplainArgs,
    platform: &Platform,
    path: &str,
    assumed: &mut Vec<String>,
) -> Result<String, Failure> {
    if path.to_lowercase().starts_with(r"\device\") || !path.contains('\\') && args.file.is_some() {
        return Ok(path.to_owned());
    }
    if args.file.is_none() {
        let host = machine::open(cli)?;
        return host.app_id(path).map_err(|error| Failure::machine("looking for the program", error));
    }
    let wanted = ours::volume_free(path);
    let conditions = platform.filters.iter().flat_map(|filter| filter.conditions.iter().map(move |one| (filter, one)));
    for (filter, condition) in conditions {
        if condition.field.short() == "ALE_APP_ID"
            && let Value::Known(value) = &condition.value
            && let Some(known) = sluice_diagnose::record::text_of(value)
            && ours::volume_free(&known) == wanted
        {
            assumed.push(format!("the program is {known}, as in filter {}", filter.id));
            return Ok(known);
        }
    }
    assumed.push(format!("no filter names the program {path}, on whatever volume it is"));
    Ok(path.to_owned())
}

fn traffic(spec: &FlowSpec, args: &ExplainArgs, app: Option<String>, assumed: &mut Vec<String>) -> Traffic {
    let sids: Vec<Sid> = spec.users.iter().filter_map(|sid| Sid::parse(sid.bytes())).collect();
    let (packages, mut token): (Vec<Sid>, Vec<Sid>) =
        sids.into_iter().partition(|sid| sid.to_string().starts_with("S-1-15-2-"));
    let package = packages.into_iter().next();
    if package.is_none() {
        assumed.push("the program is of no package (--package names one)".to_owned());
    }
    if !token.is_empty() {
        token.push(Sid::new(1, &[0]));
        assumed.push("the token has the named SIDs and Everyone, and no other".to_owned());
    }
    // NET_LUID: the type is in the highest 16 bits; without an index it names only that.
    let luid = spec.interface;
    Traffic {
        protocol: Some(spec.protocol),
        local: Some(spec.local.0),
        local_port: Some(spec.local.1),
        remote: Some(spec.remote.0),
        remote_port: Some(spec.remote.1),
        app,
        token: (!token.is_empty()).then_some(token),
        package: package.or_else(|| Some(Sid::null())),
        direction: None,
        loopback: Some(spec.remote.0.is_loopback() || spec.local.0 == spec.remote.0),
        interface: None,
        interface_luid: luid.filter(|luid| luid & 0xffff_ffff_ffff != 0),
        interface_type: luid.map(|luid| (luid >> 48) as u32).filter(|kind| *kind != 0),
        profile: args.profile.map(|profile| profile as u32),
        ordinary: true,
    }
}

fn title(spec: &FlowSpec) -> String {
    let arrow = if spec.direction == Direction::Inbound { "<-" } else { "->" };
    let end = |(address, port): (std::net::IpAddr, u16)| std::net::SocketAddr::new(address, port);
    let app = spec.application.as_ref().map_or(String::new(), |app| format!(", {app}"));
    let protocol = protocol_name(spec.protocol);
    format!("{} {protocol} {} {arrow} {}{app}", spec.direction.word(), end(spec.local), end(spec.remote))
}

fn style(outcomes: &[Outcome]) -> Style {
    match (outcomes.iter().any(|one| one.verdict == "permit"), outcomes.iter().any(|one| one.verdict == "block")) {
        (true, false) => GOOD,
        (false, true) => BAD,
        _ => WARNING,
    }
}

/// An outcome in words.
fn said(outcome: &Outcome) -> String {
    match (outcome.by, outcome.strength) {
        (None, _) => format!("{} (nobody decided)", outcome.verdict),
        (Some(id), "veto") => format!("{} (veto) by filter {id}", outcome.verdict),
        (Some(id), strength) => format!("{} ({strength}) by filter {id}", outcome.verdict),
    }
}

/// Outcomes in words: of one filter's the verdict once, with all its strengths.
fn all(outcomes: &[Outcome]) -> String {
    let mut groups: Vec<(&'static str, Option<u64>, Vec<&'static str>)> = Vec::new();
    for one in outcomes {
        match groups.iter_mut().find(|(verdict, by, _)| (*verdict, *by) == (one.verdict, one.by)) {
            Some((.., strengths)) => strengths.push(one.strength),
            None => groups.push((one.verdict, one.by, vec![one.strength])),
        }
    }
    let said = groups.iter().map(|(verdict, by, strengths)| match by {
        None => format!("{verdict} (nobody decided)"),
        Some(id) => format!("{verdict} ({}) by filter {id}", strengths.join(" or ")),
    });
    said.collect::<Vec<_>>().join(", or ")
}

fn text(explanation: &Explanation, title: &str, assumed: &[String], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{LABEL}{title}{LABEL:#}")?;
    for one in assumed {
        paragraph(out, "  ", ("assumed:", None), one, 11)?;
    }
    match &explanation.result {
        Became::Permit => writeln!(out, "{GOOD}permit{GOOD:#}: no layer blocks it")?,
        Became::Block(layer) => writeln!(out, "{BAD}block{BAD:#} at {layer}")?,
        Became::Depends(layers) => {
            paragraph(
                out,
                "",
                ("depends", Some(WARNING)),
                &format!("on what is not known, at {}", layers.join(", ")),
                4,
            )?;
        }
    }
    for layer in explanation.layers.iter().filter(|layer| !layer.sublayers.is_empty()) {
        layer_text(layer, out)?;
    }
    let idle = explanation.layers.iter().filter(|layer| layer.sublayers.is_empty());
    let mut idle: Vec<&str> = idle.map(|layer| layer.layer.as_str()).collect();
    idle.dedup();
    if !idle.is_empty() {
        paragraph(out, "", ("no filter matches", Some(LABEL)), &format!("at {}", idle.join(", ")), 4)?;
    }
    Ok(())
}

fn layer_text(layer: &LayerExplained, out: &mut dyn Write) -> io::Result<()> {
    let style = style(&layer.outcomes);
    let lead = format!("{} ({}): ", layer.layer, layer.when);
    let (first, rest) = match layer.outcomes.as_slice() {
        [one] => (one.verdict.to_owned(), said(one)[one.verdict.len()..].trim_start().to_owned()),
        many => ("depends:".to_owned(), all(many)),
    };
    writeln!(out)?;
    paragraph(out, &lead, (&first, Some(style)), &rest, 4)?;
    layer.sublayers.iter().try_for_each(|sublayer| sublayer_text(sublayer, out))?;
    for change in &layer.changes {
        let label = if layer.outcomes.len() == 1 { "changes it:" } else { "it is" };
        paragraph(out, "  ", (label, None), change, 6)?;
    }
    Ok(())
}

fn sublayer_text(sublayer: &SublayerExplained, out: &mut dyn Write) -> io::Result<()> {
    let weight = sublayer.weight.map_or("weight not known".to_owned(), |weight| format!("weight {weight}"));
    let others = match sublayer.others {
        0 => String::new(),
        1 => "; 1 other filter does not match".to_owned(),
        count => format!("; {count} other filters do not match"),
    };
    writeln!(out, "  {} ({weight}){others}", sublayer.sublayer)?;
    for filter in &sublayer.filters {
        let style = match filter.asked {
            "no" => LABEL,
            _ if filter.does.starts_with("unknown") || !filter.matches => WARNING,
            _ if filter.does.contains("block") => BAD,
            _ => GOOD,
        };
        let does = match filter.asked {
            "no" => format!("not asked, a heavier one decided ({})", filter.does),
            "perhaps" => format!("if asked: {}", filter.does),
            _ => filter.does.clone(),
        };
        let id = format!("{:>6}", filter.id);
        paragraph(out, "    ", (&id, Some(style)), &format!("`{}`: {does}", filter.name), 11)?;
        if !filter.depends_on.is_empty() {
            let on = format!("only if {}", filter.depends_on.join(" and "));
            paragraph(out, "           ", ("matches", Some(WARNING)), &on, 13)?;
        }
    }
    let style = style(&sublayer.after);
    paragraph(out, "    ", ("then", Some(style)), &all(&sublayer.after), 9)
}

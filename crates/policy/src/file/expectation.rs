//! `[[expect]]` and `[[rule.expect]]`: flows and their expected verdicts.

use super::{
    ACTIONS, moment,
    reader::{Context, Reader, Word, nearest},
    values,
};
use crate::{
    flow::Direction,
    model::{Decider, Expectation, FlowSpec, Rule, SidBuf, names, program},
};
use std::net::IpAddr;

const ENDPOINT: &str =
    "an address without a zone, with or without a port: `203.0.113.9:443`, `[2001:db8::1]:443`, `10.0.0.5`";

/// Reads one. Beside a rule, that rule is expected to decide unless the expectation says otherwise.
pub(super) fn read(context: &mut Context<'_>, mut reader: Reader<'_>, rule: Option<&str>) -> Option<Expectation> {
    let at = reader.at.clone();
    let endpoint = |context: &mut Context<'_>, item: super::reader::Item<'_>| {
        let text = item.text(context)?;
        let found = values::endpoint(text);
        if found.is_none() {
            context.expected(&item.at, format!("`{text}` is not an endpoint"), ENDPOINT);
        }
        found
    };
    let directions = Direction::ALL.map(|direction| (direction.word(), direction));
    let direction = reader.take("direction").and_then(|item| item.choice(context, &directions));
    let direction = direction.unwrap_or(Direction::Outbound);
    let remote_item = reader.take("remote");
    let local_item = reader.take("local");
    let (wanted, has) = if direction.is_local() { ("local", &local_item) } else { ("remote", &remote_item) };
    if has.is_none() {
        context.expected(&at, format!("the expectation has no `{wanted}`"), ENDPOINT);
    }
    if let Some(item) = remote_item.as_ref().filter(|_| direction.is_local()) {
        let message = format!("there is no `remote` when a program asks to {}", direction.word());
        context.error_with_help(&item.at, message, "remove it: `local` is the address and port that it asks for");
    }
    let remote = remote_item.and_then(|item| endpoint(context, item));
    let local_at = local_item.as_ref().map(|item| item.at.clone());
    let local = local_item.and_then(|item| endpoint(context, item));
    // The side that is not said is the unspecified one.
    let remote = if direction.is_local() { local.map(|local| unspecified(local.0)) } else { remote };
    let protocol = match reader.take("protocol") {
        Some(item) => {
            let words = item.words(context, "one protocol");
            match &words[..] {
                [word] => values::protocol(context, word),
                _ => {
                    context.expected(&item.at, "a flow has one protocol", "one protocol");
                    None
                }
            }
        }
        None => Some(6),
    };
    let application = reader.take("application").and_then(|item| {
        let text = item.text(context)?;
        values::program(context, &Word { text, at: item.at.clone() })
    });
    let mut users = Vec::new();
    type Identity = fn(&mut Context<'_>, &Word<'_>) -> Option<SidBuf>;
    let kinds: [(&str, Identity); 4] =
        [("user", values::user), ("group", values::user), ("service", values::service), ("package", values::package)];
    for (key, identity) in kinds {
        let Some(item) = reader.take(key) else { continue };
        users.extend(item.words(context, "one, or a list").iter().filter_map(|word| identity(context, word)));
    }
    let interface = reader.take("interface").and_then(|item| {
        let text = item.text(context)?;
        let ranges = values::interface(context, &Word { text, at: item.at.clone() });
        ranges.first().map(|range| range.0.max(1))
    });
    let name = reader.take("remote-name").and_then(|item| {
        let text = item.text(context)?;
        if text == "undecidable" {
            return Some(None);
        }
        let name = names::normalize(text);
        if name.is_none() {
            context.expected(&item.at, format!("`{text}` is not a host name"), "a host name, or `undecidable`");
        }
        name.map(Some)
    });
    let verdict = reader.take("verdict").and_then(|item| item.choice(context, &ACTIONS));
    let mut decider = rule.map(|rule| Decider::Rule(rule.to_owned()));
    if let Some(item) = reader.take("rule") {
        decider = item.text(context).map(Decider::parse);
    }
    let moment = reader.take("at").and_then(|item| moment(context, &item));
    reader.finish(context);
    if verdict.is_none() && decider.is_none() {
        context.expected(&at, "the expectation expects nothing", "`verdict`, `rule` or both");
    }
    let remote = remote?;
    let local = local.unwrap_or_else(|| unspecified(remote.0));
    if let Some(at) = local_at.filter(|_| local.0.is_ipv4() != remote.0.is_ipv4()) {
        context.error(&at, "`local` and `remote` are of different families");
    }
    let flow =
        FlowSpec { direction, protocol: protocol?, local, remote, application, users, interface, remote_name: name };
    Some(Expectation { flow, verdict, rule: decider, at: moment, span: at.span })
}

/// The unspecified endpoint, in the family of another address.
fn unspecified(other: IpAddr) -> (IpAddr, u16) {
    (crate::flow::unspecified(other), 0)
}

/// Rules that expectations name must exist.
pub(super) fn check_names(context: &mut Context<'_>, rules: &[Rule], expectations: &[Expectation]) {
    let all = expectations.iter().chain(rules.iter().flat_map(|rule| &rule.expectations));
    for expectation in all {
        let Some(Decider::Rule(name)) = &expectation.rule else { continue };
        if rules.iter().any(|rule| rule.name == *name) {
            continue;
        }
        let near = nearest(name, rules.iter().map(|rule| rule.name.as_str()));
        let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        let at = super::reader::At { span: expectation.span.clone(), key: "expect.rule".to_owned() };
        context.expected(
            &at,
            format!("there is no rule `{name}`{hint}"),
            "the name of a rule, `default` or `essential`",
        );
    }
}

/// What a program asks of this machine alone, from a command's arguments: the words of `--bind PROTOCOL LOCAL` and its
/// companions. `direction` is one for which [`Direction::is_local`] holds.
///
/// # Errors
/// Says which argument is wrong and what was expected.
pub fn parse_endpoint(
    protocol: &str,
    local: &str,
    direction: Direction,
    application: Option<&str>,
) -> Result<FlowSpec, String> {
    let v6 = values::endpoint(local).is_some_and(|(address, _)| address.is_ipv6());
    let remote = if v6 { "::" } else { "0.0.0.0" };
    let flow = parse_flow(protocol, local, remote, Direction::Outbound, application, None, None, None)?;
    if direction == Direction::Listen && flow.protocol != 6 {
        return Err(format!("only TCP listens, and not `{protocol}`"));
    }
    Ok(FlowSpec { direction, ..flow })
}

/// A flow from a command's arguments: the words of `--tcp LOCAL REMOTE` and its companions.
///
/// # Errors
/// Says which argument is wrong and what was expected.
#[allow(clippy::too_many_arguments, reason = "one argument of a command each")]
pub fn parse_flow(
    protocol: &str,
    local: &str,
    remote: &str,
    direction: Direction,
    application: Option<&str>,
    user: Option<&str>,
    interface: Option<&str>,
    name: Option<&str>,
) -> Result<FlowSpec, String> {
    let wrong = |what: &str, text: &str, expected: &str| format!("{what} `{text}` is not valid: expected {expected}");
    let number = values::PROTOCOLS.iter().find(|(known, _)| known.eq_ignore_ascii_case(protocol)).map(|(_, n)| *n);
    let end = |what: &str, text: &str| values::endpoint(text).ok_or_else(|| wrong(what, text, ENDPOINT));
    let (local, remote) = (end("the local end", local)?, end("the remote end", remote)?);
    if local.0.is_ipv4() != remote.0.is_ipv4() {
        return Err("the two ends are of different families: expected two IPv4 or two IPv6 addresses".to_owned());
    }
    let user = user.map(|text| SidBuf::parse(text).ok_or_else(|| wrong("the user", text, "a SID"))).transpose()?;
    let application = application
        .map(|text| program::normalize(text).map_err(|why| format!("the program `{text}` {why}")))
        .transpose()?;
    let interface = match interface {
        Some(text) => {
            let mut context = Context { path: std::path::Path::new(""), text, diagnostics: Vec::new() };
            let at = super::reader::At { span: 0..text.len(), key: String::new() };
            let ranges = values::interface(&mut context, &Word { text, at });
            Some(
                ranges
                    .first()
                    .map(|range| range.0.max(1))
                    .ok_or_else(|| wrong("the interface", text, "a type or LUID"))?,
            )
        }
        None => None,
    };
    let name = match name {
        Some("undecidable") => Some(None),
        Some(text) => Some(Some(names::normalize(text).ok_or_else(|| wrong("the name", text, "a host name"))?)),
        None => None,
    };
    Ok(FlowSpec {
        direction,
        protocol: number
            .or_else(|| protocol.parse().ok())
            .ok_or_else(|| wrong("the protocol", protocol, "a name or a number from 0 to 255"))?,
        local,
        remote,
        application,
        users: user.into_iter().collect(),
        interface,
        remote_name: name,
    })
}

//! `[[rule]]`.

use super::{
    ACTIONS, expectation,
    reader::{At, Context, Item, Reader, nearest},
    scope::Scope,
    values,
};
use crate::{
    flow::{ANSWER_SECONDS, Direction, Verdict},
    model::{Action, Located, NumberSet, Rule, Schedule},
};
use std::collections::HashMap;

/// Protocols whose packets carry ports.
const WITH_PORTS: [u64; 5] = [6, 17, 33, 132, 136];
/// ICMP and ICMPv6.
const ICMP: [u64; 2] = [1, 58];

/// The words of a rule's direction.
const DIRECTIONS: [(&str, Option<Direction>); 6] = [
    ("outbound", Some(Direction::Outbound)),
    ("inbound", Some(Direction::Inbound)),
    ("both", None),
    ("forward", Some(Direction::Forward)),
    ("listen", Some(Direction::Listen)),
    ("bind", Some(Direction::Bind)),
];

/// Reads all rules. Names must differ, since events and expectations refer to rules by name.
pub(super) fn rules(
    context: &mut Context<'_>,
    root: &mut Reader<'_>,
    scope: &Scope,
    schedules: &[Schedule],
) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut names: HashMap<String, usize> = HashMap::new();
    for (index, reader) in root.tables(context, "rule").into_iter().enumerate() {
        let at = reader.at.clone();
        let rule = rule(context, reader, scope, schedules, index);
        if let Some(first) = names.insert(rule.name.clone(), index) {
            context.error(&at, format!("rule {first} is also called `{}`", rule.name));
        }
        rules.push(rule);
    }
    rules
}

fn rule(
    context: &mut Context<'_>,
    mut reader: Reader<'_>,
    scope: &Scope,
    schedules: &[Schedule],
    index: usize,
) -> Rule {
    let at = reader.at.clone();
    let name = name(context, &mut reader, index);
    let action = match reader.take("action") {
        Some(item) => item.choice(context, &ACTIONS).unwrap_or(Action::Block),
        None => {
            context.expected(&at, "the rule has no `action`", "`permit`, `block`, `drop` or `ask`");
            Action::Block
        }
    };
    let action = asking(context, &mut reader, action);
    let strength = reader.take("strength");
    if let Some(item) = strength.as_ref().filter(|_| matches!(action, Action::Ask(_))) {
        context.expected(&item.at, "a rule that asks has no `strength`", "no such key: a block is hard, a permit soft");
    }
    let hard = strength.and_then(|item| item.choice(context, &[("hard", true), ("soft", false)]));
    let mut aliases = Vec::new();
    let mut rule = Rule {
        name,
        note: reader.take("note").and_then(|item| item.text(context)).map(str::to_owned),
        action,
        hard: hard.unwrap_or(action.verdict() == Verdict::Block),
        log: reader.take("log").and_then(|item| item.flag(context)).unwrap_or(false),
        enabled: reader.take("enabled").and_then(|item| item.flag(context)).unwrap_or(true),
        direction: reader.take("direction").and_then(|item| item.choice(context, &DIRECTIONS)).flatten(),
        protocols: None,
        remote: reader.take("remote").and_then(|item| scope.addresses(context, &item)),
        local: reader.take("local").and_then(|item| scope.addresses(context, &item)),
        remote_ports: None,
        local_ports: None,
        applications: reader.take("application").map(|item| scope.applications(context, &item)),
        users: reader.take("user").map(|item| scope.users(context, &item)),
        groups: reader.take("group").map(|item| scope.users(context, &item)),
        services: reader.take("service").map(|item| scope.services(context, &item)),
        packages: reader.take("package").map(|item| scope.packages(context, &item)),
        interfaces: reader.take("interface").map(|item| interfaces(context, &item, &mut aliases)),
        aliases: Vec::new(),
        names: reader.take("remote-name").map(|item| scope.names(context, &item)),
        undecidable_matches: false,
        schedule: reader.take("schedule").and_then(|item| {
            let text = item.text(context)?;
            let found = schedules.iter().position(|schedule| schedule.name == text);
            if found.is_none() {
                let near = nearest(text, schedules.iter().map(|schedule| schedule.name.as_str()));
                let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                context.expected(
                    &item.at,
                    format!("there is no schedule `{text}`{hint}"),
                    format!("a [schedule.{text}]"),
                );
            }
            found
        }),
        expectations: Vec::new(),
        span: at.span.clone(),
    };
    rule.aliases = aliases;
    let undecidable = reader.take("when-undecidable");
    protocols_and_ports(context, &mut reader, scope, &mut rule);
    match rule.direction {
        Some(Direction::Forward) => only_addresses_and_ports(context, &rule, &at),
        Some(direction) if direction.is_local() => only_this_machine(context, &rule, direction, &at),
        _ => {}
    }
    if matches!(rule.action, Action::Ask(_)) && rule.direction != Some(Direction::Outbound) {
        context.expected(
            &At { key: format!("{}.direction", at.key), span: at.span.clone() },
            "only connections that this machine opens can be held until somebody answers",
            "`direction = \"outbound\"` beside `action = \"ask\"`",
        );
    }
    if let Some(item) = undecidable {
        rule.undecidable_matches = item.choice(context, &[("skip", false), ("match", true)]).unwrap_or(false);
        let unreadable = rule.direction == Some(Direction::Forward) && rule.protocols.is_some();
        if rule.names.is_none() && !unreadable {
            context.expected(
                &item.at,
                "the rule has no condition that could be undecidable",
                "`remote-name` beside it, or ports or a protocol of packets that are forwarded",
            );
        }
    }
    for expected in reader.tables(context, "expect") {
        rule.expectations.extend(expectation::read(context, expected, Some(&rule.name)));
    }
    reader.finish(context);
    rule
}

/// What a rule that asks says besides; no other may.
fn asking(context: &mut Context<'_>, reader: &mut Reader<'_>, action: Action) -> Action {
    let (unanswered, within) = (reader.take("when-unanswered"), reader.take("answer-within"));
    let Action::Ask(mut ask) = action else {
        for item in [unanswered, within].into_iter().flatten() {
            context.expected(&item.at, "the rule does not ask", "`action = \"ask\"` beside it");
        }
        return action;
    };
    if let Some(item) = unanswered {
        let choices = [("block", Verdict::Block), ("permit", Verdict::Permit)];
        ask.unanswered = item.choice(context, &choices).unwrap_or(ask.unanswered);
    }
    if let Some(item) = within
        && let Some(text) = item.text(context)
    {
        match values::seconds(text).filter(|seconds| ANSWER_SECONDS.contains(seconds)) {
            Some(seconds) => ask.within = seconds,
            None => context.expected(
                &item.at,
                format!("`{text}` is not a time to answer in"),
                "from one second (`1s`) to four minutes (`240s`, `4m`)",
            ),
        }
    }
    Action::Ask(ask)
}

/// The interfaces that are told without their machine; the aliases of others.
fn interfaces(context: &mut Context<'_>, item: &Item<'_>, aliases: &mut Vec<Located<String>>) -> NumberSet {
    let mut ranges = Vec::new();
    for word in item.words(context, "interface types, aliases or LUIDs") {
        match values::alias(&word) {
            Some(alias) => aliases.push(Located { value: alias.to_owned(), span: word.at.span.clone() }),
            None => ranges.extend(values::interface(context, &word)),
        }
    }
    NumberSet::from_ranges(ranges)
}

/// Of a packet that is passed on nothing is known but its headers.
fn only_addresses_and_ports(context: &mut Context<'_>, rule: &Rule, at: &At) {
    let Rule { applications, users, groups, services, packages, interfaces, aliases, names, .. } = rule;
    let unknown = [
        ("application", applications.is_some()),
        ("user", users.is_some()),
        ("group", groups.is_some()),
        ("service", services.is_some()),
        ("package", packages.is_some()),
        ("interface", interfaces.is_some() || !aliases.is_empty()),
        ("remote-name", names.is_some()),
    ];
    refuse(
        context,
        at,
        &unknown,
        "is not known of packets that are forwarded",
        "addresses, ports and a protocol alone beside `direction = \"forward\"`",
    );
}

/// When a program asks for a port, there is no other machine yet, and packets may come by any interface.
fn only_this_machine(context: &mut Context<'_>, rule: &Rule, direction: Direction, at: &At) {
    let Rule { remote, remote_ports, protocols, interfaces, aliases, names, .. } = rule;
    let word = direction.word();
    let unknown = [
        ("remote", remote.is_some()),
        ("remote-port", remote_ports.is_some()),
        ("interface", interfaces.is_some() || !aliases.is_empty()),
        ("remote-name", names.is_some()),
    ];
    refuse(
        context,
        at,
        &unknown,
        &format!("is not known when a program asks to {word}"),
        &format!(
            "`application`, `user`, `group`, `service`, `package`, `local`, `local-port` and `protocol` alone beside \
             `direction = \"{word}\"`"
        ),
    );
    let only = |of: &[u64]| protocols.as_ref().is_some_and(|set| of.iter().all(|one| !set.contains(*one)));
    if direction == Direction::Listen && only(&[6]) {
        context.expected(
            &At { key: format!("{}.protocol", at.key), span: at.span.clone() },
            "only TCP listens, so the rule could never match",
            "no `protocol`, or `direction = \"bind\"` for who may receive by others",
        );
    }
}

/// Says of each key that is given that it has no meaning in this rule.
fn refuse(context: &mut Context<'_>, at: &At, keys: &[(&str, bool)], why: &str, expected: &str) {
    for (key, _) in keys.iter().filter(|(_, given)| *given) {
        let at = At { key: format!("{}.{key}", at.key), span: at.span.clone() };
        context.expected(&at, format!("`{key}` {why}"), expected);
    }
}

fn name(context: &mut Context<'_>, reader: &mut Reader<'_>, index: usize) -> String {
    let Some(item) = reader.take("name") else { return format!("rule {index}") };
    let Some(text) = item.text(context) else { return String::new() };
    if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        context.expected(&item.at, "this cannot be a rule's name", "1 to 255 bytes without control characters");
    }
    text.to_owned()
}

/// Ports mean TCP and UDP unless a protocol is given; ICMP types and codes mean ICMP and ICMPv6.
fn protocols_and_ports(context: &mut Context<'_>, reader: &mut Reader<'_>, scope: &Scope, rule: &mut Rule) {
    let protocol = reader.take("protocol");
    let explicit = protocol.is_some();
    rule.protocols = protocol.as_ref().and_then(|item| values::protocols(context, item));
    let check = |context: &mut Context<'_>, rule: &mut Rule, at: &At, carriers: &[u64], implied: &[u64], what: &str| {
        match &rule.protocols {
            None if !explicit => {
                rule.protocols = Some(NumberSet::from_ranges(implied.iter().map(|&one| (one, one)).collect()));
            }
            Some(set) if !set.ranges().iter().all(|&(low, high)| (low..=high).all(|one| carriers.contains(&one))) => {
                context.error_with_help(
                    at,
                    format!("the rule's protocols do not all have {what}"),
                    "split it into two rules, or remove one of the two keys",
                );
            }
            _ => {}
        }
    };
    for (key, remote) in [("remote-port", true), ("local-port", false)] {
        let Some(item) = reader.take(key) else { continue };
        let ports = scope.numbers(context, &item, 65535);
        check(context, rule, &item.at, &WITH_PORTS, &[6, 17], "ports");
        *(if remote { &mut rule.remote_ports } else { &mut rule.local_ports }) = ports;
    }
    // A flow's local port is the ICMP type, its remote port the code, as at the ALE and transport layers.
    for (key, code) in [("icmp-type", false), ("icmp-code", true)] {
        let Some(item) = reader.take(key) else { continue };
        let numbers = scope.numbers(context, &item, 255);
        if rule.direction.is_some_and(Direction::is_local) {
            let message = format!("`{key}` is not known when a program asks for a port");
            context.error_with_help(&item.at, message, "remove it, or decide the packets themselves");
        }
        check(context, rule, &item.at, &ICMP, &ICMP, "ICMP types and codes");
        *(if code { &mut rule.remote_ports } else { &mut rule.local_ports }) = numbers;
    }
}

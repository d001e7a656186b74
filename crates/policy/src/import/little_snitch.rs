//! Little Snitch rule groups (.lsrules): JSON with `rules`, or with lists of what is denied.

use super::{
    ImportError,
    emit::{File, Rule},
    json::Json,
    record::{Draft, Record},
    words,
};
use crate::model::program::normalize;

/// Reads a rule group.
pub(super) fn read(text: &str, file: &mut File) -> Result<(), ImportError> {
    file.origin = "a Little Snitch rule group";
    let value: Json = serde_json::from_str(text)
        .map_err(|error| ImportError::Syntax { line: error.line(), message: error.to_string() })?;
    let Json::Object(fields) = value else {
        return Err(ImportError::Syntax { line: 1, message: "expected an object with `rules`".to_owned() });
    };
    let mut group = Record::new("the group".to_owned());
    for (name, value) in fields {
        group.push(name, value);
    }
    let mut denied = Vec::new();
    let mut rules = Vec::new();
    file.rules(group, |draft| {
        draft.pass_over(&["name", "description", "denied-remote-notes"]);
        for key in ["denied-remote-domains", "denied-remote-hosts", "denied-remote-addresses"] {
            if let Some(value) = draft.take(key) {
                denied.push((key, value));
            }
        }
        match draft.take("rules") {
            Some(Json::Array(all)) => rules = all,
            Some(other) => draft.unknown("rules", other),
            None => {}
        }
        Vec::new()
    });
    for (key, value) in denied {
        let mut record = Record::new(key.to_owned());
        record.push(key, value);
        file.rules(record, |draft| deny_list(draft, key));
    }
    if !rules.is_empty() {
        file.note(
            "in Little Snitch the more specific rule wins; here the first rule wins, and denials come \
             first: check the order",
        );
    }
    for (index, one) in rules.into_iter().enumerate() {
        let Json::Object(fields) = one else {
            file.note(format!("rule {index}: `{one}` is not an object and was skipped"));
            continue;
        };
        let mut record = Record::new(format!("rule {index}"));
        for (name, value) in fields {
            record.push(name, value);
        }
        file.rules(record, |draft| rule(draft, index));
    }
    if file.len() == 0 {
        return Err(file.nothing("expected `rules` or `denied-remote-domains`"));
    }
    Ok(())
}

/// Reads a list of denials; an entry that is not understood does not affect the others.
fn deny_list(draft: &mut Draft<Json>, key: &str) -> Vec<Rule> {
    let mut rule = Rule {
        name: key.replace('-', " "),
        block: true,
        enabled: true,
        direction: Some("outbound"),
        ..Rule::default()
    };
    for word in list(draft, key) {
        let understood = match key {
            "denied-remote-addresses" => words::address(&word).map(|address| rule.remote.push(address)),
            "denied-remote-hosts" => words::host_name(&word).map(|name| rule.remote_names.push(name)),
            _ => words::host_name(&word).map(|name| rule.remote_names.push(format!(".{name}"))),
        };
        if understood.is_none() {
            draft.remark(format!("`{word}` was left out"));
        }
    }
    if rule.remote.is_empty() && rule.remote_names.is_empty() { Vec::new() } else { vec![rule] }
}

/// The words of a text with commas, of a list, or a number; anything else is lost.
fn list(draft: &mut Draft<Json>, key: &str) -> Vec<String> {
    let one = |draft: &mut Draft<Json>, value: Json| match value {
        Json::Text(text) => words::list(&text, &[',']).map(str::to_owned).collect(),
        Json::Number(number) => vec![number.to_string()],
        other => {
            draft.unknown(key, other);
            Vec::new()
        }
    };
    let words: Vec<String> = match draft.take(key) {
        None => return Vec::new(),
        Some(Json::Array(values)) => values.into_iter().flat_map(|value| one(draft, value)).collect(),
        Some(value) => one(draft, value),
    };
    // An empty value is not "any".
    if words.is_empty() {
        draft.unknown(key, "");
    }
    words
}

/// A text, if the field is there; another kind of value, or nothing, is lost.
fn text(draft: &mut Draft<Json>, key: &str) -> Option<String> {
    match draft.take(key)? {
        Json::Text(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Json::Number(number) => Some(number.to_string()),
        other => {
            draft.unknown(key, other);
            None
        }
    }
}

fn rule(draft: &mut Draft<Json>, index: usize) -> Vec<Rule> {
    draft.pass_over(&["creationDate", "modificationDate", "origin", "approved"]);
    let process = text(draft, "process");
    let label = process.as_deref().unwrap_or("rule");
    let mut rule = Rule {
        name: format!("{} {index}", label.rsplit(['/', '\\']).next().unwrap_or(label)),
        note: draft.take("notes").map(|notes| notes.to_string()),
        block: true,
        enabled: true,
        direction: Some("outbound"),
        ..Rule::default()
    };
    match text(draft, "action").as_deref() {
        Some("allow") => rule.block = false,
        Some("deny") => {}
        Some(other) => draft.unknown("action", other),
        None => draft.lost("the missing action"),
    }
    match text(draft, "direction").as_deref() {
        None | Some("outgoing") => {}
        Some("incoming") => rule.direction = Some("inbound"),
        Some("both") => rule.direction = None,
        Some(other) => draft.unknown("direction", other),
    }
    match draft.take("disabled") {
        None | Some(Json::Flag(false)) => {}
        Some(Json::Flag(true)) => rule.enabled = false,
        Some(other) => draft.unknown("disabled", other),
    }
    // Higher priority wins over all lower ones; within one priority, denials come first, so that nothing is permitted
    // by order.
    let high = match text(draft, "priority").as_deref() {
        None | Some("regular") => false,
        Some("high") => true,
        Some(other) => {
            draft.unknown("priority", other);
            false
        }
    };
    rule.rank = u8::from(!high) * 2 + u8::from(!rule.block);
    match process.as_deref() {
        Some("any") => {}
        // Paths on another system do not name programs on this one.
        Some(path) if path.contains('\\') && normalize(path).is_ok() => rule.applications = vec![path.to_owned()],
        Some(path) => draft.lost(format!("the program `{path}` of another system")),
        None => draft.lost("the missing process"),
    }
    // Each of these narrows a rule to the program's user.
    for (key, all) in [("via", ""), ("owner", "any"), ("uid", ""), ("user", "")] {
        if let Some(value) = text(draft, key).filter(|value| value != all) {
            draft.unknown(key, value);
        }
    }
    remotes(draft, &mut rule);
    let mut ports = Vec::new();
    for word in list(draft, "ports").into_iter().filter(|word| word != "any") {
        match words::port(&word) {
            Some(port) => ports.push(port),
            None => draft.unknown("ports", word),
        }
    }
    *if rule.direction == Some("inbound") { &mut rule.local_ports } else { &mut rule.remote_ports } = ports;
    rule.protocol = match text(draft, "protocol") {
        Some(protocol) if protocol == "any" => None,
        Some(protocol) => {
            let lower = protocol.to_ascii_lowercase();
            let known = matches!(lower.as_str(), "tcp" | "udp" | "icmp") || lower.parse::<u8>().is_ok();
            if !known {
                draft.unknown("protocol", protocol);
            }
            known.then_some(lower)
        }
        None => None,
    };
    vec![rule]
}

/// The destination: one of four keys.
fn remotes(draft: &mut Draft<Json>, rule: &mut Rule) {
    let told = ["remote", "remote-domains", "remote-hosts", "remote-addresses"].iter().any(|key| draft.has(key));
    for (key, prefix) in [("remote-domains", "."), ("remote-hosts", "")] {
        for word in list(draft, key) {
            match words::host_name(&word) {
                Some(name) => rule.remote_names.push(format!("{prefix}{name}")),
                None => draft.unknown(key, word),
            }
        }
    }
    for word in list(draft, "remote-addresses") {
        match words::address(&word) {
            Some(address) => rule.remote.push(address),
            None => draft.unknown("remote-addresses", word),
        }
    }
    match text(draft, "remote").as_deref() {
        Some("any") => {}
        Some("local-net") => {
            draft.lost("remote `local-net` (replaced by all private and link-local addresses)");
            rule.remote.extend(["@private".to_owned(), "@link-local".to_owned()]);
        }
        Some("multicast") => rule.remote.push("@multicast".to_owned()),
        Some("broadcast") => rule.remote.push("@broadcast".to_owned()),
        Some(other) => draft.unknown("remote", other),
        None if told && !(rule.remote.is_empty() && rule.remote_names.is_empty()) => {}
        None => draft.lost("the missing destination"),
    }
    if !rule.remote.is_empty() && !rule.remote_names.is_empty() {
        draft.lost("names and addresses in one rule, either of which may match,");
    }
}

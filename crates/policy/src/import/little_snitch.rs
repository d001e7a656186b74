//! Little Snitch rule groups (.lsrules): JSON with `rules`, or with lists of what is denied.

use super::{
    ImportError,
    emit::{self, File, Rule},
};
use serde_json::{Map, Value};

pub(super) fn read(text: &str, file: &mut File) -> Result<(), ImportError> {
    file.origin = "a Little Snitch rule group";
    let value: Value = serde_json::from_str(text)
        .map_err(|error| ImportError::Syntax { line: error.line(), message: error.to_string() })?;
    let Some(group) = value.as_object() else {
        return Err(ImportError::Syntax { line: 1, message: "an object with `rules` is expected".to_owned() });
    };
    for (key, prefix) in [("denied-remote-domains", "."), ("denied-remote-hosts", ""), ("denied-remote-addresses", "-")]
    {
        let words = words(group.get(key));
        if words.is_empty() {
            continue;
        }
        let mut rule = Rule {
            name: key.replace('-', " "),
            block: true,
            enabled: true,
            direction: Some("outbound"),
            ..Rule::default()
        };
        for word in words {
            let found = if prefix == "-" {
                emit::address(&word)
            } else {
                emit::host_name(&word).map(|name| format!("{prefix}{name}"))
            };
            match found {
                Some(found) if prefix == "-" => rule.remote.push(found),
                Some(found) => rule.remote_names.push(found),
                None => file.note(format!("{key}: `{word}` was left out")),
            }
        }
        if !(rule.remote.is_empty() && rule.remote_names.is_empty()) {
            file.push(rule);
        }
    }
    let rules = group.get("rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (index, one) in rules.iter().enumerate() {
        match one.as_object() {
            Some(one) => rule(one, index, file),
            None => file.note(format!("rule {index} is not an object and was left out")),
        }
    }
    if file.len() == 0 {
        return Err(ImportError::Empty("`rules` or `denied-remote-domains` is expected"));
    }
    if !rules.is_empty() {
        file.note("Little Snitch lets the more specific rule win; here the first does: check the order");
    }
    Ok(())
}

fn words(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => {
            text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
        }
        Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::Number(number)) => vec![number.to_string()],
        _ => Vec::new(),
    }
}

fn rule(one: &Map<String, Value>, index: usize, file: &mut File) {
    let text = |key: &str| one.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let process = text("process").unwrap_or("any");
    let mut lost = Vec::new();
    let mut rule = Rule {
        name: format!("{} {index}", process.rsplit(['/', '\\']).next().unwrap_or(process)),
        note: text("notes").map(str::to_owned),
        block: text("action").is_none_or(|action| action != "allow"),
        enabled: !one.get("disabled").and_then(Value::as_bool).unwrap_or(false),
        direction: match text("direction") {
            Some("incoming") => Some("inbound"),
            Some("both") => None,
            _ => Some("outbound"),
        },
        ..Rule::default()
    };
    if text("action") == Some("ask") {
        lost.push("the action `ask`".to_owned());
        rule.enabled = false;
    }
    if !process.eq_ignore_ascii_case("any") {
        // Paths of another system name no program of this one.
        if !process.contains('\\') {
            lost.push(format!("the program `{process}` of another system"));
            rule.enabled = false;
        }
        rule.applications = vec![process.replace('/', "\\")];
    }
    for (key, prefix) in [("remote-domains", "."), ("remote-hosts", "")] {
        for word in words(one.get(key)) {
            match emit::host_name(&word) {
                Some(name) => rule.remote_names.push(format!("{prefix}{name}")),
                None => lost.push(format!("`{word}`")),
            }
        }
    }
    for word in words(one.get("remote-addresses")) {
        match emit::address(&word) {
            Some(address) => rule.remote.push(address),
            None => {
                lost.push(format!("`{word}`"));
                rule.enabled = false;
            }
        }
    }
    match text("remote") {
        None | Some("any") => {}
        Some("local-net") => rule.remote.extend(["@private".to_owned(), "@link-local".to_owned()]),
        Some("multicast") => rule.remote.push("@multicast".to_owned()),
        Some("broadcast") => rule.remote.push("@broadcast".to_owned()),
        Some(other) => {
            lost.push(format!("remote `{other}`"));
            rule.enabled = false;
        }
    }
    let side = if rule.direction == Some("inbound") { &mut rule.local_ports } else { &mut rule.remote_ports };
    for word in words(one.get("ports")).into_iter().filter(|word| word != "any") {
        match emit::port(&word) {
            Some(port) => side.push(port),
            None => {
                lost.push(format!("port `{word}`"));
                rule.enabled = false;
            }
        }
    }
    rule.protocol = text("protocol").filter(|protocol| *protocol != "any").map(str::to_ascii_lowercase);
    if !lost.is_empty() {
        let off = if rule.enabled { "" } else { "; the rule is disabled" };
        file.note(format!("rule {index}: {} cannot be carried over{off}", lost.join(", ")));
    }
    file.push(rule);
}

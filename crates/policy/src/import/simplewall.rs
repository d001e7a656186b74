//! simplewall's profile.xml: `apps/item` are programs that may do everything, `rules_custom/item` are rules.
//!
//! A rule's `rule` and `rule_local` hold addresses, ports and both (`10.0.0.1:80`), separated by semicolons;
//! `dir` is 0 outbound, 1 inbound, 2 both; `protocol` an IP protocol number; `apps` paths separated by bars. What no rule
//! and no program permits is blocked.

use super::{
    ImportError,
    emit::{self, File, Rule},
};
use quick_xml::{Reader, events::Event};
use std::collections::BTreeMap;

type Attributes = BTreeMap<String, String>;

pub(super) fn read(text: &str, file: &mut File) -> Result<(), ImportError> {
    file.origin = "a simplewall profile";
    (file.outbound, file.inbound) = (Some("block"), Some("block"));
    let line_of = |at: u64| text.as_bytes().iter().take(at as usize).filter(|byte| **byte == b'\n').count() + 1;
    let mut reader = Reader::from_str(text);
    let mut section = String::new();
    let (mut items, mut apps) = (Vec::new(), Vec::new());
    let mut rooted = false;
    loop {
        let at = reader.buffer_position();
        let wrong = |message: String| ImportError::Syntax { line: line_of(at), message };
        let event = reader.read_event().map_err(|error| wrong(error.to_string()))?;
        match event {
            Event::Eof => break,
            Event::Start(tag) | Event::Empty(tag) => {
                let name = tag.name().as_ref().to_owned();
                if !rooted && name != "root" {
                    return Err(wrong(format!("<{name}> is found where <root> is expected")));
                }
                rooted = true;
                if name != "item" {
                    section = name;
                    continue;
                }
                let mut attributes = Attributes::new();
                for attribute in tag.attributes() {
                    let attribute = attribute.map_err(|error| wrong(error.to_string()))?;
                    let value = quick_xml::escape::unescape(&attribute.value)
                        .map_err(|error| wrong(error.to_string()))?
                        .into_owned();
                    attributes.insert(attribute.key.as_ref().to_owned(), value);
                }
                match section.as_str() {
                    "apps" => apps.push(attributes),
                    "rules_custom" | "rules_blocklist" | "rules_system" => items.push(attributes),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    for item in &items {
        rule(item, file);
    }
    file.blocks_first();
    let permitted: Vec<String> = apps
        .iter()
        .filter(|app| flag(app, "is_enabled", false))
        .filter_map(|app| app.get("path"))
        .filter(|path| path.contains('\\') || path.eq_ignore_ascii_case("system"))
        .cloned()
        .collect();
    if !permitted.is_empty() {
        file.push(Rule {
            name: "permitted programs".to_owned(),
            enabled: true,
            applications: permitted,
            ..Rule::default()
        });
    }
    if file.len() == 0 {
        return Err(ImportError::Empty("a profile has <rules_custom> or enabled <apps>"));
    }
    Ok(())
}

fn flag(item: &Attributes, key: &str, usual: bool) -> bool {
    item.get(key).map_or(usual, |value| value == "true" || value == "1")
}

fn rule(item: &Attributes, file: &mut File) {
    let name = item.get("name").cloned().unwrap_or_default();
    let mut rule = Rule {
        name: name.clone(),
        note: item.get("comment").cloned(),
        block: flag(item, "is_block", false),
        enabled: flag(item, "is_enabled", false),
        direction: match item.get("dir").map(String::as_str) {
            Some("1") => Some("inbound"),
            Some("2") => None,
            _ => Some("outbound"),
        },
        protocol: item.get("protocol").filter(|number| *number != "0").cloned(),
        ..Rule::default()
    };
    if let Some(apps) = item.get("apps") {
        rule.applications =
            apps.split('|').map(str::trim).filter(|path| path.contains('\\')).map(str::to_owned).collect();
        if rule.applications.is_empty() && !apps.trim().is_empty() {
            file.note(format!(
                "rule `{name}`: its programs `{apps}` are services or packages, which a path cannot name; disabled"
            ));
            rule.enabled = false;
        }
    }
    // Each part is an address, a port, or an address with a port; different pairs become rules of their own.
    let mut pairs: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
    let mut ports = Vec::new();
    for part in parts(item.get("rule")) {
        match side(part) {
            Some((Some(address), port)) => pairs.entry(port).or_default().push(address),
            Some((None, Some(port))) => ports.push(port),
            _ => {
                file.note(format!("rule `{name}`: `{part}` is not understood; the rule is disabled"));
                rule.enabled = false;
            }
        }
    }
    for part in parts(item.get("rule_local")) {
        match side(part) {
            Some((address, port)) => {
                rule.local.extend(address);
                rule.local_ports.extend(port);
            }
            None => {
                file.note(format!("rule `{name}`: `{part}` is not understood; the rule is disabled"));
                rule.enabled = false;
            }
        }
    }
    if matches!(rule.protocol.as_deref(), Some(number) if !["6", "17", "33", "132", "136"].contains(&number))
        && !(ports.is_empty() && rule.local_ports.is_empty())
    {
        file.note(format!("rule `{name}`: its protocol has no ports; they were left out"));
        (ports, rule.local_ports) = (Vec::new(), Vec::new());
    }
    if !ports.is_empty() || pairs.is_empty() {
        let mut one = rule.clone();
        one.remote_ports = ports;
        file.push(one);
    }
    for (port, addresses) in pairs {
        let mut one = rule.clone();
        one.remote = addresses;
        one.remote_ports = port.into_iter().collect();
        file.push(one);
    }
}

fn parts(text: Option<&String>) -> impl Iterator<Item = &str> {
    text.map(String::as_str).unwrap_or_default().split(';').map(str::trim).filter(|part| !part.is_empty())
}

/// An address, a port, or both.
fn side(part: &str) -> Option<(Option<String>, Option<String>)> {
    if let Some(port) = emit::port(part) {
        return Some((None, Some(port)));
    }
    if let Some(address) = emit::address(part) {
        return Some((Some(address), None));
    }
    let (address, port) = part.rsplit_once(':')?;
    Some((Some(emit::address(address)?), Some(emit::port(port)?)))
}

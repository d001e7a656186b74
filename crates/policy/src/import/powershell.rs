//! `Get-NetFirewallRule` as CSV or JSON. The rule alone has neither addresses nor ports nor program: those are expected
//! as columns of the names its filters give them (`Protocol`, `LocalPort`, `RemotePort`, `LocalAddress`,
//! `RemoteAddress`, `Program`, `Service`, `InterfaceType`); docs/policy.md has the command.

use super::{
    ImportError,
    emit::{self, File, Rule},
};
use std::collections::BTreeMap;

pub(super) fn read_csv(text: &str, file: &mut File) -> Result<(), ImportError> {
    file.origin = "Windows Firewall (Get-NetFirewallRule)";
    let body: String = text.lines().filter(|line| !line.starts_with("#TYPE")).map(|line| format!("{line}\n")).collect();
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(body.as_bytes());
    let wrong = |error: &csv::Error| ImportError::Syntax {
        line: error.position().map_or(0, |position| position.line() as usize),
        message: error.to_string(),
    };
    let headers = reader.headers().map_err(|error| wrong(&error))?.clone();
    warn_of_missing(headers.iter(), file);
    for record in reader.records() {
        let record = record.map_err(|error| wrong(&error))?;
        let fields = headers.iter().zip(record.iter()).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        rule(&fields, file);
    }
    settle(file, "a heading with DisplayName, Direction and Action is expected")
}

pub(super) fn read_json(text: &str, file: &mut File) -> Result<(), ImportError> {
    file.origin = "Windows Firewall (Get-NetFirewallRule)";
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| ImportError::Syntax { line: error.line(), message: error.to_string() })?;
    let rules = match value {
        serde_json::Value::Array(rules) => rules,
        one => vec![one],
    };
    if let Some(first) = rules.first().and_then(serde_json::Value::as_object) {
        warn_of_missing(first.keys().map(String::as_str), file);
    }
    for one in &rules {
        let Some(object) = one.as_object() else { continue };
        let text = |value: &serde_json::Value| -> String {
            match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Null => String::new(),
                serde_json::Value::Array(values) => values
                    .iter()
                    .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
                    .collect::<Vec<_>>()
                    .join(","),
                // PowerShell 7 writes enumerations as objects with their name.
                serde_json::Value::Object(inner) => {
                    inner.get("Value").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
                }
                other => other.to_string(),
            }
        };
        let fields = object.iter().map(|(key, value)| (key.clone(), text(value))).collect();
        rule(&fields, file);
    }
    settle(file, "objects with DisplayName, Direction and Action are expected")
}

fn warn_of_missing<'k>(keys: impl Iterator<Item = &'k str>, file: &mut File) {
    let keys: Vec<&str> = keys.collect();
    let missing: Vec<&str> = ["Protocol", "LocalPort", "RemotePort", "RemoteAddress", "Program"]
        .into_iter()
        .filter(|key| !keys.contains(key))
        .collect();
    if !missing.is_empty() {
        file.note(format!(
            "the export has no {}: rules are imported as if they asked for none; export the filters too (docs/policy.md)",
            missing.join(", ")
        ));
    }
}

/// Windows decides: what blocks comes first, then what permits, then the default of its direction.
pub(super) fn settle(file: &mut File, expected: &'static str) -> Result<(), ImportError> {
    if file.len() == 0 {
        return Err(ImportError::Empty(expected));
    }
    (file.outbound, file.inbound) = (Some("permit"), Some("block"));
    file.blocks_first();
    Ok(())
}

/// One rule by the names its fields have in PowerShell.
pub(super) fn rule(fields: &BTreeMap<String, String>, file: &mut File) {
    let get = |key: &str| fields.get(key).map(|value| value.trim()).filter(|value| !value.is_empty());
    let name = get("DisplayName").or_else(|| get("Name")).unwrap_or_default().to_owned();
    let yes = |value: &str| ["true", "yes", "1"].iter().any(|word| value.eq_ignore_ascii_case(word));
    let mut rule = Rule {
        name: name.clone(),
        note: get("Description").or_else(|| get("Grouping")).map(str::to_owned),
        // The enumeration's numbers are those of MSFT_NetFirewallRule.
        block: get("Action").is_some_and(|action| action.eq_ignore_ascii_case("block") || action == "4"),
        enabled: get("Enabled").is_none_or(yes),
        direction: match get("Direction") {
            Some(word) if word.eq_ignore_ascii_case("outbound") || word.eq_ignore_ascii_case("out") || word == "2" => {
                Some("outbound")
            }
            _ => Some("inbound"),
        },
        ..Rule::default()
    };
    let mut lost = Vec::new();
    if let Some(protocol) = get("Protocol").filter(|protocol| !protocol.eq_ignore_ascii_case("any")) {
        let known = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Some("tcp".to_owned()),
            "udp" => Some("udp".to_owned()),
            "icmpv4" => Some("icmp".to_owned()),
            "icmpv6" => Some("icmpv6".to_owned()),
            other => other.parse::<u8>().ok().map(|number| number.to_string()),
        };
        if known.is_none() {
            lost.push(format!("protocol `{protocol}`"));
        }
        rule.protocol = known;
    }
    let words = |key: &str| -> Vec<String> {
        let text = get(key).unwrap_or_default();
        text.split([',', ';']).map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let any = |word: &str| word.eq_ignore_ascii_case("any") || word == "*";
    for (key, local) in [("RemoteAddress", false), ("LocalAddress", true)] {
        for word in words(key).into_iter().filter(|word| !any(word)) {
            let found = if word.eq_ignore_ascii_case("LocalSubnet") {
                lost.push("`LocalSubnet`, taken for private and link-local addresses".to_owned());
                vec!["@private".to_owned(), "@link-local".to_owned()]
            } else if let Some(address) = emit::address(&word) {
                vec![address]
            } else {
                lost.push(format!("{key} `{word}`"));
                rule.enabled = false;
                Vec::new()
            };
            if local { &mut rule.local } else { &mut rule.remote }.extend(found);
        }
    }
    for (key, local) in [("RemotePort", false), ("LocalPort", true)] {
        for word in words(key).into_iter().filter(|word| !any(word)) {
            match emit::port(&word) {
                Some(port) => if local { &mut rule.local_ports } else { &mut rule.remote_ports }.push(port),
                None => {
                    lost.push(format!("{key} `{word}`"));
                    rule.enabled = false;
                }
            }
        }
    }
    if matches!(rule.protocol.as_deref(), Some("icmp" | "icmpv6")) {
        rule.local_ports.clear();
        rule.remote_ports.clear();
        rule.icmp_types = words("IcmpType").into_iter().filter(|word| word.parse::<u8>().is_ok()).collect();
    }
    if let Some(program) = get("Program").filter(|program| !any(program)) {
        rule.applications = vec![program.to_owned()];
    }
    if let Some(service) = get("Service").filter(|service| !any(service)) {
        lost.push(format!("service `{service}`"));
        rule.enabled = false;
    }
    for word in words("InterfaceType").into_iter().filter(|word| !any(word)) {
        match word.to_ascii_lowercase().as_str() {
            "wireless" => rule.interfaces.push("wireless".to_owned()),
            "wired" | "lan" => rule.interfaces.push("ethernet".to_owned()),
            "remoteaccess" | "ras" => rule.interfaces.extend(["ppp".to_owned(), "tunnel".to_owned()]),
            _ => lost.push(format!("interface type `{word}`")),
        }
    }
    if let Some(profile) = get("Profile").filter(|profile| {
        let all = ["any", "all", "domain,private,public", "domain, private, public", "0", "7"];
        !all.iter().any(|word| profile.eq_ignore_ascii_case(word))
    }) {
        lost.push(format!("profile `{profile}`"));
    }
    if !lost.is_empty() {
        let off = if rule.enabled { "" } else { "; the rule is disabled" };
        file.note(format!("rule `{name}`: {} cannot be said in a policy{off}", lost.join(", ")));
    }
    file.push(rule);
}

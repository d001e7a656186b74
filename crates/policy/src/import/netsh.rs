//! `netsh advfirewall firewall show rule name=all [verbose]`: paragraphs of `Key:   Value`.

use super::{ImportError, emit::File, powershell};
use std::collections::BTreeMap;

pub(super) fn read(text: &str, file: &mut File) -> Result<(), ImportError> {
    file.origin = "Windows Firewall (netsh advfirewall)";
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with("---") || trimmed == "Ok." {
            continue;
        }
        // Long lists go on in lines of their own; ICMP types stand in a small table behind the protocol.
        let Some((key, value)) = trimmed.split_once(':').filter(|_| !line.starts_with("    ")) else {
            if last == "Protocol" {
                if !trimmed.starts_with("Type") {
                    let kind = trimmed.split_whitespace().next().unwrap_or_default();
                    append(&mut fields, "IcmpType", kind);
                }
            } else {
                append(&mut fields, &last, trimmed);
            }
            continue;
        };
        let key = key.trim();
        if key == "Rule Name" && !fields.is_empty() {
            powershell::rule(&std::mem::take(&mut fields), file);
        }
        let key = match key {
            "Rule Name" => "DisplayName",
            "LocalIP" => "LocalAddress",
            "RemoteIP" => "RemoteAddress",
            "Profiles" => "Profile",
            "InterfaceTypes" => "InterfaceType",
            other => other,
        };
        last = key.to_owned();
        append(&mut fields, key, value.trim());
    }
    if !fields.is_empty() {
        powershell::rule(&fields, file);
    }
    powershell::settle(file, "`Rule Name:` begins each rule of `netsh advfirewall firewall show rule name=all verbose`")
}

fn append(fields: &mut BTreeMap<String, String>, key: &str, value: &str) {
    let field = fields.entry(key.to_owned()).or_default();
    if !field.is_empty() && !field.ends_with(',') {
        field.push(',');
    }
    field.push_str(value);
}

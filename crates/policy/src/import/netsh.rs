//! `netsh advfirewall firewall show rule name=all [verbose]`: paragraphs of `Key:   Value`.

use super::{
    ImportError,
    emit::File,
    language,
    record::Record,
    windows::{self, Origin},
};

/// The labels that differ from PowerShell's names.
const LABELS: [(&str, &str); 5] = [
    ("Rule Name", "DisplayName"),
    ("LocalIP", "LocalAddress"),
    ("RemoteIP", "RemoteAddress"),
    ("Profiles", "Profile"),
    ("InterfaceTypes", "InterfaceType"),
];

/// Reads the text.
pub(super) fn read(text: &str, file: &mut File) -> Result<(), ImportError> {
    file.origin = "Windows Firewall (netsh advfirewall)";
    if let Some(error) = foreign(text) {
        return Err(error);
    }
    let mut rules: Vec<Record<String>> = Vec::new();
    let mut last = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start_matches('\u{feff}');
        let trimmed = line.trim();
        if trimmed.is_empty() || is_ruler(trimmed) || trimmed == "Ok." {
            continue;
        }
        let indented = line.starts_with(char::is_whitespace);
        let label = trimmed.split_once(':').filter(|_| !indented);
        if let Some(("Rule Name", name)) = label {
            rules.push(Record::new(format!("line {}", index + 1)));
            last = "DisplayName".to_owned();
            add(&mut rules, &last, name.trim());
            continue;
        }
        let Some(rule) = rules.last_mut() else {
            file.note(format!("line {}: `{}` is before the first rule", index + 1, shortened(trimmed)));
            continue;
        };
        match label {
            Some((key, value)) => {
                let known = LABELS.iter().find(|(label, _)| *label == key.trim());
                last = known.map_or(key.trim(), |(_, name)| name).to_owned();
                rule.push(last.clone(), value.trim().to_owned());
            }
            // ICMP types are in a small table after the protocol; long lists continue on further lines.
            None if indented && last == "Protocol" => {
                let words: Vec<&str> = trimmed.split_whitespace().collect();
                match words[..] {
                    ["Type", "Code"] => {}
                    [kind, code] => add(&mut rules, "IcmpType", &format!("{kind}:{code}")),
                    _ => rule.push(format!("line {}", index + 1), trimmed.to_owned()),
                }
            }
            None if indented => add(&mut rules, &last, trimmed),
            None => rule.push(format!("line {}", index + 1), trimmed.to_owned()),
        }
    }
    for rule in rules {
        file.rules(rule, |draft| windows::rule(draft, Origin::Netsh));
    }
    windows::settle(file, "`Rule Name:` begins each rule of `netsh advfirewall firewall show rule name=all verbose`")
}

fn is_ruler(line: &str) -> bool {
    line.len() >= 3 && line.bytes().all(|byte| byte == b'-')
}

/// Adds to a continued list.
fn add(rules: &mut [Record<String>], key: &str, value: &str) {
    let Some(rule) = rules.last_mut() else { return };
    match rule.last_mut(key) {
        Some(text) if text.is_empty() || text.ends_with(',') => text.push_str(value),
        Some(text) => {
            text.push(',');
            text.push_str(value);
        }
        None => rule.push(key, value.to_owned()),
    }
}

/// Why the text is not from an English Windows, if it is not: rules begin with a label over a line of dashes.
fn foreign(text: &str) -> Option<ImportError> {
    let lines: Vec<&str> = text.lines().map(|line| line.trim_start_matches('\u{feff}')).collect();
    let (index, label) = lines.windows(2).enumerate().find_map(|(index, pair)| {
        let (label, _) = pair[0].split_once(':').or_else(|| pair[0].split_once('：'))?;
        (is_ruler(pair[1].trim()) && label.trim() != "Rule Name").then(|| (index, label.trim()))
    })?;
    let language = language::of_label(label).map_or("in another language".to_owned(), |name| format!("in {name}"));
    let message = format!(
        "the labels are {language} (`{}` instead of `Rule Name`): netsh writes in the language of \
         its Windows; export with docs/export-windows-firewall.ps1, which does not",
        shortened(label)
    );
    Some(ImportError::Syntax { line: index + 1, message })
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Whether text looks like netsh's, in any language.
pub(super) fn looks_like(text: &str) -> bool {
    text.lines().any(|line| line.trim_start_matches('\u{feff}').starts_with("Rule Name:")) || foreign(text).is_some()
}

//! Writing policy files.

use super::Imported;
use crate::{
    file::is_program,
    model::{address, names},
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    path::{Path, PathBuf},
};

/// A policy file while rules go in.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) origin: &'static str,
    pub(super) outbound: Option<&'static str>,
    pub(super) inbound: Option<&'static str>,
    rules: Vec<Rule>,
    notes: Vec<String>,
    names: HashMap<String, usize>,
}

/// A rule to be written.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) note: Option<String>,
    pub(super) block: bool,
    pub(super) enabled: bool,
    pub(super) direction: Option<&'static str>,
    pub(super) protocol: Option<String>,
    pub(super) remote: Vec<String>,
    pub(super) local: Vec<String>,
    pub(super) remote_ports: Vec<String>,
    pub(super) local_ports: Vec<String>,
    pub(super) icmp_types: Vec<String>,
    pub(super) applications: Vec<String>,
    pub(super) remote_names: Vec<String>,
    pub(super) interfaces: Vec<String>,
}

impl File {
    /// Remembers what could not be carried over.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds a rule; names are made different.
    pub(super) fn push(&mut self, mut rule: Rule) {
        rule.name = rule.name.chars().filter(|letter| !letter.is_control()).take(60).collect();
        if rule.name.is_empty() {
            rule.name = "unnamed".to_owned();
        }
        let seen = self.names.entry(rule.name.clone()).or_insert(0);
        *seen += 1;
        if *seen > 1 {
            rule.name = format!("{} ({seen})", rule.name);
        }
        let before = rule.applications.len();
        let (kept, strange) = std::mem::take(&mut rule.applications).into_iter().partition(|path| is_program(path));
        rule.applications = kept;
        for path in &strange as &Vec<String> {
            self.note(format!("rule `{}`: `{path}` is not the whole path of a program", rule.name));
        }
        // Without its program it would mean more.
        rule.enabled &= before == 0 || !rule.applications.is_empty();
        self.rules.push(rule);
    }

    /// How many rules there are.
    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// Puts what blocks before what permits, each in its order: the precedence most firewalls have.
    pub(super) fn blocks_first(&mut self) {
        self.rules.sort_by_key(|rule| !rule.block);
    }

    pub(super) fn finish(mut self) -> Imported {
        let mut written = String::new();
        let mut count = 0;
        for rule in &self.rules {
            let mut text = String::new();
            rule.write(&mut text);
            // Other firewalls combine what cannot be said together here, and their files may hold anything.
            match crate::parse(Path::new("rule"), &text, &BTreeMap::<PathBuf, Vec<u8>>::new()) {
                Ok(_) => {
                    count += 1;
                    written.push_str(&text);
                }
                Err(errors) => {
                    let why = errors.diagnostics.first().map_or_else(String::new, |one| one.message.clone());
                    self.notes.push(format!("rule `{}` is written as a comment: {why}", rule.name));
                    written.extend(text.lines().map(|line| match line {
                        "" => "\n".to_owned(),
                        line => format!("# {line}\n"),
                    }));
                }
            }
        }
        let mut toml = format!("# Imported from {}.\n", self.origin);
        for note in &self.notes {
            for line in note.lines() {
                let line: String = line.chars().filter(|letter| !letter.is_control()).collect();
                let _ = writeln!(toml, "# note: {line}");
            }
        }
        if self.outbound.is_some() || self.inbound.is_some() {
            toml.push_str("\n[default]\n");
            for (key, action) in [("outbound", self.outbound), ("inbound", self.inbound)] {
                if let Some(action) = action {
                    let _ = writeln!(toml, "{key} = {}", quoted(action));
                }
            }
        }
        toml.push_str(&written);
        Imported { toml, rules: count, notes: self.notes }
    }
}

impl Rule {
    fn write(&self, toml: &mut String) {
        toml.push_str("\n[[rule]]\n");
        let mut key = |name: &str, value: String| {
            let _ = writeln!(toml, "{name} = {value}");
        };
        key("name", quoted(&self.name));
        if let Some(note) = &self.note {
            key("note", quoted(note));
        }
        key("action", quoted(if self.block { "block" } else { "permit" }));
        if !self.enabled {
            key("enabled", "false".to_owned());
        }
        if let Some(direction) = self.direction {
            key("direction", quoted(direction));
        }
        if let Some(protocol) = &self.protocol {
            key("protocol", quoted(protocol));
        }
        for (name, words) in [
            ("remote", &self.remote),
            ("local", &self.local),
            ("remote-port", &self.remote_ports),
            ("local-port", &self.local_ports),
            ("icmp-type", &self.icmp_types),
            ("application", &self.applications),
            ("remote-name", &self.remote_names),
            ("interface", &self.interfaces),
        ] {
            match &words[..] {
                [] => {}
                [word] => key(name, quoted(word)),
                words => {
                    key(name, format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ")))
                }
            }
        }
    }
}

/// A TOML string: literal where it can be, so that paths stay readable.
pub(super) fn quoted(text: &str) -> String {
    let plain = text.chars().all(|letter| letter != '\'' && !letter.is_control());
    if plain && text.contains('\\') {
        return format!("'{text}'");
    }
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", control as u32);
            }
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}

/// An address, prefix or range in the form policies take, if it is one.
pub(super) fn address(text: &str) -> Option<String> {
    let text = text.trim().trim_start_matches('[').trim_end_matches(']');
    match address::parse_range(text) {
        Ok(_) => match text.split_once('/') {
            // A netmask in dotted form is understood and written as a length.
            Some((network, mask)) if mask.contains('.') => {
                let ones = mask.parse::<std::net::Ipv4Addr>().ok()?.to_bits().leading_ones();
                Some(format!("{network}/{ones}"))
            }
            _ => Some(text.to_owned()),
        },
        Err(address::AddressError::HostBits(network, length)) => Some(format!("{network}/{length}")),
        Err(_) => None,
    }
}

/// A port or range of ports, if it is one.
pub(super) fn port(text: &str) -> Option<String> {
    let text = text.trim();
    let number = |text: &str| text.trim().parse::<u16>().ok();
    match text.split_once('-') {
        Some((low, high)) => {
            let (low, high) = (number(low)?, number(high)?);
            (low <= high).then(|| format!("{low}-{high}"))
        }
        None => number(text).map(|port| port.to_string()),
    }
}

/// A host name, if it is one.
pub(super) fn host_name(text: &str) -> Option<String> {
    names::normalize(text)
}

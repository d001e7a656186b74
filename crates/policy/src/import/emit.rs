//! Writes policy files.

use super::{ImportError, Imported};
use crate::text::is_harmless;
use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write,
    path::{Path, PathBuf},
};

/// A policy file under construction.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) origin: &'static str,
    pub(super) outbound: Option<&'static str>,
    pub(super) inbound: Option<&'static str>,
    /// The export is complete: what it does not show, no rule has a condition on.
    pub(super) complete: bool,
    /// Rules with conditions that the export does not show: the first rule, and how many permit and block.
    wider: BTreeMap<String, (String, [usize; 2])>,
    rules: Vec<Rule>,
    notes: Vec<String>,
    names: HashSet<String>,
}

/// A rule to write.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) note: Option<String>,
    pub(super) block: bool,
    pub(super) enabled: bool,
    /// Rules of a lower rank come first.
    pub(super) rank: u8,
    pub(super) direction: Option<&'static str>,
    pub(super) protocol: Option<String>,
    pub(super) remote: Vec<String>,
    pub(super) local: Vec<String>,
    pub(super) remote_ports: Vec<String>,
    pub(super) local_ports: Vec<String>,
    pub(super) icmp_types: Vec<String>,
    pub(super) icmp_codes: Vec<String>,
    pub(super) applications: Vec<String>,
    pub(super) users: Vec<String>,
    pub(super) services: Vec<String>,
    pub(super) packages: Vec<String>,
    pub(super) remote_names: Vec<String>,
    pub(super) interfaces: Vec<String>,
}

impl File {
    /// An empty file, for an export that is complete or not.
    pub(super) fn new(complete: bool) -> Self {
        Self { complete, ..Self::default() }
    }

    /// Records what could not be carried over.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Records a rule that may match more than its original: one note for all with the same reason.
    pub(super) fn wider(&mut self, why: String, title: String, permits: bool) {
        let (_, counts) = self.wider.entry(why).or_insert((title, [0, 0]));
        counts[usize::from(!permits)] += 1;
    }

    /// Adds a rule; names are made unique. Readers use [`File::rules`], which notes what was lost.
    pub(super) fn push(&mut self, mut rule: Rule) {
        rule.name = rule.name.chars().filter(|letter| !letter.is_control()).take(60).collect();
        if rule.name.is_empty() {
            rule.name = "unnamed".to_owned();
        }
        let mut name = rule.name.clone();
        let mut seen = 1;
        while !self.names.insert(name.clone()) {
            seen += 1;
            name = format!("{} ({seen})", rule.name);
        }
        rule.name = name;
        self.rules.push(rule);
    }

    /// The error that there are no rules, with the first notes.
    pub(super) fn nothing(&self, expected: &str) -> ImportError {
        let first: Vec<&str> = self.notes.iter().take(3).map(String::as_str).collect();
        let why = if first.is_empty() { String::new() } else { format!(" ({})", first.join("; ")) };
        ImportError::Empty(format!("{expected}{why}"))
    }

    /// How many rules there are.
    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// The policy file: rules by rank, each rank in order.
    pub(super) fn finish(mut self) -> Imported {
        self.rules.sort_by_key(|rule| rule.rank);
        for (why, (first, [permits, blocks])) in std::mem::take(&mut self.wider) {
            self.notes.push(format!(
                "{first} and {} more: {why}; {permits} that permit are disabled, since they could permit more, {blocks} \
                 that block are unchanged",
                permits + blocks - 1
            ));
        }
        let mut written = String::new();
        let mut count = 0;
        for rule in &self.rules {
            let mut text = String::new();
            rule.write(&mut text);
            // Other firewalls combine conditions that cannot be combined here, and their files may contain anything.
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
        // All fields by name: a new one does not compile until it is written.
        let Self {
            name,
            note,
            block,
            enabled,
            rank: _,
            direction,
            protocol,
            remote,
            local,
            remote_ports,
            local_ports,
            icmp_types,
            icmp_codes,
            applications,
            users,
            services,
            packages,
            remote_names,
            interfaces,
        } = self;
        toml.push_str("\n[[rule]]\n");
        let mut key = |name: &str, value: String| {
            let _ = writeln!(toml, "{name} = {value}");
        };
        key("name", quoted(name));
        if let Some(note) = note {
            key("note", quoted(note));
        }
        key("action", quoted(if *block { "block" } else { "permit" }));
        if !enabled {
            key("enabled", "false".to_owned());
        }
        if let Some(direction) = direction {
            key("direction", quoted(direction));
        }
        if let Some(protocol) = protocol {
            key("protocol", quoted(protocol));
        }
        for (name, words) in [
            ("remote", remote),
            ("local", local),
            ("remote-port", remote_ports),
            ("local-port", local_ports),
            ("icmp-type", icmp_types),
            ("icmp-code", icmp_codes),
            ("application", applications),
            ("user", users),
            ("service", services),
            ("package", packages),
            ("remote-name", remote_names),
            ("interface", interfaces),
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

/// A TOML string: literal if possible, so that paths stay readable.
pub(super) fn quoted(text: &str) -> String {
    let plain = text.chars().all(|letter| letter != '\'' && is_harmless(letter));
    if plain && text.contains('\\') {
        return format!("'{text}'");
    }
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            letter if !is_harmless(letter) => {
                let number = letter as u32;
                let _ =
                    if number > 0xffff { write!(quoted, "\\U{number:08X}") } else { write!(quoted, "\\u{number:04X}") };
            }
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}

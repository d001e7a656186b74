//! Converts rules of other firewalls to a policy file.
//!
//! A note names whatever cannot be carried over, with its place, and its rule is written disabled. No reader takes an
//! unknown value for a default: see [`record`].

mod emit;
mod json;
mod language;
mod little_snitch;
mod netsh;
mod record;
mod simplewall;
mod table;
mod windows;
mod words;

use serde::Serialize;

/// The source of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A simplewall profile (profile.xml).
    Simplewall,
    /// The text of `netsh advfirewall firewall show rule name=all verbose`.
    Netsh,
    /// `Get-NetFirewallRule` with its filters, through `ConvertTo-Csv`.
    WindowsCsv,
    /// `Get-NetFirewallRule` with its filters, through `ConvertTo-Json`.
    WindowsJson,
    /// A Little Snitch rule group (.lsrules).
    LittleSnitch,
}

impl Source {
    /// The source that a file's text looks like.
    #[must_use]
    pub fn detect(text: &str) -> Option<Self> {
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let head: String = text.chars().take(4000).collect();
        if head.starts_with('<') {
            return head.contains("<root").then_some(Self::Simplewall);
        }
        if head.starts_with(['{', '[']) {
            let snitch = ["\"denied-remote", "\"process\"", "\"remote-domains\"", "\"remote-addresses\"", "\"rules\""];
            return Some(if snitch.iter().any(|key| text.contains(key)) {
                Self::LittleSnitch
            } else {
                Self::WindowsJson
            });
        }
        if netsh::looks_like(text) {
            return Some(Self::Netsh);
        }
        let heading = |line: &&str| !(line.starts_with("#TYPE") || line.starts_with("sep=") || line.trim().is_empty());
        let first = head.lines().find(heading)?;
        let known = ["DisplayName", "Direction"].iter().any(|name| first.contains(name));
        let labelled = first.split([',', ';', '\t']).any(|cell| language::of_label(cell.trim_matches('"')).is_some());
        (known || labelled).then_some(Self::WindowsCsv)
    }
}

/// A policy made from another firewall's rules.
#[derive(Clone, Debug, Serialize)]
pub struct Imported {
    /// The policy file.
    pub toml: String,
    /// How many rules it has.
    pub rules: usize,
    /// What could not be carried over.
    pub notes: Vec<String>,
}

/// Why nothing could be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The text is not of the expected form.
    #[error("line {line}: {message}")]
    Syntax {
        /// 1-based; 0 where it is not known.
        line: usize,
        /// What was found, and what is expected.
        message: String,
    },
    /// There is no rule in it.
    #[error("it contains no rules; {0}")]
    Empty(String),
}

/// Turns another firewall's rules into a policy file.
///
/// # Errors
/// [`ImportError`].
pub fn import(source: Source, text: &str) -> Result<Imported, ImportError> {
    read(source, text, false)
}

/// As [`import`], for a complete export: what it does not show, no rule has a condition on.
///
/// # Errors
/// [`ImportError`].
pub fn import_complete(source: Source, text: &str) -> Result<Imported, ImportError> {
    read(source, text, true)
}

fn read(source: Source, text: &str, complete: bool) -> Result<Imported, ImportError> {
    let text = text.trim_start_matches('\u{feff}');
    let mut file = emit::File::new(complete);
    match source {
        Source::Simplewall => simplewall::read(text, &mut file)?,
        Source::Netsh => netsh::read(text, &mut file)?,
        Source::WindowsCsv => table::read_csv(text, &mut file)?,
        Source::WindowsJson => table::read_json(text, &mut file)?,
        Source::LittleSnitch => little_snitch::read(text, &mut file)?,
    }
    Ok(file.finish())
}

#[cfg(test)]
mod tests;

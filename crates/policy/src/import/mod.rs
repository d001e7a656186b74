//! Rules of other firewalls as a policy file.
//!
//! Whatever cannot be carried over is said in a note and, where a rule would mean something else without it, the rule
//! is written disabled.

mod emit;
mod little_snitch;
mod netsh;
mod powershell;
mod simplewall;

use serde::Serialize;

/// Where rules come from.
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
    /// The source a file's text looks like.
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
        if head.contains("Rule Name:") {
            return Some(Self::Netsh);
        }
        let first = head.lines().find(|line| !line.starts_with("#TYPE"))?;
        (first.contains("DisplayName") || first.contains("Direction")).then_some(Self::WindowsCsv)
    }
}

/// A policy made of another firewall's rules.
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
        /// What was found and expected.
        message: String,
    },
    /// There is no rule in it.
    #[error("there is no rule in it; {0}")]
    Empty(&'static str),
}

/// Turns another firewall's rules into a policy file.
///
/// # Errors
/// [`ImportError`].
pub fn import(source: Source, text: &str) -> Result<Imported, ImportError> {
    let text = text.trim_start_matches('\u{feff}');
    let mut file = emit::File::default();
    match source {
        Source::Simplewall => simplewall::read(text, &mut file)?,
        Source::Netsh => netsh::read(text, &mut file)?,
        Source::WindowsCsv => powershell::read_csv(text, &mut file)?,
        Source::WindowsJson => powershell::read_json(text, &mut file)?,
        Source::LittleSnitch => little_snitch::read(text, &mut file)?,
    }
    Ok(file.finish())
}

#[cfg(test)]
mod tests;

//! Answers what a rule asks by another rule, which is written into the policy before it.

use crate::ask::Question;
use crate::disk::{Disk, MAX_POLICY_FILE};
use crate::error::ControlError;
use crate::policy::{LoadReport, Loading, load_at, local_moment};
use crate::read::policy_of;
use sluice_host::Host;
use sluice_policy::Verdict;
use sluice_policy::model::Policy;
use std::fmt::Write as _;
use std::path::Path;

/// Writes a rule into a policy file that decides what is asked about: the same program, to the same address, port and
/// protocol. Then loads that policy, which closes the question. If it does not load, the file is as it was.
///
/// # Errors
/// The file is not the policy that asks, or cannot be read or written; the program is not known; or as
/// [`load`](crate::load).
pub fn answer_by_rule(
    host: &dyn Host,
    file: &Path,
    question: &Question,
    verdict: Verdict,
) -> Result<LoadReport, ControlError> {
    let failed = |source| ControlError::PolicyFile { path: file.to_owned(), source };
    let before = sluice_files::read(file, MAX_POLICY_FILE).map_err(failed)?;
    let policy = policy_of(file, before.clone(), &Disk::default())?;
    let asks = question.rule_name.as_ref().and_then(|name| policy.rules.iter().find(|rule| rule.name == *name));
    let cannot = |why| ControlError::NoRuleToAnswer { path: file.to_owned(), why };
    let place = asks.ok_or_else(|| cannot("it has no rule of the name of the one that asks"))?.span.start;
    let application = question.application.as_deref().filter(|_| !question.application_cut);
    let application = application.ok_or_else(|| cannot("the path of the program is not known as a whole"))?;
    let mut after = before.clone();
    after.splice(place..place, rule(&policy, question, application, verdict).into_bytes());
    let changed = policy_of(file, after.clone(), &Disk::default())?;
    sluice_files::replace(file, &after, &[]).map_err(failed)?;
    load_at(host, &changed, local_moment(), Loading::DEFAULT).or_else(|error| {
        sluice_files::replace(file, &before, &[]).map_err(failed)?;
        Err(error)
    })
}

/// The rule, as the file will have it.
fn rule(policy: &Policy, question: &Question, application: &str, verdict: Verdict) -> String {
    let action = if verdict == Verdict::Permit { "permit" } else { "block" };
    let program = application.rsplit('\\').next().unwrap_or(application);
    let visible: String = program.chars().filter(|letter| !letter.is_control()).take(40).collect();
    let named = format!("answered: {visible} to {}", question.remote_address);
    // Names differ: there may be an answer about another port.
    let taken = |name: &str| policy.rules.iter().any(|rule| rule.name == name);
    let numbered = (2..).map(|number| format!("{named} ({number})"));
    let name = std::iter::once(named.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(named.clone());
    let protocol = question.protocol.strip_prefix("protocol ").unwrap_or(&question.protocol);
    let mut text = format!("[[rule]]\nname = {}\naction = \"{action}\"\ndirection = \"outbound\"\n", quoted(&name));
    // Writing into a string does not fail.
    let _ = writeln!(text, "application = {}", quoted(application));
    let _ = writeln!(text, "remote = \"{}\"\nprotocol = \"{protocol}\"", question.remote_address);
    if matches!(protocol, "tcp" | "udp") {
        let _ = writeln!(text, "remote-port = {}", question.remote_port);
    }
    text.push('\n');
    text
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            _ if letter.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(letter))),
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_of_toml_says_what_it_was_made_of() {
        assert_eq!(quoted("\\Device\\a \"b\"\u{1b}"), r#""\\Device\\a \"b\"\u001B""#);
    }
}

//! Programs: the paths that policies write, and those that the kernel reports.

use sluice_host::Host;
use sluice_policy::model::{Moment, Policy, program};

/// The prefix of programs' NT paths.
const DEVICE: &str = r"\device\";

/// The NT path of a program on this machine.
pub(crate) fn app_id(host: &dyn Host, path: &str) -> Result<String, String> {
    if is_nt_path(path) || is_kernel(path) {
        return Ok(path.to_owned());
    }
    let expanded = expanded(path, |name| host.environment(name).map_err(|error| error.to_string()))?;
    host.app_id(&expanded).map_err(|error| error.to_string())
}

/// The path with its leading environment variable, as Windows' own firewall writes programs
/// (`%SystemRoot%\system32\svchost.exe`), replaced by its value. The value is the machine's: one from the caller's
/// environment could have been set by any of the user's programs.
fn expanded(path: &str, value: impl Fn(&str) -> Result<Option<String>, String>) -> Result<String, String> {
    match path.strip_prefix('%').and_then(|rest| rest.split_once('%')) {
        Some((name, rest)) => match value(name)? {
            Some(value) => Ok(value + rest),
            None => Err(format!("the machine has no environment variable `{name}` (a user's variables are ignored)")),
        },
        None => Ok(path.to_owned()),
    }
}

/// The kernel itself, which has no path.
fn is_kernel(path: &str) -> bool {
    path.eq_ignore_ascii_case("system")
}

/// An NT path that a program path in normal form could have on some machine.
///
/// # Errors
/// None: every such program could be on some machine.
pub fn assumed_app_id(path: &str) -> Result<String, String> {
    let folded = program::fold(path);
    if is_nt_path(path) || is_kernel(path) { Ok(folded) } else { Ok(format!("{DEVICE}{folded}")) }
}

fn is_nt_path(path: &str) -> bool {
    path.get(..DEVICE.len()).is_some_and(|start| start.eq_ignore_ascii_case(DEVICE))
}

/// Programs that the rules in force at `now` name and that are not on this machine.
pub(crate) fn missing_programs(host: &dyn Host, policy: &Policy, now: Moment) -> Vec<String> {
    let active = policy.rules.iter().filter(|rule| rule.active(&policy.schedules, Some(now)));
    let programs = active.flat_map(|rule| rule.applications.iter().flatten()).map(|path| path.value.as_str());
    let missing = |path: &&str| app_id(host, path.strip_suffix(r"\*").unwrap_or(path)).is_err();
    let mut missing: Vec<String> = programs.filter(missing).map(str::to_owned).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// Aliases of interfaces that the rules in force at `now` name and that are not on this machine.
pub(crate) fn missing_interfaces(host: &dyn Host, policy: &Policy, now: Moment) -> Vec<String> {
    let active = policy.rules.iter().filter(|rule| rule.active(&policy.schedules, Some(now)));
    let aliases = active.flat_map(|rule| &rule.aliases).map(|alias| alias.value.clone());
    let mut missing: Vec<String> = aliases.filter(|alias| host.interface_luid(alias).is_err()).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_come_first() {
        let value = |name: &str| Ok((name == "SystemRoot").then(|| r"C:\Windows".to_owned()));
        assert_eq!(expanded(r"%SystemRoot%\a.exe", value).as_deref(), Ok(r"C:\Windows\a.exe"));
        assert_eq!(expanded(r"C:\a.exe", value).as_deref(), Ok(r"C:\a.exe"));
        assert!(expanded(r"%Nothing%\a.exe", value).unwrap_err().contains("no environment variable `Nothing`"));
    }
}

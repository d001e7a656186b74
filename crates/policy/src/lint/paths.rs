//! Variables in programs' paths that mean nothing to a policy, which holds for the machine and not for a user.

use super::warning;
use crate::{diagnostic::Diagnostic, model::Policy};

/// Variables that every Windows has for the machine, in lower case.
const OF_THE_MACHINE: [&str; 13] = [
    "systemroot",
    "windir",
    "systemdrive",
    "programfiles",
    "programfiles(x86)",
    "programw6432",
    "commonprogramfiles",
    "commonprogramfiles(x86)",
    "commonprogramw6432",
    "programdata",
    "allusersprofile",
    "public",
    "comspec",
];

/// Variables that each user has for himself; the machine has none of them, or means another folder by it.
const OF_A_USER: [&str; 11] = [
    "userprofile",
    "appdata",
    "localappdata",
    "temp",
    "tmp",
    "homepath",
    "homedrive",
    "homeshare",
    "username",
    "userdomain",
    "onedrive",
];

pub(super) fn variables(policy: &Policy, found: &mut Vec<Diagnostic>) {
    for (index, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| rule.enabled) {
        for path in rule.applications.iter().flatten() {
            let Some((what, help)) = wrong(&path.value) else { continue };
            let key = format!("rule[{index}].application");
            found.push(warning(policy, path.span.clone(), what).key(key).help(help));
        }
    }
}

/// What is wrong with the variables of a path, and what to write instead.
fn wrong(path: &str) -> Option<(String, &'static str)> {
    let inner = path.get(1..).and_then(variable);
    let Some(name) = path.strip_prefix('%').and_then(|rest| rest.split_once('%')).map(|(name, _)| name) else {
        let what = format!("`%{}%` is taken literally: only at the beginning of a path is a variable replaced", inner?);
        return Some((what, "write the folder"));
    };
    let lower = name.to_ascii_lowercase();
    if OF_A_USER.contains(&lower.as_str()) {
        let what =
            format!("`%{name}%` is each user's own, and a policy holds for the machine: no user's program is matched");
        return Some((what, r"write the folder, as in `C:\Users\NAME\AppData\Local\Programs\*`"));
    }
    if !OF_THE_MACHINE.contains(&lower.as_str()) {
        let what =
            format!("`%{name}%` is not a variable that every Windows has: where it is missing, no program is matched");
        return Some((what, "write the folder, or set the variable for the machine and not for a user"));
    }
    None
}

/// The name of a variable within a text. A percent sign alone is a letter like any other.
fn variable(text: &str) -> Option<&str> {
    let name = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    text.split('%').skip(1).step_by(2).find(name).filter(|_| text.matches('%').count() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_the_machines_and_come_first() {
        for good in [r"%SystemRoot%\a.exe", r"%ProgramFiles(x86)%\*", r"C:\100%\a.exe", "System", "/usr/bin/curl"] {
            assert_eq!(wrong(good), None, "{good}");
        }
        for (bad, what) in [
            (r"%LocalAppData%\a.exe", "each user's own"),
            (r"%TEMP%\*", "each user's own"),
            (r"%JAVA_HOME%\bin\java.exe", "not a variable that every Windows has"),
            (r"C:\Users\%USERNAME%\a.exe", "taken literally"),
        ] {
            let found = wrong(bad).unwrap_or_else(|| panic!("{bad}"));
            assert!(found.0.contains(what), "{found:?}");
        }
    }
}

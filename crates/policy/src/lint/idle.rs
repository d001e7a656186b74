//! Permits that change nothing: without them the same flows would be permitted in the same way.

use super::{PAIRS, warning};
use crate::{
    diagnostic::Diagnostic,
    diff::Extent,
    flow::Direction,
    model::{Action, Policy, Rule},
};

pub(super) fn idle(policy: &Policy, found: &mut Vec<Diagnostic>) {
    // A list is another one tomorrow: who writes an exception from it means what it may come to hold.
    let listed = policy.lists.iter().any(|list| list.addresses.is_some());
    let extent = |rule: &Rule| if listed { Extent::anywhere(rule) } else { Extent::of(rule) };
    let extents: Vec<Extent> = policy.rules.iter().map(extent).collect();
    for (index, rule) in policy.rules.iter().enumerate() {
        let spared = Direction::ALL.into_iter().filter(|one| rule.is_for(*one));
        let by_default = spared.into_iter().all(|one| policy.defaults.of(one) == Action::Permit);
        if !rule.enabled || !plain(rule) || !by_default {
            continue;
        }
        // What comes after it and would say something else about a flow of its own. Of more rules than are looked at, one
        // may be among the rest.
        let mut later = policy.rules.iter().zip(&extents).skip(index + 1);
        let decides = |(one, extent): (&Rule, &Extent)| one.enabled && !plain(one) && extents[index].overlaps(extent);
        if later.by_ref().take(PAIRS).any(decides) || later.next().is_some() {
            continue;
        }
        let message = format!(
            "rule `{}` changes nothing: the default permits what it permits, and no later rule says otherwise",
            rule.name
        );
        let help = "set the default to block if nothing else is to pass, or remove the rule";
        found.push(warning(policy, rule.span.clone(), message).key(format!("rule[{index}]")).help(help));
    }
}

/// Whether a rule says no more than a default that permits: a hard permit overrules other filters, and one that is logged
/// makes an event.
fn plain(rule: &Rule) -> bool {
    rule.action == Action::Permit && !rule.hard && !rule.log
}

#[cfg(test)]
mod tests {
    use crate::{lint, parse};
    use std::{collections::BTreeMap, path::Path, path::PathBuf};

    /// Whether the permit in `first` is said to change nothing with what follows it.
    fn idle(default: &str, first: &str, after: &str) -> bool {
        let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        let text = format!(
            "[default]\noutbound = \"{default}\"\n[[rule]]\nname = \"first\"\naction = \"permit\"\n\
             direction = \"outbound\"\n{first}\n{after}\n"
        );
        let policy = parse(Path::new("policy.toml"), &text, &files).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        lint(&policy).iter().any(|one| one.message.starts_with("rule `first` changes nothing"))
    }

    const WEB: &str = "remote-port = 443";

    #[test]
    fn a_permit_before_a_default_that_permits_changes_nothing() {
        assert!(idle("permit", WEB, ""));
        assert!(!idle("block", WEB, ""));
        assert!(!idle("permit", "remote-port = 443\nlog = true", ""));
        assert!(!idle("permit", "remote-port = 443\nstrength = \"hard\"", ""));
        assert!(!idle("permit", "remote-port = 443\nenabled = false", ""));
    }

    #[test]
    fn one_that_is_an_exception_from_a_later_rule_does() {
        assert!(!idle("permit", WEB, "[[rule]]\naction = \"block\"\nremote-port = \"400-500\""));
        assert!(!idle("permit", WEB, "[[rule]]\naction = \"permit\"\nlog = true"));
        assert!(idle("permit", WEB, "[[rule]]\naction = \"block\"\nremote-port = 80"));
        assert!(idle("permit", WEB, "[[rule]]\naction = \"block\"\nenabled = false"));
        let elsewhere = "[[rule]]\naction = \"block\"\nremote = \"192.0.2.1\"";
        assert!(idle("permit", "remote = \"192.0.2.2\"", elsewhere));
        let list = "[[rule]]\naction = \"block\"\nremote = \"@bad\"\n[list.bad]\nentries = [\"192.0.2.1\"]";
        assert!(!idle("permit", "remote = \"192.0.2.2\"", list));
    }
}

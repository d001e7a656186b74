//! Rules about ports that name addresses, and so miss who asks for all of them.

use super::warning;
use crate::{
    diagnostic::Diagnostic,
    flow::Direction,
    model::{Policy, Rule},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Warns of rules that block who listens on, or binds, an address of this machine, but not who does so on every address:
/// that program is reached by the same address.
pub(super) fn missed(policy: &Policy, found: &mut Vec<Diagnostic>) {
    for (index, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| rule.enabled) {
        let Some((direction, every)) = misses(rule) else { continue };
        let message = format!(
            "rule `{}` does not match a program that asks to {} on every address ({every}), and so on these",
            rule.name,
            direction.word()
        );
        let help = format!("add `{every}` to `local`, or leave `local` out");
        found.push(warning(policy, rule.span.clone(), message).key(format!("rule[{index}].local")).help(help));
    }
}

/// The unspecified address that a rule leaves out, of a family of which it has others.
fn misses(rule: &Rule) -> Option<(Direction, IpAddr)> {
    let direction =
        rule.direction.filter(|direction| direction.is_local() && rule.action.verdict() == crate::Verdict::Block)?;
    let local = rule.local.as_deref()?;
    let families = [
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), local.v4.ranges().is_empty()),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), local.v6.ranges().is_empty()),
    ];
    let missed = families.into_iter().find(|(every, none)| !none && !local.contains(*every))?;
    Some((direction, missed.0))
}

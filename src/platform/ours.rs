//! Which rule of a policy decides about traffic that an event tells of.

use crate::failure::Failure;
use serde::Serialize;
use sluice_control::read_policy_elsewhere;
use sluice_diagnose::record::{Direction as Way, Ends, Filter, NetEvent};
use sluice_policy::model::Decider;
use sluice_policy::{AppId, CompileOptions, Direction, Flow, Policy, Reference, Verdict, flow::unspecified};
use sluice_protocol::object::{PROVIDER, native};
use std::path::{Path, PathBuf};

/// A policy whose rules are asked.
pub(super) struct Rules {
    path: PathBuf,
    policy: Policy,
}

/// What a policy says about an event's traffic.
#[derive(Debug, Serialize)]
pub(super) struct Ruling {
    /// The policy's file.
    pub(super) file: PathBuf,
    /// The line of the rule.
    pub(super) line: Option<usize>,
    /// What decides, in words.
    pub(super) by: String,
    /// `permit` or `block`.
    pub(super) verdict: &'static str,
}

/// Whether a filter is one of ours: of the driver, or of `load --native`.
pub(super) fn is_ours(filter: &Filter) -> bool {
    filter
        .provider
        .as_ref()
        .and_then(sluice_diagnose::Key::guid)
        .is_some_and(|key| matches!(key.0, PROVIDER | native::PROVIDER))
}

/// A path without its drive or volume, which differ between what policies and machines say.
pub(super) fn volume_free(path: &str) -> String {
    let folded = path.to_lowercase();
    let rest = match folded.strip_prefix(r"\device\") {
        Some(rest) => rest.split_once('\\').map(|(_, rest)| rest),
        None => folded.get(1..).and_then(|rest| rest.strip_prefix(r":\")),
    };
    rest.map_or(folded.clone(), |rest| format!(r"\device\volume\{rest}"))
}

impl Rules {
    /// Reads the policy.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        Ok(Self { path: path.to_owned(), policy: read_policy_elsewhere(path)? })
    }

    /// What the policy says about an event's traffic. Programs are compared without their drives. Where the event does
    /// not tell who opened the conversation, the direction in which it is blocked counts.
    pub(super) fn about(&self, event: &NetEvent, layer: &str) -> Option<Ruling> {
        let application = |path: &str| Ok(volume_free(path));
        let options = CompileOptions { application: &application, key: [0; 16], at: None };
        let reference = Reference::new(&self.policy, &options);
        let app: Option<Vec<u8>> = event
            .app
            .as_deref()
            .map(|app| volume_free(app).encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect());
        let directions: &[Direction] = match layer {
            layer if layer.starts_with("ALE_AUTH_CONNECT") => &[Direction::Outbound],
            layer if layer.starts_with("ALE_AUTH_RECV_ACCEPT") => &[Direction::Inbound],
            layer if layer.starts_with("IPFORWARD") => &[Direction::Forward],
            layer if layer.starts_with("ALE_AUTH_LISTEN") => &[Direction::Listen],
            layer if layer.starts_with("ALE_RESOURCE_ASSIGNMENT") => &[Direction::Bind],
            _ if event.direction == Some(Way::Forward) => &[Direction::Forward],
            _ => &[Direction::Outbound, Direction::Inbound],
        };
        let local = event.local?;
        // Who binds or listens has no other side.
        let remote = event.remote.or_else(|| directions[0].is_local().then(|| unspecified(local)))?;
        let ends = (local, event.local_port.unwrap_or(0), remote, event.remote_port.unwrap_or(0));
        let mut sides = vec![ends];
        if event.ends == Ends::SourceDestination {
            sides.push((ends.2, ends.3, ends.0, ends.1));
        }
        let mut rulings = Vec::new();
        for direction in directions {
            for (local, local_port, remote, remote_port) in &sides {
                // Only TCP listens, and that layer's events need not say so.
                let protocol = if *direction == Direction::Listen { 6 } else { event.protocol? };
                let mut flow = Flow::new(*direction, protocol, *local, *local_port, *remote, *remote_port);
                if let Some(app) = &app {
                    flow = flow.with_application(AppId(app));
                }
                let decision = reference.decide(&flow);
                let rule = decision.rule.and_then(|rule| self.policy.rules.get(rule as usize));
                let by = match rule {
                    Some(rule) => format!("rule `{}`", rule.name),
                    None => Decider::of(&decision, None).to_string(),
                };
                let line = decision.rule.and_then(|rule| self.policy.line_of(rule as usize));
                let verdict = if decision.verdict == Verdict::Block { "block" } else { "permit" };
                rulings.push(Ruling { file: self.path.clone(), line, by, verdict });
            }
        }
        let wanted = if event.kind.is_drop() { "block" } else { "permit" };
        let at = rulings.iter().position(|ruling| ruling.verdict == wanted).unwrap_or(0);
        (!rulings.is_empty()).then(|| rulings.swap_remove(at))
    }
}

impl Ruling {
    /// In words.
    pub(super) fn said(&self, drop: bool) -> String {
        let place = match self.line {
            Some(line) => format!("{}:{line}", self.file.display()),
            None => self.file.display().to_string(),
        };
        match (drop, self.verdict) {
            (true, "block") | (false, "permit") => format!("{} ({place})", self.by),
            (_, verdict) => format!(
                "{place} says {verdict}, by {}: it is not the policy that was in force then, or something that the event \
                 does not tell decided",
                self.by
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_and_volumes_are_alike() {
        for path in [r"C:\Windows\x.exe", r"\device\harddiskvolume3\windows\X.exe", r"D:\windows\x.exe"] {
            assert_eq!(volume_free(path), r"\device\volume\windows\x.exe");
        }
        assert_eq!(volume_free("System"), "system");
    }
}

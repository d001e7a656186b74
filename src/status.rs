//! `sluice status`.

use crate::failure::Failure;
use crate::output::{BAD, GOOD, LABEL, Output, WARNING};
use sluice_control::install::start_text;
use sluice_control::kept::KeptPolicy;
use sluice_control::native::NativeState;
use sluice_control::objects::Fail;
use sluice_control::status::{DriverState, StatusReport};
use sluice_control::{AppliedBundle, ControlError};
use sluice_host::Host;
use sluice_host::ServiceState;
use sluice_protocol::status::Counter;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

/// The width of the first column.
const COLUMN: usize = 10;

pub(crate) fn status(host: &dyn Host, output: &mut Output) -> Result<ExitCode, Failure> {
    let report = sluice_control::status(host)?;
    output.report(&report, |out| text(&report, out))?;
    // Filters that decide without the driver are whole without it.
    if report.native.as_ref().is_some_and(|native| native.changed.is_empty()) && report.service == ServiceState::Absent
    {
        return Ok(ExitCode::SUCCESS);
    }
    // The same exit statuses as a verb that needs the driver.
    let absent = match report.service {
        ServiceState::Absent => ControlError::NotInstalled,
        ServiceState::Stopped | ServiceState::StopPending => ControlError::NotLoaded,
        ServiceState::Running => return Ok(ExitCode::SUCCESS),
    };
    Ok(ExitCode::from(Failure::from(absent).exit_status()))
}

fn text(report: &StatusReport, out: &mut dyn Write) -> io::Result<()> {
    let (style, state) = match report.service {
        ServiceState::Absent => (BAD, "not installed"),
        ServiceState::Stopped => (WARNING, "installed, not loaded"),
        ServiceState::Running => (GOOD, "loaded"),
        ServiceState::StopPending => (WARNING, "unloading: a program has its device open"),
    };
    line(out, "driver", format_args!("{style}{state}{style:#}"))?;
    if let Some(file) = &report.driver_file {
        line(out, "file", file)?;
    }
    if let Some(start) = report.start {
        line(out, "starts", start_text(start))?;
        line(out, "fails", &report.fail)?;
        if report.fails_otherwise() {
            let how = if report.fail == Fail::Open { "closed" } else { "open" };
            line(out, "", format_args!("{WARNING}the loaded driver fails {how}{WARNING:#} until it is loaded again"))?;
        }
    }
    if let Some(native) = &report.native {
        native_text(native, out)?;
    }
    if let Some(why) = &report.filters_unknown {
        line(out, "filters", format_args!("{BAD}unknown{BAD:#}: {why}"))?;
    } else if report.disabled {
        line(out, "filters", format_args!("{WARNING}switched off{WARNING:#}; `sluice enable` switches them on"))?;
    } else if report.filters_complete {
        line(out, "filters", format_args!("{GOOD}{}{GOOD:#}", report.filters.len()))?;
    } else if report.filters.is_empty() && report.native.is_some() {
        // Theirs are above.
    } else if report.filters.is_empty() {
        line(out, "filters", format_args!("{BAD}none{BAD:#}"))?;
    } else {
        let count = report.filters.len();
        line(out, "filters", format_args!("{BAD}{count}, not as expected{BAD:#}; `sluice install` fixes this"))?;
        for what in &report.missing {
            line(out, "", format_args!("{BAD}missing{BAD:#} {what}"))?;
        }
        for change in &report.changed {
            line(out, "", format_args!("{BAD}changed{BAD:#} {change}"))?;
        }
    }
    for foreign in &report.foreign {
        line(out, "", format_args!("{WARNING}foreign{WARNING:#} {foreign}"))?;
    }
    for filter in &report.filters {
        line(out, "", format_args!("{:24} filter {}", filter.layer, filter.id))?;
    }
    report.driver.as_ref().map_or(Ok(()), |driver| driver_text(driver, out))?;
    kept_text(report, out)?;
    if let Some(key) = &report.trusted {
        line(out, "trusts", format_args!("only bundles that {key} has signed"))?;
    }
    match &report.bundle {
        Some(AppliedBundle { damaged: Some(why), .. }) => {
            line(out, "bundle", format_args!("{BAD}damaged{BAD:#}: {why}; `sluice apply` one with --allow-rollback"))?;
        }
        Some(bundle) => {
            let AppliedBundle { policy, version, signer, .. } = bundle;
            line(out, "bundle", format_args!("version {version} of {policy}, signed by {signer}"))?;
        }
        None => {}
    }
    for moved in &report.moved {
        line(out, "", format_args!("{BAD}moved{BAD:#} {moved}: `sluice load` it again"))?;
    }
    Ok(())
}

/// The filters that decide without the driver.
fn native_text(native: &NativeState, out: &mut dyn Write) -> io::Result<()> {
    let style = if native.changed.is_empty() { GOOD } else { BAD };
    line(out, "native", format_args!("{style}{} filters decide without the driver{style:#}", native.filters))?;
    line(out, "", format_args!("from {}", native.policy))?;
    for (layer, count) in &native.layers {
        line(out, "", format_args!("{layer:24} {count} filters"))?;
    }
    for what in &native.changed {
        line(out, "", format_args!("{BAD}changed{BAD:#} {what}; `sluice load --native` mends it"))?;
    }
    Ok(())
}

/// What the next start of the driver brings, and what the last one brought.
fn kept_text(report: &StatusReport, out: &mut dyn Write) -> io::Result<()> {
    match &report.kept {
        Some(KeptPolicy { damaged: Some(why), .. }) => {
            line(out, "kept", format_args!("{BAD}damaged{BAD:#}: {why}; `sluice load` replaces it"))?;
        }
        Some(_) if report.keeps_what_is_in_force() => line(out, "kept", "the policy in force")?,
        Some(KeptPolicy { identity, rules, .. }) => {
            let (identity, rules) = (identity.as_deref().unwrap_or_default(), rules.unwrap_or_default());
            line(out, "kept", format_args!("{WARNING}another policy{WARNING:#}: {rules} rules, identity {identity}"))?;
        }
        None if report.driver.is_some() => line(out, "kept", format_args!("{WARNING}none{WARNING:#}"))?,
        None => {}
    }
    match report.driver.as_ref().map(|driver| driver.at_start.as_str()) {
        None | Some("none" | "restored") => Ok(()),
        Some(what) => line(out, "", format_args!("{BAD}{what}{BAD:#} when the driver was loaded")),
    }
}

fn driver_text(driver: &DriverState, out: &mut dyn Write) -> io::Result<()> {
    match &driver.policy {
        Some(policy) => {
            line(out, "policy", format_args!("{} rules, {} bytes", policy.rules, policy.bytes))?;
            if let Some(origin) = &policy.origin {
                line(out, "", format_args!("from {}", origin.file))?;
                line(out, "", format_args!("loaded {} by {}", origin.loaded, origin.by))?;
                if let Some(image) = &origin.image {
                    line(out, "", format_args!("compiled before, as {image}"))?;
                }
            }
            line(out, "", format_args!("identity {}, generation {}", policy.identity, policy.epoch))?;
        }
        None => line(out, "policy", format_args!("{WARNING}none{WARNING:#}: nothing is decided here"))?,
    }
    counters_text(&driver.counters, out)
}

/// The counters that a person looks for together, by how their names begin, in the order in which he asks; the rest comes
/// last.
const GROUPS: [(&str, &[&str]); 8] = [
    ("decided", &["connects_", "accepts_", "packets_permitted", "packets_blocked", "forwards_"]),
    ("asked", &["questions_", "connections_held", "not_asked_"]),
    ("silenced", &["discards_", "icmp_errors_"]),
    ("decisions", &["decisions_", "fields_", "reauthorizations"]),
    ("flows", &["flows_", "revoked_", "packets_", "bytes_"]),
    ("names", &["names_", "decided_by_learned_", "datagrams_"]),
    ("events", &["events_"]),
    ("policies", &["policies_", "kept_"]),
];

/// The counters by groups, in the driver's order; those that are 0 are only counted.
fn counters_text(counters: &BTreeMap<&'static str, u64>, out: &mut dyn Write) -> io::Result<()> {
    let group = |name: &str| GROUPS.iter().position(|(_, begins)| begins.iter().any(|one| name.starts_with(one)));
    let counted = || Counter::ALL.iter().filter_map(|(_, name)| Some((*name, *counters.get(name)?)));
    let width = counted().filter(|(_, value)| *value > 0).map(|(name, _)| name.len()).max().unwrap_or(0);
    let titles = GROUPS.iter().map(|(title, _)| *title).zip((0..).map(Some)).chain([("other", None)]);
    for (title, number) in titles {
        let own = counted().filter(|(name, value)| *value > 0 && group(name) == number);
        for (place, (name, value)) in own.enumerate() {
            let label = if place == 0 { title } else { "" };
            line(out, label, format_args!("{:width$} {value}", name.replace('_', " ")))?;
        }
    }
    let idle = counted().filter(|(_, value)| *value == 0).count();
    line(out, "", format_args!("{idle} other counters are 0"))
}

fn line(out: &mut dyn Write, label: &str, value: impl std::fmt::Display) -> io::Result<()> {
    writeln!(out, "{LABEL}{label:COLUMN$}{LABEL:#}{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_in_groups_and_zeros_are_left_out() {
        let mut counters: BTreeMap<&'static str, u64> = Counter::ALL.iter().map(|&(_, name)| (name, 0)).collect();
        counters.extend([
            ("events_written", 3),
            ("accepts_blocked", 1),
            ("connects_permitted", 12),
            ("flows_opened", 7),
        ]);
        let mut text = crate::page::Page::new(Vec::new());
        counters_text(&counters, &mut text).unwrap();
        let text = String::from_utf8(text.stream().clone()).unwrap();
        let bold = |title: &str| format!("\u{1b}[1m{title:COLUMN$}\u{1b}[0m");
        let expected = [
            format!("{}connects permitted 12\n", bold("decided")),
            format!("{}accepts blocked    1\n", bold("")),
            format!("{}flows opened       7\n", bold("flows")),
            format!("{}events written     3\n", bold("events")),
            format!("{}{} other counters are 0\n", bold(""), Counter::ALL.len() - 4),
        ];
        assert_eq!(text, expected.concat());
    }
}

//! `sluice why`.

use super::filters::conditions;
use super::layout::paragraph;
use super::netevents::{Joined, join, traffic};
use super::ours::Rules;
use super::{WhyArgs, source};
use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::{BAD, LABEL, Output, WARNING};
use serde::Serialize;
use sluice_diagnose::explain::{LayerExplained, at_layer};
use sluice_diagnose::join::Identity;
use sluice_diagnose::read::audit_name;
use sluice_diagnose::record::{Direction, Ends, Filter, NetEvent};
use sluice_diagnose::traffic::Traffic;
use sluice_diagnose::{Answer as Said, Platform, Verdict, live};
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;

/// The most kinds of drops that are told apart.
const MOST_KINDS: usize = 10_000;

/// What makes drops alike: everything but the time and the port that changes with each conversation.
type Kind = (
    Option<u32>,
    Option<u64>,
    Option<u16>,
    Option<u8>,
    Option<Direction>,
    (Option<IpAddr>, Option<IpAddr>, Option<u16>),
    Option<String>,
    Option<String>,
);

/// Drops that are alike.
struct Drops {
    audit: Option<u32>,
    event: NetEvent,
    count: u64,
    last: String,
}

/// The answer for drops that are alike.
#[derive(Serialize)]
struct Answer<'a> {
    count: u64,
    first: &'a str,
    last: &'a str,
    /// The audit's number, in a Security log.
    audit: Option<u32>,
    #[serde(flatten)]
    joined: Joined<'a>,
    /// What the filters of the state do with this traffic at the event's layer.
    now: Option<LayerExplained>,
    /// Filters of the event's layer that are named like its origin.
    named_like_origin: Vec<u64>,
}

pub(super) fn why(cli: &Cli, args: &WhyArgs, output: &mut Output) -> Result<ExitCode, Failure> {
    let rules = args.policy.as_deref().map(Rules::read).transpose()?;
    let platform = source::state(cli, args.state.as_deref(), args.file.as_deref())?;
    let mut kinds: HashMap<Kind, usize> = HashMap::new();
    let mut drops: Vec<Drops> = Vec::new();
    let mut more = 0_u64;
    let mut take = |audit: Option<u32>, event: NetEvent| {
        if !event.kind.is_drop() {
            return;
        }
        match kinds.get(&kind(audit, &event)) {
            Some(at) => {
                drops[*at].count += 1;
                drops[*at].last = event.time;
            }
            None if drops.len() < MOST_KINDS => {
                kinds.insert(kind(audit, &event), drops.len());
                drops.push(Drops { audit, last: event.time.clone(), event, count: 1 });
            }
            None => more += 1,
        }
    };
    match &args.file {
        Some(path) => source::each_event(path, output, &mut |audit, event, _| {
            take(audit, event);
            Ok(())
        })?,
        None => {
            let events = source::with_engine(cli, "asking for the net events", |engine| live::events(engine))?;
            events.into_iter().for_each(|event| take(None, event));
        }
    }
    for one in &drops {
        let answer = answer(platform.as_ref(), rules.as_ref(), one);
        output.report(&answer, |out| answer.text(platform.as_ref(), out))?;
    }
    if drops.is_empty() {
        output.aside("nothing was dropped")?;
    } else if platform.is_none() {
        output.aside("no filter can be named without the state of the machine: --state FILE (netsh wfp show state)")?;
    }
    if more > 0 {
        output.trouble(&format!("{more} more drops of other kinds are left out"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn kind(audit: Option<u32>, event: &NetEvent) -> Kind {
    // Of two ports the higher one is mostly that of the program that connects.
    let port = match (event.local_port, event.remote_port) {
        (Some(local), Some(remote)) => Some(local.min(remote)),
        (local, remote) => local.or(remote),
    };
    (
        audit,
        event.filter_id,
        event.layer_id,
        event.protocol,
        event.direction,
        (event.local, event.remote, port),
        event.app.clone(),
        event.origin.clone(),
    )
}

fn answer<'a>(platform: Option<&'a Platform>, rules: Option<&Rules>, drops: &'a Drops) -> Answer<'a> {
    let event = &drops.event;
    let joined = join(platform, rules, event);
    let key = platform.and_then(|platform| platform.layer_key(event.layer_id?));
    let now = platform.zip(key.as_ref()).and_then(|(platform, key)| {
        let mut sides = vec![ordinary(Traffic::of_event(event))];
        if event.ends == Ends::SourceDestination {
            sides.push(sides[0].reversed());
        }
        // Of a drop by a filter that is still there it is known what callouts said: that one blocked, the others did not.
        let said = |filter: &Filter| match (&joined.identity, event.filter_id == Some(filter.id)) {
            (Identity::ThisOne, true) => Some(Said::Decides { verdict: Verdict::Block, hard: true }),
            (Identity::ThisOne, false) => Some(Said::Nothing),
            _ => None,
        };
        let mut found: Vec<LayerExplained> =
            sides.iter().filter_map(|side| at_layer(platform, key, "", side, &said)).collect();
        // Of the two ways to read an audit, the one in which the filter that it names decides.
        let named =
            |layer: &LayerExplained| layer.outcomes.iter().any(|one| one.by == event.filter_id && one.by.is_some());
        let at = found.iter().position(named).unwrap_or(0);
        (!found.is_empty()).then(|| found.swap_remove(at))
    });
    let like = |filter: &&Filter| {
        event.origin.as_ref().is_some_and(|origin| filter.name == *origin) && key.as_ref() == Some(&filter.layer)
    };
    let named_like_origin = match (platform, &joined.identity) {
        (Some(platform), Identity::Gone | Identity::Another(_)) => {
            platform.filters.iter().filter(like).map(|filter| filter.id).collect()
        }
        _ => Vec::new(),
    };
    Answer {
        count: drops.count,
        first: &event.time,
        last: &drops.last,
        audit: drops.audit,
        joined,
        now,
        named_like_origin,
    }
}

/// An event's traffic, taken to be ordinary.
fn ordinary(traffic: Traffic) -> Traffic {
    Traffic {
        ordinary: true,
        package: traffic.package.clone().or_else(|| Some(sluice_diagnose::Sid::null())),
        ..traffic
    }
}

impl Answer<'_> {
    fn text(&self, platform: Option<&Platform>, out: &mut dyn Write) -> io::Result<()> {
        let event = self.joined.event();
        paragraph(out, "", ("dropped", Some(BAD)), &traffic(event), 4)?;
        let when = match self.count {
            1 => format!("at {}", self.first),
            count => format!("{count} times, from {} to {}", self.first, self.last),
        };
        let audit = self.audit.map(|number| format!(" (audit {number}: {})", audit_name(number).unwrap_or("a drop")));
        paragraph(out, "    ", ("", None), &format!("{when}{}", audit.unwrap_or_default()), 7)?;
        self.joined.causes(out)?;
        match (&self.joined.identity, self.joined.filter()) {
            (Identity::ThisOne, Some(filter)) => self.because(filter, out)?,
            (Identity::Gone | Identity::Another(_), _) => self.instead(out)?,
            (Identity::Unnamed, _) if event.filter_id == Some(0) || event.filter_id.is_none() => {
                if let (Some(_), Some(app), None) = (self.audit, &event.app, event.filter_id) {
                    let text = format!("no rule of Windows Firewall lets {app} accept connections");
                    paragraph(out, "    ", ("why", Some(LABEL)), &text, 7)?;
                }
            }
            _ => {}
        }
        if platform.is_some() {
            for change in self.now.iter().flat_map(|now| &now.changes) {
                let certain = self.now.as_ref().is_some_and(|now| now.outcomes.len() == 1);
                let label = if certain { "changes it:" } else { "it is" };
                paragraph(out, "    ", (label, None), change, 7)?;
            }
        }
        Ok(())
    }

    /// The filter is the one: what it matched, and whether it still has the last word.
    fn because(&self, filter: &Filter, out: &mut dyn Write) -> io::Result<()> {
        let what = if filter.action.asks_callout() { "its callout blocked what matches" } else { "it blocks" };
        paragraph(out, "    ", ("why", Some(LABEL)), &format!("{what} {}", conditions(filter)), 7)?;
        let Some(now) = &self.now else { return Ok(()) };
        match now.outcomes.as_slice() {
            [one] if one.verdict == "permit" => {
                let text = "the filters in the given state permit this traffic: they have changed since";
                paragraph(out, "    ", ("now", Some(WARNING)), text, 7)
            }
            [one] if one.by.is_some_and(|id| id != filter.id) => {
                let text = format!("filter {} would block it first", one.by.unwrap_or_default());
                paragraph(out, "    ", ("now", Some(WARNING)), &text, 7)
            }
            _ => Ok(()),
        }
    }

    /// The filter is not to be found: what can be said all the same.
    fn instead(&self, out: &mut dyn Write) -> io::Result<()> {
        let origin = self.joined.event().origin.as_deref();
        if let [one, ..] = self.named_like_origin.as_slice() {
            let text = format!("filter {one} of the same layer has the origin's name");
            paragraph(out, "    ", ("perhaps", Some(LABEL)), &text, 7)?;
        } else if let Some(origin) = origin {
            let text = format!(
                "the origin names the rule: Get-NetFirewallRule -Name '{}' in PowerShell shows it, unless it is one of \
                 Windows' own defaults",
                origin.replace('\'', "''")
            );
            paragraph(out, "    ", ("see", Some(LABEL)), &text, 7)?;
        }
        let Some(now) = &self.now else { return Ok(()) };
        let said = match (now.verdict(), now.outcomes.first().and_then(|one| one.by)) {
            (Some("block"), Some(id)) => format!("such traffic is blocked by filter {id}"),
            (Some(_), Some(id)) => format!("such traffic is permitted by filter {id}"),
            (Some(_), None) => "no filter in the given state decides about such traffic".to_owned(),
            (None, _) => "what becomes of such traffic depends on what the event does not tell".to_owned(),
        };
        paragraph(out, "    ", ("now", Some(LABEL)), &said, 7)
    }
}

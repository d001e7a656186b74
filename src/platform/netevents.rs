//! `sluice netevents`.

use super::layout::paragraph;
use super::ours::{Rules, Ruling, is_ours};
use super::{EventArgs, source, understood};
use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::{BAD, GOOD, Output, WARNING};
use serde::Serialize;
use sluice_diagnose::join::{Identity, filter_of};
use sluice_diagnose::query::protocol_name;
use sluice_diagnose::record::{Ends, Filter, NetEvent};
use sluice_diagnose::{Platform, live};
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;

/// An event with what is known about it.
#[derive(Serialize)]
pub(super) struct Joined<'a> {
    format: u32,
    event: &'a NetEvent,
    layer: Option<String>,
    filter: Option<&'a Filter>,
    pub(super) identity: Identity,
    sublayer: Option<String>,
    sublayer_weight: Option<u16>,
    provider: Option<String>,
    callout: Option<String>,
    rule: Option<Ruling>,
}

/// Joins an event. Without a state there is no filter to find, and so none that is gone.
pub(super) fn join<'a>(platform: Option<&'a Platform>, rules: Option<&Rules>, event: &'a NetEvent) -> Joined<'a> {
    let (filter, identity) = platform.map_or((None, Identity::Unnamed), |platform| filter_of(platform, event));
    let fallback = Platform::default();
    let layers = platform.unwrap_or(&fallback);
    let layer = event.layer_id.and_then(|id| layers.layer_key(id)).map(|key| key.short());
    // What another filter belongs to is beside the point.
    let sure = filter.filter(|_| identity == Identity::ThisOne).zip(platform);
    let ours = match sure {
        Some((filter, _)) => is_ours(filter),
        None => platform.is_none(),
    };
    Joined {
        format: 1,
        event,
        sublayer: sure.map(|(filter, platform)| platform.sublayer_name(&filter.sublayer)),
        sublayer_weight: sure.and_then(|(filter, platform)| Some(platform.sublayer(&filter.sublayer)?.weight)),
        provider: sure.and_then(|(filter, platform)| Some(platform.provider_name(filter.provider.as_ref()?))),
        callout: sure.and_then(|(filter, platform)| Some(platform.callout_name(filter.callout.as_ref()?))),
        rule: rules.filter(|_| ours).and_then(|rules| rules.about(event, layer.as_deref().unwrap_or_default())),
        layer,
        filter,
        identity,
    }
}

pub(super) fn netevents(cli: &Cli, args: &EventArgs, output: &mut Output) -> Result<ExitCode, Failure> {
    let (file, query) = understood(&args.words)?;
    let rules = args.policy.as_deref().map(Rules::read).transpose()?;
    let platform = source::state(cli, args.state.as_deref(), file.as_deref())?;
    let mut shown = 0_u64;
    let mut show = |event: &NetEvent, output: &mut Output| -> Result<(), Failure> {
        if (args.all || event.kind.is_drop()) && query.takes_event(event) {
            shown += 1;
            let joined = join(platform.as_ref(), rules.as_ref(), event);
            output.report(&joined, |out| joined.text(out))?;
        }
        Ok(())
    };
    match &file {
        Some(path) => source::each_event(path, output, &mut |_, event, output| show(&event, output))?,
        None => {
            let events = source::with_engine(cli, "asking for the net events", |engine| live::events(engine))?;
            events.iter().try_for_each(|event| show(event, output))?;
        }
    }
    if shown == 0 {
        output.aside("no such event")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// An end of a conversation.
fn end(address: Option<IpAddr>, port: Option<u16>) -> String {
    match (address, port) {
        (Some(IpAddr::V6(v6)), Some(port)) => format!("[{v6}]:{port}"),
        (Some(address), Some(port)) => format!("{address}:{port}"),
        (Some(address), None) => address.to_string(),
        (None, Some(port)) => format!("port {port}"),
        (None, None) => "?".to_owned(),
    }
}

/// The traffic of an event in words.
pub(super) fn traffic(event: &NetEvent) -> String {
    let protocol = event.protocol.map_or("?".to_owned(), protocol_name);
    let (local, remote) = (end(event.local, event.local_port), end(event.remote, event.remote_port));
    let inbound = event.direction == Some(sluice_diagnose::record::Direction::In);
    let arrow = match event.ends {
        Ends::LocalRemote if inbound => "<-",
        _ => "->",
    };
    let way = event.direction.map_or(String::new(), |direction| format!("{} ", direction.word()));
    let app = event.app.as_deref().map(|app| format!(", {}", app.rsplit('\\').next().unwrap_or(app)));
    let loopback = if event.loopback == Some(true) { ", loopback" } else { "" };
    format!("{way}{protocol} {local} {arrow} {remote}{}{loopback}", app.unwrap_or_default())
}

impl<'a> Joined<'a> {
    pub(super) fn event(&self) -> &'a NetEvent {
        self.event
    }

    pub(super) fn filter(&self) -> Option<&'a Filter> {
        self.filter
    }

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let event = self.event;
        let style = if event.kind.is_drop() { BAD } else { GOOD };
        paragraph(out, &format!("{} ", event.time), (event.kind.word(), Some(style)), &traffic(event), 4)?;
        self.causes(out)
    }

    /// The filter and what it belongs to, below the event.
    pub(super) fn causes(&self, out: &mut dyn Write) -> io::Result<()> {
        let event = self.event;
        let layer = self.layer.clone().or_else(|| event.layer_id.map(|id| format!("layer {id}")));
        let at = layer.map_or(String::new(), |layer| format!(" at {layer}"));
        let mut parts = Vec::new();
        match (event.filter_id, self.filter) {
            (Some(id), Some(filter)) if self.identity == Identity::ThisOne => {
                parts.push(format!("filter {id} `{}`{at}", filter.name));
            }
            (Some(id), _) => parts.push(format!("filter {id}{at}")),
            (None, _) => parts.extend((!at.is_empty()).then(|| at.trim_start().to_owned())),
        }
        let weight = self.sublayer_weight.map_or(String::new(), |weight| format!(" (weight {weight})"));
        parts.extend(self.sublayer.as_ref().map(|sublayer| format!("sublayer {sublayer}{weight}")));
        parts.extend(self.provider.as_ref().map(|provider| format!("of {provider}")));
        parts.extend(self.callout.as_ref().map(|callout| format!("callout {callout} decided")));
        parts.extend(event.interface.map(|interface| format!("interface {interface}")));
        if !parts.is_empty() {
            paragraph(out, "    ", ("by", None), &parts.join(", "), 7)?;
        }
        match (&self.identity, self.filter) {
            (Identity::Another(why), Some(filter)) => {
                let text = format!("has this number now: `{}`; {why}", filter.name);
                paragraph(out, "    ", ("another filter", Some(WARNING)), &text, 7)?;
            }
            (Identity::Gone, _) => {
                let text = "has this number in the given state: it was deleted since, or the state is of another time";
                paragraph(out, "    ", ("no filter", Some(WARNING)), text, 7)?;
            }
            _ => {}
        }
        if let Some(origin) = &event.origin {
            paragraph(out, "    ", ("origin", None), origin, 7)?;
        }
        for one in &event.terminating {
            if Some(one.filter_id) != event.filter_id {
                let text = format!("{} by filter {}: {}", one.sublayer, one.filter_id, one.action.word());
                paragraph(out, "    ", ("sublayer", None), &text, 7)?;
            }
        }
        match &self.rule {
            Some(rule) => paragraph(out, "    ", ("rule", None), &rule.said(event.kind.is_drop()), 7),
            None => Ok(()),
        }
    }
}

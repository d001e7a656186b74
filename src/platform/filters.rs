//! `sluice filters`.

use super::FilterArgs;
use super::layout::{Cell, Column, Table, paragraph};
use super::lists::words;
use crate::failure::Failure;
use crate::output::{BAD, GOOD, LABEL, Output, WARNING};
use crate::page::Style;
use serde_json::json;
use sluice_diagnose::query::{Query, layer};
use sluice_diagnose::record::{Action, Filter};
use sluice_diagnose::{Key, Platform};
use std::io::{self, Write};
use std::process::ExitCode;

pub(super) fn filters(
    platform: &Platform,
    args: &FilterArgs,
    query: &Query,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    if !args.id.is_empty() {
        return by_id(platform, &args.id, output);
    }
    let contains = |wanted: &Option<String>, texts: &[String]| {
        wanted.as_ref().is_none_or(|wanted| {
            let wanted = wanted.to_lowercase();
            texts.iter().any(|text| text.to_lowercase().contains(&wanted))
        })
    };
    let mut chosen: Vec<&Filter> = platform
        .filters
        .iter()
        .filter(|filter| {
            contains(&args.layer, &[filter.layer.to_string()])
                && contains(&args.sublayer, &[filter.sublayer.to_string(), platform.sublayer_name(&filter.sublayer)])
                && match &filter.provider {
                    Some(key) => contains(&args.provider, &[key.to_string(), platform.provider_name(key)]),
                    None => args.provider.is_none(),
                }
                && query.takes_filter(filter)
        })
        .collect();
    chosen.sort_by_cached_key(|filter| place(platform, filter));
    output.report(&json!({ "format": 1, "filters": chosen }), |out| text(platform, &chosen, out))?;
    Ok(ExitCode::SUCCESS)
}

/// Where a filter stands in the order of evaluation: layer, sublayer, weight.
fn place(
    platform: &Platform,
    filter: &Filter,
) -> (u16, String, std::cmp::Reverse<u16>, String, std::cmp::Reverse<u64>, u64) {
    let id = platform.layers.iter().find(|layer| layer.key == filter.layer).map(|layer| layer.id);
    let id = id.or_else(|| layer(&filter.layer).map(|layer| layer.id.0)).unwrap_or(u16::MAX);
    let weight = platform.sublayer(&filter.sublayer).map_or(0, |sublayer| sublayer.weight);
    (
        id,
        filter.layer.to_string(),
        std::cmp::Reverse(weight),
        filter.sublayer.to_string(),
        std::cmp::Reverse(filter.weight.unwrap_or(0)),
        filter.id,
    )
}

fn text(platform: &Platform, filters: &[&Filter], out: &mut dyn Write) -> io::Result<()> {
    let mut rest = filters;
    let mut shown: Option<&Key> = None;
    while let Some(first) = rest.first() {
        let run = rest.iter().take_while(|one| (&one.layer, &one.sublayer) == (&first.layer, &first.sublayer)).count();
        let (group, others) = rest.split_at(run);
        rest = others;
        if shown != Some(&first.layer) {
            writeln!(out, "{LABEL}{}{LABEL:#}", first.layer.short())?;
            shown = Some(&first.layer);
        }
        let weight = match platform.sublayer(&first.sublayer) {
            Some(sublayer) => format!("weight {}", sublayer.weight),
            None => "weight not known".to_owned(),
        };
        writeln!(out, "  {} ({weight})", platform.sublayer_name(&first.sublayer))?;
        let columns = [Column::number(""), Column::fixed(""), Column::text("", 16), Column::text("", 20)];
        // A table for some rows at a time, so that the first are there soon.
        for some in group.chunks(500) {
            let mut table = Table::indented(&columns, 4);
            for filter in some {
                let (word, style) = action(filter);
                let conditions = conditions(filter);
                table.row([filter.id.into(), Cell::from(word).styled(style), (&filter.name).into(), conditions.into()]);
            }
            table.write(out, false)?;
        }
    }
    if filters.is_empty() {
        writeln!(out, "no filter matches")?;
    }
    Ok(())
}

/// A filter's conditions on one line: alternatives on one field once, with bars between their values.
pub(super) fn conditions(filter: &Filter) -> String {
    let mut text = String::new();
    let mut before: Option<&sluice_diagnose::record::Condition> = None;
    for condition in &filter.conditions {
        let said = condition.to_string();
        match before {
            Some(one) if (&one.field, &one.match_type) == (&condition.field, &condition.match_type) => {
                let value = said.split_once('=').map_or(said.as_str(), |(_, value)| value);
                text.extend(["|", value]);
            }
            _ => text.extend([if text.is_empty() { "" } else { " " }, &said]),
        }
        before = Some(condition);
    }
    if text.is_empty() { "(all)".to_owned() } else { text }
}

/// What a filter does, in a word or two, and its style.
pub(super) fn action(filter: &Filter) -> (&str, Style) {
    match filter.action {
        Action::Permit if filter.has("CLEAR_ACTION_RIGHT") => ("hard permit", GOOD),
        Action::Permit => ("permit", GOOD),
        Action::Block => ("block", BAD),
        _ => (filter.action.word(), WARNING),
    }
}

/// Shows filters with all they have.
fn by_id(platform: &Platform, ids: &[u64], output: &mut Output) -> Result<ExitCode, Failure> {
    let found: Vec<&Filter> = ids.iter().filter_map(|id| platform.filter(*id)).collect();
    let missing: Vec<u64> = ids.iter().copied().filter(|id| platform.filter(*id).is_none()).collect();
    output.report(&json!({ "format": 1, "filters": found, "missing": missing }), |out| {
        found.iter().try_for_each(|filter| whole(platform, filter, out))?;
        missing.iter().try_for_each(|id| {
            writeln!(
                out,
                "{BAD}no filter{BAD:#} has the id {id} here: ids are given anew, and a deleted filter keeps none"
            )
        })
    })?;
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One filter, line by line.
fn whole(platform: &Platform, filter: &Filter, out: &mut dyn Write) -> io::Result<()> {
    let (word, style) = action(filter);
    writeln!(out, "{LABEL}filter {}{LABEL:#} {style}{word}{style:#} {}", filter.id, filter.name)?;
    let mut line = |label: &str, text: &str| {
        let label = format!("{label:12}");
        if text.is_empty() { Ok(()) } else { paragraph(out, "  ", (&label, None), text, 15) }
    };
    line("description", &filter.description)?;
    line("layer", &filter.layer.short())?;
    let weight = platform.sublayer(&filter.sublayer).map_or(String::new(), |one| format!(" (weight {})", one.weight));
    line("sublayer", &format!("{}{weight}", platform.sublayer_name(&filter.sublayer)))?;
    line("weight", &filter.weight.map_or(String::new(), |weight| weight.to_string()))?;
    line("provider", &filter.provider.as_ref().map_or(String::new(), |key| platform.provider_name(key)))?;
    if let Some(key) = &filter.callout {
        let state = match platform.callout(key) {
            Some(callout) if callout.registered() => "registered by a driver",
            Some(_) => "not registered by any driver",
            None if platform.lists_callouts => "not there",
            None => "not listed in this file",
        };
        line("callout", &format!("{} ({state})", platform.callout_name(key)))?;
    }
    line("flags", &words(&filter.flags, "FWPM_FILTER_FLAG_").replace(',', " "))?;
    line("key", &filter.key.to_string())?;
    for condition in &filter.conditions {
        line("if", &condition.to_string())?;
    }
    if filter.conditions.is_empty() {
        line("if", "(always)")?;
    }
    Ok(())
}

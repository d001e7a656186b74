//! `sluice state`, `layers`, `callouts`, `providers`, `sublayers` and `options`.

use super::layout::{Cell, Column, Table};
use super::source;
use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::{BAD, GOOD, LABEL, Output, WARNING};
use serde_json::json;
use sluice_diagnose::record::Action;
use sluice_diagnose::{Key, Platform};
use sluice_host::listing::ENGINE_OPTIONS;
use std::collections::HashMap;
use std::hash::Hash;

/// How many of each there are.
fn counted<T: Hash + Eq>(all: impl IntoIterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts
}

pub(super) fn state(platform: &Platform, output: &mut Output) -> Result<(), Failure> {
    let actions = counted(platform.filters.iter().map(|filter| filter.action.word()));
    let registered = platform.callouts.iter().filter(|callout| callout.registered()).count();
    let by_provider = counted(platform.filters.iter().map(|filter| filter.provider.as_ref()));
    let mut providers: Vec<(String, usize)> = by_provider
        .into_iter()
        .map(|(key, count)| (key.map_or("(no provider)".to_owned(), |key| platform.provider_name(key)), count))
        .collect();
    providers.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let report = json!({
        "format": 1,
        "time": platform.time,
        "layers": platform.layers.len(),
        "sublayers": platform.sublayers.len(),
        "providers": platform.providers.len(),
        "callouts": platform.callouts.len(),
        "callouts_registered": registered,
        "filters": platform.filters.len(),
        "filters_by_action": actions,
        "filters_by_provider": providers.iter().map(|(name, count)| json!({ "provider": name, "filters": count })).collect::<Vec<_>>(),
    });
    output.report(&report, |out| {
        let mut line = |label: &str, value: String| writeln!(out, "{LABEL}{label:11}{LABEL:#}{value}");
        if let Some(time) = &platform.time {
            line("time", time.clone())?;
        }
        let absent = |count: usize, listed: bool| if listed { count.to_string() } else { "not listed".to_owned() };
        line("layers", absent(platform.layers.len(), !platform.layers.is_empty()))?;
        line("sublayers", absent(platform.sublayers.len(), platform.lists_sublayers))?;
        line("providers", platform.providers.len().to_string())?;
        let missing = platform.callouts.len() - registered;
        line(
            "callouts",
            match platform.callouts.len() {
                0 => absent(0, platform.lists_callouts),
                count => format!("{count}, {registered} registered by a driver, {missing} not"),
            },
        )?;
        let mut kinds: Vec<_> = actions.iter().collect();
        kinds.sort();
        let kinds: Vec<String> = kinds.into_iter().map(|(word, count)| format!("{count} {word}")).collect();
        line("filters", format!("{}: {}", platform.filters.len(), kinds.join(", ")))?;
        let mut table = Table::indented(&[Column::number(""), Column::text("", 20)], 11);
        for (name, count) in &providers {
            table.row([Cell::from(count), name.into()]);
        }
        table.write(out, false)
    })
}

pub(super) fn layers(platform: &Platform, all: bool, output: &mut Output) -> Result<(), Failure> {
    let filters = counted(platform.filters.iter().map(|filter| &filter.layer));
    let callouts = counted(platform.callouts.iter().map(|callout| &callout.layer));
    let count = |counts: &HashMap<&Key, usize>, key: &Key| counts.get(key).copied().unwrap_or(0);
    // `show filters` lists no layers: those of its filters are all that is known.
    let mut known: Vec<(Option<u16>, Key)> = if platform.layers.is_empty() {
        filters.keys().map(|key| (sluice_diagnose::query::layer(key).map(|layer| layer.id.0), (*key).clone())).collect()
    } else {
        platform.layers.iter().map(|layer| (Some(layer.id), layer.key.clone())).collect()
    };
    known.sort();
    known.retain(|(_, key)| all || count(&filters, key) + count(&callouts, key) > 0);
    let fields = |key: &Key| platform.layers.iter().find(|layer| layer.key == *key).map(|layer| &layer.fields);
    let report: Vec<_> = known
        .iter()
        .map(|(id, key)| {
            json!({ "id": id, "key": key, "filters": count(&filters, key), "callouts": count(&callouts, key), "fields": fields(key) })
        })
        .collect();
    output.report(&json!({ "format": 1, "layers": report }), |out| {
        let columns =
            [Column::number("ID"), Column::text("LAYER", 20), Column::number("FILTERS"), Column::number("CALLOUTS")];
        let mut table = Table::new(&columns);
        for (id, key) in &known {
            let id = id.map_or(String::new(), |id| id.to_string());
            table.row([id.into(), key.short().into(), count(&filters, key).into(), count(&callouts, key).into()]);
        }
        table.write(out, true)
    })
}

pub(super) fn callouts(platform: &Platform, output: &mut Output) -> Result<(), Failure> {
    if !platform.lists_callouts {
        return Err(Failure::NotInFile("callouts"));
    }
    let filters = counted(platform.filters.iter().filter_map(|filter| filter.callout.as_ref()));
    let report: Vec<_> = platform
        .callouts
        .iter()
        .map(|callout| json!({ "callout": callout, "filters": filters.get(&callout.key).unwrap_or(&0) }))
        .collect();
    output.report(&json!({ "format": 1, "callouts": report }), |out| {
        let columns = [
            Column::number("ID"),
            Column::text("CALLOUT", 16),
            Column::text("LAYER", 12),
            Column::fixed("DRIVER"),
            Column::number("FILTERS"),
            Column::text("PROVIDER", 8),
        ];
        let mut table = Table::new(&columns);
        for callout in &platform.callouts {
            let used = filters.get(&callout.key).copied().unwrap_or(0);
            let driver = match (callout.registered(), used) {
                (true, _) => Cell::from("yes").styled(GOOD),
                (false, 0) => Cell::from("no"),
                (false, _) => Cell::from("no").styled(WARNING),
            };
            table.row([
                callout.id.map_or(String::new(), |id| id.to_string()).into(),
                platform.callout_name(&callout.key).into(),
                callout.layer.short().into(),
                driver,
                used.into(),
                callout.provider.as_ref().map_or(String::new(), |key| platform.provider_name(key)).into(),
            ]);
        }
        table.write(out, true)
    })
}

pub(super) fn providers(platform: &Platform, output: &mut Output) -> Result<(), Failure> {
    let filters = counted(platform.filters.iter().filter_map(|filter| filter.provider.as_ref()));
    let report: Vec<_> = platform
        .providers
        .iter()
        .map(|provider| json!({ "provider": provider, "filters": filters.get(&provider.key).unwrap_or(&0) }))
        .collect();
    output.report(&json!({ "format": 1, "providers": report }), |out| {
        let columns = [
            Column::number("FILTERS"),
            Column::text("PROVIDER", 16),
            Column::text("SERVICE", 8),
            Column::fixed("FLAGS"),
            Column::text("KEY", 12),
        ];
        let mut table = Table::new(&columns);
        for provider in &platform.providers {
            table.row([
                filters.get(&provider.key).copied().unwrap_or(0).into(),
                platform.provider_name(&provider.key).into(),
                provider.service.clone().unwrap_or_default().into(),
                words(&provider.flags, "FWPM_PROVIDER_FLAG_").into(),
                provider.key.to_string().into(),
            ]);
        }
        table.write(out, true)
    })
}

pub(super) fn sublayers(platform: &Platform, output: &mut Output) -> Result<(), Failure> {
    if !platform.lists_sublayers {
        return Err(Failure::NotInFile("sublayers"));
    }
    let filters = counted(platform.filters.iter().map(|filter| &filter.sublayer));
    let blocks =
        counted(platform.filters.iter().filter(|filter| filter.action == Action::Block).map(|filter| &filter.sublayer));
    let report: Vec<_> = platform
        .sublayers
        .iter()
        .map(|sublayer| json!({ "sublayer": sublayer, "filters": filters.get(&sublayer.key).unwrap_or(&0) }))
        .collect();
    output.report(&json!({ "format": 1, "sublayers": report }), |out| {
        let columns = [
            Column::number("WEIGHT"),
            Column::text("SUBLAYER", 16),
            Column::number("FILTERS"),
            Column::number("BLOCK"),
            Column::text("PROVIDER", 12),
        ];
        let mut table = Table::new(&columns);
        for sublayer in &platform.sublayers {
            let blocking = blocks.get(&sublayer.key).copied().unwrap_or(0);
            let blocking = if blocking == 0 { Cell::from(0) } else { Cell::from(blocking).styled(BAD) };
            table.row([
                sublayer.weight.into(),
                platform.sublayer_name(&sublayer.key).into(),
                filters.get(&sublayer.key).copied().unwrap_or(0).into(),
                blocking,
                sublayer.provider.as_ref().map_or(String::new(), |key| platform.provider_name(key)).into(),
            ]);
        }
        table.write(out, true)
    })
}

/// Flags without what all of their kind begin with, in lower case.
pub(super) fn words(flags: &[String], prefix: &str) -> String {
    let short: Vec<String> = flags
        .iter()
        .map(|flag| flag.strip_prefix(prefix).unwrap_or(flag).to_ascii_lowercase().replace('_', "-"))
        .collect();
    short.join(",")
}

pub(super) fn options(cli: &Cli, output: &mut Output) -> Result<(), Failure> {
    let values = source::with_engine(cli, "asking for the engine's options", |engine| engine.options())?;
    let known: Vec<(&str, &str, u32)> = values
        .iter()
        .filter_map(|(number, value)| {
            let (_, name, what) = ENGINE_OPTIONS.iter().find(|(one, ..)| one == number)?;
            Some((*name, *what, *value))
        })
        .collect();
    let report: Vec<_> = known.iter().map(|(name, _, value)| json!({ "option": name, "value": value })).collect();
    output.report(&json!({ "format": 1, "options": report }), |out| {
        let mut table = Table::new(&[Column::fixed("OPTION"), Column::number("VALUE"), Column::text("WHAT", 20)]);
        for (name, what, value) in &known {
            table.row([Cell::from(name.to_ascii_lowercase().replace('_', " ")), value.into(), what.into()]);
        }
        table.write(out, true)
    })
}

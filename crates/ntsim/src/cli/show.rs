//! `ntsim filters` and `ntsim state`.

use super::rig::{Driver, Record, Rig};
use super::{Failure, exit};
use filter_engine::bfe::StoredFilter;
use filter_engine::{names::Named, xml};
use ntsim::machine::Machine;
use std::io::{self, Write};
use std::process::ExitCode;

/// Loads the driver, or installs it with a policy, shows the objects of the Filtering Platform, and unloads it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    driver: Driver,
    /// Write the XML file that netsh would write, instead of a table
    #[arg(long)]
    xml: bool,
}

/// Which of the two.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Filters,
    State,
}

pub(crate) fn run(args: &Args, what: What, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let rig = Rig::start(&args.driver, &Record::default(), None)?;
    let written = match (what, args.xml) {
        (What::Filters, true) => xml::filters(&rig.machine.wfp.engine, &mut *out),
        (What::State, true) => xml::state(&rig.machine.wfp.engine, &mut *out),
        (What::Filters, false) => filters(&rig.machine, out),
        (What::State, false) => state(&rig.machine, out),
    };
    rig.end()?;
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::with(exit::FAILED, format!("writing the output: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn filters(machine: &Machine, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:>8}  {:28} {:>20}  {:20} NAME", "FILTER", "LAYER", "WEIGHT", "ACTION")?;
    let objects = machine.wfp.engine.bfe.objects();
    let mut filters: Vec<&StoredFilter> = objects.filters.values().map(AsRef::as_ref).collect();
    filters.sort_by_key(|stored| (stored.layer, u64::MAX - stored.effective_weight, stored.id));
    for stored in filters {
        let layer = machine.wfp.engine.layers().get(stored.layer).map_or("?", |layer| layer.name);
        let action = xml::action_name(stored.filter.action);
        let action = action.strip_prefix("FWP_ACTION_").unwrap_or(action);
        let name = stored.filter.display.name.as_deref().unwrap_or("");
        writeln!(out, "{:>8}  {layer:28} {:>20}  {action:20} {name}", stored.id, stored.effective_weight)?;
    }
    Ok(())
}

fn state(machine: &Machine, out: &mut dyn Write) -> io::Result<()> {
    let objects = machine.wfp.engine.bfe.objects();
    let table = machine.wfp.engine.layers();
    writeln!(out, "{} layers, {} filters", table.iter().count(), objects.filters.len())?;
    for provider in objects.providers.values() {
        let name = provider.object.display.name.as_deref().unwrap_or("");
        writeln!(out, "provider  {} {name}", Named(provider.object.key))?;
    }
    let mut sublayers: Vec<_> = objects.sublayers.values().map(|stored| &stored.object).collect();
    sublayers.sort_by_key(|sublayer| (u16::MAX - sublayer.weight, sublayer.key.0));
    for sublayer in sublayers {
        let key = Named(sublayer.key).to_string();
        // A built-in sublayer has its key's name.
        let name = sublayer.display.name.as_deref().filter(|name| *name != key).unwrap_or("");
        writeln!(out, "{}", format!("sublayer  {:5} {key} {name}", sublayer.weight).trim_end())?;
    }
    for layer in table.iter() {
        let filters = objects.filters.values().filter(|filter| filter.layer == layer.id).count();
        let callouts = || objects.callouts.values().filter(|callout| callout.stored.object.layer == layer.key);
        if filters + callouts().count() == 0 {
            continue;
        }
        writeln!(
            out,
            "layer     {:5} {}, fields: {}, filters: {filters}",
            layer.id.0,
            layer.name,
            layer.listed().len()
        )?;
        for callout in callouts() {
            let name = callout.stored.object.display.name.as_deref().unwrap_or("");
            let registered = if callout.slot.is_registered() { "registered" } else { "not registered" };
            writeln!(out, "  callout {:5} {name}, {registered}", callout.slot.id())?;
        }
    }
    // A callout that a driver registered without an object in the engine is never called.
    let known = |key| objects.callouts.values().any(|callout| callout.slot.key() == key);
    for slot in machine.wfp.engine.callouts.registered().iter().filter(|slot| !known(slot.key())) {
        writeln!(out, "callout   {:5} {{{}}} registered, in no layer", slot.id(), slot.key())?;
    }
    Ok(())
}

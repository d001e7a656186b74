//! `sluice names`.

use crate::failure::Failure;
use crate::output::Output;
use serde_json::json;
use sluice_host::Host;
use sluice_policy::text::harmless;
use std::process::ExitCode;

pub(crate) fn names(host: &dyn Host, flush: bool, output: &mut Output) -> Result<ExitCode, Failure> {
    if flush {
        sluice_control::forget_names(host)?;
        output.report(&json!({ "flushed": true }), |out| writeln!(out, "every name is forgotten"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let names = sluice_control::names(host)?;
    output.report(&names, |out| {
        for one in &names {
            writeln!(out, "{:39} {:6}s  {}", one.address.to_string(), one.seconds, harmless(&one.name))?;
        }
        writeln!(out, "{} names", names.len())
    })?;
    Ok(ExitCode::SUCCESS)
}

//! `sluice flows`.

use crate::failure::Failure;
use crate::output::Output;
use sluice_host::Host;
use std::process::ExitCode;

pub(crate) fn flows(host: &dyn Host, output: &mut Output) -> Result<ExitCode, Failure> {
    let flows = sluice_control::flows(host)?;
    output.report(&flows, |out| {
        flows.iter().try_for_each(|flow| writeln!(out, "{flow}"))?;
        writeln!(out, "{} flows", flows.len())
    })?;
    Ok(ExitCode::SUCCESS)
}

//! `sluice completions` and `sluice man`.

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::Output;
use clap::CommandFactory;
use clap_complete::Shell;
use std::process::ExitCode;

pub(crate) fn completions(shell: Shell, output: &mut Output) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut text);
    output.text(&text)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn page(verbs: &[String], output: &mut Output) -> Result<ExitCode, Failure> {
    let mut all = Cli::command();
    all.build();
    let mut command = &all;
    for verb in verbs {
        let found = command.find_subcommand(verb);
        command = found.ok_or_else(|| Failure::Usage(format!("`{}` has no verb `{verb}`", command.get_name())))?;
    }
    // After `build`, the display name of a verb has those before it: sluice-policy-diff.
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name).render(&mut text)?;
    output.text(&text)?;
    Ok(ExitCode::SUCCESS)
}

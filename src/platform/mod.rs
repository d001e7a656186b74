//! The verbs that show any machine's Filtering Platform, from its live engine or from a file of `netsh wfp`.

mod explain;
mod filters;
mod layout;
mod lists;
mod netevents;
mod ours;
mod source;
mod why;

pub(crate) use layout::paragraph;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::Output;
use clap::{Args, Subcommand, ValueEnum};
use sluice_diagnose::Platform;
use sluice_diagnose::query::{CONDITIONS, Query};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What to show. Each verb takes a file, or asks the engine of the machine.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "each run makes only one")]
pub(crate) enum Command {
    /// Show how many objects the Filtering Platform has, of whom, and in what state.
    State(Source),
    /// Show filters in the order in which they are evaluated: by layer, sublayer and weight.
    Filters(FilterArgs),
    /// Show the layers that have filters or callouts.
    Layers {
        #[command(flatten)]
        source: Source,
        /// Show every layer.
        #[arg(long)]
        all: bool,
    },
    /// Show the callouts, and whether a driver has registered them.
    Callouts(Source),
    /// Show the providers: which product has which filters.
    Providers(Source),
    /// Show the sublayers, the heaviest first: that is how they are evaluated.
    Sublayers(Source),
    /// Show net events: each drop with its filter, sublayer, provider and callout, and with the rule where it is ours.
    Netevents(EventArgs),
    /// Show the options of the live engine.
    Options,
    /// Explain a flow: every layer it passes, every sublayer by weight, every filter that matches, who decides and why,
    /// and what would change it.
    Explain(ExplainArgs),
    /// Answer for each kind of drop why it was dropped: of net events, or of the audits in a Security log.
    Why(WhyArgs),
}

/// Where objects come from.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// A file of `netsh wfp show state` or `show filters`, or wfpdiag.xml or .cab of `netsh wfp capture`; `-` is
    /// standard input [default: the live engine].
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = CONDITION_HELP)]
pub(crate) struct FilterArgs {
    /// A file, as for `state`, and conditions on the traffic.
    #[arg(value_name = "FILE|CONDITION=VALUE", value_parser = word)]
    words: Vec<Word>,
    /// Show this filter with all it has; repeatable.
    #[arg(long, value_name = "FILTERID")]
    id: Vec<u64>,
    /// Only layers whose name contains this.
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// Only sublayers whose name or key contains this.
    #[arg(long, value_name = "NAME")]
    sublayer: Option<String>,
    /// Only providers whose name or key contains this.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = CONDITION_HELP)]
pub(crate) struct EventArgs {
    /// A file of `netsh wfp show netevents`, or wfpdiag.xml or .cab of `netsh wfp capture` [default: the live
    /// engine], and conditions on the traffic.
    #[arg(value_name = "FILE|CONDITION=VALUE", value_parser = word)]
    words: Vec<Word>,
    /// A file of `netsh wfp show state` or `show filters` of the same time, which names the filters.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// The policy (TOML) that was in force: names the rule for each decision of our driver.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Also show what was allowed, where the events have it.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A file of `netsh wfp show state` or `show filters`, or of `netsh wfp capture` [default: the live engine].
    file: Option<PathBuf>,
    #[command(flatten)]
    flow: crate::policy::Flow,
    /// The profile of the network.
    #[arg(long, value_name = "PROFILE")]
    profile: Option<Profile>,
    /// The policy (TOML) by which our driver decides; without it, what its callouts say is unknown.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Also draw the arbitration into this file, to paste into a ticket.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// A file of `netsh wfp show netevents` or of `netsh wfp capture`, or the Security log: .evtx, or XML of
    /// `wevtutil qe Security /f:xml` [default: the live engine's net events].
    file: Option<PathBuf>,
    /// A file of `netsh wfp show state` or `show filters` of the same machine, which names the filters.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// The policy (TOML) that was in force: names the rule for each decision of our driver.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// A network's profile, with the number that ORIGINAL_PROFILE_ID has for it.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Profile {
    Public = 1,
    Private = 2,
    Domain = 3,
}

/// The conditions, as the help shows them.
const CONDITION_HELP: &str = "\
Conditions, as `netsh wfp show filters` has them:
  protocol=tcp|udp|icmp|icmpv6|NUMBER  localaddr=ADDRESS  remoteaddr=ADDRESS  localport=PORT  remoteport=PORT
  appid=PATH (whole, or its end)  userid=SID  dir=in|out
  verbose=on  also filters that match such traffic only because they say nothing of it";

/// A word of the command line.
#[derive(Clone, Debug)]
enum Word {
    File(PathBuf),
    Condition(String, String),
}

fn word(text: &str) -> Result<Word, String> {
    match text.split_once('=') {
        Some((name, value)) if name.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            let name = name.to_ascii_lowercase();
            if !CONDITIONS.contains(&name.as_str()) {
                return Err(format!(
                    "{name}= is not one of {}=; a file of that name is ./{name}=...",
                    CONDITIONS.join("=, ")
                ));
            }
            Query::default().take(&name, value)?;
            Ok(Word::Condition(name, value.to_owned()))
        }
        _ => Ok(Word::File(text.into())),
    }
}

/// The file and the query that words make.
fn understood(words: &[Word]) -> Result<(Option<PathBuf>, Query), Failure> {
    let (mut file, mut query) = (None, Query::default());
    for word in words {
        match word {
            Word::File(path) if file.is_none() => file = Some(path.clone()),
            Word::File(path) => {
                return Err(Failure::Usage(format!("one file is expected, and {} is another", path.display())));
            }
            Word::Condition(name, value) => query.take(name, value).map_err(Failure::Usage)?,
        }
    }
    Ok((file, query))
}

/// The objects in a file of netsh.
pub(crate) fn platform_of(cli: &Cli, file: &Path) -> Result<Platform, Failure> {
    source::platform(cli, Some(file))
}

/// Runs one of the verbs.
pub(crate) fn run(cli: &Cli, command: &Command, output: &mut Output) -> Result<ExitCode, Failure> {
    match command {
        Command::State(source) => lists::state(&source::platform(cli, source.file.as_deref())?, output)?,
        Command::Filters(args) => {
            let (file, query) = understood(&args.words)?;
            return filters::filters(&source::platform(cli, file.as_deref())?, args, &query, output);
        }
        Command::Layers { source, all } => {
            lists::layers(&source::platform(cli, source.file.as_deref())?, *all, output)?
        }
        Command::Callouts(source) => lists::callouts(&source::platform(cli, source.file.as_deref())?, output)?,
        Command::Providers(source) => lists::providers(&source::platform(cli, source.file.as_deref())?, output)?,
        Command::Sublayers(source) => lists::sublayers(&source::platform(cli, source.file.as_deref())?, output)?,
        Command::Netevents(args) => return netevents::netevents(cli, args, output),
        Command::Options => lists::options(cli, output)?,
        Command::Why(args) => return why::why(cli, args, output),
        Command::Explain(args) => return explain::run(cli, args, output),
    }
    Ok(ExitCode::SUCCESS)
}

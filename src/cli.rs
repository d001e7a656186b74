//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use sluice_bundle::PublicKey;
use sluice_control::objects::Prefix;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The exit statuses, as the help shows them.
const EXIT_STATUS: &str = "\
Exit status:
  0  success
  1  the machine or the driver refused; `apply --check`: something would change; for `policy`, see `sluice policy --help`
  2  the command line is not valid, or there is no machine
  3  the driver is not installed or not loaded, or some of its filters are missing
  4  the policy, bundle or another file is not valid, or the driver or the trusted key refuses it, or it has warnings and --deny-warnings is given
  5  the caller is not an administrator";

/// Installs and controls the Sluicegate network filter driver.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, about, after_help = EXIT_STATUS, max_term_width = 100)]
pub(crate) struct Cli {
    /// The socket of a simulated machine (ntsim) to act on.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[arg(long, global = true, value_name = "SOCKET", env = sluice_host::remote::SOCKET_VARIABLE, hide_env_values = true)]
    pub(crate) machine: Option<PathBuf>,
    /// Print JSON: one object, or one per line for events.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colours; auto is on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// When Windows loads the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Start {
    /// With the kernel; the policy follows when the disk can be read
    Boot,
    /// While the kernel starts, before any program runs
    System,
    /// When `sluice install` or `sc start Sluice` asks for it
    Demand,
}

/// What a machine does without its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fail {
    Open,
    Closed,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install the driver, load it and add its filters; replaces an older driver, repairs an incomplete installation.
    Install {
        /// The driver file [default: sluice.sys beside this program]. It is copied to System32\drivers.
        driver: Option<PathBuf>,
        /// A policy file (TOML) to put in force before the first filter asks for it.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// When Windows loads the driver [default: as it is installed; system for a new installation]
        #[arg(long, value_name = "WHEN")]
        start: Option<Start>,
        /// What passes while the driver is not loaded, or has no policy: everything, or nothing but loopback, DHCP,
        /// neighbour discovery and --management [default: as it is installed; open for a new installation]
        #[arg(long, value_name = "HOW")]
        fail: Option<Fail>,
        /// A network that stays reachable then, as 192.0.2.0/24; may be given up to 16 times. Goes with --fail closed.
        #[arg(long, value_name = "PREFIX", requires = "fail")]
        management: Vec<Prefix>,
        /// From now on put only bundles in force that this key has signed: a file (PEM), or `ed25519:` and 64 hexadecimal
        /// digits.
        #[arg(long, value_name = "KEY", value_parser = crate::bundle::public_key, conflicts_with = "policy")]
        trust: Option<PublicKey>,
        /// Check the machine and the driver, list the steps, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove the filters, the driver, the service and the driver's file, and check that nothing is left.
    Uninstall,
    /// Switch the filters on again, or repair them; does nothing if they are on.
    Enable,
    /// Switch the filters off: nothing is decided here until `enable`, also after a restart. Driver and policy stay.
    Disable,
    /// Compile a policy, test what it expects of itself, put it in force, and keep it for the next start of the driver; or do
    /// so with a compiled image.
    Load {
        /// The policy file (TOML), or an image that `policy compile` has written.
        policy: PathBuf,
        /// Without the driver: make filters of Windows of the rules, as far as those can express them, and list the rest. They
        /// last until `unload` or `uninstall`; another load replaces them in one transaction.
        #[arg(long, conflicts_with_all = ["watch", "accept_shrunk", "once", "deny_warnings"])]
        native: bool,
        /// With --native: leave out rules that block and that no filter expresses. What they block is then decided by the
        /// rules after them, so more may pass than the policy says.
        #[arg(long, requires = "native")]
        leave_out_blocks: bool,
        /// Only check that the policy is valid: needs no driver and no privileges.
        #[arg(long)]
        check: bool,
        /// With --check: fail if there are warnings.
        #[arg(long, requires = "check")]
        deny_warnings: bool,
        /// Keep running, and load the policy again whenever a schedule in it begins or ends; the file is read only
        /// once.
        #[arg(long, conflicts_with = "check")]
        watch: bool,
        /// Do not test the expectations written in the policy.
        #[arg(long, conflicts_with = "check")]
        no_test: bool,
        /// Load it although a list has less than half of the entries that it has in the policy in force.
        #[arg(long, conflicts_with = "check")]
        accept_shrunk: bool,
        /// Put it in force only until the driver is unloaded or Windows restarts; what is kept for the next start stays as it is.
        #[arg(long, conflicts_with = "check")]
        once: bool,
    },
    /// Put a bundle's policy in force, and keep it for the next start of the driver; says nothing if it is.
    Apply {
        /// The bundle, as `sluice bundle make` has written it.
        bundle: PathBuf,
        /// Only look: exit with 1 and say what would change, or with 0 if nothing would.
        #[arg(long)]
        check: bool,
        /// Apply it although it is older than the one that was applied, or has its version and other content.
        #[arg(long)]
        allow_rollback: bool,
        /// Apply it although a list has less than half of the entries that it has in the policy in force.
        #[arg(long)]
        accept_shrunk: bool,
    },
    /// Say or change whose bundles alone are put in force on this machine.
    Trust {
        /// The public key: a file (PEM), or `ed25519:` and 64 hexadecimal digits.
        #[arg(value_parser = crate::bundle::public_key)]
        key: Option<PublicKey>,
        /// Take again what any administrator loads.
        #[arg(long, conflicts_with = "key")]
        remove: bool,
    },
    /// Keep the policy in force up to date, and write decisions down: as a Windows service, or here.
    #[command(subcommand)]
    Service(crate::service::Command),
    /// Make, show and verify signed bundles, and the keys for them: needs no driver and no privileges.
    #[command(subcommand, after_help = crate::bundle::EXIT_STATUS)]
    Bundle(crate::bundle::Command),
    /// Remove the filters that `load --native` has added.
    Unload,
    /// Show the service, the filters, the policy in force and the counters.
    Status,
    /// Report what is wrong with the installation, and the command that fixes it; warn of other products' filters.
    Doctor {
        /// Only look at the filters in a file of `netsh wfp show state` or `show filters`, of any machine.
        file: Option<PathBuf>,
    },
    /// Show what the driver decided: the latest events, which it holds, and with --follow those to come.
    Events(EventArgs),
    /// Show what the driver does now, again and again: rates, who talks most, what is blocked, how often each rule decides.
    Top(TopArgs),
    /// Show the flows that live now: who talks with whom, how much each way, and what the policy says of it.
    Flows,
    /// Answer what rules with `action = "ask"` ask: show who wants to connect where, and permit or block it.
    ///
    /// With --json for other programs: a line for each question and for each that is closed comes out, and a line like
    /// {"id":1,"answer":"permit","scope":"once"} answers.
    Ask(AskArgs),
    /// Show the names of addresses that the driver has learned from answers of DNS.
    Names {
        /// Forget all of them.
        #[arg(long)]
        flush: bool,
    },
    #[command(flatten)]
    Platform(crate::platform::Command),
    /// Capture net events and the engine's state into a cabinet by Windows' own `netsh wfp capture`; `why` reads it.
    #[command(subcommand)]
    Capture(Capture),
    /// Connect to endpoints that a policy blocks and permits, and check each against what Windows and the driver recorded.
    /// Connects only to what --to and --allow name.
    Verify(VerifyArgs),
    /// Print a shell's completions of this command line.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print a manual page (roff): of this program, or of one of its verbs.
    Man {
        /// The verb, as in `policy diff`.
        verb: Vec<String>,
    },
    /// Check, compile, show, compare, explain, test and import policies: needs no driver and no privileges.
    #[command(subcommand, after_help = crate::policy::EXIT_STATUS)]
    Policy(crate::policy::Command),
}

#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    /// Stop after the first answer.
    #[arg(long)]
    pub(crate) once: bool,
    /// The policy file that asks: an answer may also be a rule, which is written into it before the rule that asks, and the
    /// policy is loaded.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Stop after this many seconds; with --once, fail if nothing was answered by then.
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct EventArgs {
    /// Wait for more until stopped.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Wait for this many events, then stop.
    #[arg(short = 'n', long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Stop after this many seconds; with --count, fail if fewer events have come by then.
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Show every decision while this runs, not only those that rules and defaults log.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only those that come from now on, and not what the driver holds.
    #[arg(long)]
    pub(crate) new: bool,
    /// Only decisions with this verdict.
    #[arg(long, value_name = "VERDICT")]
    pub(crate) verdict: Option<EventVerdict>,
    /// Only decisions of the rule with this name; `default` and `essential` are those of no rule.
    #[arg(long, value_name = "NAME")]
    pub(crate) rule: Option<String>,
    /// Only decisions about traffic of this direction.
    #[arg(long, value_name = "DIRECTION")]
    pub(crate) direction: Option<EventDirection>,
    /// Only decisions about programs in whose path this text is.
    #[arg(long, value_name = "TEXT")]
    pub(crate) application: Option<String>,
}

/// What to do with a capture.
#[derive(Debug, Subcommand)]
pub(crate) enum Capture {
    /// Begin; only one capture can run at a time.
    Start {
        /// The cabinet to write when it is stopped [default: wfpdiag.cab]. It must not exist.
        file: Option<PathBuf>,
    },
    /// End, and write the cabinet.
    Stop,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Look twice, print one picture and stop.
    #[arg(long)]
    pub(crate) once: bool,
    /// How long to wait between two looks, in seconds.
    #[arg(short, long, value_name = "SECONDS", value_parser = interval, default_value = "1")]
    pub(crate) interval: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The policy file (TOML) [default: the file that the policy in force was loaded from].
    pub(crate) policy: Option<PathBuf>,
    /// An endpoint to connect to by TCP, as 192.0.2.7:443; may be given more than once.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) to: Vec<SocketAddr>,
    /// A network to which connections may be made, as 192.0.2.0/24; may be given more than once. The policy's expectations
    /// and rules name the endpoints in it.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) allow: Vec<Prefix>,
    /// How long to wait for each connection, in seconds.
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, default_value = "3")]
    pub(crate) timeout: Duration,
    /// List the endpoints and what is expected of each; connect to none.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Which decisions to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventVerdict {
    /// Those that permit.
    Permit,
    /// Those that block.
    Block,
}

impl EventVerdict {
    /// The word that events have for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Block => "block",
        }
    }
}

/// Directions of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventDirection {
    /// What this machine began.
    Out,
    /// What another machine began.
    In,
    /// What was to be passed on.
    Forward,
    /// Who asked to listen.
    Listen,
    /// Who asked for a port.
    Bind,
}

impl EventDirection {
    /// The word that events have for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
            Self::Forward => "forward",
            Self::Listen => "listen",
            Self::Bind => "bind",
        }
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected seconds, as in 2 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("expected seconds, as in 2 or 0.5: {error}"))
}

/// From a tenth of a second to an hour.
fn interval(text: &str) -> Result<Duration, String> {
    let wanted = Duration::from_millis(100)..=Duration::from_secs(3600);
    seconds(text)
        .ok()
        .filter(|time| wanted.contains(time))
        .ok_or_else(|| "expected seconds, from 0.1 to 3600".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seconds_may_have_a_fraction_and_nothing_else() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "-1", "NaN", "1e300", "2s"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}

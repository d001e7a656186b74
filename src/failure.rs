//! Why the command failed, and its exit status.

use serde_json::{Value, json};
use sluice_control::{ControlError, Kind};
use sluice_host::HostError;
use std::io;
use std::path::PathBuf;

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// This is not Windows and no simulated machine was named.
    #[error("this system is not Windows, so there is no machine to act on")]
    NoMachine,
    /// Neither a machine nor a file was named.
    #[error("this system is not Windows, so there is no engine to ask")]
    NoSource,
    /// A file has no objects of the kind that was asked for.
    #[error("the file lists no {0}")]
    NotInFile(&'static str),
    /// `install` was given no driver, and found none where it looks for one.
    #[error("{} does not exist", .0.display())]
    NoDriver(PathBuf),
    /// A verb failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// `events --count` ran into its timeout.
    #[error("{seen} of the {wanted} events came before the timeout")]
    FewerEvents { seen: u64, wanted: u64 },
    /// `ask --once` ran into its timeout.
    #[error("nothing was answered before the timeout")]
    NothingAnswered,
    /// A policy that compiles has warnings.
    #[error("the policy has {count} warnings, and --deny-warnings allows none")]
    Warnings { count: usize },
    /// netsh could not be run, or failed.
    #[error("netsh wfp capture: {0}")]
    Netsh(String),
    /// The command line asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// A file that is not a policy, image or export, or that cannot be read.
    #[error("{}: {problem}", path.display())]
    Input { path: PathBuf, problem: String },
    /// A file cannot be written.
    #[error("writing {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The output cannot be written.
    #[error("writing the output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The machine cannot be reached.
    pub(crate) fn machine(doing: &str, source: HostError) -> Self {
        let left = Default::default();
        Self::Control(ControlError::Step { doing: doing.to_owned(), source, left })
    }

    /// The exit status, as documented in the help.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::NoMachine | Self::NoSource | Self::Usage(_) => 2,
            Self::Netsh(_)
            | Self::NoDriver(_)
            | Self::FewerEvents { .. }
            | Self::NothingAnswered
            | Self::Write { .. }
            | Self::Output(_) => 1,
            Self::Input { .. } | Self::NotInFile(_) | Self::Warnings { .. } => 4,
            Self::Control(error) => match error.kind() {
                Kind::Refused => 1,
                Kind::Absent => 3,
                Kind::Policy => 4,
                Kind::Rights => 5,
            },
        }
    }

    /// What to do about it.
    pub(crate) fn advice(&self) -> Option<String> {
        match self {
            Self::NoMachine if cfg!(all(target_os = "linux", target_arch = "x86_64")) => {
                Some("name the socket of a simulated machine with --machine or NTSIM_SOCKET".to_owned())
            }
            Self::NoMachine => Some("use this command on Windows, or on Linux x86-64 with ntsim".to_owned()),
            Self::NoDriver(_) => {
                Some("put sluice.sys beside this program, or name it: `sluice install PATH`".to_owned())
            }
            Self::NoSource => {
                Some("name a file of `netsh wfp`, or the socket of a simulated machine with --machine".to_owned())
            }
            Self::NotInFile(_) => {
                Some("`netsh wfp show state` writes a file that does; `show filters` does not".to_owned())
            }
            Self::Control(error) => error.advice(),
            Self::Usage(_) => Some("see `sluice --help`".to_owned()),
            Self::Write { .. } => Some("nothing was written".to_owned()),
            Self::Netsh(_)
            | Self::FewerEvents { .. }
            | Self::NothingAnswered
            | Self::Warnings { .. }
            | Self::Input { .. }
            | Self::Output(_) => None,
        }
    }

    /// The failure as JSON.
    pub(crate) fn json(&self) -> Value {
        let mut value = json!({ "error": self.to_string(), "exit_status": self.exit_status() });
        if let Some(advice) = self.advice() {
            value["advice"] = advice.into();
        }
        if let Self::Control(ControlError::Policy(errors)) = self {
            value["error"] = "the policy is not valid".into();
            value["diagnostics"] = json!(errors.diagnostics);
        }
        if let Self::Control(ControlError::Expectations { failed, .. }) = self {
            value["expectations"] = json!(failed);
        }
        if let Self::Control(ControlError::NotExpressible(rules)) = self {
            value["left_out"] = json!(rules);
        }
        if let Self::Control(ControlError::Obstacles(obstacles)) = self {
            value["obstacles"] = json!(obstacles);
        }
        value
    }
}

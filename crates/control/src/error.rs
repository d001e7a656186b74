//! Why a verb failed, and what to do about it.

use crate::install::Obstacle;
use crate::sources::Shrunk;
use sluice_bundle::{InvalidBundle, PublicKey, TooLarge};
use sluice_host::{HostError, code};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The driver file cannot be read or is not usable.
    #[error("driver file {}: {source}", path.display())]
    DriverFile {
        /// The file.
        path: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// The driver cannot load on this machine.
    #[error("{}", list(.0))]
    Obstacles(Vec<Obstacle>),
    /// The service was made by the driver's INF.
    #[error("the driver was installed by its INF, as {installed}")]
    Packaged {
        /// The ImagePath of the existing service.
        installed: String,
    },
    /// The copied file is not the one that was checked.
    #[error("the driver's file changed while it was being installed")]
    DriverChanged,
    /// The old and the new driver do not both accept the policy in force.
    #[error("the policy in force cannot be kept: {source}")]
    PolicyNotCarried {
        /// Why not.
        source: Box<ControlError>,
    },
    /// A verb failed and could not undo everything.
    #[error("{source}{left}")]
    HalfDone {
        /// The failure.
        source: Box<ControlError>,
        /// What could not be undone.
        left: Left,
    },
    /// The machine refused a step.
    #[error("{doing}: {source}{left}")]
    Step {
        /// What was being done.
        doing: String,
        /// The refusal.
        source: HostError,
        /// What could not be undone afterwards.
        left: Left,
    },
    /// An unload is pending.
    #[error("the driver is still unloading: a program has its device open")]
    Unloading,
    /// The service does not exist.
    #[error("the driver is not installed")]
    NotInstalled,
    /// The service exists but the driver is not loaded.
    #[error("the driver is installed but not loaded")]
    NotLoaded,
    /// Driver and command are from different builds.
    #[error("the driver speaks protocol {driver}, this program protocol {ours}")]
    Protocol {
        /// The driver's version.
        driver: u32,
        /// This program's version.
        ours: u32,
    },
    /// The policy file cannot be read.
    #[error("policy file {}: {source}", path.display())]
    PolicyFile {
        /// The file.
        path: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// The policy does not compile. [`Errors::render`](sluice_policy::Errors::render) shows the faulty lines.
    #[error("the policy is not valid: {0}")]
    Policy(sluice_policy::Errors),
    /// The policy is larger than the driver accepts.
    #[error("the compiled policy has {bytes} bytes; the driver accepts at most {limit}")]
    PolicySize {
        /// The image's size.
        bytes: usize,
        /// The driver's limit.
        limit: usize,
    },
    /// No random key for the image's hashes.
    #[error("the system's random number generator failed: {0}")]
    Random(getrandom::Error),
    /// The compiler made an image that the driver's own validator refuses.
    #[error("the compiled policy is damaged: {0}")]
    BadImage(sluice_policy::InvalidImage),
    /// Lists have less than half of the entries that they have in the policy in force.
    #[error("{}", lost(.0))]
    Shrunk(Vec<Shrunk>),
    /// The policy does not do what it says of itself.
    #[error("{}", unmet(path, failed, *total))]
    Expectations {
        /// The policy file.
        path: PathBuf,
        /// The expectations that fail.
        failed: Vec<sluice_policy::Tested>,
        /// How many there are.
        total: usize,
    },
    /// Rules that block and that no filter of Windows expresses.
    #[error("{}", inexpressible(.0))]
    NotExpressible(Vec<crate::native::LeftOut>),
    /// The driver is installed, and decides by its own policy.
    #[error("the driver is installed, and its policy decides")]
    DriverPresent,
    /// One program at a time answers what rules ask.
    #[error("another program answers what rules ask")]
    AnsweredElsewhere,
    /// A question cannot be answered by a rule.
    #[error("no rule can be written into {}: {why}", path.display())]
    NoRuleToAnswer {
        /// The policy file.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// There is no policy to compare with.
    #[error("no policy is in force")]
    NoPolicy,
    /// A bundle cannot be read.
    #[error("bundle {}: {source}", path.display())]
    BundleFile {
        /// The file.
        path: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// A file is no bundle, or was changed after it was signed.
    #[error("bundle {}: {source}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: InvalidBundle,
    },
    /// Something does not fit a bundle.
    #[error("no bundle was made: {0}")]
    NoBundle(#[from] TooLarge),
    /// A bundle was given where a policy is loaded.
    #[error("{} is a bundle", .0.display())]
    BundleToLoad(PathBuf),
    /// The machine takes only what a key has signed.
    #[error("this machine takes only bundles that {trusted} has signed, and this is {}", whose(signer.as_deref()))]
    Untrusted {
        /// The key.
        trusted: Box<PublicKey>,
        /// Who has signed this, if it is a bundle.
        signer: Option<Box<PublicKey>>,
    },
    /// A bundle is older than the one that was applied.
    #[error("the bundle has version {version}, and version {applied} has been applied")]
    Older {
        /// Its version.
        version: u64,
        /// The applied one's.
        applied: u64,
    },
    /// Two bundles have one version.
    #[error("another bundle of version {version} has been applied: each content needs a version of its own")]
    SameVersion {
        /// The version.
        version: u64,
    },
    /// There is no bundle to keep in force.
    #[error("no bundle has been applied")]
    NoBundleApplied,
    /// Which version was applied is not known.
    #[error("the bundle that was applied last is damaged, so its version is not known: {0}")]
    KeptBundle(InvalidBundle),
    /// The driver checked the policy and refused it.
    #[error("the driver refused the policy: {reason}")]
    PolicyRefused {
        /// Why, in the driver's words.
        reason: String,
        /// The generation that stays in force, 0 for none.
        epoch: u32,
    },
    /// The policy is in force, and its file could not be put in place.
    #[error("the policy is in force but is not kept for the next start: {source}")]
    NotKept {
        /// Why not.
        source: HostError,
    },
    /// The driver sent an answer that the protocol does not allow.
    #[error("the driver's answer to {request} is not valid: {what}")]
    Answer {
        /// The request.
        request: &'static str,
        /// What is wrong with the answer.
        what: String,
    },
}

/// What a failed verb could not undo; empty when everything was undone.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left(pub Vec<String>);

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in &self.0 {
            write!(f, "; undoing failed too: {what}")?;
        }
        Ok(())
    }
}

/// Obstacles on one line.
fn list(obstacles: &[Obstacle]) -> String {
    let what: Vec<&str> = obstacles.iter().map(|obstacle| obstacle.what.as_str()).collect();
    what.join("; ")
}

/// Lists that shrank, in one line.
fn lost(lists: &[Shrunk]) -> String {
    let what: Vec<String> = lists.iter().map(ToString::to_string).collect();
    format!("{}: less than half are left", what.join("; "))
}

/// Who has signed what was not admitted.
fn whose(signer: Option<&PublicKey>) -> String {
    signer.map_or_else(|| "no bundle".to_owned(), |signer| format!("signed by {signer}"))
}

/// Expectations that fail, in one line with the first of them.
fn unmet(path: &Path, failed: &[sluice_policy::Tested], total: usize) -> String {
    let first = failed.first().map_or_else(String::new, |one| {
        let why = one.failure.as_deref().unwrap_or_default();
        format!(", in line {}: {}: {why}", one.line, one.flow)
    });
    format!("{}: {} of {total} expectations fail{first}", path.display(), failed.len())
}

/// Rules that block and cannot be filters, in one line with the first of them.
fn inexpressible(left: &[crate::native::LeftOut]) -> String {
    let first = left.first().map_or_else(String::new, |one| format!(": {one}"));
    match left.len() {
        1 => format!("a rule that blocks cannot be a filter of Windows{first}"),
        count => format!("{count} rules that block cannot be filters of Windows, the first{first}"),
    }
}

/// The kinds of failure that a caller (or an exit status) distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The machine or the driver refused.
    Refused,
    /// The driver is not installed or not loaded.
    Absent,
    /// The policy is not valid.
    Policy,
    /// The caller is not an administrator.
    Rights,
}

impl ControlError {
    /// A refused step with nothing left to undo.
    pub(crate) fn step(doing: impl Into<String>) -> impl FnOnce(HostError) -> Self {
        |source| Self::Step { doing: doing.into(), source, left: Left::default() }
    }

    /// The same failure with what could not be undone after it.
    pub(crate) fn leaving(self, more: Vec<String>) -> Self {
        match self {
            Self::Step { doing, source, left: Left(mut left) } => {
                left.extend(more);
                Self::Step { doing, source, left: Left(left) }
            }
            other if more.is_empty() => other,
            other => Self::HalfDone { source: Box::new(other), left: Left(more) },
        }
    }

    /// The kind of this failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotInstalled | Self::NotLoaded => Kind::Absent,
            Self::PolicyFile { .. }
            | Self::Policy(_)
            | Self::PolicySize { .. }
            | Self::Shrunk(_)
            | Self::NotExpressible(_)
            | Self::Expectations { .. }
            | Self::BundleFile { .. }
            | Self::Bundle { .. }
            | Self::NoBundle(_)
            | Self::BundleToLoad(_)
            | Self::Untrusted { .. }
            | Self::Older { .. }
            | Self::SameVersion { .. }
            | Self::KeptBundle(_)
            | Self::PolicyRefused { .. } => Kind::Policy,
            Self::Step { source, .. } if is_denied(source.code) => Kind::Rights,
            Self::HalfDone { source, .. } => source.kind(),
            _ => Kind::Refused,
        }
    }

    /// What to do about it, as one sentence, where there is something to do.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::DriverFile { .. } => "give the path of sluice.sys",
            Self::Obstacles(obstacles) => {
                let remedies: Vec<&str> = obstacles.iter().map(|obstacle| obstacle.remedy.as_str()).collect();
                return Some(remedies.join("; then "));
            }
            Self::NoRuleToAnswer { .. } => "answer once, or as long as the process lives, or write the rule",
            Self::AnsweredElsewhere => "end that program, or answer there",
            Self::Packaged { .. } => {
                "remove the package first: `pnputil /enum-drivers` names it, `pnputil /delete-driver oemNN.inf /uninstall` \
                 removes it"
            }
            Self::DriverChanged => "put it in a folder that only you can write to, and try again",
            Self::PolicyNotCarried { .. } => {
                "name the policy to put in force afterwards: `sluice install --policy FILE`"
            }
            Self::HalfDone { .. } => "run `sluice uninstall` to remove what is left",
            Self::Unloading => "close the programs that have it open (`sluice events`, for example) and try again",
            Self::NotInstalled => "run `sluice install` first",
            Self::NotLoaded => "run `sluice install` again: it loads the driver",
            Self::Protocol { .. } => "use a sluice command and a sluice.sys from the same build",
            Self::Random(_) => return None,
            Self::BadImage(_) => "this is a bug: please report it with the policy",
            Self::PolicyFile { .. } => "give the path of a policy file (TOML) or of a compiled image",
            Self::Policy(_) => "correct the file; a policy that is in force stays in force",
            Self::PolicySize { .. } => {
                "split the lists or merge neighbouring prefixes; the policy in force stays in force"
            }
            Self::Shrunk(_) => {
                "look whether the list is whole; if it is meant so, load it with --accept-shrunk; the policy in force stays in force"
            }
            Self::Expectations { .. } => {
                "correct the rules or what is expected (`sluice policy test` shows all), or load it with --no-test; the policy in \
                 force stays in force"
            }
            Self::BundleFile { .. } => "give the path of a bundle that `sluice bundle make` has written",
            Self::Bundle { .. } => {
                "copy it again, or make it again with `sluice bundle make`; the policy in force stays in force"
            }
            Self::NoBundle(_) => return None,
            Self::NoBundleApplied => "apply one (`sluice apply BUNDLE`), or name a policy file with --policy",
            Self::BundleToLoad(_) => "apply it: `sluice apply BUNDLE`",
            Self::Untrusted { .. } => {
                "sign it with that key (`sluice bundle make`) and apply it; `sluice trust` says whom this machine trusts; the \
                 policy in force stays in force"
            }
            Self::Older { .. } | Self::KeptBundle(_) => {
                "if it is meant so, apply it with --allow-rollback; the policy in force stays in force"
            }
            Self::SameVersion { .. } => {
                "make it again with a higher version, or apply it with --allow-rollback; the policy in force stays in force"
            }
            Self::NotExpressible(_) => {
                "change them, or install the driver; with --leave-out-blocks they are left out, and what they block is decided by \
                 the rules after them; nothing has changed"
            }
            Self::DriverPresent => {
                "load it into the driver: `sluice load FILE`, or remove the driver: `sluice uninstall`"
            }
            Self::NoPolicy => "load one first: `sluice load FILE`",
            Self::PolicyRefused { epoch: 0, .. } => {
                "use a sluice command and a sluice.sys from the same build; no policy is in force"
            }
            Self::PolicyRefused { .. } => {
                "use a sluice command and a sluice.sys from the same build; the policy in force stays in force"
            }
            Self::NotKept { .. } => {
                "load it again; until then a restart brings back the policy that was kept before, or none"
            }
            Self::Answer { .. } => {
                "use a sluice command and a sluice.sys from the same build; if they are, this is a bug"
            }
            Self::Step { left: Left(left), .. } if !left.is_empty() => "run `sluice uninstall` to remove what is left",
            Self::Step { source, .. } => advice_for(source.code)?,
        };
        Some(advice.to_owned())
    }
}

fn is_denied(code: u32) -> bool {
    matches!(code, code::ERROR_ACCESS_DENIED | code::ERROR_ELEVATION_REQUIRED)
}

fn advice_for(code: u32) -> Option<&'static str> {
    Some(match code {
        code if is_denied(code) => "run this in a terminal opened with \"Run as administrator\"",
        code::ERROR_INVALID_IMAGE_HASH => {
            "sign the driver; for a test-signed one turn on test signing (`bcdedit /set testsigning on`) and restart"
        }
        code::EPT_S_NOT_REGISTERED | code::RPC_S_SERVER_UNAVAILABLE => "start the service BFE (`sc start BFE`)",
        code::ERROR_SERVICE_MARKED_FOR_DELETE => {
            "close the programs that look at services (services.msc), then try again"
        }
        code::FWP_E_TIMEOUT => "another program is changing the filters: try again",
        code::FWP_E_IN_USE => "another product's filters refer to these objects: remove those first",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_and_where_and_what_to_do() {
        let error = ControlError::step("creating the service")(HostError::new("CreateServiceW", 5));
        assert_eq!(
            error.to_string(),
            "creating the service: CreateServiceW: access is denied (ERROR_ACCESS_DENIED, error 5)"
        );
        assert_eq!(error.kind(), Kind::Rights);
        assert!(error.advice().unwrap().contains("administrator"));
    }

    #[test]
    fn what_could_not_be_undone_is_named() {
        let error = ControlError::Step {
            doing: "starting the driver".into(),
            source: HostError::new("StartServiceW", code::ERROR_FILE_NOT_FOUND),
            left: Left(vec!["deleting the service: no".into()]),
        };
        assert!(error.to_string().ends_with("; undoing failed too: deleting the service: no"), "{error}");
        assert!(error.advice().unwrap().contains("sluice uninstall"));
    }
}

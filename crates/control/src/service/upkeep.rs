//! What keeps the policy in force as it should be now: looked at step by step, loaded again when something has changed.

use crate::apply::{self, ApplyOptions};
use crate::bundle::policy_in;
use crate::device::Control;
use crate::disk::Disk;
use crate::error::ControlError;
use crate::kept;
use crate::origin;
use crate::policy::{Loading, load_at};
use crate::program::app_id;
use crate::read::read_policy_with;
use crate::sources::Shrinking;
use serde::Serialize;
use sluice_bundle::Bundle;
use sluice_host::Host;
use sluice_policy::image::Origin;
use sluice_policy::model::{Moment, Policy};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where the policy comes from that is kept in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A policy file, which is read again when it or one of its lists changes.
    File(PathBuf),
    /// The bundle that was applied last.
    Bundle,
}

/// The policy was put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// What it comes from.
    pub policy: String,
    /// What had changed since it was last looked at.
    pub because: Vec<&'static str>,
    /// How many rules it has.
    pub rules: u32,
    /// The image's identity.
    pub identity: String,
    /// What the installation lacks for it to be in force.
    pub lacks: Vec<String>,
}

/// What the result of loading depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    /// Which rules are active.
    active: Vec<bool>,
    /// The NT paths of the active rules' programs, where they have one.
    programs: Vec<Option<String>>,
    /// The LUIDs of their interfaces.
    interfaces: Vec<Option<u64>>,
}

impl Facts {
    fn of(host: &dyn Host, policy: &Policy, now: Moment) -> Self {
        let active: Vec<bool> = policy.rules.iter().map(|rule| rule.active(&policy.schedules, Some(now))).collect();
        let rules = || policy.rules.iter().zip(&active).filter(|(_, active)| **active).map(|(rule, _)| rule);
        let path = |path: &str| app_id(host, path.strip_suffix(r"\*").unwrap_or(path)).ok();
        let programs = rules().flat_map(|rule| rule.applications.iter().flatten()).map(|one| path(&one.value));
        let aliases = rules().flat_map(|rule| &rule.aliases);
        let interfaces = aliases.map(|alias| host.interface_luid(&alias.value).ok());
        Self { programs: programs.collect(), interfaces: interfaces.collect(), active }
    }
}

/// A file as it was when it was read: where, how long, and when it was written.
type Print = (PathBuf, Option<(u64, SystemTime)>);

fn print(path: &Path) -> Print {
    let found = fs::metadata(path).ok().and_then(|found| Some((found.len(), found.modified().ok()?)));
    (path.to_owned(), found)
}

/// What the source was when it was read.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Files(Vec<Print>),
    Bundle(Vec<u8>),
}

/// A policy that was read and put in force.
#[derive(Debug)]
struct Current {
    seen: Seen,
    policy: Policy,
    bundle: Option<Bundle>,
    facts: Facts,
    identity: [u8; 16],
}

/// Keeps a policy in force.
#[derive(Debug)]
pub(crate) struct Upkeep {
    source: Source,
    current: Option<Current>,
    failed: bool,
}

impl Upkeep {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, current: None, failed: false }
    }

    /// Looks, and loads if anything has changed or the last try failed. `None` when all is as it should be.
    pub(crate) fn look(&mut self, host: &dyn Host, now: Moment) -> Option<Result<Kept, ControlError>> {
        let looked = self.try_look(host, now);
        self.failed = looked.is_err();
        if self.failed {
            // The next look begins anew.
            self.current = None;
        }
        looked.transpose()
    }

    fn try_look(&mut self, host: &dyn Host, now: Moment) -> Result<Option<Kept>, ControlError> {
        let identity = Control::open(host)?.1.policy_identity;
        let mut because = Vec::new();
        if let Some(current) = &self.current {
            if !current.seen.is_now(host)? {
                because.push(match self.source {
                    Source::Bundle => "another bundle",
                    Source::File(_) => "a file",
                });
            }
            let facts = Facts::of(host, &current.policy, now);
            if facts.active != current.facts.active {
                because.push("a schedule");
            }
            if facts.programs != current.facts.programs {
                because.push("a program or a drive");
            }
            if facts.interfaces != current.facts.interfaces {
                because.push("an interface");
            }
            if identity != current.identity {
                because.push("the policy in force");
            }
            if because.is_empty() {
                return Ok(None);
            }
        }
        // What was read stays good as long as its source does.
        let read = match self.current.take() {
            Some(current) if current.seen.is_now(host)? => (current.seen, current.policy, current.bundle),
            Some(_) => self.read(host)?,
            None => {
                because.push(if self.failed { "a failure before" } else { "the start" });
                self.read(host)?
            }
        };
        self.put(host, now, read, because).map(Some)
    }

    fn read(&self, host: &dyn Host) -> Result<(Seen, Policy, Option<Bundle>), ControlError> {
        match &self.source {
            Source::File(file) => {
                let disk = Disk::default();
                // Before it is read: a change meanwhile is seen at the next look.
                let before = print(file);
                let policy = read_policy_with(file, &disk)?;
                let prints = [before].into_iter().chain(disk.into_read().into_iter().map(|path| print(&path)));
                Ok((Seen::Files(prints.collect()), policy, None))
            }
            Source::Bundle => {
                let bundle = match apply::kept_bundle(host)? {
                    None => return Err(ControlError::NoBundleApplied),
                    Some(Err(why)) => return Err(ControlError::KeptBundle(why)),
                    Some(Ok(bundle)) => bundle,
                };
                Ok((Seen::Bundle(bundle.as_bytes().to_vec()), policy_in(&bundle)?, Some(bundle)))
            }
        }
    }

    fn put(
        &mut self,
        host: &dyn Host,
        now: Moment,
        (seen, policy, bundle): (Seen, Policy, Option<Bundle>),
        because: Vec<&'static str>,
    ) -> Result<Kept, ControlError> {
        let facts = Facts::of(host, &policy, now);
        let (report, name) = match &bundle {
            Some(bundle) => {
                let name = format!("{}, version {} of the applied bundle", bundle.policy().0, bundle.version());
                let origin = Origin { file: name.clone(), ..origin::of(Path::new(bundle.policy().0)) };
                // Its lists may be shorter than those of whatever was in force: it was applied once.
                let options = ApplyOptions { shrinking: Shrinking::Accepted, ..ApplyOptions::DEFAULT };
                (apply::settle(host, bundle, &origin, now, options)?.load, name)
            }
            None => (Some(load_at(host, &policy, now, Loading::DEFAULT)?), policy.path.display().to_string()),
        };
        let status = Control::open(host)?.1;
        let lacks = report.as_ref().map_or_else(|| crate::policy::lacks(host), |report| report.lacks.clone());
        let kept = Kept {
            policy: name,
            because,
            rules: status.rules,
            identity: crate::status::identity(&status.policy_identity),
            lacks,
        };
        self.current = Some(Current { seen, policy, bundle, facts, identity: status.policy_identity });
        Ok(kept)
    }
}

impl Seen {
    /// Whether the source is as it was.
    fn is_now(&self, host: &dyn Host) -> Result<bool, ControlError> {
        match self {
            Self::Files(prints) => Ok(prints.iter().all(|before| print(&before.0) == *before)),
            Self::Bundle(bytes) => {
                let kept = kept::BUNDLE.read(host);
                let kept = kept.map_err(ControlError::step("reading the bundle that was applied last"))?;
                Ok(kept.as_deref() == Some(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::machine;
    use crate::testing::Memory;

    const POLICY: &str = r#"
        [schedule.night]
        hours = "18:00-08:00"
        [list.bad]
        file = "bad.txt"
        [[rule]]
        action = "block"
        local-port = 3389
        schedule = "night"
        [[rule]]
        action = "block"
        remote = "@bad"
        [[rule]]
        action = "block"
        interface = "alias:VPN"
    "#;

    fn at(hour: u16) -> Moment {
        Moment { day: 0, minute: hour * 60 }
    }

    fn because(upkeep: &mut Upkeep, memory: &Memory, hour: u16) -> Vec<&'static str> {
        upkeep.look(memory, at(hour)).map_or_else(Vec::new, |kept| kept.unwrap().because)
    }

    #[test]
    fn each_change_is_noticed_once_and_nothing_else_loads() {
        let memory = machine();
        let folder = tempfile::tempdir().unwrap();
        let (file, list) = (folder.path().join("p.toml"), folder.path().join("bad.txt"));
        fs::write(&file, POLICY).unwrap();
        fs::write(&list, "192.0.2.1\n").unwrap();
        let mut upkeep = Upkeep::new(Source::File(file.clone()));
        let mut then = |hour, what: &[&str]| {
            assert_eq!(because(&mut upkeep, &memory, hour), what);
            assert_eq!(because(&mut upkeep, &memory, hour), [""; 0], "after {what:?}");
        };
        then(12, &["the start"]);
        then(13, &[]);
        then(19, &["a schedule"]);
        fs::write(&list, "192.0.2.1\n192.0.2.3\n").unwrap();
        then(19, &["a file"]);
        memory.interfaces.borrow_mut().push(("VPN".to_owned(), 53 << 48 | 7));
        then(19, &["an interface"]);
        fs::write(&file, format!("{POLICY}\n# edited\n")).unwrap();
        then(20, &["a file"]);
        let other = crate::policy::tests::file("[default]\noutbound = \"block\"\n");
        crate::load(&memory, other.path()).unwrap();
        then(20, &["the policy in force"]);
    }

    #[test]
    fn a_file_that_is_half_written_changes_nothing_and_is_tried_again() {
        let memory = machine();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.toml");
        fs::write(&file, "[default]\n").unwrap();
        let mut upkeep = Upkeep::new(Source::File(file.clone()));
        because(&mut upkeep, &memory, 12);
        let before = memory.driver.lock().unwrap().policies.clone();
        fs::write(&file, "[defau").unwrap();
        for _ in 0..2 {
            assert!(upkeep.look(&memory, at(12)).unwrap().is_err());
        }
        assert_eq!(memory.driver.lock().unwrap().policies, before);
        fs::write(&file, "[default]\n# whole\n").unwrap();
        assert_eq!(because(&mut upkeep, &memory, 12), ["a failure before"]);
    }

    #[test]
    fn without_a_bundle_there_is_nothing_to_keep() {
        let error = Upkeep::new(Source::Bundle).look(&machine(), at(12)).unwrap().unwrap_err();
        assert!(matches!(error, ControlError::NoBundleApplied), "{error}");
    }
}

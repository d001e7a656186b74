//! Puts a bundle in force, or finds that it is.
//!
//! Whether something changes is not remembered but seen: the bundle's policy is compiled for this machine, as it is at this
//! moment, with the hash key of the image in force. If that is the image in force, and what is kept for the next start is
//! the same, nothing is to be done.

use crate::bundle::{policy_in, read_bundle};
use crate::error::ControlError;
use crate::kept;
use crate::origin;
use crate::policy::{LoadReport, Loading, drawn_key, expectations_hold, lacks, local_moment, prepare_with};
use crate::sources::{self, Shrinking};
use crate::trust;
use serde::Serialize;
use sluice_bundle::{Bundle, InvalidBundle};
use sluice_host::Host;
use sluice_policy::Image;
use sluice_policy::image::Origin;
use sluice_policy::model::{Moment, Policy};
use std::path::Path;

/// How a bundle is applied.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// Also if it is older than the one that was applied, or has its version and other content.
    pub rollback: bool,
    /// Whether its lists may have shrunk.
    pub shrinking: Shrinking,
    /// Only look what would change.
    pub check: bool,
}

impl ApplyOptions {
    /// Neither older ones nor shrunk lists, and in earnest.
    pub const DEFAULT: Self = Self { rollback: false, shrinking: Shrinking::Refused, check: false };
}

/// What [`apply`] found and did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApplyReport {
    /// Whether anything was not as the bundle has it; it is now, unless this was only a check.
    pub changed: bool,
    /// What.
    pub changes: Vec<String>,
    /// The policy's name.
    pub policy: String,
    /// The bundle's version.
    pub version: u64,
    /// The version that was applied before, of the same key.
    pub before: Option<u64>,
    /// Who signed it.
    pub signer: String,
    /// Whether the machine trusts this key alone; without a trusted key it takes what any administrator applies.
    pub trusted: bool,
    /// What loading said, if it was loaded.
    pub load: Option<LoadReport>,
    /// What the installation lacks for the policy to be in force.
    pub lacks: Vec<String>,
}

/// The bundle that was applied last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AppliedBundle {
    /// The policy's name.
    pub policy: String,
    /// Its version.
    pub version: u64,
    /// Who signed it.
    pub signer: String,
    /// Its SHA-256.
    pub digest: String,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// Puts a bundle in force on this machine, if it is not.
///
/// # Errors
/// It is no bundle, of a key that the machine does not trust, or older than the one that was applied; or loading its policy
/// fails ([`load`](crate::load)). Whatever fails, the policy in force stays in force.
pub fn apply(host: &dyn Host, file: &Path, options: ApplyOptions) -> Result<ApplyReport, ControlError> {
    let bundle = read_bundle(file, trust::trusted(host)?.as_ref())?;
    let origin = origin::of(file);
    let file = format!("{}, version {} of the bundle {}", bundle.policy().0, bundle.version(), origin.file);
    settle(host, &bundle, &Origin { file, ..origin }, local_moment(), options)
}

/// As [`apply`], at a moment.
pub(crate) fn settle(
    host: &dyn Host,
    bundle: &Bundle,
    origin: &Origin,
    now: Moment,
    options: ApplyOptions,
) -> Result<ApplyReport, ControlError> {
    trust::admits(host, Some(bundle.signer()))?;
    let before = kept_bundle(host)?;
    let applied = allowed(bundle, before.as_ref(), options.rollback)?;
    let policy = policy_in(bundle)?;
    let expectations = expectations_hold(&policy)?;
    let changes = changes(host, bundle, before.as_ref(), &policy, now)?;
    let mut report = ApplyReport {
        changed: !changes.is_empty(),
        changes,
        policy: bundle.policy().0.to_owned(),
        version: bundle.version(),
        before: applied,
        signer: bundle.signer().to_string(),
        trusted: trust::trusted(host)?.is_some(),
        load: None,
        lacks: Vec::new(),
    };
    if !report.changed || options.check {
        report.lacks = lacks(host);
        return Ok(report);
    }
    let prepared = prepare_with(host, &policy, now, drawn_key()?, origin)?.signed(*bundle.signer());
    kept::BUNDLE.write(host, bundle.as_bytes())?;
    let loading = Loading { shrinking: options.shrinking, ..Loading::DEFAULT };
    let loaded = prepared.put_in_force(host, loading).inspect_err(|_| {
        // If it stays, the next one deletes it.
        let _ = kept::BUNDLE.discard(host);
    })?;
    kept::BUNDLE.place(host, bundle.as_bytes()).map_err(|source| ControlError::NotKept { source })?;
    report.lacks.clone_from(&loaded.lacks);
    report.load = Some(LoadReport { expectations, ..loaded });
    Ok(report)
}

/// The bundle that was applied last; damaged, if it is.
pub(crate) fn kept_bundle(host: &dyn Host) -> Result<Option<Result<Bundle, InvalidBundle>>, ControlError> {
    let kept = kept::BUNDLE.read(host).map_err(ControlError::step("reading the bundle that was applied last"))?;
    Ok(kept.map(Bundle::read))
}

/// What `status` says of the bundle that was applied last.
pub(crate) fn applied(host: &dyn Host) -> Option<AppliedBundle> {
    let damaged = |why: String| AppliedBundle { damaged: Some(why), ..AppliedBundle::default() };
    Some(match kept_bundle(host) {
        Ok(kept) => match kept? {
            Ok(bundle) => AppliedBundle {
                policy: bundle.policy().0.to_owned(),
                version: bundle.version(),
                signer: bundle.signer().to_string(),
                digest: bundle.digest(),
                damaged: None,
            },
            Err(why) => damaged(why.to_string()),
        },
        Err(error) => damaged(error.to_string()),
    })
}

/// What is wrong between the policy in force, the bundle that was applied last, and the key that the machine trusts.
pub(crate) fn unlike_its_bundle(host: &dyn Host) -> Result<Option<String>, ControlError> {
    let trusted = trust::trusted(host)?;
    let before = match (kept_bundle(host)?, trusted) {
        (None, None) => return Ok(None),
        (None, Some(key)) => return Ok(Some(format!("this machine trusts {key}, and no bundle was applied"))),
        (Some(Err(why)), _) => return Err(ControlError::KeptBundle(why)),
        (Some(Ok(before)), _) => before,
    };
    if let Some(key) = trusted.filter(|key| key != before.signer()) {
        return Ok(Some(format!("this machine trusts {key}, and {} has signed what was applied", before.signer())));
    }
    let policy = policy_in(&before)?;
    let changes = changes(host, &before, None, &policy, local_moment())?;
    // That it was applied before is known.
    let changes = changes.get(1..).unwrap_or_default();
    Ok((!changes.is_empty())
        .then(|| format!("it is not as the bundle that was applied has it: {}", changes.join(", "))))
}

/// The version of the same key that was applied, which this may follow.
fn allowed(
    bundle: &Bundle,
    before: Option<&Result<Bundle, InvalidBundle>>,
    rollback: bool,
) -> Result<Option<u64>, ControlError> {
    let before = match before {
        None => return Ok(None),
        Some(Err(_)) if rollback => return Ok(None),
        Some(Err(why)) => return Err(ControlError::KeptBundle(why.clone())),
        Some(Ok(before)) if before.signer() != bundle.signer() => return Ok(None),
        Some(Ok(before)) => before,
    };
    let (version, applied) = (bundle.version(), before.version());
    if rollback || version > applied || bundle.as_bytes() == before.as_bytes() {
        return Ok(Some(applied));
    }
    Err(if version == applied {
        ControlError::SameVersion { version }
    } else {
        ControlError::Older { version, applied }
    })
}

/// What is not as the bundle has it.
fn changes(
    host: &dyn Host,
    bundle: &Bundle,
    before: Option<&Result<Bundle, InvalidBundle>>,
    policy: &Policy,
    now: Moment,
) -> Result<Vec<String>, ControlError> {
    let mut changes = Vec::new();
    match before {
        Some(Ok(before)) if before.as_bytes() == bundle.as_bytes() => {}
        Some(Ok(before)) if before.signer() == bundle.signer() => {
            changes.push(format!("version {} was applied before", before.version()));
        }
        Some(Ok(before)) => changes.push(format!("a bundle of {} was applied before", before.signer())),
        Some(Err(_)) => changes.push("the bundle that was applied before is damaged".to_owned()),
        None => changes.push("no bundle was applied before".to_owned()),
    }
    let Some(image) = sources::in_force(host)? else {
        changes.push("no policy was in force".to_owned());
        return Ok(changes);
    };
    if !is(host, &image, policy, now) {
        changes.push(if changes.is_empty() {
            "another policy was in force, or something on this machine has changed".to_owned()
        } else {
            "another policy was in force".to_owned()
        });
    }
    let kept = kept::POLICY.read(host).map_err(ControlError::step("reading the kept policy"))?;
    if kept.as_deref() != Some(image.as_bytes()) {
        changes.push("another policy was kept for the next start".to_owned());
    }
    Ok(changes)
}

/// Whether an image is what the policy compiles to here and now, wherever it is noted to come from.
fn is(host: &dyn Host, image: &Image<Vec<u8>>, policy: &Policy, now: Moment) -> bool {
    let Some(origin) = image.origin() else { return false };
    // A policy that does not compile with this key may do so with another, and says why if it does not.
    prepare_with(host, policy, now, image.key(), &origin).is_ok_and(|again| again.image() == image.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::make_bundle;
    use crate::kept::{BUNDLE_FILE, BUNDLE_NEW, FILE, NEW};
    use crate::policy::tests::{file, machine};
    use crate::testing::Memory;
    use crate::{Loading, doctor, load, load_with, status, trust};
    use sluice_bundle::SecretKey;
    use std::io::Write;

    const POLICY: &str = "[default]\noutbound = \"permit\"\ninbound = \"permit\"\n[[rule]]\naction = \"block\"\nremote = \"192.0.2.1\"\n";
    const OTHER: &str = "[default]\noutbound = \"block\"\ninbound = \"block\"\n";
    const ROLLBACK: ApplyOptions = ApplyOptions { rollback: true, ..ApplyOptions::DEFAULT };
    const CHECK: ApplyOptions = ApplyOptions { check: true, ..ApplyOptions::DEFAULT };

    fn bundle(text: &str, version: u64, key: &SecretKey) -> tempfile::NamedTempFile {
        let (bytes, _) = make_bundle(file(text).path(), version, key, true).unwrap();
        let mut bundle = tempfile::NamedTempFile::new().unwrap();
        bundle.write_all(&bytes).unwrap();
        bundle
    }

    type State = (Vec<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);

    fn state(memory: &Memory) -> State {
        let files = memory.files.borrow();
        (memory.driver.lock().unwrap().policies.clone(), files.get(FILE).cloned(), files.get(BUNDLE_FILE).cloned())
    }

    #[test]
    fn a_second_time_changes_nothing() {
        let (memory, key) = (machine(), SecretKey::generate().unwrap());
        let one = bundle(POLICY, 1, &key);
        let report = apply(&memory, one.path(), CHECK).unwrap();
        assert!(report.changed && memory.driver.lock().unwrap().policies.is_empty());
        let report = apply(&memory, one.path(), ApplyOptions::DEFAULT).unwrap();
        assert!(report.changed && !report.trusted && report.lacks.is_empty());
        assert_eq!(report.changes, ["no bundle was applied before", "no policy was in force"]);
        let changing = || memory.calls.borrow().iter().filter(|call| **call != "FwpmEngineOpen0").count();
        let before = (state(&memory), changing());
        for options in [ApplyOptions::DEFAULT, CHECK, ROLLBACK] {
            let again = apply(&memory, one.path(), options).unwrap();
            assert_eq!((again.changed, again.changes.len(), again.load), (false, 0, None));
        }
        assert!((state(&memory), changing()) == before, "something was written");
        let status = status(&memory).unwrap();
        assert_eq!(status.bundle.unwrap().version, 1);
        assert!(doctor(&memory).unwrap().findings.is_empty());
    }

    #[test]
    fn what_is_not_as_the_bundle_has_it_is_mended() {
        let (memory, key) = (machine(), SecretKey::generate().unwrap());
        let one = bundle(POLICY, 1, &key);
        let changes = || apply(&memory, one.path(), ApplyOptions::DEFAULT).unwrap().changes;
        changes();
        load_with(&memory, file(OTHER).path(), Loading { once: true, ..Loading::DEFAULT }).unwrap();
        assert_eq!(doctor(&memory).unwrap().findings.len(), 2);
        assert_eq!(
            changes(),
            [
                "another policy was in force, or something on this machine has changed",
                "another policy was kept for the next start"
            ]
        );
        memory.files.borrow_mut().insert(FILE.to_owned(), b"damaged".to_vec());
        assert_eq!(changes(), ["another policy was kept for the next start"]);
        load(&memory, file(POLICY).path()).unwrap();
        assert!(!memory.files.borrow().contains_key(BUNDLE_FILE), "a loaded policy is of no bundle");
        assert_eq!(changes(), ["no bundle was applied before"]);
        assert_eq!(changes(), [""; 0]);
    }

    #[test]
    fn an_older_bundle_and_one_of_the_same_version_are_refused_unless_that_is_meant() {
        let (memory, key) = (machine(), SecretKey::generate().unwrap());
        apply(&memory, bundle(POLICY, 5, &key).path(), ApplyOptions::DEFAULT).unwrap();
        let before = state(&memory);
        let older = bundle(OTHER, 4, &key);
        let error = apply(&memory, older.path(), ApplyOptions::DEFAULT).unwrap_err();
        assert_eq!(error.to_string(), "the bundle has version 4, and version 5 has been applied");
        let error = apply(&memory, bundle(OTHER, 5, &key).path(), ApplyOptions::DEFAULT).unwrap_err();
        assert!(matches!(error, ControlError::SameVersion { version: 5 }), "{error}");
        assert_eq!(state(&memory), before);
        assert_eq!(apply(&memory, older.path(), ROLLBACK).unwrap().before, Some(5));
        assert_eq!(apply(&memory, bundle(POLICY, 6, &key).path(), ApplyOptions::DEFAULT).unwrap().before, Some(4));
        memory.files.borrow_mut().get_mut(BUNDLE_FILE).unwrap().pop();
        let seven = bundle(OTHER, 7, &key);
        let error = apply(&memory, seven.path(), ApplyOptions::DEFAULT).unwrap_err();
        assert!(matches!(error, ControlError::KeptBundle(_)), "{error}");
        assert!(apply(&memory, seven.path(), ROLLBACK).unwrap().changed);
    }

    #[test]
    fn a_machine_that_trusts_a_key_takes_nothing_else() {
        let (memory, key, other) = (machine(), SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let (mine, theirs) = (bundle(POLICY, 1, &key), bundle(OTHER, 9, &other));
        trust::trust(&memory, Some(&key.public())).unwrap();
        assert!(apply(&memory, mine.path(), ApplyOptions::DEFAULT).unwrap().trusted);
        let before = state(&memory);
        let refused = |result: Result<(), ControlError>| match result {
            Err(error @ ControlError::Untrusted { .. }) => assert_eq!(error.kind(), crate::Kind::Policy),
            other => panic!("{other:?}"),
        };
        let policy = file(OTHER);
        refused(apply(&memory, theirs.path(), ROLLBACK).map(drop));
        refused(load(&memory, policy.path()).map(drop));
        refused(load_with(&memory, policy.path(), Loading { once: true, ..Loading::DEFAULT }).map(drop));
        let clock = &mut crate::watch::LocalClock;
        refused(crate::watch(&memory, policy.path(), Loading::DEFAULT, clock, &mut |_| {
            std::ops::ControlFlow::Break(())
        }));
        let folder = tempfile::tempdir().unwrap();
        let driver = crate::testing::driver_file(folder.path(), 1);
        let options = crate::install::Options { policy: Some(policy.path()), ..crate::install::Options::of(&driver) };
        refused(crate::install::install_with(&memory, &options).map(drop));
        assert_eq!(state(&memory), before);
        assert!(!memory.files.borrow().contains_key(NEW) && !memory.files.borrow().contains_key(BUNDLE_NEW));

        // Another driver is installed with the policy that is in force, and the key stays.
        let driver = crate::testing::driver_file(folder.path(), 2);
        crate::install(&memory, &driver).unwrap();
        assert_eq!(trust::trusted(&memory).unwrap(), Some(key.public()));
        // A value that is no key lets nothing through.
        let wrong = sluice_host::Parameter::Text("ed25519:00".to_owned());
        memory.parameters.borrow_mut().insert("TrustedKey".to_owned(), wrong);
        assert!(load(&memory, policy.path()).unwrap_err().to_string().contains("TrustedKey"));
        assert!(apply(&memory, mine.path(), ApplyOptions::DEFAULT).is_err());
        trust::trust(&memory, None).unwrap();
        load(&memory, policy.path()).unwrap();
    }

    /// A policy that is installed is of no bundle; unless the installation fails, at whatever call.
    #[test]
    fn an_installation_that_fails_keeps_the_bundle() {
        let (key, policy) = (SecretKey::generate().unwrap(), file(OTHER));
        let (one, folder) = (bundle(POLICY, 1, &key), tempfile::tempdir().unwrap());
        let driver = crate::testing::driver_file(folder.path(), 2);
        let options = crate::install::Options { policy: Some(policy.path()), ..crate::install::Options::of(&driver) };
        for call in 0.. {
            let memory = machine();
            apply(&memory, one.path(), ApplyOptions::DEFAULT).unwrap();
            memory.calls.borrow_mut().clear();
            memory.fail_at.set(Some(call));
            let installed = crate::install::install_with(&memory, &options);
            let bundle = memory.files.borrow().contains_key(BUNDLE_FILE);
            if memory.calls.borrow().len() <= call {
                assert!(installed.is_ok() && !bundle && call > 5, "{call} calls");
                break;
            }
            assert_eq!(bundle, installed.is_err(), "call {call}: {installed:?}");
        }
    }

    /// Each call that changes something fails once; the next try finishes.
    #[test]
    fn what_fails_changes_nothing_or_says_that_it_is_not_kept() {
        let key = SecretKey::generate().unwrap();
        let (one, two) = (bundle(POLICY, 1, &key), bundle(OTHER, 2, &key));
        let ready = || {
            let memory = machine();
            apply(&memory, one.path(), ApplyOptions::DEFAULT).unwrap();
            memory.calls.borrow_mut().clear();
            memory
        };
        let whole = {
            let memory = ready();
            apply(&memory, two.path(), ApplyOptions::DEFAULT).unwrap();
            memory.calls.take()
        };
        assert!(whole.iter().filter(|call| **call == "MoveFileExW").count() == 2, "{whole:?}");
        for (call, name) in whole.iter().enumerate() {
            let memory = ready();
            let before = state(&memory);
            memory.fail_at.set(Some(call));
            match apply(&memory, two.path(), ApplyOptions::DEFAULT) {
                Ok(report) => assert_eq!((*name, report.lacks.len()), ("FwpmEngineOpen0", 1)),
                Err(ControlError::NotKept { .. }) => {
                    assert_eq!((*name, &state(&memory).2), ("MoveFileExW", &before.2));
                }
                Err(error) => assert_eq!(state(&memory), before, "call {call}, {name}: {error}"),
            }
            memory.fail_at.set(None);
            apply(&memory, two.path(), ApplyOptions::DEFAULT).unwrap();
            assert_eq!(status(&memory).unwrap().bundle.unwrap().version, 2, "call {call}, {name}");
            assert!(!memory.files.borrow().contains_key(BUNDLE_NEW), "call {call}, {name}");
        }
    }
}

//! Loads a policy file into the driver.

use crate::device::Control;
use crate::error::ControlError;
use crate::kept;
use crate::objects::{self, Fail};
use crate::origin;
use crate::program::{app_id, assumed_app_id, missing_interfaces, missing_programs};
use crate::read::{Loadable, read_loadable, read_policy, read_policy_elsewhere};
use crate::sources::{self, Moved, Shrinking};
use crate::status::identity;
use crate::trust;
use jiff::Zoned;
use serde::Serialize;
use sluice_bundle::PublicKey;
use sluice_host::Host;
use sluice_policy::image::Origin;
use sluice_policy::model::{Moment, Policy, assumed_luid, schedule};
use sluice_policy::{CompileOptions, Diagnostic, Difference, Image, compile_with_warnings, diff_with_image, lint};
use sluice_protocol::ioctl::MAX_POLICY_BYTES;
use sluice_protocol::status::PolicyReply;
use std::path::Path;

/// What [`check`] found in a policy that compiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// How many rules it has.
    pub rules: u32,
    /// How large its image is, in bytes.
    pub bytes: u64,
    /// Its lists, by name.
    pub lists: Vec<ListReport>,
    /// What compiles but is probably a mistake.
    pub warnings: Vec<Diagnostic>,
}

/// A list of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListReport {
    /// Its name.
    pub name: String,
    /// How many entries were read, those that others cover among them.
    pub entries: u64,
}

/// What [`load`] put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadReport {
    /// The image's identity, as `sluice status` shows it.
    pub identity: String,
    /// The driver's generation: 1 for the first policy since it was loaded.
    pub epoch: u32,
    /// How many rules it has.
    pub rules: u32,
    /// How large its image is, in bytes.
    pub bytes: u64,
    /// The local time for which rules with a schedule were evaluated, if there are any: the result stays until the
    /// policy is loaded again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedules_judged_at: Option<String>,
    /// The local time at which the result changes, if it ever does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedules_change_at: Option<String>,
    /// Programs of rules that are not on this machine, as the policy writes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_programs: Vec<String>,
    /// Aliases of interfaces of rules that are not on this machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_interfaces: Vec<String>,
    /// Why Windows does not reauthorize connections older than the policy, if it does not: they keep their verdict,
    /// except those that the driver tracks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_asked_again: Option<String>,
    /// Drives that are on another device than in the policy that was in force before: its rules on their programs matched
    /// nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<Moved>,
    /// Drives and interfaces that are elsewhere here than a compiled image has them: its rules on them match nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<Moved>,
    /// How many expectations that the policy has were tested, and hold.
    pub expectations: usize,
    /// What compiles but is probably a mistake.
    pub warnings: Vec<Diagnostic>,
    /// Whether it is kept for the next start of the driver.
    pub kept: bool,
    /// What the installation lacks. The driver has the policy, but the policy is in force only if this is empty.
    pub lacks: Vec<String>,
}

impl LoadReport {
    /// What an image says of itself.
    fn of(image: &Image<Vec<u8>>) -> Self {
        Self {
            identity: identity(&image.identity()),
            epoch: 0,
            rules: image.rule_count(),
            bytes: image.as_bytes().len() as u64,
            schedules_judged_at: None,
            schedules_change_at: None,
            missing_programs: Vec::new(),
            missing_interfaces: Vec::new(),
            not_asked_again: None,
            moved: Vec::new(),
            differs: Vec::new(),
            expectations: 0,
            warnings: Vec::new(),
            kept: false,
            lacks: Vec::new(),
        }
    }
}

/// How a policy is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Loading {
    /// Whether its lists may have shrunk.
    pub shrinking: Shrinking,
    /// It is in force until the driver is unloaded, and is not kept for the next start.
    pub once: bool,
    /// Whether it is loaded only if the expectations written in it hold.
    pub test: bool,
}

impl Loading {
    /// A list that shrank and an expectation that fails are refused, and the policy is kept.
    pub const DEFAULT: Self = Self { shrinking: Shrinking::Refused, once: false, test: true };
}

/// Reads and compiles a policy and discards the image. Needs no machine: only the form of programs' paths is checked.
///
/// # Errors
/// The file cannot be read, or its policy does not compile.
pub fn check(file: &Path) -> Result<CheckReport, ControlError> {
    let policy = read_policy_elsewhere(file)?;
    let (image, found) = image(&policy, &assumed_app_id, None, EXAMINED_KEY)?;
    let warnings = warnings(&policy, found);
    let lists = policy.lists.iter().map(|list| ListReport { name: list.name.clone(), entries: list.entries as u64 });
    let (rules, bytes) = (image.rule_count(), image.as_bytes().len() as u64);
    Ok(CheckReport { rules, bytes, lists: lists.collect(), warnings })
}

/// Reads and compiles a policy for this machine, or reads a compiled image, and gives it to the driver.
///
/// # Errors
/// The file cannot be read, its policy does not compile or does not do what its expectations say, a list has less than half
/// of the entries that it has in the policy in force, or the driver is not loaded or refuses the policy. Whatever fails, the
/// policy in force stays in force.
pub fn load(host: &dyn Host, file: &Path) -> Result<LoadReport, ControlError> {
    load_with(host, file, Loading::DEFAULT)
}

/// As [`load`], in another way.
///
/// # Errors
/// As there.
pub fn load_with(host: &dyn Host, file: &Path, loading: Loading) -> Result<LoadReport, ControlError> {
    match read_loadable(file)? {
        Loadable::Policy(policy) => load_at(host, &policy, local_moment(), loading),
        Loadable::Image(image) => prepare_image(host, file, *image).put_in_force(host, loading),
    }
}

/// Compiles a policy for this machine, with schedules evaluated at `now`, and gives it to the driver.
pub(crate) fn load_at(
    host: &dyn Host,
    policy: &Policy,
    now: Moment,
    loading: Loading,
) -> Result<LoadReport, ControlError> {
    let expectations = if loading.test { expectations_hold(policy)? } else { 0 };
    let mut prepared = prepare(host, policy, now)?;
    prepared.report.expectations = expectations;
    prepared.put_in_force(host, loading)
}

/// Tests the expectations written in a policy, as `sluice policy test` does; returns how many there are.
pub(crate) fn expectations_hold(policy: &Policy) -> Result<usize, ControlError> {
    if policy.expectations.is_empty() && policy.rules.iter().all(|rule| rule.expectations.is_empty()) {
        return Ok(0);
    }
    // They speak of flows and programs of any machine: a program need not be on this one.
    let elsewhere = policy.on_machine(|alias| Some(assumed_luid(alias)));
    let options = CompileOptions { application: &assumed_app_id, key: [0; 16], at: None };
    let tested = sluice_policy::test(&elsewhere, &options).map_err(ControlError::Policy)?;
    let total = tested.len();
    let failed: Vec<_> = tested.into_iter().filter(|one| one.failure.is_some()).collect();
    if failed.is_empty() {
        return Ok(total);
    }
    Err(ControlError::Expectations { path: policy.path.clone(), failed, total })
}

/// Why the driver is not asked about everything: what is wrong with its filters.
pub(crate) fn lacks(host: &dyn Host) -> Vec<String> {
    let looked = Fail::declared(host)
        .and_then(|fail| host.open_engine().and_then(|mut engine| objects::inspect(&mut *engine, &fail)));
    match looked {
        Ok(objects) => {
            if objects.disabled() {
                return vec!["the filters are switched off: `sluice enable` switches them on".to_owned()];
            }
            let missing = objects.missing.iter().map(|what| format!("missing: {what}"));
            missing.chain(objects.changed.iter().map(|change| format!("changed: {change}"))).collect()
        }
        Err(error) => vec![format!("the filters cannot be queried: {error}")],
    }
}

/// A policy compiled for a machine, not in force yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    image: Image<Vec<u8>>,
    /// The report of loading it, except what the driver answers.
    report: LoadReport,
    /// Who has signed the bundle that it is from.
    signer: Option<PublicKey>,
}

impl Prepared {
    /// An image with where it came from noted in it.
    fn noted(image: Image<Vec<u8>>, origin: &Origin, report: LoadReport) -> Self {
        // Should the note make it too long, it goes without.
        let noted = Some(image.with_origin(origin)).filter(|bytes| bytes.len() <= MAX_POLICY_BYTES);
        let image = noted.and_then(|bytes| Image::validate(bytes).ok()).unwrap_or(image);
        let (identity, bytes) = (identity(&image.identity()), image.as_bytes().len() as u64);
        Self { report: LoadReport { identity, bytes, ..report }, image, signer: None }
    }

    /// The compiled image.
    pub(crate) fn image(&self) -> &[u8] {
        self.image.as_bytes()
    }

    /// It is from a bundle that this key has signed.
    pub(crate) fn signed(self, signer: PublicKey) -> Self {
        Self { signer: Some(signer), ..self }
    }

    /// Gives it to the driver, unless a list has shrunk, and looks whether it is in force.
    pub(crate) fn put_in_force(&self, host: &dyn Host, loading: Loading) -> Result<LoadReport, ControlError> {
        let before = match (loading.shrinking, sources::in_force(host)) {
            (_, Ok(before)) => before,
            // What cannot be compared may have shrunk.
            (Shrinking::Refused, Err(error)) => return Err(error),
            (Shrinking::Accepted, Err(_)) => None,
        };
        if let Some(before) = before.as_ref().filter(|_| loading.shrinking == Shrinking::Refused) {
            let shrunk = sources::shrunk(before, &self.image);
            if !shrunk.is_empty() {
                return Err(ControlError::Shrunk(shrunk));
            }
        }
        let mut report = self.load(host, loading.once)?;
        report.moved = before.map_or_else(Vec::new, |before| sources::moved(host, &before));
        report.lacks = lacks(host);
        Ok(report)
    }

    /// Gives it to the driver and, unless it is `once`, keeps it for the next start.
    ///
    /// # Errors
    /// The machine trusts a key, and it is of no bundle that this key has signed; or the driver refuses it. Nothing has
    /// changed then.
    pub(crate) fn load(&self, host: &dyn Host, once: bool) -> Result<LoadReport, ControlError> {
        trust::admits(host, self.signer.as_ref())?;
        if !once {
            kept::POLICY.write(host, self.image())?;
        }
        let reply = set_image(host, self.image()).inspect_err(|_| {
            // If it stays, the next load deletes it.
            let _ = kept::POLICY.discard(host);
        })?;
        if !once {
            kept::POLICY.place(host, self.image()).map_err(|source| ControlError::NotKept { source })?;
        }
        if self.signer.is_none() && !once {
            // What holds now is no bundle's, and the service must not bring that back.
            kept::BUNDLE.restore(host, None).map_err(|source| ControlError::NotKept { source })?;
        }
        let not_asked_again = (reply.not_asked_again != 0).then(|| format!("NTSTATUS {:#010x}", reply.not_asked_again));
        Ok(LoadReport { epoch: reply.epoch, not_asked_again, kept: !once, ..self.report.clone() })
    }
}

/// Reads and compiles a policy for this machine.
pub(crate) fn prepare_file(host: &dyn Host, file: &Path) -> Result<Prepared, ControlError> {
    match read_loadable(file)? {
        Loadable::Policy(policy) => {
            let expectations = expectations_hold(&policy)?;
            let mut prepared = prepare(host, &policy, local_moment())?;
            prepared.report.expectations = expectations;
            Ok(prepared)
        }
        Loadable::Image(image) => Ok(prepare_image(host, file, *image)),
    }
}

/// An image as it was compiled, noted as loaded from `file`.
fn prepare_image(host: &dyn Host, file: &Path, image: Image<Vec<u8>>) -> Prepared {
    let report = LoadReport { differs: sources::moved(host, &image), ..LoadReport::of(&image) };
    let origin = Origin { image: Some(identity(&image.identity())), ..origin::of(file) };
    Prepared::noted(image, &origin, report)
}

fn prepare(host: &dyn Host, policy: &Policy, now: Moment) -> Result<Prepared, ControlError> {
    prepare_with(host, policy, now, drawn_key()?, &origin::of(&policy.path))
}

/// Compiles for this machine, with this key and noted as from there.
pub(crate) fn prepare_with(
    host: &dyn Host,
    policy: &Policy,
    now: Moment,
    key: [u8; 16],
    origin: &Origin,
) -> Result<Prepared, ControlError> {
    let policy = &policy.on_machine(|alias| host.interface_luid(alias).ok());
    let application = |path: &str| app_id(host, path);
    let (image, found) = image(policy, &application, Some(now), key)?;
    let report = LoadReport {
        schedules_judged_at: (!policy.schedules.is_empty()).then(|| now.to_string()),
        schedules_change_at: schedule::next_change(policy, now).map(|minutes| now.after(minutes).to_string()),
        missing_programs: missing_programs(host, policy, now),
        missing_interfaces: missing_interfaces(host, policy, now),
        warnings: warnings(policy, found),
        ..LoadReport::of(&image)
    };
    Ok(Prepared::noted(image, origin, report))
}

/// This machine's local time, as schedules know it.
#[must_use]
pub fn local_moment() -> Moment {
    let now = Zoned::now();
    Moment {
        day: now.weekday().to_monday_zero_offset().unsigned_abs(),
        minute: u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs()),
    }
}

/// Gives a compiled image to the driver and returns its generation.
///
/// # Errors
/// The driver is not loaded or refuses the image.
pub fn load_image(host: &dyn Host, image: &[u8]) -> Result<u32, ControlError> {
    set_image(host, image).map(|reply| reply.epoch)
}

fn set_image(host: &dyn Host, image: &[u8]) -> Result<PolicyReply, ControlError> {
    if image.len() > MAX_POLICY_BYTES {
        return Err(ControlError::PolicySize { bytes: image.len(), limit: MAX_POLICY_BYTES });
    }
    let (device, _) = Control::open(host)?;
    let reply = device.set_policy(image)?;
    match reply.reason() {
        None => Ok(reply),
        Some(reason) => Err(ControlError::PolicyRefused { reason: reason.to_owned(), epoch: reply.epoch }),
    }
}

/// What the parser and the compiler found questionable; findings on the policy as a whole come last.
fn warnings(policy: &Policy, compiled: Vec<Diagnostic>) -> Vec<Diagnostic> {
    policy.warnings.iter().cloned().chain(compiled).chain(lint(policy)).collect()
}

/// Compares the policy in force with one in a file, compiled for this machine.
///
/// # Errors
/// The file cannot be read, its policy does not compile, the driver cannot be asked, or has no policy.
pub fn diff_in_force(host: &dyn Host, file: &Path, at: Option<Moment>) -> Result<Difference, ControlError> {
    let policy = read_policy(file)?.on_machine(|alias| host.interface_luid(alias).ok());
    let in_force = sources::in_force(host)?.ok_or(ControlError::NoPolicy)?;
    // What compiling says of a missing program is said when the policy is loaded.
    let application = |path: &str| app_id(host, path).or_else(|_| assumed_app_id(path));
    let options = CompileOptions { application: &application, key: [0; 16], at };
    diff_with_image(in_force, &policy, &options).map_err(ControlError::Policy)
}

/// A key for the hashes of an image, which nobody must guess once it decides.
pub(crate) fn drawn_key() -> Result<[u8; 16], ControlError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(ControlError::Random)?;
    Ok(key)
}

/// The key of an image that is only looked at, so that the same policy makes the same image.
pub(crate) const EXAMINED_KEY: [u8; 16] = [0x5a; 16];

/// Compiles, and validates with the driver's own validator; returns the compiler's warnings too.
pub(crate) fn image(
    policy: &Policy,
    application: &dyn Fn(&str) -> Result<String, String>,
    at: Option<Moment>,
    key: [u8; 16],
) -> Result<(Image<Vec<u8>>, Vec<Diagnostic>), ControlError> {
    let compiled =
        compile_with_warnings(policy, &CompileOptions { application, key, at }).map_err(ControlError::Policy)?;
    let bytes = compiled.image;
    if bytes.len() > MAX_POLICY_BYTES {
        return Err(ControlError::PolicySize { bytes: bytes.len(), limit: MAX_POLICY_BYTES });
    }
    Ok((Image::validate(bytes).map_err(ControlError::BadImage)?, compiled.warnings))
}

#[cfg(test)]
pub(crate) mod tests;

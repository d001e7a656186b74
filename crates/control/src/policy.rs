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
pub(crate) mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::testing::{Memory, installed};
    use std::io::Write;

    const POLICY: &str = r#"
        [default]
        outbound = "permit"
        inbound = "permit"

        [[rule]]
        name = "no curl"
        action = "block"
        application = 'C:\Windows\System32\CURL.exe'
    "#;

    pub(crate) fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    pub(crate) fn machine() -> Memory {
        installed()
    }

    #[test]
    fn a_policy_arrives_with_the_programs_of_this_machine() {
        let memory = machine();
        memory.driver.lock().unwrap().reply = PolicyReply::accepted(4);
        let report = load(&memory, file(POLICY).path()).unwrap();
        assert_eq!((report.epoch, report.rules, report.schedules_judged_at), (4, 1, None));
        assert_eq!(report.schedules_change_at, None);
        let driver = memory.driver.lock().unwrap();
        let [image] = driver.policies.as_slice() else { panic!("{} policies", driver.policies.len()) };
        let image = Image::validate(image.as_slice()).unwrap();
        assert_eq!(identity(&image.identity()), report.identity);
        let path: Vec<u8> =
            r"\device\harddiskvolume1\windows\system32\curl.exe".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(image.as_bytes().windows(path.len()).any(|window| window == path), "the NT path is in the image");
    }

    /// PATH is set in every environment that runs tests; it is not the machine's.
    #[test]
    fn a_variable_of_the_callers_is_not_used() {
        let load = |name: &str| load(&machine(), file(&POLICY.replace("C:\\Windows", name)).path()).unwrap();
        let report = load("%PATH%");
        assert!(report.warnings[0].message.contains("no environment variable `PATH`"), "{:?}", report.warnings);
        assert_eq!(report.missing_programs.len(), 1);
        assert!(load("%systemroot%").missing_programs.is_empty());
    }

    #[test]
    fn a_policy_that_does_not_do_what_it_says_is_not_loaded() {
        let memory = machine();
        let expect =
            "[[expect]]\napplication = 'Q:\\gone.exe'\nremote = \"192.0.2.1:443\"\nprotocol = \"tcp\"\nverdict = ";
        let report = load(&memory, file(&format!("{POLICY}\n{expect}\"permit\"\n")).path()).unwrap();
        assert_eq!(report.expectations, 1, "also of a program that is not on this machine");
        let wrong = file(&format!("{POLICY}\n{expect}\"block\"\n"));
        let error = load(&memory, wrong.path()).unwrap_err();
        assert!(error.to_string().contains("1 of 1 expectations fail, in line 11: "), "{error}");
        assert!(error.to_string().ends_with("expected block, the verdict is permit"), "{error}");
        assert_eq!(error.kind(), Kind::Policy);
        assert_eq!(memory.driver.lock().unwrap().policies.len(), 1);
        let report = load_with(&memory, wrong.path(), Loading { test: false, ..Loading::DEFAULT }).unwrap();
        assert_eq!(report.expectations, 0);
    }

    #[test]
    fn what_is_in_force_says_where_it_came_from() {
        let memory = machine();
        let policy = file(POLICY);
        load(&memory, policy.path()).unwrap();
        let of_the_last = || {
            let driver = memory.driver.lock().unwrap();
            Image::validate(driver.policies.last().unwrap().clone()).unwrap()
        };
        let origin = of_the_last().origin().unwrap();
        assert_eq!((origin.file, origin.image), (policy.path().to_string_lossy().into_owned(), None));
        assert!(origin.loaded.ends_with('Z') && !origin.by.is_empty());

        // A compiled image is loaded as it is, and keeps the name it had.
        let application = |path: &str| app_id(&memory, path);
        let options = CompileOptions { application: &application, key: [7; 16], at: None };
        let compiled = sluice_policy::compile(&read_policy(policy.path()).unwrap(), &options).unwrap();
        let own = identity(&Image::validate(compiled.clone()).unwrap().identity());
        let mut image = file("");
        image.write_all(&compiled).unwrap();
        let report = load(&memory, image.path()).unwrap();
        assert_eq!((report.rules, report.differs.len()), (1, 0));
        let last = of_the_last();
        assert_eq!(last.origin().unwrap().image, Some(own));
        assert_eq!(report.identity, identity(&last.identity()));
        // One that is damaged is refused.
        image.as_file().set_len(compiled.len() as u64 - 1).unwrap();
        assert_eq!(load(&memory, image.path()).unwrap_err().kind(), Kind::Policy);
    }

    #[test]
    fn a_policy_is_compared_with_that_in_force() {
        let memory = machine();
        let policy = file(POLICY);
        assert!(matches!(diff_in_force(&memory, policy.path(), None), Err(ControlError::NoPolicy)));
        load(&memory, policy.path()).unwrap();
        {
            let mut driver = memory.driver.lock().unwrap();
            driver.status.policy_bytes = driver.policies[0].len() as u64;
        }
        assert_eq!(diff_in_force(&memory, policy.path(), None).unwrap().pairs, 0);
        let other = file(&POLICY.replace("\"block\"", "\"permit\""));
        let found = diff_in_force(&memory, other.path(), None).unwrap();
        assert_eq!(found.changes[0].old_rule.as_deref(), Some("no curl"));
    }

    #[test]
    fn a_policy_is_in_force_only_with_its_filters() {
        let memory = machine();
        assert_eq!(load(&memory, file(POLICY).path()).unwrap().lacks, [""; 0]);
        memory.objects.borrow_mut().filters.remove(0);
        let lacks = load(&memory, file(POLICY).path()).unwrap().lacks;
        assert_eq!(lacks, ["missing: the filter ALE_AUTH_CONNECT_V4"]);
        memory.engine_stopped.set(true);
        let lacks = load(&memory, file(POLICY).path()).unwrap().lacks;
        assert!(lacks[0].contains("cannot be queried"), "{lacks:?}");
    }

    #[test]
    fn older_connections_that_are_not_asked_about_are_said() {
        let memory = machine();
        assert_eq!(load(&memory, file(POLICY).path()).unwrap().not_asked_again, None);
        memory.driver.lock().unwrap().reply.not_asked_again = 0xC022_0012;
        let report = load(&memory, file(POLICY).path()).unwrap();
        assert_eq!(report.not_asked_again.as_deref(), Some("NTSTATUS 0xc0220012"));
    }

    #[test]
    fn two_loads_use_two_keys() {
        let memory = machine();
        load(&memory, file(POLICY).path()).unwrap();
        load(&memory, file(POLICY).path()).unwrap();
        let driver = memory.driver.lock().unwrap();
        assert_ne!(driver.policies[0], driver.policies[1]);
    }

    #[test]
    fn the_drivers_refusal_comes_with_its_reason() {
        let memory = machine();
        memory.driver.lock().unwrap().reply = PolicyReply::refused(2, &"offset 17 lies outside");
        let error = load(&memory, file(POLICY).path()).unwrap_err();
        assert_eq!(error.to_string(), "the driver refused the policy: offset 17 lies outside");
        assert!(error.advice().unwrap().ends_with("the policy in force stays in force"));
        assert_eq!(error.kind(), Kind::Policy);
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_line() {
        let memory = machine();
        let text = POLICY.replace("C:", "Q:");
        let report = load(&memory, file(&text).path()).unwrap();
        let [finding] = report.warnings.as_slice() else { panic!("{:?}", report.warnings) };
        assert_eq!(finding.line, 9);
        assert!(finding.message.contains(r"`Q:\Windows\System32\CURL.exe`"), "{finding}");
        assert!(finding.message.contains("there is no such file"), "{finding}");
        assert!(finding.message.ends_with("its path is used as written"), "{finding}");
        assert_eq!(report.missing_programs, [r"Q:\Windows\System32\CURL.exe"]);

        // The rule permits nothing, and the policy is in force all the same.
        let permit = text.replace("action = \"block\"", "action = \"permit\"");
        let report = load(&memory, file(&permit).path()).unwrap();
        assert!(report.warnings[0].message.ends_with("the rule does not match it"), "{:?}", report.warnings);
        let driver = memory.driver.lock().unwrap();
        let entries = |index: usize| {
            let image = Image::validate(driver.policies[index].as_slice()).unwrap();
            sluice_policy::show(&image).rules[0].entries
        };
        assert_eq!((entries(0) > 0, entries(1)), (true, 0));
    }

    #[test]
    fn a_check_needs_no_machine_and_no_program() {
        let report = check(file(&POLICY.replace("C:", "Q:")).path()).unwrap();
        assert_eq!(report.rules, 1);
        assert!(report.bytes > 0);
    }

    #[test]
    fn a_relative_program_is_refused_by_a_check() {
        let ControlError::Policy(errors) = check(file(&POLICY.replace("C:\\", "")).path()).unwrap_err() else {
            panic!()
        };
        assert_eq!(errors.diagnostics[0].line, 9, "{errors}");
    }

    #[test]
    fn what_is_no_policy_is_refused_with_its_place() {
        let error = check(Path::new("/nowhere/policy.toml")).unwrap_err();
        assert!(error.to_string().starts_with("policy file /nowhere/policy.toml: "), "{error}");
        let mut latin = file("# first\n# caf");
        latin.write_all(&[0xe9]).unwrap();
        let error = check(latin.path()).unwrap_err();
        assert!(error.to_string().ends_with("line 2: not UTF-8"), "{error}");
        let wide: Vec<u8> = POLICY.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut utf16 = file("");
        utf16.write_all(&wide).unwrap();
        let error = check(utf16.path()).unwrap_err();
        assert!(error.to_string().contains("it is UTF-16"), "{error}");
        let ControlError::Policy(errors) = check(file("[default").path()).unwrap_err() else { panic!() };
        assert_eq!(errors.diagnostics[0].line, 1);
    }

    #[test]
    fn variables_and_the_kernel_are_programs_too() {
        let memory = machine();
        for (program, known) in [("System", true), (r"%SystemRoot%\a.exe", true), (r"%TEMP%\a.exe", false)] {
            let text = POLICY.replace(r"C:\Windows\System32\CURL.exe", program);
            check(file(&text).path()).unwrap();
            let report = load(&memory, file(&text).path()).unwrap();
            assert_eq!(report.missing_programs.is_empty(), known, "{program}");
        }
    }

    #[test]
    fn nt_paths_are_taken_as_they_are() {
        let memory = machine();
        let text = POLICY.replace("C:", r"\Device\HarddiskVolume9");
        load(&memory, file(&text).path()).unwrap();
        check(file(&text).path()).unwrap();
    }
}

//! Loads a policy file into the driver.

use crate::device::Control;
use crate::disk::{Disk, MAX_POLICY_FILE};
use crate::error::ControlError;
use crate::kept;
use crate::objects;
use crate::sources::{self, Moved, Shrinking};
use crate::status::identity;
use jiff::Zoned;
use serde::Serialize;
use sluice_host::Host;
use sluice_policy::model::{Moment, Policy, assumed_luid, program, schedule};
use sluice_policy::text::{self, Encoding};
use sluice_policy::{CompileOptions, Diagnostic, Files, Image, compile_with_warnings, lint, parse};
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
    /// What compiles but is probably a mistake.
    pub warnings: Vec<Diagnostic>,
    /// Whether it is kept for the next start of the driver.
    pub kept: bool,
    /// What the installation lacks. The driver has the policy, but the policy is in force only if this is empty.
    pub lacks: Vec<String>,
}

/// How a policy is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Loading {
    /// Whether its lists may have shrunk.
    pub shrinking: Shrinking,
    /// It is in force until the driver is unloaded, and is not kept for the next start.
    pub once: bool,
}

impl Loading {
    /// A list that shrank is refused, and the policy is kept.
    pub const DEFAULT: Self = Self { shrinking: Shrinking::Refused, once: false };
}

/// Reads and compiles a policy and discards the image. Needs no machine: only the form of programs' paths is checked.
///
/// # Errors
/// The file cannot be read, or its policy does not compile.
pub fn check(file: &Path) -> Result<CheckReport, ControlError> {
    let policy = read_policy_elsewhere(file)?;
    let (image, found) = image(&policy, &assumed_app_id, None)?;
    let warnings = warnings(&policy, found);
    let lists = policy.lists.iter().map(|list| ListReport { name: list.name.clone(), entries: list.entries as u64 });
    let (rules, bytes) = (image.rule_count(), image.as_bytes().len() as u64);
    Ok(CheckReport { rules, bytes, lists: lists.collect(), warnings })
}

/// Reads and compiles a policy for this machine and gives it to the driver.
///
/// # Errors
/// The file cannot be read, its policy does not compile, a list has less than half of the entries that it has in the
/// policy in force, or the driver is not loaded or refuses the policy. Whatever fails, the policy in force stays in force.
pub fn load(host: &dyn Host, file: &Path) -> Result<LoadReport, ControlError> {
    load_with(host, file, Loading::DEFAULT)
}

/// As [`load`], in another way.
///
/// # Errors
/// As there.
pub fn load_with(host: &dyn Host, file: &Path, loading: Loading) -> Result<LoadReport, ControlError> {
    load_at(host, &read_policy(file)?, local_moment(), loading)
}

/// Compiles a policy for this machine, with schedules evaluated at `now`, and gives it to the driver.
pub(crate) fn load_at(
    host: &dyn Host,
    policy: &Policy,
    now: Moment,
    Loading { shrinking, once }: Loading,
) -> Result<LoadReport, ControlError> {
    let prepared = prepare(host, policy, now)?;
    let before = match (shrinking, sources::in_force(host)) {
        (_, Ok(before)) => before,
        // What cannot be compared may have shrunk.
        (Shrinking::Refused, Err(error)) => return Err(error),
        (Shrinking::Accepted, Err(_)) => None,
    };
    if let Some(before) = before.as_ref().filter(|_| shrinking == Shrinking::Refused) {
        let shrunk = sources::shrunk(before, &prepared.image);
        if !shrunk.is_empty() {
            return Err(ControlError::Shrunk(shrunk));
        }
    }
    let mut report = prepared.load(host, once)?;
    report.moved = before.map_or_else(Vec::new, |before| sources::moved(host, &before));
    report.lacks = lacks(host);
    Ok(report)
}

/// Why the driver is not asked about everything: what is wrong with its filters.
fn lacks(host: &dyn Host) -> Vec<String> {
    match host.open_engine().and_then(|mut engine| objects::inspect(&mut *engine)) {
        Ok(objects) => {
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
}

impl Prepared {
    /// The compiled image.
    pub(crate) fn image(&self) -> &[u8] {
        self.image.as_bytes()
    }

    /// Gives it to the driver and, unless it is `once`, keeps it for the next start.
    pub(crate) fn load(&self, host: &dyn Host, once: bool) -> Result<LoadReport, ControlError> {
        if !once {
            kept::write(host, self.image())?;
        }
        let reply = set_image(host, self.image()).inspect_err(|_| {
            // If it stays, the next load deletes it.
            let _ = kept::discard(host);
        })?;
        if !once {
            kept::place(host).map_err(|source| ControlError::NotKept { source })?;
        }
        let not_asked_again = (reply.not_asked_again != 0).then(|| format!("NTSTATUS {:#010x}", reply.not_asked_again));
        Ok(LoadReport { epoch: reply.epoch, not_asked_again, kept: !once, ..self.report.clone() })
    }
}

/// Reads and compiles a policy for this machine.
pub(crate) fn prepare_file(host: &dyn Host, file: &Path) -> Result<Prepared, ControlError> {
    prepare(host, &read_policy(file)?, local_moment())
}

fn prepare(host: &dyn Host, policy: &Policy, now: Moment) -> Result<Prepared, ControlError> {
    let policy = &policy.on_machine(|alias| host.interface_luid(alias).ok());
    let application = |path: &str| app_id(host, path);
    let (image, found) = image(policy, &application, Some(now))?;
    let report = LoadReport {
        identity: identity(&image.identity()),
        epoch: 0,
        rules: image.rule_count(),
        bytes: image.as_bytes().len() as u64,
        schedules_judged_at: (!policy.schedules.is_empty()).then(|| now.to_string()),
        schedules_change_at: schedule::next_change(policy, now).map(|minutes| now.after(minutes).to_string()),
        missing_programs: missing_programs(host, policy, now),
        missing_interfaces: missing_interfaces(host, policy, now),
        not_asked_again: None,
        moved: Vec::new(),
        warnings: warnings(policy, found),
        kept: false,
        lacks: Vec::new(),
    };
    Ok(Prepared { image, report })
}

/// Programs that the rules in force at `now` name and that are not on this machine.
pub(crate) fn missing_programs(host: &dyn Host, policy: &Policy, now: Moment) -> Vec<String> {
    let active = policy.rules.iter().filter(|rule| rule.active(&policy.schedules, Some(now)));
    let programs = active.flat_map(|rule| rule.applications.iter().flatten()).map(|path| path.value.as_str());
    let missing = |path: &&str| app_id(host, path.strip_suffix(r"\*").unwrap_or(path)).is_err();
    let mut missing: Vec<String> = programs.filter(missing).map(str::to_owned).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// Aliases of interfaces that the rules in force at `now` name and that are not on this machine.
pub(crate) fn missing_interfaces(host: &dyn Host, policy: &Policy, now: Moment) -> Vec<String> {
    let active = policy.rules.iter().filter(|rule| rule.active(&policy.schedules, Some(now)));
    let aliases = active.flat_map(|rule| &rule.aliases).map(|alias| alias.value.clone());
    let mut missing: Vec<String> = aliases.filter(|alias| host.interface_luid(alias).is_err()).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
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

/// Reads a policy, or standard input for `-`, and its lists.
///
/// # Errors
/// The file cannot be read, is not UTF-8, or is not a valid policy.
pub fn read_policy(file: &Path) -> Result<Policy, ControlError> {
    read_policy_with(file, &Disk::default())
}

/// As [`read_policy`], with the lists from `files`.
///
/// # Errors
/// As [`read_policy`].
pub fn read_policy_with(file: &Path, files: &dyn Files) -> Result<Policy, ControlError> {
    let failed = |source| ControlError::PolicyFile { path: file.to_owned(), source };
    let text = sluice_files::read_or_stdin(file, MAX_POLICY_FILE).map_err(failed)?;
    let invalid = |what: String| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
    if text::guess(&text) != Encoding::Utf8 {
        let what = "it is UTF-16, as PowerShell's `>` writes it; save it as UTF-8 (`Out-File -Encoding utf8`)";
        return Err(invalid(what.to_owned()));
    }
    let text = String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        invalid(format!("line {line}: not UTF-8"))
    })?;
    parse(file, &text, files).map_err(ControlError::Policy)
}

/// Reads a policy and its lists away from its machine: interfaces that it names by alias are taken to be there.
///
/// # Errors
/// As [`read_policy`].
pub fn read_policy_elsewhere(file: &Path) -> Result<Policy, ControlError> {
    Ok(read_policy(file)?.on_machine(|alias| Some(assumed_luid(alias))))
}

/// Compiles, and validates with the driver's own validator; returns the compiler's warnings too.
fn image(
    policy: &Policy,
    application: &dyn Fn(&str) -> Result<String, String>,
    at: Option<Moment>,
) -> Result<(Image<Vec<u8>>, Vec<Diagnostic>), ControlError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(ControlError::Random)?;
    let compiled =
        compile_with_warnings(policy, &CompileOptions { application, key, at }).map_err(ControlError::Policy)?;
    let bytes = compiled.image;
    if bytes.len() > MAX_POLICY_BYTES {
        return Err(ControlError::PolicySize { bytes: bytes.len(), limit: MAX_POLICY_BYTES });
    }
    Ok((Image::validate(bytes).map_err(ControlError::BadImage)?, compiled.warnings))
}

/// The prefix of programs' NT paths.
const DEVICE: &str = r"\device\";

/// The NT path of a program on this machine.
pub(crate) fn app_id(host: &dyn Host, path: &str) -> Result<String, String> {
    if is_nt_path(path) || is_kernel(path) {
        return Ok(path.to_owned());
    }
    let expanded = expanded(path, |name| host.environment(name).map_err(|error| error.to_string()))?;
    host.app_id(&expanded).map_err(|error| error.to_string())
}

/// The path with its leading environment variable, as Windows' own firewall writes programs
/// (`%SystemRoot%\system32\svchost.exe`), replaced by its value. The value is the machine's: one from the caller's
/// environment could have been set by any of the user's programs.
fn expanded(path: &str, value: impl Fn(&str) -> Result<Option<String>, String>) -> Result<String, String> {
    match path.strip_prefix('%').and_then(|rest| rest.split_once('%')) {
        Some((name, rest)) => match value(name)? {
            Some(value) => Ok(value + rest),
            None => Err(format!("the machine has no environment variable `{name}` (a user's variables are ignored)")),
        },
        None => Ok(path.to_owned()),
    }
}

/// The kernel itself, which has no path.
fn is_kernel(path: &str) -> bool {
    path.eq_ignore_ascii_case("system")
}

/// An NT path that a program path in normal form could have on some machine.
///
/// # Errors
/// None: every such program could be on some machine.
pub fn assumed_app_id(path: &str) -> Result<String, String> {
    let folded = program::fold(path);
    if is_nt_path(path) || is_kernel(path) { Ok(folded) } else { Ok(format!("{DEVICE}{folded}")) }
}

fn is_nt_path(path: &str) -> bool {
    path.get(..DEVICE.len()).is_some_and(|start| start.eq_ignore_ascii_case(DEVICE))
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
        let value = |name: &str| Ok((name == "SystemRoot").then(|| r"C:\Windows".to_owned()));
        assert_eq!(expanded(r"%SystemRoot%\a.exe", value).as_deref(), Ok(r"C:\Windows\a.exe"));
        assert_eq!(expanded(r"C:\a.exe", value).as_deref(), Ok(r"C:\a.exe"));
        assert!(expanded(r"%Nothing%\a.exe", value).unwrap_err().contains("no environment variable `Nothing`"));
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

//! A policy file into the driver.

use crate::device::Control;
use crate::error::ControlError;
use crate::host::Host;
use crate::status::identity;
use jiff::Zoned;
use serde::Serialize;
use sluice_policy::model::{Moment, Policy};
use sluice_policy::{CompileOptions, Diagnostic, Disk, Image, compile, parse};
use sluice_protocol::ioctl::MAX_POLICY_BYTES;
use std::path::Path;

/// What [`check`] found in a policy that compiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// How many rules it has.
    pub rules: u32,
    /// How large its image is, in bytes.
    pub bytes: u64,
    /// What compiles and is probably not meant.
    pub warnings: Vec<Diagnostic>,
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
    /// The local time by which rules with a schedule were judged, when there are any: they stay so until the policy is
    /// loaded again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedules_judged_at: Option<String>,
    /// What compiles and is probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and compiles a policy and throws the image away. Needs no machine, so programs are not looked for: their
/// paths are checked for their form only.
///
/// # Errors
/// The file cannot be read, or its policy does not compile.
pub fn check(file: &Path) -> Result<CheckReport, ControlError> {
    let policy = read(file)?;
    let image = image(&policy, &assumed_app_id, None)?;
    Ok(CheckReport { rules: image.rule_count(), bytes: image.as_bytes().len() as u64, warnings: policy.warnings })
}

/// Reads and compiles a policy for this machine and gives it to the driver in one request.
///
/// # Errors
/// The file cannot be read, its policy does not compile, the driver is not there or refuses it. Whatever fails, the
/// policy in force stays in force.
pub fn load(host: &dyn Host, file: &Path) -> Result<LoadReport, ControlError> {
    let policy = read(file)?;
    let now = Zoned::now();
    let moment = Moment {
        day: now.weekday().to_monday_zero_offset().unsigned_abs(),
        minute: u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs()),
    };
    let application = |path: &str| app_id(host, path);
    let image = image(&policy, &application, Some(moment))?;
    let epoch = load_image(host, image.as_bytes())?;
    Ok(LoadReport {
        identity: identity(&image.identity()),
        epoch,
        rules: image.rule_count(),
        bytes: image.as_bytes().len() as u64,
        schedules_judged_at: (!policy.schedules.is_empty()).then(|| now.strftime("%a %H:%M").to_string()),
        warnings: policy.warnings,
    })
}

/// Gives a compiled image to the driver and returns its generation.
///
/// # Errors
/// The driver is not there or refuses the image.
pub fn load_image(host: &dyn Host, image: &[u8]) -> Result<u32, ControlError> {
    if image.len() > MAX_POLICY_BYTES {
        return Err(ControlError::PolicySize { bytes: image.len(), limit: MAX_POLICY_BYTES });
    }
    let (device, _) = Control::open(host)?;
    let reply = device.set_policy(image)?;
    match reply.reason() {
        None => Ok(reply.epoch),
        Some(reason) => Err(ControlError::PolicyRefused { reason: reason.to_owned(), epoch: reply.epoch }),
    }
}

fn read(file: &Path) -> Result<Policy, ControlError> {
    let failed = |source| ControlError::PolicyFile { path: file.to_owned(), source };
    let text = std::fs::read(file).map_err(failed)?;
    let text = String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        let what = format!("line {line}: not UTF-8, as policy files are");
        failed(std::io::Error::new(std::io::ErrorKind::InvalidData, what))
    })?;
    parse(file, &text, &Disk).map_err(ControlError::Policy)
}

/// Compiles and validates with the driver's own validator.
fn image(
    policy: &Policy,
    application: &dyn Fn(&str) -> Result<String, String>,
    at: Option<Moment>,
) -> Result<Image<Vec<u8>>, ControlError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(ControlError::Random)?;
    let bytes = compile(policy, &CompileOptions { application, key, at }).map_err(ControlError::Policy)?;
    if bytes.len() > MAX_POLICY_BYTES {
        return Err(ControlError::PolicySize { bytes: bytes.len(), limit: MAX_POLICY_BYTES });
    }
    Image::validate(bytes).map_err(ControlError::BadImage)
}

/// What NT paths of programs begin with.
const DEVICE: &str = r"\device\";

/// The NT path of a program on this machine.
fn app_id(host: &dyn Host, path: &str) -> Result<String, String> {
    if is_nt_path(path) { Ok(path.to_owned()) } else { host.app_id(path).map_err(|error| error.to_string()) }
}

/// An NT path of the form that the program would have on some machine.
fn assumed_app_id(path: &str) -> Result<String, String> {
    let absolute = match path.as_bytes() {
        [drive, b':', b'\\' | b'/', ..] => drive.is_ascii_alphabetic(),
        [b'/', ..] => true,
        _ => is_nt_path(path),
    };
    if absolute {
        Ok(format!("{DEVICE}{}", path.to_lowercase()))
    } else {
        Err(r"the path is not absolute, as in `C:\Windows\System32\curl.exe`".to_owned())
    }
}

fn is_nt_path(path: &str) -> bool {
    path.get(..DEVICE.len()).is_some_and(|start| start.eq_ignore_ascii_case(DEVICE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::install;
    use crate::testing::Memory;
    use sluice_protocol::status::PolicyReply;
    use std::io::Write;

    const POLICY: &str = r#"
        [default]
        outbound = "permit"
        inbound = "block"

        [[rule]]
        name = "no curl"
        action = "block"
        application = 'C:\Windows\System32\CURL.exe'
    "#;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn machine() -> Memory {
        let driver = file("MZ");
        let memory = Memory::new();
        install(&memory, driver.path()).unwrap();
        memory
    }

    #[test]
    fn a_policy_arrives_with_the_programs_of_this_machine() {
        let memory = machine();
        memory.driver.lock().unwrap().reply = PolicyReply::accepted(4);
        let report = load(&memory, file(POLICY).path()).unwrap();
        assert_eq!((report.epoch, report.rules, report.schedules_judged_at), (4, 1, None));
        let driver = memory.driver.lock().unwrap();
        let [image] = driver.policies.as_slice() else { panic!("{} policies", driver.policies.len()) };
        let image = Image::validate(image.as_slice()).unwrap();
        assert_eq!(identity(&image.identity()), report.identity);
        let path: Vec<u8> =
            r"\device\harddiskvolume1\windows\system32\curl.exe".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(image.as_bytes().windows(path.len()).any(|window| window == path), "the NT path is in the image");
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
        let file = file(&POLICY.replace("C:", "Q:"));
        let ControlError::Policy(errors) = load(&memory, file.path()).unwrap_err() else { panic!() };
        let [finding] = errors.diagnostics.as_slice() else { panic!("{errors}") };
        assert_eq!(finding.line, 9);
        assert!(finding.message.contains(r"`Q:\Windows\System32\CURL.exe`"), "{finding}");
        assert!(finding.message.contains("there is no such file"), "{finding}");
        assert!(memory.driver.lock().unwrap().policies.is_empty());
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
        assert!(error.to_string().ends_with("line 2: not UTF-8, as policy files are"), "{error}");
        let ControlError::Policy(errors) = check(file("[default").path()).unwrap_err() else { panic!() };
        assert_eq!(errors.diagnostics[0].line, 1);
    }

    #[test]
    fn nt_paths_are_taken_as_they_are() {
        let memory = machine();
        let text = POLICY.replace("C:", r"\Device\HarddiskVolume9");
        load(&memory, file(&text).path()).unwrap();
        check(file(&text).path()).unwrap();
    }
}

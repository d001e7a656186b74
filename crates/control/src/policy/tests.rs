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
    let expect = "[[expect]]\napplication = 'Q:\\gone.exe'\nremote = \"192.0.2.1:443\"\nprotocol = \"tcp\"\nverdict = ";
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
    let ControlError::Policy(errors) = check(file(&POLICY.replace("C:\\", "")).path()).unwrap_err() else { panic!() };
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

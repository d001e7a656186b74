//! `ntsim load` of a file that is not a driver: a plain message and exit status 125, as text and as JSON.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, unreachable_pub, reason = "a part of it is used here")]
#[path = "../src/pe/sample.rs"]
mod sample;

use sample::{Sample, code};
use std::process::{Command, Output};

fn load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ntsim")).arg("load").args(arguments).output().expect("ntsim runs")
}

#[test]
fn a_missing_file_is_named() {
    let output = load(&["/nonexistent/driver.sys"]);
    assert_eq!(output.status.code(), Some(125));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("cannot read /nonexistent/driver.sys: No such file"), "{text}");
}

#[test]
fn a_program_for_linux_is_no_driver() {
    let output = load(&[env!("CARGO_BIN_EXE_ntsim")]);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stdout).contains("not a PE image"));
}

#[test]
fn json_carries_the_error() {
    let output = load(&["--json", "--service", "sample", env!("CARGO_BIN_EXE_ntsim")]);
    assert_eq!(output.status.code(), Some(125));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(report["service"], "sample");
    assert!(report["error"].as_str().is_some_and(|error| error.starts_with("not a PE image")), "{report}");
    assert_eq!(report["unloaded"], false);
}

/// A driver with an import that does not exist, which it calls when it is loaded, or never.
fn with_a_strange_import(calls_it: bool) -> tempfile::NamedTempFile {
    let (mut sample, slot) = Sample::new(code::SUCCEED, &[]).with_imports("ntoskrnl.exe", &["NoSuchRoutine"]);
    if calls_it {
        sample.parts[0].bytes = code::call_slot(slot);
    }
    let file = tempfile::NamedTempFile::with_suffix(".sys").expect("a file");
    std::fs::write(file.path(), sample.write()).expect("written");
    file
}

#[test]
fn a_missing_import_is_listed_and_stops_the_machine_only_when_called() {
    let quiet = with_a_strange_import(false);
    let path = quiet.path().to_str().expect("UTF-8");
    let output = load(&[path]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("missing     ntoskrnl.exe!NoSuchRoutine: stops the machine when called"), "{text}");

    let refused = load(&["--strict-imports", "--json", path]);
    assert_eq!(refused.status.code(), Some(125));
    let report: serde_json::Value = serde_json::from_slice(&refused.stdout).expect("one JSON document");
    assert_eq!(report["error"], "unknown import ntoskrnl.exe!NoSuchRoutine");

    let calling = with_a_strange_import(true);
    let output = load(&["--json", calling.path().to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(70));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(report["missing_imports"], serde_json::json!(["ntoskrnl.exe!NoSuchRoutine"]));
    let error = report["error"].as_str().unwrap_or_default();
    assert!(error.contains("the driver called ntoskrnl.exe!NoSuchRoutine, which ntsim does not have"), "{error}");
}

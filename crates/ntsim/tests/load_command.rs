//! `ntsim load` on what is no driver: a plain message and exit status 125, as text and as JSON.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

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

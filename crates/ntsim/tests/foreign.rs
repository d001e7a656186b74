//! Drivers that nobody here wrote run unmodified.
//!
//! WinDivert64.sys (WinDivert 2.2, signed, KMDF 1.9) ships inside the Python package pydivert; the test fetches it into
//! target/ and never keeps it in the repository. Where it cannot be fetched the test says so and does nothing.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The driver, fetched once.
fn windivert() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/foreign");
    let driver = folder.join("pydivert/windivert_dll/WinDivert64.sys");
    if driver.is_file() {
        return Some(driver);
    }
    let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let fetched = run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--platform", "win_amd64"])
        .arg("--dest")
        .arg(&folder)
        .arg("pydivert==4.0.1"));
    let wheel = std::fs::read_dir(&folder).ok().and_then(|files| {
        files.filter_map(Result::ok).map(|file| file.path()).find(|path| path.extension().is_some_and(|e| e == "whl"))
    });
    let unpacked = fetched
        && wheel
            .is_some_and(|wheel| run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&folder)));
    if unpacked && driver.is_file() {
        return Some(driver);
    }
    eprintln!("SKIPPED: pydivert 4.0.1 cannot be fetched with python3 -m pip");
    None
}

#[test]
fn windivert_loads_and_unloads_and_leaves_nothing() {
    let Some(driver) = windivert() else { return };
    let output = Command::new(env!("CARGO_BIN_EXE_ntsim")).args(["load", "--json"]).arg(&driver).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert!(output.status.success(), "{report:#}");
    assert!(report["devices"].as_array().is_some_and(|devices| !devices.is_empty()), "{report:#}");
    assert_eq!(report["unloaded"], true, "{report:#}");
}

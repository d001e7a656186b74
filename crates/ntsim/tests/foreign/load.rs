//! Loading and unloading, by the command.

use crate::fetch;
use std::process::Command;

#[test]
fn windivert_loads_and_unloads_and_leaves_nothing() {
    let Some(driver) = fetch::windivert() else { return };
    let output = Command::new(env!("CARGO_BIN_EXE_ntsim")).args(["load", "--json"]).arg(&driver).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert!(output.status.success(), "{report:#}");
    assert!(report["devices"].as_array().is_some_and(|devices| !devices.is_empty()), "{report:#}");
    assert_eq!(report["unloaded"], true, "{report:#}");
    assert_eq!(report["missing_imports"], serde_json::json!([]), "{report:#}");
}

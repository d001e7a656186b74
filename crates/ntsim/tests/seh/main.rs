//! `__try`, `__except` and `__finally` of a driver written in C, compiled here by clang, work as on Windows.

#[path = "../c_driver/mod.rs"]
mod c_driver;

use std::process::{Command, Output};

use tempfile::TempDir;

const IMPORTS: [&str; 13] = [
    "DbgPrint",
    "ExAllocatePool2",
    "ExFreePoolWithTag",
    "ExRaiseAccessViolation",
    "ExRaiseStatus",
    "KeRaiseIrqlToDpcLevel",
    "ProbeForRead",
    "ProbeForWrite",
    "RtlCompareMemory",
    "RtlCopyMemory",
    "__C_specific_handler",
    "__chkstk",
    "wcslen",
];

fn load(case: u32, arguments: &[&str]) -> (Output, serde_json::Value) {
    let folder = TempDir::new().unwrap();
    let options = ["--target=x86_64-pc-windows-msvc", "-fasync-exceptions", &format!("-DCASE={case}")];
    let driver = c_driver::build(folder.path(), "seh/driver.c", &options, &IMPORTS);
    let output = Command::new(env!("CARGO_BIN_EXE_ntsim"))
        .args(["load", "--json"])
        .args(arguments)
        .arg(driver)
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).expect("a report");
    (output, report)
}

#[test]
fn a_driver_catches_what_it_may() {
    let (output, report) = load(0, &[]);
    assert!(output.status.success(), "{report:#}");
    assert!(report.to_string().contains("exceptions: 13 right, 0 wrong"), "{report:#}");
}

#[test]
fn an_exception_that_nobody_takes_stops_the_machine() {
    let (output, report) = load(1, &[]);
    assert_eq!(output.status.code(), Some(70), "{report:#}");
    let text = report.to_string();
    assert!(text.contains("KMODE_EXCEPTION_NOT_HANDLED") && text.contains("0xc000009a"), "{report:#}");
}

#[test]
fn a_fault_on_memory_of_the_kernel_cannot_be_caught() {
    let (output, report) = load(2, &["--special-pool"]);
    assert_eq!(output.status.code(), Some(70), "{report:#}");
    assert!(report.to_string().contains("PAGE_FAULT_IN_NONPAGED_AREA"), "{report:#}");
}

#[test]
fn a_page_fault_at_dispatch_level_cannot_be_caught() {
    let (output, report) = load(3, &[]);
    assert_eq!(output.status.code(), Some(70), "{report:#}");
    assert!(report.to_string().contains("DRIVER_IRQL_NOT_LESS_OR_EQUAL"), "{report:#}");
}

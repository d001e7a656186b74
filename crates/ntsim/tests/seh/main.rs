//! `__try`, `__except` and `__finally` of a driver written in C, compiled here by clang, work as on Windows.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// What the driver imports; the linker needs a library of it.
const IMPORTS: &str = "LIBRARY ntoskrnl.exe\nEXPORTS\nDbgPrint\nExAllocatePool2\nExFreePoolWithTag\nExRaiseAccessViolation\n\
                       ExRaiseStatus\nKeRaiseIrqlToDpcLevel\nProbeForRead\nProbeForWrite\nRtlCopyMemory\n__C_specific_handler\n";

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{:?}: {error}; `./dev test` installs clang, lld and llvm 22", command.get_program())
    });
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Builds the driver with this case.
fn build(folder: &Path, case: u32) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seh/driver.c");
    std::fs::write(folder.join("ntoskrnl.def"), IMPORTS).unwrap();
    run(Command::new("llvm-dlltool-22").current_dir(folder).args(["-m", "i386:x86-64"]).args([
        "-d",
        "ntoskrnl.def",
        "-l",
        "ntoskrnl.lib",
    ]));
    run(Command::new("clang-22")
        .current_dir(folder)
        .args(["--target=x86_64-pc-windows-msvc", "-fms-extensions", "-fasync-exceptions", "-O2", "-c"])
        .arg(format!("-DCASE={case}"))
        .arg("-o")
        .arg("driver.obj")
        .arg(source));
    run(Command::new("lld-link-22").current_dir(folder).args([
        "/driver",
        "/subsystem:native",
        "/entry:DriverEntry",
        "/nodefaultlib",
        "/out:seh.sys",
        "driver.obj",
        "ntoskrnl.lib",
    ]));
    folder.join("seh.sys")
}

fn load(case: u32, arguments: &[&str]) -> (Output, serde_json::Value) {
    let folder = TempDir::new().unwrap();
    let driver = build(folder.path(), case);
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
    assert!(report.to_string().contains("exceptions: 10 right, 0 wrong"), "{report:#}");
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

//! Runs every test of both workspaces.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    process::{Command, Stdio},
};

use xtask::process;

use crate::{
    Error,
    build::{self, Product},
    places::Places,
    toolchain::{driver_host_cargo, host_cargo},
};

/// Crates of the driver's workspace whose unit tests run on this machine.
const DRIVER_CRATES: [&str; 4] = ["wdk-build", "kmdf-entry", "wfp-sys", "sluice-kernel"];

/// Builds what the tests need, runs them all even when some fail, and prints the runners' summaries last.
pub(crate) fn run(places: &Places, arguments: &[OsString]) -> Result<(), Error> {
    for product in Product::SHIPPED {
        build::one(places, product)?;
    }
    if cfg!(target_os = "linux") {
        build::one(places, Product::Planted)?;
        wine_library(places)?;
    }

    // The programs that tests of other packages run: the runners do not build them.
    let programs = ["build", "-p", "ntsim", "-p", "sluice", "--bins", "--example", "demo"];
    process::run(host_cargo(places).args(programs))?;

    let mut runs = Vec::new();
    // On Windows these crates use the published wdk-build, and there is no stand-in to test.
    if !cfg!(windows) {
        let mut driver = driver_host_cargo(places, "test");
        driver.arg("--no-fail-fast").args(DRIVER_CRATES.iter().flat_map(|name| ["-p", name]));
        runs.push(driver);
    }
    if has_nextest() {
        let mut nextest = host_cargo(places);
        nextest.args(["nextest", "run", "--workspace", "--no-fail-fast"]).args(arguments);
        let mut examples = host_cargo(places);
        examples.args(["test", "--workspace", "--doc", "--no-fail-fast"]);
        runs.extend([nextest, examples]);
    } else {
        let mut test = host_cargo(places);
        test.args(["test", "--workspace", "--no-fail-fast"]).args(arguments);
        runs.push(test);
    }

    let mut closing = Vec::new();
    let mut outcome = Ok(());
    for mut command in runs {
        let (lines, result) = process::run_keeping(&mut command, is_closing_line)?;
        closing.extend(lines);
        outcome = outcome.and(result);
    }
    let mut out = io::stdout().lock();
    let total = Total::of(&closing);
    // A closed standard output must not turn passed tests into failed ones.
    let _ = writeln!(out, "\n{}\n{total}", closing.join("\n"));
    Ok(outcome?)
}

fn has_nextest() -> bool {
    let mut probe = Command::new("cargo-nextest");
    probe.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The summary lines of `cargo test` and nextest: results that count anything, and failures.
fn is_closing_line(line: &str) -> bool {
    let line = line.trim_start();
    (line.starts_with("test result:") && !line.contains(" 0 passed; 0 failed; 0 ignored"))
        || line.starts_with("Summary [")
        || line.starts_with("error: test failed")
        || line.starts_with("error: could not compile")
}

/// Sum over the result lines of `cargo test`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Total {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Total {
    fn of(closing: &[String]) -> Self {
        let count = |word: &str| -> u64 {
            let number_before = |line: &String| -> Option<u64> {
                let words: Vec<&str> = line.split([' ', ';', ',']).filter(|part| !part.is_empty()).collect();
                let at = words.iter().position(|part| *part == word)?;
                words.get(at.checked_sub(1)?)?.parse().ok()
            };
            closing.iter().filter_map(number_before).sum()
        };
        // nextest says `skipped` where cargo test says `ignored`
        Self { passed: count("passed"), failed: count("failed"), ignored: count("ignored") + count("skipped") }
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "all tests: {} passed; {} failed; {} ignored", self.passed, self.failed, self.ignored)
    }
}

/// Makes the one library that sluice.exe needs and old versions of Wine lack.
///
/// Rust's standard library for Windows takes its random numbers from ProcessPrng in bcryptprimitives.dll, which Wine
/// has had since version 9; Debian 12 has 8.0. Windows itself has always had it, so this stays in target/ for the
/// tests.
fn wine_library(places: &Places) -> Result<(), Error> {
    let folder = places.products.join("wine");
    let (source, library) = (folder.join("bcryptprimitives.c"), folder.join("bcryptprimitives.dll"));
    if library.is_file() {
        return Ok(());
    }
    fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    fs::write(&source, WINE_LIBRARY).map_err(Error::file(&source))?;
    let mut compiler = Command::new("x86_64-w64-mingw32-gcc");
    Ok(process::run(compiler.args(["-shared", "-O1", "-o"]).arg(&library).arg(&source).arg("-ladvapi32"))?)
}

const WINE_LIBRARY: &str = "\
#include <stddef.h>
unsigned char __stdcall SystemFunction036(void *buffer, unsigned long length); /* RtlGenRandom of advapi32.dll */
__declspec(dllexport) int __stdcall ProcessPrng(unsigned char *buffer, size_t length) {
    while (length > 0) {
        unsigned long part = length > 0x10000 ? 0x10000 : (unsigned long)length;
        if (!SystemFunction036(buffer, part)) return 0;
        buffer += part;
        length -= part;
    }
    return 1;
}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_over_both_runners() {
        let lines = [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "     Summary [   0.009s] 9 tests run: 7 passed, 2 failed, 4 skipped",
        ]
        .map(str::to_owned);
        assert!(lines.iter().all(|line| is_closing_line(line)));
        assert_eq!(Total::of(&lines), Total { passed: 21, failed: 3, ignored: 5 });
    }

    #[test]
    fn empty_results_and_ordinary_lines_are_left_out() {
        for line in ["test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured", "test image::works ... ok", ""] {
            assert!(!is_closing_line(line), "{line}");
        }
    }
}

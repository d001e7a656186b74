//! The crates that other drivers can use can be packaged: their manifests, the versions of their dependencies, the
//! licences.

use std::{path::Path, process::Command};

const CRATES: [&str; 3] = ["wfp-sys", "kmdf-entry", "sluice-kernel"];

/// Runs `cargo package` for the crates and returns its output.
fn package(argument: &str) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../driver"));
    cargo.args(["package", "--config", ".cargo/linux.toml", "--offline", "--allow-dirty", argument]);
    cargo.args(CRATES.iter().flat_map(|name| ["--package", name]));
    cargo.arg("--target-dir").arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("package"));
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[cfg_attr(windows, ignore = "the licences are symbolic links, which Git may check out as text there")]
fn crates_can_be_packed_with_their_licences() {
    package("--no-verify");
    let files = package("--list");
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert_eq!(files.lines().filter(|file| *file == licence).count(), CRATES.len(), "{licence}");
    }
    assert!(files.lines().any(|file| file == "README.md"));
}

//! No parser has a path that can panic: linked as a driver links them, the panic handler falls away.
//!
//! `cargo xtask check-image` asks the same of sluice.sys, by the import that the handler there needs.

use std::{fs, path::Path, process::Command};

/// What `reach/src/lib.rs` leaves in the file with its panic handler.
const MARK: &[u8] = b"the panic handler is reachable";

/// Builds `reach` with these features, and whether its panic handler is in it.
fn can_panic(features: &str) -> bool {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("reach/Cargo.toml");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reach");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--locked", "--features", features, "--manifest-path"])
        .arg(package)
        .arg("--target-dir")
        .arg(&folder)
        .env_remove("RUSTFLAGS")
        .status()
        .expect("cargo runs");
    assert!(built.success(), "{built}");
    let name = format!("{}reach{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let file = fs::read(folder.join("release").join(name)).expect("the library was built");
    assert!(file.windows(12).any(|bytes| bytes == b"client_hello"), "the parsers are not in the library");
    file.windows(MARK.len()).any(|bytes| bytes == MARK)
}

#[test]
fn no_parser_can_panic() {
    assert!(can_panic("planted"), "a function that can panic is not found");
    assert!(!can_panic(""), "a parser can panic");
}

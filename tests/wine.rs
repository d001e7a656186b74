//! sluice.exe, as cross-built, under Wine: what it does without a driver.
//!
//! `./dev test` builds it and Wine's missing library, and installs Wine. Elsewhere these tests say what is missing and
//! pass; with `CI` set they fail instead.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use tempfile::TempDir;

/// Where Debian and others put Wine.
const WINE: [&str; 4] = ["/usr/lib/wine/wine64", "/usr/bin/wine64", "/usr/bin/wine", "/usr/local/bin/wine"];

fn products() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/sluice")
}

/// A command that runs sluice.exe, or `None` where that cannot be done.
fn sluice() -> Option<Command> {
    static PREFIX: OnceLock<TempDir> = OnceLock::new();
    let exe = products().join("x86_64/sluice.exe");
    let wine = WINE.iter().map(Path::new).find(|path| path.is_file());
    let (Some(wine), true) = (wine, exe.is_file()) else {
        let missing = if wine.is_none() { "Wine".to_owned() } else { exe.display().to_string() };
        assert!(env::var_os("CI").is_none(), "{missing} is missing: run `./dev test`, which provides it");
        eprintln!("skipped: {missing} is missing");
        return None;
    };
    // Wine refuses a prefix in a folder of another user, and makes one on first use.
    let prefix = PREFIX.get_or_init(|| TempDir::new().expect("a folder for Wine"));
    let mut command = Command::new(wine);
    command
        .arg(exe)
        .env("WINEPREFIX", prefix.path())
        .env("WINEPATH", products().join("wine"))
        .env("WINEDEBUG", "-all")
        .env("WINEDLLOVERRIDES", "mscoree,mshtml=")
        .env_remove("DISPLAY");
    Some(command)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "\n")
}

fn ended(output: &Output, status: i32) -> (String, String) {
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{out}{error}");
    (out, error)
}

#[test]
fn sluice_exe_runs_without_a_driver() {
    let Some(mut command) = sluice() else { return };
    let (out, _) = ended(&command.arg("--help").output().unwrap(), 0);
    assert!(out.contains("Usage: sluice"), "{out}");
    assert!(!out.contains("--machine"), "Windows acts on itself: {out}");

    let files = TempDir::new().unwrap();
    let policy = files.path().join("policy.toml");
    let good = "[default]\noutbound = \"permit\"\n[[rule]]\nname = \"no curl\"\naction = \"block\"\n\
                application = 'C:\\Windows\\System32\\curl.exe'\n";
    std::fs::write(&policy, good).unwrap();
    let mut command = sluice().unwrap();
    let (out, _) = ended(&command.args(["load", "--check"]).arg(&policy).output().unwrap(), 0);
    assert!(out.starts_with("valid: ") && out.contains(" with 1 rules, "), "{out}");

    std::fs::write(&policy, "[default]\noutbound = \"allow\"\n").unwrap();
    let mut command = sluice().unwrap();
    let (_, error) = ended(&command.args(["load", "--check"]).arg(&policy).output().unwrap(), 4);
    assert!(error.contains("policy.toml:2:12"), "{error}");
    assert!(error.contains("expected `permit`, `block` or `drop`"), "{error}");
}

//! Runs `tests/vm/qemu.sh` with a stand-in for QEMU that does what the machine would do, without Windows: it reads the
//! exchange disk, queries the web server in its network, and leaves results. Also runs shellcheck on the project's
//! shell scripts.
#![cfg(target_os = "linux")]

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Whether the programs are installed. In CI they must be.
fn have(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| Command::new(program).arg("--version").output().is_err());
    if let Some(missing) = missing {
        assert!(env::var_os("CI").is_none(), "{missing} is missing");
        eprintln!("SKIPPED: {missing} is missing");
    }
    missing.is_none()
}

/// The machine: reads the files from the exchange disk, queries every address, leaves a log and the status.
const STAND_IN: &str = r#"#!/usr/bin/env bash
set -euo pipefail
for word; do case $word in file=*exchange.img,*) image=${word#file=} image=${image%%,*} ;; esac; done
printf '%s\n' "$@" >"$STAND_IN/arguments"
mcopy -n -s -i "$image" ::autounattend.xml ::sluice "$STAND_IN"
for address in 192.0.2.66 192.0.2.10 '[2001:db8:5::66]' '[2001:db8:5::10]'; do
    curl -sS --noproxy '*' --globoff --max-time 10 "http://$address/" "http://$address/" -w '%{num_connects}\n'
done >"$STAND_IN/log"
mmd -i "$image" ::results
mcopy -i "$image" "$STAND_IN/log" ::results/try.log
printf '%s' "$STAND_IN_STATUS" | mcopy -i "$image" - ::status.txt
"#;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let programs = folder.path().join("bin");
        fs::create_dir(&programs).unwrap();
        for (name, text) in [("qemu-system-x86_64", STAND_IN), ("qemu-img", "#!/bin/sh\nexit 0\n")] {
            let path = programs.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(folder.path().join("windows.iso"), "not one").unwrap();
        let place = Self { folder };
        fs::create_dir_all(place.path("package/sluice-0.1.0-x64")).unwrap();
        fs::write(place.path("package/sluice-0.1.0-x64/try.ps1"), "Write-Host 'hello'\n").unwrap();
        fs::write(place.path("package/sluice-0.1.0-x64/sluice.sys"), "MZ").unwrap();
        let zip = ["-m", "zipfile", "-c", "../sluice.zip", "sluice-0.1.0-x64"];
        let made = Command::new("python3").args(zip).current_dir(place.path("package")).status().unwrap();
        assert!(made.success());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn qemu(&self, arguments: &[&str], status: &str) -> Output {
        let path = format!("{}:{}", self.path("bin").display(), env::var("PATH").unwrap());
        Command::new(root().join("tests/vm/qemu.sh"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("STAND_IN", self.folder.path())
            .env("STAND_IN_STATUS", status)
            .output()
            .unwrap()
    }

    fn read(&self, name: impl AsRef<Path>) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }
}

const WHOLE: [&str; 6] = ["--iso", "windows.iso", "--package", "sluice.zip", "--accel", "tcg"];

#[test]
fn qemu_sh_carries_the_package_in_and_the_results_out() {
    if !have(&["mtools", "curl", "python3", "ip", "unshare"]) {
        return;
    }
    let place = Place::new();
    let output = place.qemu(&[&WHOLE[..], &["--verifier", "--index", "3"]].concat(), "0");
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("unshare failed") {
        eprintln!("SKIPPED: {stderr}");
        return;
    }
    assert!(output.status.success(), "{output:?}");

    // The files that the machine found on the disk.
    let order: serde_json::Value = serde_json::from_str(&place.read("sluice/order.json")).unwrap();
    assert_eq!(order["blocked"], "192.0.2.66,2001:db8:5::66");
    assert_eq!(order["permitted"], "192.0.2.10,2001:db8:5::10");
    assert_eq!((&order["verifier"], &order["addresses"][1]), (&true.into(), &"2001:db8:5::2".into()));
    for name in ["guest.ps1", "try.ps1", "sluice.sys"] {
        assert!(place.path("sluice").join(name).is_file(), "{name}");
    }
    let answers = place.read("autounattend.xml");
    assert!(!answers.contains('@'), "a placeholder was not replaced: {answers}");
    assert!(answers.contains("<Value>3</Value>") && answers.contains("processorArchitecture=\"amd64\""));
    let package = sxd_document::parser::parse(&answers).expect("well formed");
    let document = package.as_document();
    let passes = sxd_xpath::evaluate_xpath(&document, "count(//*[local-name()='settings'])").unwrap();
    assert_eq!(passes.number(), 3.0);

    // Both addresses of both families answered, twice on one connection each: the second request made no new one.
    let log = ["192.0.2.66", "192.0.2.10", "2001:db8:5::66", "2001:db8:5::10"].map(|address| {
        let line = format!("hello from {address}\n");
        format!("{line}1\n{line}0\n")
    });
    assert_eq!(place.read("log"), log.concat());

    // The results came back.
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("hello from 2001:db8:5::10") && stdout.contains("try.ps1: 0; results in "), "{stdout}");
    let (_, results) = stdout.trim_end().rsplit_once("results in ").unwrap();
    assert_eq!(place.read(Path::new(results).join("try.log")), place.read("log"));

    let arguments = place.read("arguments");
    for part in ["q35", "e1000e,netdev=net", "usb-storage,drive=exchange,removable=on", "ide-hd,drive=disk,bus=ide.0"] {
        assert!(arguments.lines().any(|line| line == part), "{part} in {arguments}");
    }
    assert!(!arguments.contains("pflash"), "no UEFI, so no Secure Boot");
}

#[test]
fn qemu_sh_fails_where_try_ps1_failed() {
    if !have(&["mtools", "curl", "python3", "ip", "unshare"]) {
        return;
    }
    for status in ["1", "the machine stopped while try.ps1 ran"] {
        let output = Place::new().qemu(&WHOLE, status);
        let stderr = String::from_utf8_lossy(&output.stderr);
        if stderr.contains("unshare failed") {
            return;
        }
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("try.ps1: {status}; ")), "{output:?}");
    }
}

#[test]
fn qemu_sh_refuses_what_cannot_work() {
    if !have(&["mtools", "python3"]) {
        return;
    }
    let place = Place::new();
    for (arguments, word) in [
        (&[][..], "--iso and --package are needed"),
        (&["--iso", "windows.iso"], "--iso and --package are needed"),
        (&["--iso", "none.iso", "--package", "sluice.zip"], "none.iso does not exist"),
        (&["--iso", "windows.iso", "--package", "windows.iso", "--dry-run"], "is not a zip file"),
        (&["--iso"], "--iso needs a value"),
        (&["--what"], "unknown option: --what"),
        (&[&WHOLE[..], &["--cpus", "two"]].concat(), "not a number: two"),
        (&[&WHOLE[..], &["--key", "<x>"]].concat(), "not a product key"),
        (&[&WHOLE[..], &["--accel", "hvf"]].concat(), "--accel is kvm or tcg"),
        (&[&WHOLE[..], &["--folder", "a,b", "--dry-run"]].concat(), "no comma"),
    ] {
        let output = place.qemu(arguments, "0");
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
        let stderr = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(stderr.contains(word), "{arguments:?}: {stderr}");
        assert!(!place.path("sluice-vm").exists() && !place.path("log").exists(), "{arguments:?} did something");
    }
    let output = place.qemu(&[&WHOLE[..], &["--dry-run"]].concat(), "0");
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("qemu-system-x86_64 -name sluice -machine q35 -accel tcg -cpu max"), "{stdout}");
    assert!(!place.path("sluice-vm").exists() && !place.path("log").exists(), "a dry run did something");
}

#[test]
fn shellcheck_finds_nothing() {
    if !have(&["shellcheck"]) {
        return;
    }
    let output = Command::new("shellcheck")
        .args(["--severity", "warning", "dev", ".ci/run", "tests/vm/qemu.sh"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

//! `tests/vm/try.ps1`, as far as it can be tried without Windows: its grammar, its facts, its `sluice` commands on the
//! real driver, and its judgement of netsh's files on those that the simulated machine writes.

mod support;
#[path = "support/powershell.rs"]
mod powershell;

use std::path::{Path, PathBuf};

use powershell::Script;
use sluice_protocol::{SERVICE_NAME, object};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn script() -> Script {
    Script::read(&root().join("tests/vm/try.ps1"))
}

/// A GUID as netsh writes one that it does not know by name, without the braces.
fn guid(bits: u128) -> String {
    let digits = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

#[test]
fn every_script_is_windows_powershell() {
    let folder = root().join("tests/vm");
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ps1") {
            let faults = Script::read(&path).faults();
            assert!(faults.is_empty(), "{}", faults.join("\n"));
            seen += 1;
        }
    }
    assert!(seen > 0, "no script in {}", folder.display());
}

#[test]
fn the_rules_find_what_they_are_for() {
    for (wrong, word) in [
        ("$a = 1\n$b = $a ?? 2", "does not parse"),
        ("$a = 1\n$b = $a ? 1 : 2", "does not parse"),
        ("$a = 1\n$a?.Length", "does not parse"),
        ("if (1) {", "does not parse"),
        ("Write-Host 1 && Write-Host 2", "only PowerShell 7"),
        ("Write-Host 1 2>$null", "5.1"),
        ("Write-Host 1 2>&1", "5.1"),
        ("$p = 'x'\n& $p 1", "run by &"),
        ("netsh wfp show state", "no command netsh"),
        ("Test-Path -Literal x", "no parameter -Literal"),
        ("function F([string] $A) { $A }\nF 1 2", "takes 1 values"),
        ("Write-Host $nothing", "never set"),
        ("Write-Host \"\u{2013}\"", "not ASCII"),
    ] {
        let faults = Script::parse("wrong.ps1", wrong).faults();
        assert!(faults.iter().any(|fault| fault.contains(word)), "{wrong}: {faults:?}");
    }
}

#[test]
fn its_facts_are_those_of_the_driver() {
    let script = script();
    assert_eq!(script.constant("$ServiceName"), SERVICE_NAME);
    assert_eq!(script.constant("$ProviderKey"), guid(object::PROVIDER));
    assert_eq!(script.constant("$LayerCount"), object::CALLOUTS.len().to_string());
    let connect = |ip_version| {
        let of = |object: &&object::CalloutObject| {
            object.point == object::Point::Connect && object.ip_version == ip_version
        };
        object::CALLOUTS.iter().find(of).expect("a callout at connect")
    };
    let names = script.constant("$ConnectLayer");
    assert_eq!(names, format!("{}{}", connect(4).name, connect(6).name));
    assert_eq!(script.constant("$ConnectLayerId"), format!("{}{}", connect(4).layer_id, connect(6).layer_id));
}

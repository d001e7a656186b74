//! What needs no machine says the same on Windows as on Linux, byte for byte.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use super::{sluice, text};

/// A policy with a bit of everything that a policy can have.
const POLICY: &str = r#"[default]
outbound = "permit"
inbound = "block"

[list.bad]
file = "bad.txt"

[list.names]
entries = ["ads.example", "*.tracker.example"]

[schedule.night]
hours = "18:00-08:00"

[[rule]]
name = "build server"
action = "permit"
application = 'C:\Windows\System32\curl.exe'
remote = "203.0.113.7"

[[rule]]
name = "bad"
action = "block"
remote = "@bad"
log = true

[[rule.expect]]
remote = "198.51.100.9:443"

[[rule]]
name = "ads"
action = "block"
remote-name = "@names"

[[rule]]
name = "at night"
action = "drop"
schedule = "night"
service = "Dnscache"
remote-port = [53, "8000-9000"]
"#;

/// Another, of which all can be filters; and one that is wrong.
const NATIVE: &str = r#"[default]
outbound = "block"

[[rule]]
name = "resolver"
action = "permit"
protocol = "udp"
remote-port = 53
service = "Dnscache"

[[rule]]
name = "named"
action = "permit"
remote-name = "example.com"
"#;
const WRONG: &str = "[default]\noutbound = \"allow\"\n\n[[rule]]\nname = \"x\"\nprotocl = \"tcp\"\n";

const SIMPLEWALL: &str = r#"<?xml version="1.0"?>
<root><rules_custom><item name="web" rule="443;80" dir="0" protocol="6" is_block="true" is_enabled="true"/></rules_custom></root>
"#;

/// Every command line: each verb of `sluice policy`, in a good and a bad case, then what reads files of netsh.
const LINES: [&str; 31] = [
    "policy check policy.toml",
    "policy check policy.toml --json",
    "policy check policy.toml --deny-warnings",
    "policy check wrong.toml",
    "policy check wrong.toml --json",
    "policy check missing.toml",
    "policy compile policy.toml -o IMAGE --key 000102030405060708090a0b0c0d0e0f --drive C:=\\Device\\HarddiskVolume3",
    "policy compile wrong.toml -o IMAGE",
    "policy show image",
    "policy show image --json",
    "policy show policy.toml",
    "policy diff policy.toml native.toml",
    "policy diff policy.toml native.toml --json",
    "policy diff policy.toml policy.toml",
    "policy explain policy.toml --tcp 10.0.0.5:50000 198.51.100.9:443",
    "policy explain policy.toml --tcp 10.0.0.5:50000 203.0.113.9:443 --name ads.example --json",
    "policy explain policy.toml --tcp nonsense 203.0.113.9:443",
    "policy test policy.toml",
    "policy test policy.toml --json",
    "policy import profile.xml --from simplewall",
    "policy import profile.xml --json",
    "load --check policy.toml",
    "load --check --native native.toml",
    "load --check --native native.toml --json",
    "load --check --native policy.toml",
    "filters filters.xml",
    "netevents netevents.xml --state wfpstate.xml",
    "explain wfpstate.xml --tcp 10.0.0.5:50000 203.0.113.9:443",
    "explain wfpstate.xml --tcp 10.0.0.5:50000 203.0.113.9:443 --json --policy policy.toml",
    "why netevents.xml --state wfpstate.xml --policy policy.toml",
    "why security.xml --state wfpstate.xml --json",
];

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("policy.toml", POLICY);
    write("native.toml", NATIVE);
    write("wrong.toml", WRONG);
    write("profile.xml", SIMPLEWALL);
    write("bad.txt", "# bad\n198.51.100.0/24\n2001:db8:bad::/48\n203.0.113.66\n");
    for name in ["filters.xml", "netevents.xml", "security.xml", "wfpstate.xml"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        std::fs::copy(from, folder.path().join(name)).unwrap();
    }
    folder
}

fn words(line: &str, image: &str) -> Vec<String> {
    line.split(' ').map(|word| word.replace("IMAGE", image)).collect()
}

fn here(arguments: &[String], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).current_dir(folder).env_remove("NTSIM_SOCKET").output().unwrap()
}

/// What a command printed, and its exit status. What the system itself says of a file that is not there is its own.
fn said(output: &Output) -> (String, String, Option<i32>) {
    let own = |text: String| {
        text.replace("No such file or directory (os error 2)", "NOT FOUND")
            .replace("File not found. (os error 2)", "NOT FOUND")
            .replace("File not found (os error 2)", "NOT FOUND")
    };
    // No `text`: here a line must end with a line feed alone. Wine's own words are not the program's.
    let raw = |bytes: &[u8]| -> String {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.split_inclusive('\n').filter(|line| !line.starts_with("wine: ")).collect()
    };
    (own(raw(&output.stdout)), own(raw(&output.stderr)), output.status.code())
}

#[test]
fn what_needs_no_machine_says_the_same_as_on_linux() {
    let Some(_) = sluice() else { return };
    let folder = folder();
    for line in LINES {
        let [linux, windows] = ["image", "image.windows"].map(|image| words(line, image));
        let linux = said(&here(&linux, folder.path()));
        let windows = said(&sluice().unwrap().args(&windows).current_dir(folder.path()).output().unwrap());
        assert_eq!((windows.0.replace("image.windows", "image"), windows.1, windows.2), linux, "{line}");
        assert!(linux.2 != Some(2) || line.contains("nonsense"), "{line} is a command line: {}", linux.1);
    }
    let image = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(image("image"), image("image.windows"), "the same key gives the same image");
}

/// Every verb that the command has, with those of `policy`, from its completions.
fn verbs() -> BTreeSet<Vec<String>> {
    let help = |path: &[String]| {
        let arguments = [path, &["--help".to_owned()]].concat();
        String::from_utf8(here(&arguments, Path::new(".")).stdout).unwrap()
    };
    let of = |path: &[String]| -> Vec<String> {
        let text = help(path);
        let listed =
            text.split("\nCommands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap_or_default().to_owned();
        let verb =
            |line: &str| line.strip_prefix("  ")?.split(' ').next().filter(|word| !word.is_empty()).map(str::to_owned);
        listed.lines().filter_map(verb).filter(|verb| verb != "help").collect()
    };
    let mut found = BTreeSet::from([Vec::new()]);
    for verb in of(&[]) {
        found.extend(of(std::slice::from_ref(&verb)).into_iter().map(|inner| vec![verb.clone(), inner]));
        found.insert(vec![verb]);
    }
    found
}

#[test]
fn the_help_of_every_verb_is_the_same_without_the_simulated_machine() {
    let Some(_) = sluice() else { return };
    let verbs = verbs();
    assert!(verbs.len() > 25, "{verbs:?}");
    // The one option that Windows does not have, with what is said of it.
    let without_machine = |text: &str| -> String {
        let mut kept = String::new();
        let mut skipping = false;
        for line in text.lines() {
            let option = line.trim_start().starts_with('-');
            skipping = if option {
                line.trim_start().starts_with("--machine ")
            } else {
                skipping && line.starts_with("      ")
            };
            if !skipping {
                kept += line;
                kept += " ";
            }
        }
        // Where lines break depends on how long the longest option is, and so does the order of options.
        let mut words: Vec<&str> = kept.split_whitespace().collect();
        words.sort_unstable();
        words.join(" ")
    };
    for verb in verbs {
        let arguments = [&verb[..], &["--help".to_owned()]].concat();
        let linux = here(&arguments, Path::new("."));
        let windows = sluice().unwrap().args(&arguments).output().unwrap();
        let [linux, windows] =
            [linux, windows].map(|output| without_machine(&text(&output.stdout)).replace("sluice.exe", "sluice"));
        assert_eq!(windows, linux, "{verb:?}");
    }
}

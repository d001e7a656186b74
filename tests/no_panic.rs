//! No command line and no file makes `sluice` panic, die or say nothing about what is wrong.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// How many command lines are tried.
const RUNS: u64 = 400;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }
}

/// Words of the command line, right and wrong. None of them waits: there is no machine.
const WORDS: &[&str] = &[
    "",
    "-",
    "--",
    "-o",
    "-x",
    "--json",
    "--color=always",
    "--color",
    "--help",
    "--version",
    "check",
    "compile",
    "show",
    "diff",
    "explain",
    "test",
    "import",
    "policy",
    "load",
    "status",
    "doctor",
    "events",
    "install",
    "uninstall",
    "--native",
    "--leave-out-blocks",
    "unload",
    "verify",
    "--dry-run",
    "--to",
    "--allow",
    "top",
    "--once",
    "capture",
    "start",
    "stop",
    "enable",
    "disable",
    "completions",
    "bash",
    "powershell",
    "man",
    "filters",
    "netevents",
    "state",
    "layers",
    "--check",
    "--watch",
    "--no-test",
    "--in-force",
    "--deny-warnings",
    "--at",
    "mon 08:30",
    "now",
    "--key",
    "000102030405060708090a0b0c0d0e0f",
    "--drive",
    r"C:=\Device\HarddiskVolume3",
    "--alias",
    "Ethernet=7",
    "--limit",
    "0",
    "18446744073709551616",
    "-1",
    "NaN",
    "--tcp",
    "10.0.0.1:1",
    "[::1]:70000",
    "203.0.113.9:443",
    "--udp",
    "--icmp",
    "8",
    "--protocol",
    "--inbound",
    "--forward",
    "--app",
    "System",
    "--name",
    "undecidable",
    "--user",
    "S-1-5-20",
    "--from",
    "netsh",
    "--encoding",
    "cp850",
    "--complete",
    "-n",
    "-t",
    "1e308",
    "--verdict",
    "block",
    "--rule",
    "\u{1b}[2J",
    "\u{202e}",
    "\0é",
    "policy.toml",
    "image",
    "list.txt",
    "wide.toml",
    "no/such",
    "/dev/null",
    "/",
    "out",
];

const POLICY: &str = "[default]\noutbound = \"block\"\n[list.bad]\nfile = \"list.txt\"\n[[rule]]\nname = \"one\"\naction = \"block\"\n\
                      remote = \"@bad\"\nremote-port = [80, \"443-500\"]\napplication = 'C:\\a.exe'\n[[rule.expect]]\nremote = \"203.0.113.9:443\"\n";

fn sluice(folder: &Path, arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("NTSIM_SOCKET")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn no_command_line_and_no_file_makes_it_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut dice = Dice(0x51_1ce);
    std::fs::write(path("list.txt"), "203.0.113.9\nads.example\n\u{1b}\n").unwrap();
    std::fs::write(path("policy.toml"), POLICY.replace("file = \"list.txt\"", "entries = [\"203.0.113.9\"]")).unwrap();
    let compiled = sluice(folder.path(), &["policy", "compile", "policy.toml", "-o", "image"]);
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let image = std::fs::read(path("image")).unwrap();
    let wide: Vec<u8> = POLICY.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for run in 0..RUNS {
        // Something is wrong with each file in most runs.
        for (name, whole) in [("policy.toml", POLICY.as_bytes()), ("image", &image[..]), ("wide.toml", &wide[..])] {
            let mut bytes = whole.to_vec();
            for _ in 0..dice.roll(4) {
                match dice.roll(4) {
                    0 => bytes.truncate(dice.roll(bytes.len().max(1))),
                    1 => bytes.extend([dice.roll(256) as u8; 7]),
                    _ => {
                        let at = dice.roll(bytes.len().max(1));
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte = dice.pick(b"\"[]=\n\\'@#.0\0\xff");
                        }
                    }
                }
            }
            std::fs::write(path(name), bytes).unwrap();
        }
        let first: &[&str] =
            dice.pick(&[&["policy"][..], &["policy", "check"], &["policy", "explain"], &["policy", "show"], &[]]);
        let mut arguments = first.to_vec();
        arguments.extend((0..dice.roll(7)).map(|_| dice.pick(WORDS)).filter(|word| !word.contains('\0')));
        let output = sluice(folder.path(), &arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        let status = output.status.code();
        assert!(matches!(status, Some(0..=5)), "run {run}: {arguments:?}: {status:?}: {error}");
        assert!(!error.contains("panicked"), "run {run}: {arguments:?}: {error}");
        let silent = output.stdout.is_empty() && error.is_empty();
        assert!(!silent || status == Some(0), "run {run}: {arguments:?} says nothing");
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["completions", "bash"][..], &["man"], &["--help"], &["policy", "--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(arguments)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Its output ends before it begins, as with `| head`.
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn completions_and_manual_pages_know_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = sluice(folder.path(), &["completions", shell]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("uninstall") && text.contains("explain"), "{shell}");
    }
    let page = |verbs: &[&str]| {
        let output = sluice(folder.path(), &[&["man"], verbs].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(page(&[]).contains(".TH sluice 1") && page(&[]).contains("Exit status"));
    assert!(page(&["policy", "diff"]).contains(".TH sluice-policy-diff 1"));
    assert_eq!(sluice(folder.path(), &["man", "no-such-verb"]).status.code(), Some(2));
}

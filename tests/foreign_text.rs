//! What others write (names, notes, paths, files, arguments) is shown and acts on nothing.

use serde_json::Value;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Colours, a title, a line of its own, a C1 control, and letters that turn the text around.
const HOSTILE: &str = "a\u{1b}[31mb\u{1b}]0;t\u{7}c\u{9b}2Jd\u{202e}e\u{7f}";

fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(arguments)
        .current_dir(folder.path())
        .env_remove("NTSIM_SOCKET")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What a command printed on both streams; none of it acts on a terminal.
fn harmless(folder: &TempDir, arguments: &[&str]) -> [String; 2] {
    let output = run(folder, arguments);
    [output.stdout, output.stderr].map(|bytes| {
        let text = String::from_utf8(bytes).unwrap();
        let acts = text.chars().find(|letter| (*letter != '\n' && letter.is_control()) || *letter == '\u{202e}');
        assert_eq!(acts, None, "{arguments:?}: {text:?}");
        text
    })
}

/// A policy whose names, notes and list have everything that a policy can have.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let quoted: String = HOSTILE.chars().map(|letter| format!("\\u{:04X}", letter as u32)).collect();
    let policy = format!(
        "[list.bad]\nfile = \"{quoted}.txt\"\n[[rule]]\nname = \"{quoted}\\nsecond line\"\nnote = \"{quoted}\"\n\
         action = \"block\"\nremote = \"@bad\"\n[[rule.expect]]\nremote = \"198.51.100.1:443\"\n"
    );
    std::fs::write(folder.path().join("policy.toml"), &policy).unwrap();
    std::fs::write(folder.path().join("other.toml"), policy.replace("block", "permit")).unwrap();
    std::fs::write(folder.path().join(format!("{HOSTILE}.txt")), format!("203.0.113.9\n{HOSTILE}\n")).unwrap();
    folder
}

#[test]
fn what_a_policy_says_is_shown_and_does_nothing() {
    let folder = folder();
    let flow = ["--tcp", "10.0.0.1:1", "203.0.113.9:443"];
    let mut seen = String::new();
    for arguments in [
        &["policy", "check", "policy.toml"][..],
        &["policy", "compile", "policy.toml", "-o", "image"],
        &["policy", "show", "image"],
        &["policy", "diff", "policy.toml", "other.toml"],
        &[&["policy", "explain", "policy.toml"], &flow[..]].concat(),
        &["policy", "test", "policy.toml"],
        &["load", "--check", "policy.toml"],
    ] {
        for arguments in
            [arguments.to_vec(), [arguments, &["--json"]].concat(), [arguments, &["--color=always"]].concat()]
        {
            if arguments.contains(&"--color=always") {
                // With colours the styles are this program's own: none of the list's or the rule's red is among them.
                let output = run(&folder, &arguments);
                let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
                assert!(!text.contains("a\u{1b}[31mb") && !text.contains('\u{7}'), "{arguments:?}: {text:?}");
                continue;
            }
            seen += &harmless(&folder, &arguments).concat();
        }
    }
    assert!(seen.contains(r"a\u{1b}[31mb") && seen.contains(r"\nsecond line") && seen.contains(r"a\u001b[31mb"));
}

#[test]
fn what_the_command_line_says_does_nothing_either() {
    let folder = folder();
    let file = format!("{HOSTILE}.txt");
    for arguments in [
        &["policy", "check", &file][..],
        &["policy", "check", "gone\u{1b}[31m.toml"],
        &[HOSTILE],
        &["policy", "import", "--from", HOSTILE, "policy.toml"],
        &["policy", "explain", "policy.toml", "--tcp", HOSTILE, "203.0.113.9:443"],
    ] {
        let [out, error] = harmless(&folder, arguments);
        assert!(out.is_empty() && error.contains(r"\u{1b}[31m"), "{error}");
        let [out, error] = harmless(&folder, &[arguments, &["--json"]].concat());
        let failure: Value = serde_json::from_str(&error).unwrap();
        assert!(out.is_empty() && failure.to_string().contains("[31m"), "{failure}");
    }
}

#[test]
fn a_wrong_command_line_is_json_where_json_is_asked_for() {
    let folder = folder();
    for (arguments, said) in [
        (&["--json", "statu"][..], "unrecognized subcommand"),
        (&["status", "--json", "--no-such"], "unexpected argument '--no-such' found"),
        (&["events", "-n", "0", "--json"], "invalid value '0'"),
        (&["--json", "load"], "required arguments were not provided"),
    ] {
        let output = run(&folder, arguments);
        assert_eq!(output.status.code(), Some(2));
        let failure: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(failure["exit_status"], 2);
        assert!(failure["error"].as_str().unwrap().contains(said), "{failure}");
    }
    // It is text where it is not, also when the word comes as an argument of something else.
    for arguments in [&["statu"][..], &["policy", "check", "--", "--json"]] {
        let output = run(&folder, arguments);
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: "));
    }
    assert_eq!(run(&folder, &["--help", "--json"]).status.code(), Some(0));
}

#[test]
fn what_is_imported_is_a_policy_and_harmless() {
    let folder = folder();
    let rules = format!(
        r#"[{{"Name": {0}, "DisplayName": {0}, "Enabled": "True", "Direction": "Outbound", "Action": "Block",
            "RemoteAddress": "203.0.113.9", "Protocol": "TCP"}}]"#,
        serde_json::to_string(HOSTILE).unwrap()
    );
    std::fs::write(folder.path().join("rules.json"), rules).unwrap();
    let [toml, error] = harmless(&folder, &["policy", "import", "rules.json"]);
    assert!(toml.contains("[[rule]]"), "{toml}{error}");
    std::fs::write(folder.path().join("imported.toml"), toml).unwrap();
    let output = run(&folder, &["policy", "check", "imported.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn mistakes_name_their_cause() {
    let folder = folder();
    let check = |text: &[u8]| {
        std::fs::write(folder.path().join("wrong.toml"), text).unwrap();
        let output = run(&folder, &["policy", "check", "wrong.toml"]);
        assert_eq!(output.status.code(), Some(4));
        String::from_utf8(output.stderr).unwrap()
    };
    let groups =
        "[group.a]\nports = \"80\"\n[group.b]\nports = \"@a\"\n[group.c]\nports = \"@d\"\n[group.d]\nports = \"1\"\n";
    let said = check(format!("{groups}[[rule]]\naction = \"block\"\nremote-port = \"@b\"\n").as_bytes());
    for name in ["`@a`", "`@d`"] {
        assert!(said.contains(&format!("{name} is a group, and a group cannot hold another")), "{said}");
    }
    let wide: Vec<u8> = "\u{feff}[default]\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(check(&wide).contains("it is UTF-16"), "{}", check(&wide));
}

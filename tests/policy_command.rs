//! `sluice policy`: what the verbs print, their exit statuses, and that bad input changes nothing.

use serde_json::Value;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A folder that commands run in, so that they name files as a user would.
struct Folder(TempDir);

/// What a command printed.
struct Text {
    out: String,
    error: String,
}

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(TempDir::new().unwrap());
        for (name, text) in files {
            folder.write(name, text.as_bytes());
        }
        folder
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs `sluice policy`, which must exit with `status`.
    fn run(&self, status: i32, arguments: &[&str]) -> Text {
        let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .arg("policy")
            .args(arguments)
            .current_dir(self.0.path())
            .env_remove("NTSIM_SOCKET")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text =
            Text { out: String::from_utf8(output.stdout).unwrap(), error: String::from_utf8(output.stderr).unwrap() };
        assert_eq!(output.status.code(), Some(status), "{}{}", text.out, text.error);
        for stream in [&text.out, &text.error] {
            assert!(!stream.contains('\u{1b}'), "colours only on a terminal: {stream}");
        }
        text
    }

    fn json(&self, status: i32, arguments: &[&str]) -> Value {
        let text = self.run(status, &[arguments, &["--json"]].concat());
        serde_json::from_str(&text.out).unwrap_or_else(|error| panic!("{error}: {}{}", text.out, text.error))
    }
}

const OFFICE: &str = r#"
[default]
outbound = "permit"
inbound = "block"

[list.bad]
file = "bad.txt"

[schedule.night]
hours = "18:00-08:00"

[[rule]]
name = "build server"
action = "permit"
application = 'C:\Windows\System32\curl.exe'
remote = "203.0.113.7"
remote-port = 80

[[rule]]
name = "known bad"
action = "block"
remote = "@bad"
log = true

[[rule.expect]]
remote = "203.0.113.66:443"

[[rule]]
name = "tracker"
action = "drop"
remote-name = ".tracker.example"

[[rule]]
name = "nobody at night"
action = "block"
direction = "inbound"
local-port = 3389
schedule = "night"

[[expect]]
remote = "198.51.100.1:443"
verdict = "permit"
rule = "default"

[[expect]]
direction = "inbound"
local = "10.0.0.5:22"
remote = "198.51.100.1:50000"
verdict = "block"
"#;

const BAD: &str = "203.0.113.0/24 # all of it\n2001:db8:bad::/48\n";

fn office() -> Folder {
    Folder::new(&[("office.toml", OFFICE), ("bad.txt", BAD)])
}

const KEY: &str = "000102030405060708090a0b0c0d0e0f";

#[test]
fn check_says_that_a_policy_is_valid() {
    let folder = office();
    let text = folder.run(0, &["check", "office.toml"]);
    assert!(text.out.starts_with("valid: office.toml with 4 rules, "), "{}", text.out);
    assert_eq!(text.error, "");
    let report = folder.json(0, &["check", "office.toml"]);
    assert_eq!((&report["rules"], report["warnings"].as_array().map(Vec::len)), (&4.into(), Some(0)));
    assert_eq!(report["lists"], serde_json::json!([{ "name": "bad", "entries": 2 }]));
    assert!(text.out.contains("  list `bad`: 2 entries\n"), "{}", text.out);
    folder.run(0, &["check", "office.toml", "--deny-warnings"]);
    assert_eq!(folder.names(), ["bad.txt", "office.toml"]);
}

#[test]
fn check_names_every_error_with_its_place() {
    let folder = Folder::new(&[
        (
            "wrong.toml",
            r#"
[default]
outbound = "permitt"

[list.bad]
file = "bad.txt"
strict = true

[[rule]]
name = "one"
acton = "block"
remote = "203.0.113.0/33"

[[rule]]
name = "two"
action = "block"
application = "curl.exe"
remote-port = ["80", 70000]
schedule = "weekend"
"#,
        ),
        ("bad.txt", "203.0.113.0/24\nnot an address\n"),
    ]);
    let text = folder.run(4, &["check", "wrong.toml"]);
    assert_eq!(text.out, "");
    insta::assert_snapshot!(text.error);

    let text = folder.run(4, &["check", "wrong.toml", "--json"]);
    let failure: Value = serde_json::from_str(&text.error).unwrap();
    assert_eq!(failure["exit_status"], 4);
    let diagnostics = failure["diagnostics"].as_array().unwrap();
    assert!(diagnostics.len() >= 7, "{failure}");
    let port = diagnostics.iter().find(|one| one["key"] == "rule[1].remote-port[1]").unwrap();
    assert_eq!((&port["file"], &port["line"], &port["column"]), (&"wrong.toml".into(), &18.into(), &22.into()));
    assert!(port["expected"].as_str().unwrap().contains("0 to 65535"), "{port}");
    let line = diagnostics.iter().find(|one| one["file"] == "bad.txt").unwrap();
    assert_eq!((&line["line"], &line["severity"]), (&2.into(), &"error".into()));
}

#[test]
fn thousands_of_mistakes_do_not_fill_the_screen() {
    let rules: String =
        (0..2000).map(|index| format!("[[rule]]\naction = \"block\"\nremote = \"{index}\"\n")).collect();
    let folder = Folder::new(&[("policy.toml", &rules)]);
    let text = folder.run(4, &["check", "policy.toml"]).error;
    assert_eq!(text.matches("is not an address").count(), 50);
    assert!(text.contains("\n1950 more are not shown; --json has them all\n"), "{text}");
}

#[test]
fn check_warns_of_shadowed_rules_and_disputed_lists() {
    let folder = Folder::new(&[(
        "policy.toml",
        r#"
[list.good]
entries = ["203.0.113.0/28"]
[list.bad]
entries = ["203.0.113.0/24"]
[[rule]]
name = "good"
action = "permit"
remote = "@good"
protocol = "tcp"
[[rule]]
name = "bad"
action = "block"
remote = "@bad"
[[rule]]
name = "too late"
action = "permit"
remote = "203.0.113.128/25"
[[expect]]
direction = "inbound"
local = "10.0.0.5:22"
remote = "198.51.100.1:50000"
verdict = "block"
"#,
    )]);
    let text = folder.run(0, &["check", "policy.toml"]);
    assert!(text.out.contains(", 2 warnings\n  list `bad`: 1 entry\n"), "{}", text.out);
    insta::assert_snapshot!(text.error);
    assert_eq!(folder.json(0, &["check", "policy.toml"])["warnings"].as_array().unwrap().len(), 2);
}

#[test]
fn warnings_can_be_denied() {
    let variable = "action = \"block\"\napplication = '%APPDATA%\\a.exe'\n[[rule]]\naction = \"permit\"\n\
                    direction = \"outbound\"\nremote-port = 443\n";
    let folder = Folder::new(&[("odd.toml", &format!("[[rule]]\n{variable}"))]);
    let text = folder.run(0, &["check", "odd.toml"]);
    for said in ["`%APPDATA%` is each user's own", "changes nothing: the default permits"] {
        assert!(text.error.contains(said), "{}", text.error);
    }
    let denied = folder.run(4, &["check", "odd.toml", "--deny-warnings"]);
    assert!(denied.out.starts_with("valid: ") && denied.error.contains("warnings, and --deny-warnings allows none"));
}

#[test]
fn files_that_are_no_policies_are_refused() {
    let folder = Folder::new(&[("empty", ""), ("latin", "")]);
    folder.write("latin", b"# first\n# caf\xe9");
    assert!(folder.run(4, &["check", "latin"]).error.contains("line 2: not UTF-8"));
    assert!(folder.run(4, &["check", "missing.toml"]).error.contains("missing.toml"));
    assert!(folder.run(4, &["check", "."]).error.contains("error"));
    // An empty policy is the defaults.
    folder.run(0, &["check", "empty"]);
}

#[test]
fn compile_writes_an_image_and_the_same_key_the_same_bytes() {
    let folder = office();
    let compile = ["compile", "office.toml", "--key", KEY, "--drive", r"C:=\Device\HarddiskVolume3", "-o"];
    let text = folder.run(0, &[&compile[..], &["one.img"]].concat());
    assert!(text.out.starts_with("compiled: one.img with 4 rules, "), "{}", text.out);
    let report = folder.json(0, &[&compile[..], &["two.img"]].concat());
    assert_eq!(folder.read("one.img"), folder.read("two.img"));
    assert_eq!(report["identity"], folder.json(0, &["show", "one.img"])["identity"]);
    assert_eq!(report["programs_on_no_known_device"], serde_json::json!([]));
    let path: Vec<u8> =
        r"\device\harddiskvolume3\windows\system32\curl.exe".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(folder.read("one.img").windows(path.len()).any(|window| window == path));

    // Every image has a new key unless one is given; programs on unknown devices are named.
    let text = folder.run(0, &["compile", "office.toml", "-o", "three.img"]);
    assert!(text.out.contains(r"the device of `C:\Windows\System32\curl.exe` is not known"), "{}", text.out);
    folder.run(0, &["compile", "office.toml", "-o", "four.img"]);
    assert_ne!(folder.read("three.img"), folder.read("four.img"));
}

#[test]
fn compile_judges_schedules_and_says_until_when_that_holds() {
    let folder = office();
    let text = folder.run(0, &["compile", "office.toml", "--at", "mon 09:00", "-o", "day.img"]);
    assert!(
        text.out.contains("schedules were evaluated for mon 09:00; the result holds until mon 18:00"),
        "{}",
        text.out
    );
    let day = folder.json(0, &["show", "day.img"]);
    assert_eq!((&day["rules"][3]["name"], &day["rules"][3]["entries"]), (&"nobody at night".into(), &0.into()));
    let report = folder.json(0, &["compile", "office.toml", "--at", "sun 23:00", "-o", "night.img"]);
    assert_eq!((&report["judged_at"], &report["next_change"]), (&"sun 23:00".into(), &"mon 08:00".into()));
    assert_ne!(folder.json(0, &["show", "night.img"])["rules"][3]["entries"], 0);
    folder.run(2, &["compile", "office.toml", "--at", "noon", "-o", "x.img"]);
}

#[test]
fn a_compile_that_fails_changes_nothing() {
    let folder = office();
    folder.write("old.img", b"what was there");
    folder.write("wrong.toml", b"[[rule]]\naction = \"blok\"\n");
    folder.run(4, &["compile", "wrong.toml", "-o", "old.img"]);
    folder.run(2, &["compile", "office.toml", "-o", "old.img", "--key", "short"]);
    assert_eq!(folder.read("old.img"), b"what was there");
    let text = folder.run(1, &["compile", "office.toml", "-o", "no/such/folder.img"]);
    assert!(text.error.contains("nothing was written"), "{}", text.error);
    assert_eq!(folder.names(), ["bad.txt", "office.toml", "old.img", "wrong.toml"]);
    folder.run(0, &["compile", "office.toml", "-o", "old.img"]);
    assert_ne!(folder.read("old.img"), b"what was there");
    assert_eq!(folder.names(), ["bad.txt", "office.toml", "old.img", "wrong.toml"]);
}

#[test]
fn show_lays_an_image_open_and_refuses_what_is_none() {
    let folder = office();
    folder.run(0, &["compile", "office.toml", "--key", KEY, "-o", "office.img"]);
    let text = folder.run(0, &["show", "office.img"]);
    let rules: Vec<&str> = text.out.lines().skip_while(|line| *line != "rules").take(5).collect();
    insta::assert_snapshot!(rules.join("\n"));
    let shown = folder.json(0, &["show", "office.img"]);
    assert_eq!(shown["bytes"], folder.read("office.img").len());
    assert_eq!((&shown["rules"][2]["action"], &shown["default_inbound"]["action"]), (&"drop".into(), &"block".into()));

    assert!(folder.run(4, &["show", "office.toml"]).error.contains("not a policy image"));
    assert!(folder.run(4, &["show", "missing.img"]).error.contains("missing.img"));
    let mut image = folder.read("office.img");
    let last = image.len() - 70;
    image[last] ^= 1;
    folder.write("damaged.img", &image);
    assert!(folder.run(4, &["show", "damaged.img"]).error.contains("damaged"));
}

#[test]
fn diff_gives_a_flow_for_every_change() {
    let folder = office();
    folder.write("new.toml", OFFICE.replace("action = \"drop\"", "action = \"permit\"").as_bytes());
    assert!(folder.run(0, &["diff", "office.toml", "office.toml"]).out.contains("no difference"));
    let nothing = folder.json(0, &["diff", "office.toml", "office.toml"]);
    assert_eq!((&nothing["changes"], &nothing["pairs"]), (&serde_json::json!([]), &0.into()));
    let text = folder.run(1, &["diff", "office.toml", "new.toml"]);
    insta::assert_snapshot!(text.out);
    let found = folder.json(1, &["diff", "office.toml", "new.toml", "--limit", "1"]);
    let changes = &found["changes"];
    assert!(
        changes.as_array().unwrap().len() == 1 && found["pairs"].as_u64().unwrap() >= 1 && found["complete"] == true
    );
    assert_eq!((&changes[0]["old_rule"], &changes[0]["old"]["silent"]), (&"tracker".into(), &true.into()));
    assert_eq!(changes[0]["new"]["verdict"], "permit");
    folder.write("wrong.toml", b"[[rule]]\n");
    folder.run(4, &["diff", "office.toml", "wrong.toml"]);
}

#[test]
fn explain_says_of_every_rule_why() {
    let folder = office();
    let curl = r"c:\windows\system32\CURL.EXE";
    let text = folder.run(0, &["explain", "office.toml", "--tcp", "10.0.0.5:50000", "203.0.113.7:80", "--app", curl]);
    assert!(
        text.out.contains("rule 0 `build server` decides") && text.out.ends_with("permit (soft)\n"),
        "{}",
        text.out
    );
    let flow = ["explain", "office.toml", "--tcp", "10.0.0.5:50000", "198.51.100.9:443"];
    let text = folder.run(0, &[&flow[..], &["--user", "S-1-5-18", "--interface", "wireless"]].concat());
    insta::assert_snapshot!(text.out);
    let tracked = folder.json(0, &[&flow[..], &["--name", "a.tracker.example"]].concat());
    assert_eq!((&tracked["rule"], &tracked["decision"]["verdict"]), (&"tracker".into(), &"block".into()));
    assert_eq!(tracked["image_agrees"], true);
    let reasons = &tracked["tried"][0]["reasons"];
    assert!(reasons.to_string().contains("198.51.100.9 is not among"), "{reasons}");
    let unknown = folder.json(0, &flow);
    assert_eq!(unknown["decision"]["needs_name"], true);
    let undecidable = folder.json(0, &[&flow[..], &["--name", "undecidable"]].concat());
    assert_eq!(undecidable["decision"]["rule"], Value::Null);

    let desktop = ["explain", "office.toml", "--inbound", "--tcp", "10.0.0.5:3389", "10.0.0.9:50000"];
    assert_eq!(folder.json(0, &[&desktop[..], &["--at", "mon 22:00"]].concat())["rule"], "nobody at night");
    assert_eq!(folder.json(0, &[&desktop[..], &["--at", "mon 12:00"]].concat())["rule"], Value::Null);
    let ping = folder.run(0, &["explain", "office.toml", "--icmp", "[fe80::1]:128", "[2001:db8::1]:0"]);
    assert!(ping.out.starts_with("outbound icmpv6 type 128 code 0 fe80::1 -> 2001:db8::1"), "{}", ping.out);
    folder.run(0, &["explain", "office.toml", "--protocol", "gre", "10.0.0.5", "198.51.100.9"]);
}

#[test]
fn flows_that_cannot_be_are_refused_by_name() {
    let folder = office();
    let explain = |arguments: &[&str]| folder.run(2, &[&["explain", "office.toml"], arguments].concat()).error;
    for (arguments, said) in [
        (&["--tcp", "10.0.0.5:1", "203.0.113.999:80"][..], "the remote end `203.0.113.999:80`"),
        (&["--tcp", "10.0.0.5:1", "[2001:db8::1]:80"], "different families"),
        (&["--protocol", "tpc", "10.0.0.5", "203.0.113.7"], "the protocol `tpc`"),
        (&["--tcp", "10.0.0.5:1", "203.0.113.7:80", "--user", "me"], "the user `me`"),
        (&["--tcp", "10.0.0.5:1", "203.0.113.7:80", "--app", "curl.exe"], "is not the full path"),
        (&["--tcp", "10.0.0.5:1", "203.0.113.7:80", "--udp", "10.0.0.5:1", "203.0.113.7:80"], "cannot be used with"),
        (&[], "required"),
    ] {
        let error = explain(arguments);
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}

#[test]
fn test_tries_the_expectations() {
    let folder = office();
    assert_eq!(folder.run(0, &["test", "office.toml"]).out, "3 of 3 expectations hold\n");
    folder.write("moved.toml", OFFICE.replace("198.51.100.1:443", "203.0.113.1:443").as_bytes());
    let text = folder.run(1, &["test", "moved.toml"]);
    insta::assert_snapshot!(text.out);
    let tested = folder.json(1, &["test", "moved.toml"]);
    assert_eq!(tested.as_array().unwrap().iter().filter(|one| one["failure"].is_string()).count(), 1);
    folder.run(4, &["test", "missing.toml"]);
}

#[test]
fn what_no_default_decides_is_said_by_explain_test_and_show() {
    let text = "[default]\noutbound = \"block\"\n[[expect]]\nprotocol = \"icmpv6\"\nlocal = \"[fe80::5]:135\"\nremote = \
                \"fe80::1\"\nrule = \"essential\"\n";
    let folder = Folder::new(&[("policy.toml", text)]);
    let solicitation = ["explain", "policy.toml", "--icmp", "[fe80::5]:135", "[fe80::1]:0"];
    let told = folder.run(0, &solicitation).out;
    let expected = "  no rule matches, and no default decides: essential: neighbour discovery\npermit (soft)\n";
    assert!(told.ends_with(expected), "{told}");
    assert_eq!(folder.json(0, &solicitation)["decision"]["essential"], "neighbour-discovery");
    let tested = folder.run(0, &["test", "policy.toml"]).out;
    assert!(tested.contains("\n        essential: neighbour discovery\n1 of 1 expectations hold\n"), "{tested}");
    folder.run(0, &["compile", "policy.toml", "-o", "image", "--key", KEY]);
    let shown = folder.run(0, &["show", "image"]).out;
    assert!(
        shown.contains("inbound block, forward permit, listen permit, bind permit; essential traffic passes\n"),
        "{shown}"
    );

    folder.write("policy.toml", text.replace("[default]", "[default]\nessential = false").as_bytes());
    assert!(folder.run(0, &solicitation).out.ends_with("block (hard)\n"));
    folder.run(1, &["test", "policy.toml"]);
    folder.run(0, &["compile", "policy.toml", "-o", "image", "--key", KEY]);
    assert!(
        folder
            .run(0, &["show", "image"])
            .out
            .contains("outbound block, inbound block, forward permit, listen permit, bind permit\n")
    );
}

#[test]
fn explain_says_what_a_decision_depends_on() {
    let policy = "[[rule]]\nname = \"wireless\"\naction = \"block\"\ninterface = \"wireless\"\n\
                  [[rule]]\nname = \"browser\"\naction = \"block\"\napplication = 'C:\\b.exe'\n";
    let folder = Folder::new(&[("policy.toml", policy)]);
    let flow = ["explain", "policy.toml", "--tcp", "10.0.0.5:50000", "203.0.113.9:443"];
    let told = folder.run(0, &flow).out;
    let outcomes = "depends on the program and the interface:
  block (hard) by rule `wireless`: outbound tcp 10.0.0.5:50000 -> 203.0.113.9:443 on luid:0x47000000000000
  block (hard) by rule `browser`: outbound tcp 10.0.0.5:50000 -> 203.0.113.9:443 by C:\\b.exe
  permit (soft) by the default: otherwise
";
    assert!(told.ends_with(outcomes), "{told}");
    let known = [&flow[..], &["--interface", "ethernet"]].concat();
    assert_eq!(folder.json(0, &known)["depends_on"], serde_json::json!(["program"]));
    let all = [&known[..], &["--app", r"C:\a.exe"]].concat();
    assert!(folder.run(0, &all).out.ends_with("decides\npermit (soft)\n"));
    // With either rule it is blocked: whoever it is does not matter.
    folder.write("policy.toml", format!("[default]\noutbound = \"block\"\n{policy}").as_bytes());
    assert!(folder.run(0, &flow).out.ends_with("decides\nblock (hard)\n"));
}

/// Imports `text`, checks the result, and returns the decision on a connection.
fn imported(name: &str, text: &[u8], remote: &str) -> (String, Value) {
    let folder = Folder::new(&[]);
    folder.write(name, text);
    let policy = folder.run(0, &["import", name]).out;
    folder.write("policy.toml", policy.as_bytes());
    folder.run(0, &["check", "policy.toml"]);
    let app = r"C:\Apps\browser.exe";
    let told = folder.json(0, &["explain", "policy.toml", "--tcp", "10.0.0.5:50000", remote, "--app", app]);
    assert_eq!(folder.json(0, &["import", name])["toml"], policy);
    (policy, told)
}

#[test]
fn import_makes_policies_of_other_firewalls_rules() {
    let simplewall = br#"<?xml version="1.0" encoding="UTF-8"?>
<root timestamp="0" type="3" version="5">
  <apps><item path="C:\Apps\browser.exe" is_enabled="true"/></apps>
  <rules_custom><item name="hosts" rule="203.0.113.0/24" is_block="true" is_enabled="true"/></rules_custom>
</root>"#;
    assert_eq!(imported("profile.xml", simplewall, "203.0.113.5:443").1["rule"], "hosts");
    assert_eq!(imported("profile.xml", simplewall, "198.51.100.5:443").1["decision"]["verdict"], "permit");

    let netsh = "\r\nRule Name:                            Web\r\n\
        ----------------------------------------------------------------------\r\n\
        Enabled:                              Yes\r\nDirection:                            Out\r\n\
        Profiles:                             Domain,Private,Public\r\nLocalIP:                              Any\r\n\
        RemoteIP:                             203.0.113.0/24\r\nProtocol:                             TCP\r\n\
        LocalPort:                            Any\r\nRemotePort:                           80,443\r\n\
        Program:                              C:\\Apps\\browser.exe\r\nAction:                               Block\r\n\
        Ok.\r\n";
    let told = imported("rules.txt", netsh.as_bytes(), "203.0.113.5:443").1;
    assert_eq!((&told["rule"], &told["decision"]["verdict"]), (&"Web".into(), &"block".into()));
    // As redirected by PowerShell.
    let wide: Vec<u8> = [0xfeffu16].into_iter().chain(netsh.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    assert_eq!(imported("rules16.txt", &wide, "203.0.113.5:443").1["rule"], "Web");

    let csv = "\"DisplayName\",\"Enabled\",\"Direction\",\"Action\",\"Protocol\",\"LocalPort\",\"RemotePort\",\
        \"RemoteAddress\",\"Program\"\r\n\
        \"Mail\",\"True\",\"Outbound\",\"Block\",\"TCP\",\"Any\",\"25,465\",\"Any\",\"Any\"\r\n\
        \"Hosted\",\"True\",\"Outbound\",\"Allow\",\"TCP\",\"Any\",\"80\",\"Any\",\"%SystemRoot%\\system32\\svchost.exe\"\r\n";
    let (policy, told) = imported("rules.csv", csv.as_bytes(), "198.51.100.5:465");
    assert_eq!(told["rule"], "Mail");
    // Conditions missing from the export could have narrowed what it permits.
    assert!(policy.contains("name = \"Hosted\"\naction = \"permit\"\nenabled = false"), "{policy}");
    let json = r#"[{"DisplayName":"Mail","Enabled":1,"Direction":2,"Action":4,"Protocol":"TCP","LocalPort":"Any",
        "RemotePort":["25","465"],"RemoteAddress":"Any","Program":"Any"}]"#;
    assert_eq!(imported("rules.json", json.as_bytes(), "198.51.100.5:465").1["rule"], "Mail");

    let group =
        r#"{"name":"g","rules":[{"action":"deny","process":"any","remote":"any","ports":"22","protocol":"tcp"}]}"#;
    assert_eq!(imported("group.lsrules", group.as_bytes(), "198.51.100.5:22").1["decision"]["verdict"], "block");
}

#[test]
fn what_cannot_be_imported_is_refused() {
    let folder = Folder::new(&[("prose.txt", "nothing of a firewall"), ("broken.xml", "<root><apps></root>")]);
    assert!(folder.run(4, &["import", "prose.txt"]).error.contains("--from"));
    assert!(folder.run(4, &["import", "broken.xml"]).error.contains("broken.xml: line 1"));
    assert!(folder.run(4, &["import", "--from", "lsrules", "prose.txt"]).error.contains("prose.txt: line"));
    assert!(folder.run(4, &["import", "missing"]).error.contains("missing"));
}

#[test]
fn exports_in_code_pages_need_their_name() {
    let netsh = "Regelname:                            Spiel\r\n----------------------------------------------------\r\n\
        Aktiviert:                            Ja\r\nRichtung:                             Aus\r\n";
    let folder = Folder::new(&[("german.txt", netsh)]);
    assert!(folder.run(4, &["import", "german.txt"]).error.contains("the labels are in German"));
    let rule = "Rule Name:                            T\u{81}r\r\nEnabled:                              Yes\r\n\
        Direction:                            Out\r\nProfiles:                             Domain,Private,Public\r\n\
        RemoteIP:                             203.0.113.0/24\r\nProtocol:                             Any\r\n\
        Program:                              C:\\Apps\\browser.exe\r\nAction:                               Block\r\n";
    folder.write("oem.txt", &rule.chars().map(|letter| letter as u8).collect::<Vec<u8>>());
    let error = folder.run(4, &["import", "oem.txt"]).error;
    assert!(error.contains("line 1: not UTF-8") && error.contains("--encoding"), "{error}");
    let policy = folder.run(0, &["import", "oem.txt", "--encoding", "cp850"]).out;
    assert!(policy.contains("name = \"Tür\"\naction = \"block\"\n"), "{policy}");
    folder.run(2, &["import", "oem.txt", "--encoding", "klingon"]);
}

#[test]
fn the_help_of_the_verbs_is_what_people_read() {
    let folder = Folder::new(&[]);
    insta::assert_snapshot!(folder.run(0, &["--help"]).out);
    insta::assert_snapshot!(folder.run(0, &["explain", "--help"]).out);
    folder.run(2, &[]);
    folder.run(2, &["check"]);
    folder.run(2, &["compile", "x.toml"]);
}

#[test]
fn a_policy_beside_its_lists_is_found_from_anywhere() {
    let folder = office();
    let absolute = folder.0.path().join("office.toml");
    let elsewhere = Folder::new(&[]);
    let told = elsewhere
        .json(0, &["explain", absolute.to_str().unwrap(), "--udp", "[2001:db8::1]:5000", "[2001:db8:bad::1]:53"]);
    assert_eq!(told["rule"], "known bad");
}

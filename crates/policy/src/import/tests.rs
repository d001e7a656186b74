use super::*;
use crate::{Verdict, compile, file::parse, model::FlowSpec};
use std::{collections::BTreeMap, path::Path};

/// The imported policy's decision on a flow: verdict and rule.
fn decide(imported: &Imported, flow: &FlowSpec) -> (Verdict, Option<String>) {
    let mut policy = parse(Path::new("imported.toml"), &imported.toml, &BTreeMap::new())
        .unwrap_or_else(|errors| panic!("{errors}\n{}", imported.toml));
    policy.defaults.essential = false; // what rules permit is looked at
    let resolve = |path: &str| -> Result<String, String> { Ok(path.to_owned()) };
    let options = crate::CompileOptions { application: &resolve, key: [9; 16], at: None };
    let image = crate::Image::validate(compile(&policy, &options).unwrap()).unwrap();
    let decision = flow.with(&resolve, |flow| image.decide(flow)).unwrap();
    (decision.verdict, decision.rule.and_then(|rule| image.rule_name(rule)).map(str::to_owned))
}

fn tcp(remote: &str, application: Option<&str>) -> FlowSpec {
    crate::parse_flow("tcp", "10.0.0.5:50000", remote, crate::Direction::Outbound, application, None, None, None)
        .unwrap()
}

#[test]
fn simplewall_profiles() {
    let text = r#"<?xml version="1.0" encoding="UTF-8"?>
<root timestamp="0" type="3" version="5">
  <apps>
    <item path="C:\Apps\browser &amp; more.exe" is_enabled="true"/>
    <item path="C:\Apps\other.exe" is_enabled="false"/>
  </apps>
  <rules_custom>
    <item name="web" rule="80;443" protocol="6" is_enabled="true"/>
    <item name="hosts" rule="203.0.113.0/24;198.51.100.1-198.51.100.9:8080" is_block="true" is_enabled="true"/>
    <item name="mail" rule="25" protocol="6" dir="0" apps="C:\Apps\mail.exe|C:\Apps\mail2.exe" is_enabled="false"/>
  </rules_custom>
</root>"#;
    assert_eq!(Source::detect(text), Some(Source::Simplewall));
    let imported = import(Source::Simplewall, text).unwrap();
    assert_eq!(imported.rules, 5, "{}", imported.toml);
    assert_eq!(decide(&imported, &tcp("203.0.113.5:443", None)), (Verdict::Block, Some("hosts".into())));
    assert_eq!(decide(&imported, &tcp("198.51.100.5:8080", None)), (Verdict::Block, Some("hosts (2)".into())));
    assert_eq!(decide(&imported, &tcp("198.51.100.5:443", None)), (Verdict::Permit, Some("web".into())));
    let browser = tcp("192.0.2.1:22", Some(r"C:\Apps\browser & more.exe"));
    assert_eq!(decide(&imported, &browser), (Verdict::Permit, Some("permitted programs".into())));
    assert_eq!(decide(&imported, &tcp("192.0.2.1:22", Some(r"C:\Apps\other.exe"))), (Verdict::Block, None));
    assert!(matches!(import(Source::Simplewall, "<root><apps></root>"), Err(ImportError::Syntax { .. })));
    assert!(matches!(import(Source::Simplewall, "<root/>"), Err(ImportError::Empty(_))));
}

const NETSH: &str = "
Rule Name:                            Allow web
----------------------------------------------------------------------
Description:                          Lets programs browse
Enabled:                              Yes
Direction:                            Out
Profiles:                             Domain,Private,Public
Grouping:                             
LocalIP:                              Any
RemoteIP:                             203.0.113.0/255.255.255.0,192.0.2.1-192.0.2.9
Protocol:                             TCP
LocalPort:                            Any
RemotePort:                           80,443
Edge traversal:                       No
Program:                              C:\\Apps\\browser.exe
InterfaceTypes:                       Any
Security:                             NotRequired
Action:                               Allow

Rule Name:                            No ping
----------------------------------------------------------------------
Enabled:                              Yes
Direction:                            Out
Profiles:                             Domain,Private,Public
LocalIP:                              Any
RemoteIP:                             Any
Protocol:                             ICMPv4
                                      Type    Code
                                      8       Any
Edge traversal:                       No
InterfaceTypes:                       Any
Security:                             NotRequired
Rule source:                          Local Setting
Action:                               Block
Ok.
";

#[test]
fn netsh_text() {
    assert_eq!(Source::detect(NETSH), Some(Source::Netsh));
    let imported = import(Source::Netsh, NETSH).unwrap();
    assert_eq!(imported.rules, 2);
    let browser = Some(r"C:\Apps\browser.exe");
    assert_eq!(decide(&imported, &tcp("203.0.113.8:443", browser)), (Verdict::Permit, Some("Allow web".into())));
    assert_eq!(decide(&imported, &tcp("203.0.113.8:444", browser)), (Verdict::Permit, None));
    let ping =
        crate::parse_flow("icmp", "10.0.0.5:8", "192.0.2.1:0", crate::Direction::Outbound, None, None, None, None)
            .unwrap();
    assert_eq!(decide(&imported, &ping), (Verdict::Block, Some("No ping".into())));
    let private = import(Source::Netsh, &NETSH.replace("Domain,Private,Public", "Private")).unwrap();
    assert_eq!(decide(&private, &ping).1, None, "a rule that lost its profile is disabled");
    assert!(private.notes.iter().any(|note| note.contains("Profile `Private`")), "{:?}", private.notes);
}

/// A table of rules with all columns that docs/export-windows-firewall.ps1 writes, `changes` made to the usual values.
fn table(rows: &[&[(&str, &str)]], delimiter: char) -> String {
    const COLUMNS: &[(&str, &str)] = &[
        ("DisplayName", "x"),
        ("Enabled", "True"),
        ("Direction", "Outbound"),
        ("Action", "Allow"),
        ("Profile", "Any"),
        ("Protocol", "TCP"),
        ("LocalPort", "Any"),
        ("RemotePort", "Any"),
        ("IcmpType", "Any"),
        ("LocalAddress", "Any"),
        ("RemoteAddress", "Any"),
        ("Program", "Any"),
        ("Service", "Any"),
        ("Package", ""),
        ("InterfaceType", "Any"),
        ("InterfaceAlias", "Any"),
        ("LocalUser", "Any"),
        ("Owner", ""),
        ("Authentication", "NotRequired"),
    ];
    let row = |cells: Vec<&str>| -> String {
        let quoted: Vec<String> = cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
        quoted.join(&delimiter.to_string()) + "\r\n"
    };
    let mut text = row(COLUMNS.iter().map(|(name, _)| *name).collect());
    for changes in rows {
        let cell = |name: &str, usual| changes.iter().find(|(key, _)| *key == name).map_or(usual, |(_, value)| *value);
        text += &row(COLUMNS.iter().map(|(name, usual)| cell(name, *usual)).collect());
    }
    text
}

fn rdp(remote: &str) -> FlowSpec {
    crate::parse_flow("tcp", "10.0.0.5:3389", remote, crate::Direction::Inbound, None, None, None, None).unwrap()
}

#[test]
fn tables_and_objects_agree() {
    let csv = table(
        &[
            &[
                ("DisplayName", "In \"quoted\""),
                ("Direction", "Inbound"),
                ("LocalPort", "3389"),
                ("RemoteAddress", "10.0.0.0/8"),
            ],
            &[("DisplayName", "odd"), ("Action", "Block"), ("Protocol", "UDP"), ("RemotePort", "RPC")],
        ],
        ',',
    );
    assert_eq!(Source::detect(&csv), Some(Source::WindowsCsv));
    let from_csv = import(Source::WindowsCsv, &csv).unwrap();
    let json = r#"[{"DisplayName":"In \"quoted\"","Enabled":1,"Direction":1,"Action":2,"Profile":"Any","Protocol":"TCP","LocalPort":["3389"],"RemotePort":"Any","LocalAddress":"Any","RemoteAddress":"10.0.0.0/8","Program":"Any","Service":"Any","Package":null,"InterfaceType":"Any","InterfaceAlias":"Any","LocalUser":"Any","Owner":null,"Authentication":0},
        {"DisplayName":"odd","Enabled":{"value":1,"Value":"True"},"Direction":2,"Action":4,"Profile":"Any","Protocol":"UDP","LocalPort":"Any","RemotePort":"RPC","LocalAddress":"Any","RemoteAddress":"Any","Program":"Any","Service":"Any","Package":null,"InterfaceType":"Any","InterfaceAlias":"Any","LocalUser":"Any","Owner":null,"Authentication":0}]"#;
    assert_eq!(Source::detect(json), Some(Source::WindowsJson));
    let from_json = import(Source::WindowsJson, json).unwrap();
    let rules = |imported: &Imported| imported.toml.split_once("[default]").unwrap().1.to_owned();
    assert_eq!(rules(&from_csv), rules(&from_json));
    assert_eq!(decide(&from_csv, &rdp("10.0.0.9:50000")), (Verdict::Permit, Some("In \"quoted\"".into())));
    assert_eq!(decide(&from_csv, &rdp("203.0.113.9:50000")), (Verdict::Block, None));
    assert!(
        from_csv
            .notes
            .iter()
            .any(|note| note == "line 3: rule `odd`: RemotePort `RPC` cannot be carried over; the rule is disabled"),
        "{:?}",
        from_csv.notes
    );
}

/// The notes and, by name, whether each rule is enabled.
fn read(source: Source, text: &str) -> (Vec<String>, Vec<(String, bool)>) {
    let imported = import(source, text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let policy = parse(Path::new("imported.toml"), &imported.toml, &BTreeMap::new()).unwrap();
    (imported.notes, policy.rules.into_iter().map(|rule| (rule.name, rule.enabled)).collect())
}

#[test]
fn whatever_separates_the_columns() {
    let rows: &[&[(&str, &str)]] =
        &[&[("DisplayName", "chat"), ("Action", "Block"), ("RemotePort", "5222,5223")], &[("Enabled", "False")]];
    let expected = vec![("chat".to_owned(), true), ("x".to_owned(), false)];
    for delimiter in [',', ';', '\t', '|'] {
        assert_eq!(read(Source::WindowsCsv, &table(rows, delimiter)).1, expected, "{delimiter:?}");
        let told = format!("sep={delimiter}\r\n{}", table(rows, delimiter));
        assert_eq!(read(Source::WindowsCsv, &told).1, expected, "{delimiter:?}");
    }
    // Concatenated exports, each with its mark and heading.
    let twice = format!("\u{feff}#TYPE x\r\n{}\u{feff}#TYPE x\r\n{}", table(&rows[..1], ';'), table(&rows[1..], ';'));
    assert_eq!(read(Source::WindowsCsv, &twice).1, expected);
}

#[test]
fn a_quoted_value_may_have_lines() {
    let text = table(&[&[("DisplayName", "two\r\n#TYPE x\r\nlines"), ("Action", "Block")]], ',');
    assert_eq!(read(Source::WindowsCsv, &text).1, [("two#TYPE xlines".to_owned(), true)]);
    let open = text.trim_end().trim_end_matches('"');
    let error = import(Source::WindowsCsv, open).unwrap_err().to_string();
    assert_eq!(error, "line 4: a quoted value is not closed");
}

#[test]
fn what_is_no_table_is_refused_by_its_cause() {
    for (text, cause) in [
        ("DisplayName : Old printer\nDirection   : Inbound\nAction      : Block\n", "Format-List"),
        (
            "\"Anzeigename\",\"Aktiviert\",\"Richtung\",\"Aktion\"\n\"x\",\"Falsch\",\"Ausgehend\",\"Blockieren\"\n",
            "German",
        ),
        ("Name DisplayName Enabled\n---- ----------- -------\nx y True\n", "no Direction and Action"),
        (&table(&[&[("Direction", "Ausgehend"), ("Action", "Blockieren")]], ','), "`Ausgehend`"),
    ] {
        let error = import(Source::WindowsCsv, text).unwrap_err().to_string();
        assert!(error.contains(cause), "{error}");
    }
    let german = NETSH.replace("Rule Name:", "Regelname:").replace("Enabled:", "Aktiviert:");
    assert_eq!(Source::detect(&german), Some(Source::Netsh));
    let error = import(Source::Netsh, &german).unwrap_err().to_string();
    assert!(error.contains("German") && error.contains("`Regelname`"), "{error}");
}

#[test]
fn a_value_that_is_not_understood_disables_its_rule() {
    for (key, value) in [
        ("Action", "AllowBypass"),
        ("Action", "Blockieren"),
        ("Action", ""),
        ("Enabled", "Wahr"),
        ("Enabled", ""),
        ("Direction", "Ausgehend"),
        ("Profile", "Private"),
        ("Protocol", "Carrier pigeon"),
        ("RemotePort", "IPHTTPSOut"),
        ("LocalPort", "70000"),
        ("RemoteAddress", "LocalSubnet"),
        ("RemoteAddress", "System.String[]"),
        ("LocalAddress", "DefaultGateway"),
        ("Program", "browser.exe"),
        ("Service", "*"),
        ("Package", "???"),
        ("InterfaceType", "Carrier pigeon"),
        ("InterfaceAlias", "Ethernet 2"),
        ("LocalUser", "O:LSD:(D;;CC;;;S-1-5-21-1-2-3-1001)"),
        ("Owner", "me"),
        ("Authentication", "Required"),
        ("IcmpType", "8"),
    ] {
        let (notes, rules) = read(Source::WindowsCsv, &table(&[&[(key, value)], &[("DisplayName", "y")]], ','));
        assert!(!rules.contains(&("x".to_owned(), true)), "{key} {value}: {rules:?}");
        assert!(rules.contains(&("y".to_owned(), true)), "{key}: {rules:?}");
        let said = if value.is_empty() { format!("the missing {key}") } else { value.to_owned() };
        assert!(notes.iter().any(|note| note.starts_with("line 2: ") && note.contains(&said)), "{notes:?}");
    }
}

#[test]
fn a_column_that_is_not_there_or_not_known_disables_what_permits() {
    let whole = table(&[&[("DisplayName", "permits")], &[("DisplayName", "blocks"), ("Action", "Block")]], ',');
    for column in
        ["LocalAddress", "Service", "Package", "InterfaceType", "InterfaceAlias", "LocalUser", "Owner", "Profile"]
    {
        // A renamed column is also unknown, and may contain anything.
        let renamed = whole.replace(&format!("\"{column}\""), "\"Spalte\"");
        let (notes, rules) = read(Source::WindowsCsv, &renamed);
        assert!(rules.contains(&("permits".to_owned(), false)), "{column}: {rules:?}");
        assert!(rules.contains(&("blocks".to_owned(), true)), "{column}: {rules:?}");
        let said =
            notes.iter().any(|note| note.contains(&format!("does not show {column}; 1 that permit are disabled")));
        assert!(said || notes.iter().any(|note| note.contains("unknown field `Spalte`")), "{notes:?}");
    }
    // A user who knows that the export is complete may say so.
    let part = whole.replace("\"Owner\",", "").replace("\"\",\"NotRequired\"", "\"NotRequired\"");
    let enabled = |imported: Imported| imported.toml.matches("enabled = false").count() == 0;
    assert!(!enabled(import(Source::WindowsCsv, &part).unwrap()));
    assert!(enabled(import_complete(Source::WindowsCsv, &part).unwrap()), "{part}");
    for column in ["Protocol", "LocalPort", "RemotePort", "RemoteAddress", "Program"] {
        let (_, rules) = read(Source::WindowsCsv, &whole.replace(&format!("\"{column}\""), "\"Spalte\""));
        assert!(rules.iter().all(|(_, enabled)| !enabled), "{column}: {rules:?}");
    }
    let more = whole
        .replace("\"Owner\"", "\"Owner\",\"Colour\"")
        .replace(",\"\",\"NotRequired\"", ",\"\",\"red\",\"NotRequired\"");
    let (notes, rules) = read(Source::WindowsCsv, &more);
    assert!(rules.iter().all(|(_, enabled)| !enabled), "{rules:?}");
    assert!(notes.iter().any(|note| note.contains("unknown field `Colour` with `red`")), "{notes:?}");
}

#[test]
fn icmp_types_and_codes() {
    let icmp = |kind: &str, code: &str| {
        let (local, remote) = (format!("10.0.0.5:{kind}"), format!("192.0.2.1:{code}"));
        crate::parse_flow("icmp", &local, &remote, crate::Direction::Inbound, None, None, None, None).unwrap()
    };
    let row: &[(&str, &str)] =
        &[("Direction", "Inbound"), ("Protocol", "ICMPv4"), ("LocalPort", "RPC"), ("IcmpType", "3:4,8,11:*")];
    let imported = import(Source::WindowsCsv, &table(&[row], ',')).unwrap();
    for (kind, code, verdict) in [
        ("3", "4", Verdict::Permit),
        ("3", "1", Verdict::Block),
        ("8", "0", Verdict::Permit),
        ("11", "1", Verdict::Permit),
        ("5", "4", Verdict::Block),
    ] {
        assert_eq!(decide(&imported, &icmp(kind, code)).0, verdict, "{kind}:{code}\n{}", imported.toml);
    }
    let netsh = NETSH.replace("8       Any", "3       4").replace("Out\n", "In\n").replace("Block", "Allow").replace(
        "InterfaceTypes:                       Any\nSecurity:                             NotRequired\nRule source:",
        "Program:                              System\nInterfaceTypes:                       Any\nSecurity:                             NotRequired\nRule source:",
    );
    let imported = import(Source::Netsh, &netsh).unwrap();
    let by_system = |kind, code| FlowSpec { application: Some("System".to_owned()), ..icmp(kind, code) };
    assert_eq!(decide(&imported, &by_system("3", "4")).0, Verdict::Permit, "{}", imported.toml);
    assert_eq!(decide(&imported, &by_system("3", "1")).0, Verdict::Block);
}

#[test]
fn netsh_text_without_programs_permits_nothing() {
    let short = NETSH.lines().filter(|line| {
        !["Program", "InterfaceTypes", "Security", "Description", "Rule source"].iter().any(|key| line.starts_with(key))
    });
    let short: Vec<&str> = short.collect();
    let (notes, rules) = read(Source::Netsh, &short.join("\n"));
    assert!(rules.iter().all(|(_, enabled)| !enabled), "{rules:?}");
    assert!(notes.iter().any(|note| note.contains("does not show (Program)")), "{notes:?}");
    // A verbose text has no line for the program of a store app's rule.
    let (_, rules) =
        read(Source::Netsh, &NETSH.replace("Program:                              C:\\Apps\\browser.exe\n", ""));
    assert!(
        rules.contains(&("Allow web".to_owned(), false)) && rules.contains(&("No ping".to_owned(), true)),
        "{rules:?}"
    );
}

#[test]
fn little_snitch_groups() {
    let text = r#"{"name":"g","description":"d","denied-remote-domains":["ads.example"],
        "rules":[{"action":"deny","process":"any","remote-hosts":["one.example"],"ports":"443","protocol":"tcp"},
                 {"action":"allow","process":"any","remote":"local-net"},
                 {"action":"deny","process":"/Applications/X.app","remote":"any"}]}"#;
    assert_eq!(Source::detect(text), Some(Source::LittleSnitch));
    let imported = import(Source::LittleSnitch, text).unwrap();
    let named = |name: &str| FlowSpec { remote_name: Some(Some(name.into())), ..tcp("203.0.113.8:443", None) };
    assert_eq!(decide(&imported, &named("x.ads.example")).0, Verdict::Block);
    assert_eq!(decide(&imported, &named("one.example")).0, Verdict::Block);
    assert_eq!(decide(&imported, &named("two.one.example")).0, Verdict::Permit);
    // `local-net` is not all private addresses, so the rule exists but is disabled.
    assert!(imported.toml.contains("name = \"any 1\"\naction = \"permit\"\nenabled = false"), "{}", imported.toml);
}

#[test]
fn little_snitch_rules_that_lose_a_condition_are_disabled() {
    let plain = r#""action":"allow","process":"any","remote-addresses":"198.51.100.0/24""#;
    let group = |rule: &str| format!(r#"{{"rules":[{{{rule}}},{{{plain}}}]}}"#);
    for (rule, said) in [
        (format!(r#"{plain},"via":"/usr/local/bin/agent""#), "via `/usr/local/bin/agent`"),
        (format!(r#"{plain},"owner":"me""#), "owner `me`"),
        (format!(r#"{plain},"uid":501"#), "uid `501`"),
        (format!(r#"{plain},"priority":"urgent""#), "priority `urgent`"),
        (format!(r#"{plain},"color":"red""#), "unknown field `color`"),
        (format!(r#"{plain},"action":"deny""#), "unknown field `action`"),
        (format!(r#"{plain},"ports":{{"low":1}}"#), "ports `{low: 1}`"),
        (format!(r#"{plain},"disabled":"no""#), "disabled `no`"),
        (r#""action":"allow","process":"any","remote-domains":["bad name.example"]"#.to_owned(), "bad name.example"),
        (
            r#""action":"allow","process":"any","remote-hosts":["one.example","*.two.example"]"#.to_owned(),
            "*.two.example",
        ),
        (r#""action":"allow","process":"any""#.to_owned(), "the missing destination"),
        (r#""process":"any","remote":"any""#.to_owned(), "the missing action"),
        (r#""action":"allow","remote":"any""#.to_owned(), "the missing process"),
    ] {
        let (notes, rules) = read(Source::LittleSnitch, &group(&rule));
        assert_eq!(rules.iter().filter(|(_, enabled)| *enabled).count(), 1, "{rule}: {rules:?}");
        assert!(notes.iter().any(|note| note.starts_with("rule 0") && note.contains(said)), "{rule}: {notes:?}");
    }
    let high = group(r#""action":"allow","process":"any","remote":"any","priority":"high""#);
    assert_eq!(read(Source::LittleSnitch, &high).1[0], ("any 0".to_owned(), true), "higher priority comes first");
}

#[test]
fn simplewall_keeps_system_rules_and_blocklists() {
    let text = r#"<?xml version="1.0"?>
<root timestamp="1" type="4" version="6">
  <rules_system>
    <item name="LAN names" rule_local="137-138" dir="1" protocol="17" is_services="true" is_enabled="true"/>
    <item name="Kernel" rule="224.0.0.0/4" dir="2" protocol="2" is_kernel="true" is_services="true" is_enabled="true"/>
    <item name="v6" protocol="58" dir="2" version="23" is_services="true" is_enabled="true"/>
    <item name="later" rule="1688" protocol="6" os_version="10.0" is_enabled="true"/>
    <item name="much later" rule="1688" protocol="6" os_version="11.0" is_enabled="true"/>
  </rules_system>
  <rules_blocklist>
    <item name="spy_one" rule="192.0.2.0/24"/><item name="extra_two" rule="198.51.100.0/24"/>
  </rules_blocklist>
  <rules_custom>
    <item name="new way" rule_remote="203.0.113.9:443" is_enabled="true" protocol="6"/>
    <item name="odd" rule="203.0.113.8" is_blok="true" is_enabled="true"/>
    <item name="six" rule="2001:db8::1:443" is_enabled="true"/>
    <item name="maybe" rule="203.0.113.8" is_enabled="perhaps"/>
  </rules_custom>
  <rules_config>
    <item name="LAN names" is_enabled="false"/><item name="spy_one" is_enabled="true"/>
    <item name="elsewhere" is_enabled="true"/>
  </rules_config>
</root>"#;
    let (notes, rules) = read(Source::Simplewall, text);
    let enabled: Vec<&str> = rules.iter().filter(|(_, enabled)| *enabled).map(|(name, _)| name.as_str()).collect();
    assert_eq!(enabled, ["spy_one", "new way", "Kernel", "v6", "later"], "{notes:?}");
    for said in ["is_blok", "`perhaps`", "`2001:db8::1:443`", "os_version `11.0`", "`elsewhere` is the first"] {
        assert!(notes.iter().any(|note| note.contains(said)), "{said}: {notes:?}");
    }
    let imported = import(Source::Simplewall, text).unwrap();
    assert_eq!(decide(&imported, &tcp("192.0.2.9:80", None)), (Verdict::Block, Some("spy_one".into())));
    let ping = |local: &str, remote: &str, program: &str| {
        crate::parse_flow("icmpv6", local, remote, crate::Direction::Outbound, Some(program), None, None, None).unwrap()
    };
    assert_eq!(decide(&imported, &ping("[2001:db8::1]:128", "[2001:db8::2]:0", "System")).0, Verdict::Permit);
    assert_eq!(decide(&imported, &ping("[2001:db8::1]:128", "[2001:db8::2]:0", r"C:\a.exe")).0, Verdict::Block);
}

#[test]
fn what_is_no_program_disables_its_rule() {
    let text = NETSH.replace(r"C:\Apps\browser.exe", "browser.exe");
    let imported = import(Source::Netsh, &text).unwrap();
    assert_eq!(decide(&imported, &tcp("203.0.113.8:443", Some(r"C:\Apps\browser.exe"))), (Verdict::Permit, None));
    assert!(
        imported.notes.iter().any(|note| note.contains("`browser.exe`, which is not the full path")),
        "{:?}",
        imported.notes
    );
}

#[test]
fn what_cannot_be_said_is_a_comment() {
    // Protocol 3 has no ports, and here the port is given with its address.
    let text = r#"<root><rules_custom><item name="w" rule="10.0.0.1:443" protocol="3" is_block="true" is_enabled="true"/>
        <item name="v" rule="10.0.0.2:443" is_block="true" is_enabled="true"/></rules_custom></root>"#;
    let imported = import(Source::Simplewall, text).unwrap();
    assert_eq!(imported.rules, 1, "{}", imported.toml);
    assert_eq!(decide(&imported, &tcp("10.0.0.2:443", None)).1.as_deref(), Some("v"));
    assert!(
        imported.notes.iter().any(|note| note.starts_with("rule `w` is written as a comment")),
        "{:?}",
        imported.notes
    );
}

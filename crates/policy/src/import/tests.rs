use super::*;
use crate::{Verdict, compile, file::parse, model::FlowSpec};
use std::{collections::BTreeMap, path::Path};

/// What the imported policy decides about a flow: verdict and rule.
fn decide(imported: &Imported, flow: &FlowSpec) -> (Verdict, Option<String>) {
    let policy = parse(Path::new("imported.toml"), &imported.toml, &BTreeMap::new())
        .unwrap_or_else(|errors| panic!("{errors}\n{}", imported.toml));
    let resolve = |path: &str| -> Result<String, String> { Ok(path.to_owned()) };
    let options = crate::CompileOptions { application: &resolve, key: [9; 16], at: None };
    let image = crate::Image::validate(compile(&policy, &options).unwrap()).unwrap();
    let decision = flow.with(&resolve, |flow| image.decide(flow)).unwrap();
    (decision.verdict, decision.rule.and_then(|rule| image.rule_name(rule)).map(str::to_owned))
}

fn tcp(remote: &str, application: Option<&str>) -> FlowSpec {
    crate::parse_flow("tcp", "10.0.0.5:50000", remote, false, application, None, None, None).unwrap()
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
Profiles:                             Private
LocalIP:                              Any
RemoteIP:                             Any
Protocol:                             ICMPv4
                                      Type    Code
                                      8       Any
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
    let ping = crate::parse_flow("icmp", "10.0.0.5:8", "192.0.2.1:0", false, None, None, None, None).unwrap();
    assert_eq!(decide(&imported, &ping), (Verdict::Block, Some("No ping".into())));
    assert!(imported.notes.iter().any(|note| note.contains("profile `Private`")), "{:?}", imported.notes);
}

#[test]
fn powershell_csv_and_json_agree() {
    let csv = "#TYPE Selected\n\"Name\",\"DisplayName\",\"Enabled\",\"Direction\",\"Action\",\"Profile\",\"Protocol\",\"LocalPort\",\"RemotePort\",\"RemoteAddress\",\"Program\",\"Service\"\n\
        \"x\",\"In \"\"quoted\"\"\",\"True\",\"Inbound\",\"Allow\",\"Any\",\"TCP\",\"3389\",\"Any\",\"LocalSubnet\",\"Any\",\"Any\"\n\
        \"y\",\"svc\",\"True\",\"Outbound\",\"Block\",\"Any\",\"UDP\",\"Any\",\"53\",\"Any\",\"%SystemRoot%\\system32\\svchost.exe\",\"dnscache\"\n";
    assert_eq!(Source::detect(csv), Some(Source::WindowsCsv));
    let from_csv = import(Source::WindowsCsv, csv).unwrap();
    let json = r#"[{"Name":"x","DisplayName":"In \"quoted\"","Enabled":1,"Direction":1,"Action":2,"Profile":"Any","Protocol":"TCP","LocalPort":["3389"],"RemotePort":"Any","RemoteAddress":"LocalSubnet","Program":"Any","Service":"Any"},
        {"Name":"y","DisplayName":"svc","Enabled":{"value":1,"Value":"True"},"Direction":2,"Action":4,"Profile":"Any","Protocol":"UDP","LocalPort":"Any","RemotePort":"53","RemoteAddress":"Any","Program":"%SystemRoot%\\system32\\svchost.exe","Service":"dnscache"}]"#;
    assert_eq!(Source::detect(json), Some(Source::WindowsJson));
    let from_json = import(Source::WindowsJson, json).unwrap();
    assert_eq!(from_csv.toml, from_json.toml);
    let rdp = crate::parse_flow("tcp", "10.0.0.5:3389", "10.0.0.9:50000", true, None, None, None, None).unwrap();
    assert_eq!(decide(&from_csv, &rdp), (Verdict::Permit, Some("In \"quoted\"".into())));
    let far = crate::parse_flow("tcp", "10.0.0.5:3389", "203.0.113.9:50000", true, None, None, None, None).unwrap();
    assert_eq!(decide(&from_csv, &far), (Verdict::Block, None));
    assert!(from_csv.toml.contains("enabled = false"), "a rule for a service must not apply to all of svchost");
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
    assert_eq!(decide(&imported, &tcp("192.168.1.1:443", None)), (Verdict::Permit, Some("any 1".into())));
}

#[test]
fn what_is_no_program_disables_its_rule() {
    let text = NETSH.replace(r"C:\Apps\browser.exe", "browser.exe");
    let imported = import(Source::Netsh, &text).unwrap();
    assert_eq!(decide(&imported, &tcp("203.0.113.8:443", Some(r"C:\Apps\browser.exe"))), (Verdict::Permit, None));
    assert!(
        imported.notes.iter().any(|note| note.contains("`browser.exe` is not the whole path")),
        "{:?}",
        imported.notes
    );
}

#[test]
fn what_cannot_be_said_is_a_comment() {
    // Protocol 3 has no ports, and here the port stands with its address.
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

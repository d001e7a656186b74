//! Policies that cut their machine off are warned of, and no others.
#![cfg(feature = "std")]

use sluice_policy::{lint, parse};
use std::{collections::BTreeMap, path::Path, path::PathBuf};

/// What is said of a policy, as `key: message`.
fn said(text: &str) -> Vec<String> {
    let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let policy = parse(Path::new("policy.toml"), text, &files).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    lint(&policy).iter().map(|one| format!("{}: {}", one.key, one.message)).collect()
}

const OPEN: &str = "[default]\noutbound = \"permit\"\ninbound = \"permit\"\n";
const NO_WAY_OUT: &str = "[default]\noutbound = \"block\"\ninbound = \"permit\"\n";

fn rule(keys: &str) -> String {
    format!("[[rule]]\nname = \"one\"\n{}\n", keys.replace("; ", "\n"))
}

#[test]
fn name_resolution_that_is_cut_off() {
    let by_default = "default.outbound: no name is resolved: the default blocks";
    let by_rule = "rule[0]: no name is resolved: rule `one` blocks";
    for (head, keys, expected) in [
        (NO_WAY_OUT, "action = \"permit\"; remote-port = 443", Some(by_default)),
        // Firefox asks Windows for names.
        (NO_WAY_OUT, "action = \"permit\"; application = 'C:\\Program Files\\Firefox\\firefox.exe'", Some(by_default)),
        (NO_WAY_OUT, "action = \"permit\"; protocol = \"tcp\"; remote-port = 53", Some(by_default)),
        (NO_WAY_OUT, "action = \"permit\"; direction = \"inbound\"", Some(by_default)),
        (NO_WAY_OUT, "action = \"permit\"; enabled = false", Some(by_default)),
        (NO_WAY_OUT, "action = \"permit\"; remote = \"@loopback\"; remote-port = 53", Some(by_default)),
        (OPEN, "action = \"block\"; direction = \"outbound\"; remote-port = 53", Some(by_rule)),
        (OPEN, "action = \"drop\"; direction = \"outbound\"; protocol = \"udp\"", Some(by_rule)),
        (
            OPEN,
            "action = \"block\"; direction = \"outbound\"; application = 'D:\\Windows\\System32\\SVCHOST.exe'",
            Some(by_rule),
        ),
        (OPEN, "action = \"block\"; direction = \"outbound\"; application = '%SystemRoot%\\*'", Some(by_rule)),
        (OPEN, "action = \"block\"; service = \"Dnscache\"", Some(by_rule)),
        (OPEN, "action = \"block\"; direction = \"outbound\"; remote = \"203.0.113.0/24\"", None),
        (OPEN, "action = \"block\"; application = 'C:\\Program Files\\App\\app.exe'", None),
        (NO_WAY_OUT, "action = \"permit\"; remote-port = 53", None),
        (NO_WAY_OUT, "action = \"permit\"; remote-port = 53; remote = \"9.9.9.9\"; local = \"10.0.0.0/8\"", None),
        (NO_WAY_OUT, "action = \"permit\"; remote-port = 53; remote = \"2620:fe::fe\"; interface = \"wireless\"", None),
        (NO_WAY_OUT, "action = \"permit\"; remote-port = 53; application = 'C:\\unbound.exe'", None),
        (
            NO_WAY_OUT,
            "action = \"permit\"; application = '\\Device\\HarddiskVolume3\\Windows\\System32\\svchost.exe'",
            None,
        ),
        (NO_WAY_OUT, "action = \"permit\"; remote-port = 53; user = \"S-1-5-20\"; service = \"Dnscache\"", None),
        (
            NO_WAY_OUT,
            "action = \"block\"; remote-port = 53; [[rule.expect]]; remote = \"9.9.9.9:53\"; protocol = \"udp\"",
            None,
        ),
    ] {
        let found = said(&format!("{head}{}", rule(keys)));
        let names: Vec<_> = found.iter().filter(|one| one.contains("no name is resolved")).collect();
        match expected {
            Some(expected) => assert!(names.len() == 1 && names[0].starts_with(expected), "{keys}: {found:?}"),
            None => assert!(names.is_empty(), "{keys}: {found:?}"),
        }
    }
}

#[test]
fn whoever_administers_from_afar_is_not_shut_out_in_silence() {
    let closed = "[default]\ninbound = \"block\"\n";
    let by_default = "default.inbound: nobody administers the machine from afar: the default blocks RDP (TCP 3389), SSH (TCP 22), \
                      WinRM (TCP 5985), WinRM (TCP 5986)";
    let by_rule = |service: &str| format!("rule[0]: rule `one` shuts out who administers the machine by {service}");
    for (head, keys, expected) in [
        (closed, "action = \"permit\"; direction = \"outbound\"", vec![by_default.to_owned()]),
        ("", "action = \"permit\"; direction = \"outbound\"", vec![by_default.to_owned()]),
        (closed, "action = \"permit\"; local-port = 22; remote = \"@loopback\"", vec![by_default.to_owned()]),
        (closed, "action = \"permit\"; direction = \"inbound\"; local-port = 22; remote = \"10.0.0.0/8\"", vec![]),
        (closed, "action = \"permit\"; direction = \"inbound\"; application = 'C:\\ssh\\sshd.exe'", vec![]),
        (
            closed,
            "action = \"permit\"; local-port = 5985; group = \"Administrators\"; remote-port = \"1024-65535\"",
            vec![],
        ),
        (
            OPEN,
            "action = \"block\"; direction = \"inbound\"; local-port = [22, 3389]",
            vec![by_rule("RDP (TCP 3389)"), by_rule("SSH (TCP 22)")],
        ),
        (OPEN, "action = \"block\"; direction = \"inbound\"; remote = \"203.0.113.0/24\"", vec![]),
        (
            OPEN,
            "action = \"block\"; local-port = 22; [[rule.expect]]; direction = \"inbound\"; remote = \"192.0.2.9\"; local = \
             \"192.0.2.5:22\"",
            vec![],
        ),
    ] {
        let found = said(&format!("{head}{}", rule(keys)));
        let other = |one: &String| !one.contains("no name is resolved") && !one.contains("changes nothing");
        let found: Vec<_> = found.into_iter().filter(other).collect();
        assert_eq!(found, expected, "{keys}");
    }
}

#[test]
fn what_is_essential_and_blocked_is_named() {
    let found = said("[default]\ninbound = \"permit\"\noutbound = \"block\"\nessential = false\n");
    let kinds = "DHCP, ICMP error, IGMP, loopback, multicast listener discovery, neighbour discovery";
    let expected =
        format!("default.essential: without the exception for essential traffic no rule permits all of: {kinds}");
    assert!(found.contains(&expected), "{found:?}");
    let some = "[default]\nessential = false\n[[rule]]\naction = \"permit\"\ndirection = \"inbound\"\nprotocol = [\"icmp\", \"icmpv6\", \
                \"igmp\"]\n[[rule]]\naction = \"permit\"\nremote = \"@loopback\"\n";
    let found = said(some);
    assert!(found[1].ends_with("permits all of: DHCP"), "{found:?}");
    assert!(!said(&format!("{OPEN}essential = false\n")).iter().any(|one| one.contains("essential")));
}

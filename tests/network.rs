//! The policies that README and the cookbook offer break no network: what a machine says and hears in an ordinary one is
//! replayed on the real driver under each of them.

#[path = "support/capture.rs"]
mod capture;
mod support;
#[path = "support/wire.rs"]
mod wire;

use capture::{Conversation, OWN_LINK, OWN4, OWN6, essential, everyday, icmp_errors};
use ntsim::{
    net::Prefix,
    replay::{self, Options},
    tcpip::verdicts::{Totals, Verdicts},
};
use shim::{layer::Direction, stack::Verdict};
use sluice_control::load_image;
use sluice_policy::{CompileOptions, Policy, compile, model::Action, parse};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use support::Rig;
use wire::{Wire, udp};

/// The policies between ```` ```toml ```` and ```` ``` ```` of a document.
fn policies(document: &str) -> Vec<Policy> {
    let lists: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::from([
        ("lists/bad-addresses.txt".into(), b"203.0.113.64/26\n".to_vec()),
        ("ads.txt".into(), b"0.0.0.0 ads.example track.ads.example\n".to_vec()),
    ]);
    let blocks = document.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(|text| parse(Path::new("policy.toml"), text, &lists).unwrap_or_else(|e| panic!("{e}\n{text}"))).collect()
}

/// README's, and those of docs/policy.md.
fn offered() -> Vec<Policy> {
    let mut all = policies(include_str!("../README.md"));
    assert!(!all.is_empty());
    all.extend(policies(include_str!("../docs/policy.md")));
    assert!(all.len() >= 8, "{}", all.len());
    all
}

fn blocking(more: &str) -> Policy {
    let text = format!("```toml\n[default]\noutbound = \"block\"\ninbound = \"drop\"\n{more}\n```");
    policies(&text).remove(0)
}

fn put_in_force(rig: &Rig, policy: &Policy) {
    let application = |path: &str| Ok(path.replacen("C:", r"\device\harddiskvolume1", 1));
    let options = CompileOptions { application: &application, key: [7; 16], at: None };
    load_image(&rig.host, &compile(policy, &options).unwrap()).expect("the policy loads");
}

fn replay(rig: &Rig, conversation: &Conversation) -> Totals {
    let local = [OWN4, OWN6, OWN_LINK].map(|address| {
        let address: std::net::IpAddr = address.parse().unwrap();
        Prefix { address, length: if address.is_ipv4() { 32 } else { 128 } }
    });
    let options = Options { local: local.into(), ..Options::default() };
    let mut verdicts = Verdicts::new(None);
    let passed_over = replay::run(&rig.machine, &conversation.pcap()[..], &options, &mut verdicts).unwrap();
    assert!(passed_over.0.is_empty(), "{}: {passed_over:?}", conversation.name);
    // What goes from the machine to itself passes both its ends.
    assert!(verdicts.totals.packets as usize >= conversation.packets.len(), "{}", conversation.name);
    verdicts.totals
}

fn all_pass(rig: &Rig, conversations: &[Conversation], policy: &Policy) {
    for conversation in conversations {
        let totals = replay(rig, conversation);
        let (name, rules) = (conversation.name, policy.rules.iter().map(|rule| &rule.name).collect::<Vec<_>>());
        // What is kept back until a name is known is sent later, by the stack.
        assert_eq!(
            totals.forwarded + totals.relayed,
            totals.packets,
            "{name} under {:?} {rules:?}: {totals:?}",
            policy.defaults
        );
    }
}

/// Of what is essential nothing is let through.
fn none_pass(rig: &Rig) {
    for conversation in essential().into_iter().chain(icmp_errors()).map(Conversation::openings) {
        assert_eq!(replay(rig, &conversation).forwarded, 0, "{}", conversation.name);
    }
}

#[test]
fn no_policy_that_is_offered_breaks_the_network() {
    let rig = Rig::install();
    for policy in offered() {
        put_in_force(&rig, &policy);
        all_pass(&rig, &essential(), &policy);
        all_pass(&rig, &icmp_errors(), &policy);
        if policy.defaults.outbound == Action::Permit {
            all_pass(&rig, &everyday(), &policy);
        }
    }
    rig.uninstall();
}

#[test]
fn a_default_that_blocks_everything_leaves_what_is_essential() {
    let rig = Rig::install();
    let policy = blocking("");
    put_in_force(&rig, &policy);
    all_pass(&rig, &essential(), &policy);
    all_pass(&rig, &icmp_errors(), &policy);
    for conversation in everyday() {
        let totals = replay(&rig, &conversation);
        assert!(totals.forwarded < totals.packets, "{}: {totals:?}", conversation.name);
    }
    rig.uninstall();
}

#[test]
fn without_the_exception_the_default_decides_about_all_of_it() {
    let rig = Rig::install();
    put_in_force(&rig, &blocking("essential = false"));
    none_pass(&rig);
    rig.uninstall();
}

#[test]
fn a_rule_still_decides_about_what_is_essential() {
    let rig = Rig::install();
    put_in_force(&rig, &blocking("[[rule]]\naction = \"block\""));
    none_pass(&rig);
    rig.uninstall();
}

#[test]
fn behind_the_browsers_policy_names_resolve_and_the_browser_connects() {
    let rig = Rig::install();
    let browser = |policy: &Policy| policy.rules.iter().any(|rule| rule.name == "browser");
    put_in_force(&rig, &offered().into_iter().find(browser).expect("it is in the cookbook"));
    let of = |program: &str| Wire::of_program(&rig.machine, 7, &format!(r"\device\harddiskvolume1\{program}"));
    let mut resolver = of(r"windows\system32\svchost.exe");
    let mut browser = of(r"program files\mozilla firefox\firefox.exe");
    for remote in ["198.51.100.10", "2001:db8:2::10"] {
        for (direction, way) in [(Direction::Outbound, "question"), (Direction::Inbound, "answer")] {
            let verdict = resolver.pass(&udp(remote, 53, direction, b"names"), direction).verdict;
            assert_eq!(verdict, Verdict::Forward, "{way} {remote}");
        }
        let _ = browser.establish(remote, 443);
        assert_eq!(of(r"temp\other.exe").connect(remote, 443).0, Verdict::Refuse);
    }
    drop((resolver, browser));
    rig.uninstall();
}

/// DHCP is the system's: a program that takes its ports does not get out by them.
#[test]
fn the_ports_of_dhcp_are_no_way_out_for_a_user() {
    let rig = Rig::install();
    put_in_force(&rig, &blocking(""));
    let discover = &essential()[0].packets[0].1;
    for (uid, expected) in [(Some(0), Verdict::Forward), (None, Verdict::Forward), (Some(1000), Verdict::Refuse)] {
        let mut wire = Wire::of_user(&rig.machine, uid);
        assert_eq!(wire.pass(discover, Direction::Outbound).verdict, expected, "{uid:?}");
        wire.finish();
    }
    rig.uninstall();
}

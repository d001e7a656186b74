//! Lists in every format people publish them in: what they mean, and what is said of lines that mean nothing.
#![cfg(feature = "std")]

use sluice_policy::{CompileOptions, Direction, Errors, Flow, Image, Name, Policy, Severity, compile, parse};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A policy that blocks what the files of one list hold.
fn policy(keys: &str, condition: &str, files: &[(&str, &str)]) -> Result<Policy, Errors> {
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    let text = format!(
        "[list.all]\nfiles = {names:?}\n{keys}\n[[rule]]\nname = \"listed\"\naction = \"block\"\n{condition} = \"@all\"\n"
    );
    let files: BTreeMap<PathBuf, Vec<u8>> =
        files.iter().map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec())).collect();
    parse(Path::new("policy.toml"), &text, &files)
}

fn image(policy: &Policy) -> Image<Vec<u8>> {
    let options = CompileOptions { application: &|path| Ok(path.to_owned()), key: [3; 16], at: None };
    Image::validate(compile(policy, &options).unwrap()).unwrap()
}

fn blocks_name(image: &Image<Vec<u8>>, name: &str) -> bool {
    let flow = flow("192.0.2.1").with_name(Name::Known(name.as_bytes()));
    image.decide(&flow).rule.is_some()
}

fn flow(remote: &str) -> Flow<'static> {
    let remote: std::net::IpAddr = remote.parse().unwrap();
    let local = if remote.is_ipv4() { "10.0.0.5" } else { "2001:db8::5" }.parse().unwrap();
    Flow::new(Direction::Outbound, 6, local, 50000, remote, 443)
}

/// Names that must be blocked, names that must not, and how many lines are complained of.
#[track_caller]
fn names(keys: &str, text: &str, blocked: &[&str], open: &[&str], complaints: usize) {
    let policy = policy(keys, "remote-name", &[("list", text)]).unwrap();
    let image = image(&policy);
    for name in blocked {
        assert!(blocks_name(&image, name), "{name} is not blocked by\n{text}");
    }
    for name in open {
        assert!(!blocks_name(&image, name), "{name} is blocked by\n{text}");
    }
    assert_eq!(policy.warnings.len(), complaints, "{:?}", policy.warnings);
    assert!(policy.warnings.iter().all(|one| one.file == Path::new("list") && one.severity == Severity::Warning));
}

const ADBLOCK: &str = "[Adblock Plus 2.0]
! Title: a list
||ads.example^
||tracker.example^$third-party
||whole.example^$important
||page.example^$script
||path.example/banner^
@@||needed.example^
example.com##.banner
||bad_host..example^
";

#[test]
fn adblock_lines_stand_for_names_and_all_below() {
    for keys in ["", "format = \"adblock\""] {
        names(
            keys,
            ADBLOCK,
            &["ads.example", "x.ads.example", "A.B.Ads.Example.", "tracker.example", "whole.example"],
            &["example", "badads.example", "page.example", "path.example", "needed.example", "example.com"],
            5,
        );
    }
    names("subdomains = false", ADBLOCK, &["ads.example"], &["x.ads.example"], 5);
}

const DNSMASQ: &str = "# comment
address=/ads.example/0.0.0.0
server=/one.example/two.example/
local=/three.example/
address=/#/1.2.3.4
dhcp-range=192.0.2.1,192.0.2.9

address=/four.example/::
";

#[test]
fn dnsmasq_lines_stand_for_names_and_all_below() {
    for keys in ["", "format = \"dnsmasq\""] {
        names(
            keys,
            DNSMASQ,
            &["ads.example", "x.ads.example", "one.example", "two.example", "a.three.example", "four.example"],
            &["example", "192.0.2.1", "dhcp-range"],
            2,
        );
    }
    names("subdomains = false", DNSMASQ, &["two.example"], &["x.two.example"], 2);
}

const CSV: &str = "domain,first seen,by\n\
    # comment\n\
    ads.example,2026-01-01,somebody\n\
    \"tracker.example\",\"2026, January\",x\n\
    semi.example;2026;x\n\
    ,empty,\n\
    single,2026,x\n";

#[test]
fn the_first_column_of_csv_counts() {
    for keys in ["", "format = \"csv\""] {
        names(
            keys,
            CSV,
            &["ads.example", "x.ads.example", "tracker.example", "semi.example", "single"],
            &["domain", "somebody", "x", "2026"],
            1,
        );
    }
    let addresses = "ip,port\n203.0.113.7,443\n\"2001:db8:1::/48\",80\n198.51.100.1-198.51.100.9,x\n";
    let policy = policy("", "remote", &[("list", addresses)]).unwrap();
    assert_eq!(policy.warnings, []);
    let image = image(&policy);
    for (address, listed) in [
        ("203.0.113.7", true),
        ("203.0.113.8", false),
        ("2001:db8:1::9", true),
        ("2001:db8:2::9", false),
        ("198.51.100.9", true),
        ("198.51.100.10", false),
    ] {
        assert_eq!(image.decide(&flow(address)).rule.is_some(), listed, "{address}");
    }
}

#[test]
fn a_heading_takes_nothing_from_the_files_before() {
    let files = [("one.csv", "domain,n\none.example,1\n"), ("two.csv", "domain,n\ntwo.example,2\n")];
    let image = image(&policy("format = \"csv\"", "remote-name", &files).unwrap());
    assert!(blocks_name(&image, "one.example") && blocks_name(&image, "two.example"));
    assert!(!blocks_name(&image, "domain"));
}

#[test]
fn hosts_lines_stand_for_the_names_alone() {
    let text =
        "127.0.0.1 localhost\n::1 ip6-localhost\n0.0.0.0 ads.example tracker.example # both\nfe80::1%lo0 x.example\n";
    for keys in ["", "format = \"hosts\""] {
        names(keys, text, &["ads.example", "tracker.example", "x.example"], &["www.ads.example", "localhost"], 0);
    }
    names("subdomains = true", text, &["www.ads.example"], &["example"], 0);
}

#[test]
fn plain_names_carry_their_own_scope() {
    let text = "plain.example # comment\n*.below.example\n.both.example\nnot a name!\n\n";
    names(
        "format = \"names\"\nsubdomains = false",
        text,
        &["plain.example", "a.below.example", "both.example", "a.both.example"],
        &["a.plain.example", "below.example"],
        0,
    );
    names("format = \"names\"", "bad!name\ngood.example\n", &["good.example", "a.good.example"], &[], 1);
}

#[test]
fn strict_lists_refuse_what_they_cannot_read() {
    let errors = policy("strict = true", "remote-name", &[("list", ADBLOCK)]).unwrap_err();
    let lines: Vec<usize> = errors.diagnostics.iter().map(|one| one.line).collect();
    assert_eq!(lines, [6, 7, 8, 9, 10], "{errors}");
    assert!(errors.diagnostics.iter().all(|one| one.severity == Severity::Error && one.expected.is_some()));
}

#[test]
fn many_bad_lines_are_counted_not_shown() {
    let text = "203.0.113.1\n".to_owned() + &"nonsense here\n".repeat(40);
    let policy = policy("format = \"addresses\"", "remote", &[("list", &text)]).unwrap();
    assert!(policy.warnings.len() < 10, "{}", policy.warnings.len());
    let help = policy.warnings.last().unwrap().help.as_deref().unwrap();
    assert!(help.starts_with("35 more lines"), "{help}");
}

#[test]
fn a_list_of_both_kinds_is_refused() {
    let errors = policy("format = \"csv\"", "remote", &[("list", "203.0.113.1\nads.example\n")]).unwrap_err();
    assert!(errors.to_string().contains("both addresses and names"), "{errors}");
    let errors = policy("", "remote", &[("list", "ads.example\n")]).unwrap_err();
    assert!(errors.to_string().contains("@all"), "{errors}");
}

/// What is left behind a second final dot is no name; empty places of the table hold what it would hash to.
#[test]
fn nothing_behind_a_last_dot_is_listed() {
    let policy = parse(
        Path::new("dots.toml"),
        "[[rule]]\naction = \"block\"\nremote-name = \".t.co\"\n",
        &BTreeMap::<PathBuf, Vec<u8>>::new(),
    )
    .unwrap();
    let name = format!("{}..", "a".repeat(64));
    for key in 0..=u8::MAX {
        let options = CompileOptions { application: &|path| Ok(path.to_owned()), key: [key; 16], at: None };
        let image = Image::validate(compile(&policy, &options).unwrap()).unwrap();
        assert_eq!(image.name_class(name.as_bytes()), 0, "key {key}");
        assert_ne!(image.name_class(b"x.t.co."), 0);
    }
}

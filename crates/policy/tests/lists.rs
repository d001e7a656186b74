//! Lists in every format in which they are published: what they mean, and what is reported for lines that mean nothing.
#![cfg(feature = "std")]

use sluice_policy::{CompileOptions, Direction, Errors, Flow, Image, Name, Policy, Severity, compile, parse};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A policy that blocks the contents of one list's files.
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

/// Names that must be blocked, names that must not, and how many lines are reported.
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
            4,
        );
    }
    names("subdomains = false", ADBLOCK, &["ads.example"], &["x.ads.example"], 4);
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
        // A name with its own address is not one to block.
        let open = ["www.ads.example", "localhost", "x.example"];
        names(keys, text, &["ads.example", "tracker.example"], &open, 1);
    }
    names("subdomains = true", text, &["www.ads.example"], &["example"], 1);
}

#[test]
fn plain_names_carry_their_own_scope() {
    let text = "plain.example # comment\n*.below.example\n.both.example\nnot a name!\n\n";
    names(
        "format = \"names\"\nsubdomains = false",
        text,
        &["plain.example", "a.below.example", "both.example", "a.both.example"],
        &["a.plain.example", "below.example", "not"],
        1,
    );
    names("format = \"names\"", "bad!name\ngood.example\n", &["good.example", "a.good.example"], &[], 1);
}

#[test]
fn strict_lists_refuse_what_they_cannot_read() {
    let errors = policy("strict = true", "remote-name", &[("list", ADBLOCK)]).unwrap_err();
    let lines: Vec<usize> = errors.diagnostics.iter().map(|one| one.line).collect();
    assert_eq!(lines, [4, 6, 7, 10], "{errors}");
    assert!(errors.diagnostics.iter().all(|one| one.severity == Severity::Error && one.expected.is_some()));
}

#[test]
fn many_bad_lines_are_counted_not_shown() {
    let text = "203.0.113.1\n".to_owned() + &"nonsense here\n".repeat(40);
    let policy = policy("format = \"addresses\"", "remote", &[("list", &text)]).unwrap();
    let [warning] = &policy.warnings[..] else { panic!("{:?}", policy.warnings) };
    assert_eq!(warning.line, 2);
    assert_eq!(warning.message, "40 times not an address, first here: left out");
}

#[test]
fn a_list_of_both_kinds_is_refused() {
    let errors = policy("format = \"csv\"", "remote", &[("list", "203.0.113.1\nads.example\n")]).unwrap_err();
    assert!(errors.to_string().contains("both addresses and names"), "{errors}");
    let errors = policy("", "remote", &[("list", "ads.example\n")]).unwrap_err();
    assert!(errors.to_string().contains("@all"), "{errors}");
}

/// What follows a second final dot is not a name; empty places of the table hold its hash.
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

#[test]
fn exceptions_are_honoured() {
    let adblock = "||ads.example^\n@@||good.ads.example^\n||bad.example^\n||bad.example^$badfilter\n";
    let open = ["good.ads.example", "x.good.ads.example", "bad.example"];
    names("", adblock, &["ads.example", "x.ads.example"], &open, 0);
    let dnsmasq = "address=/ads.example/0.0.0.0\nserver=/good.ads.example/#\nserver=/own.ads.example/192.0.2.1\n";
    names("", dnsmasq, &["x.ads.example"], &["good.ads.example", "own.ads.example"], 0);
    let rpz = "$TTL 60\n@ SOA localhost. root. 1 2 3 4 5\n@ NS localhost.\n*.ads.example CNAME .\n\
        ads.example 60 IN CNAME .\nok.ads.example CNAME rpz-passthru.\n32.9.2.0.192.rpz-ip CNAME .\n";
    names("", rpz, &["ads.example", "x.ads.example"], &["ok.ads.example", "localhost"], 1);
    // In any order, and from another file.
    let files = [("one", "@@||good.ads.example^\n||x.example^\n"), ("two", "||ads.example^\n")];
    let image = image(&policy("", "remote-name", &files).unwrap());
    assert!(blocks_name(&image, "ads.example") && !blocks_name(&image, "good.ads.example"));
}

#[test]
fn an_entry_that_would_mean_something_else_is_reported() {
    for (text, open, said) in [
        (
            "ok.example\na.test\nb.test\nc.test\n192.0.2.9\n192.0.2.0/24\n2001:db8::1\n",
            "192.0.2.9",
            "3 times an address among",
        ),
        ("||192.0.2.51^\n||ok.example^\n", "192.0.2.51", "an address among names"),
        ("0.0.0.0 192.0.2.27\n0.0.0.0 ok.example\n", "192.0.2.27", "an address among names"),
        ("server=/192.0.2.0/\nserver=/ok.example/\n", "192.0.2.0", "an address among names"),
        ("127.0.0.1 .com\n127.0.0.1 ok.example\n", "a.com", "not a host name in a hosts file"),
        ("0.0.0.0 ok.example\n192.0.2.1 printer.example\n", "printer.example", "a name with its own address"),
        ("address=/#/0.0.0.0\naddress=/ok.example/\n", "any.example", "a pattern for every name"),
        (
            "address=/own.example/192.0.2.1\naddress=/ok.example/\n",
            "own.example",
            "a domain that is given its own address",
        ),
        ("||ok.example^\n||page.example^$domain=a.example\n", "page.example", "a filter with conditions"),
        ("||ok.example^\n@@||ok.example^$domain=a.example\n", "a", "an exception with conditions"),
        ("ok.example\nother.example\n0.0.0.0 hosts.example\n", "hosts.example", "a line of a hosts file"),
        ("ok.example\n.\n", "a", "not a host name"),
        ("ok.example\n10.0.300\n", "10.0.300", "an address among names"),
        ("ok.example\nsome prose here\n", "some", "an entry with something after it"),
    ] {
        let policy = policy("", "remote-name", &[("list", text)]).unwrap();
        assert!(!blocks_name(&image(&policy), open), "{text}");
        assert!(blocks_name(&image(&policy), "ok.example"), "{text}");
        assert!(policy.warnings.iter().any(|one| one.message.starts_with(said)), "{said}: {:?}", policy.warnings);
    }
    for line in [
        "||com^\n||ok.example^\n",
        ".co.uk\nok.example\n",
        "*.org\nok.example\n",
        "address=/com/\naddress=/ok.example/\n",
    ] {
        let policy = policy("", "remote-name", &[("list", line)]).unwrap();
        assert!(policy.warnings.iter().any(|one| one.message.contains("public suffix")), "{:?}", policy.warnings);
    }
    for (text, said) in [
        ("::ffff:192.0.2.1\n", "IPv4 in IPv6 form"),
        ("192.0.2.1\nfe80::1%eth0\n", "an address with a zone"),
        ("192.0.2.1\n192.0.2.2:80\n", "an address with a port"),
        ("192.0.2.1\n[2001:db8::1]:80\n", "an address with a port"),
        ("192.0.2.1\nads.example\n", "a name among addresses"),
    ] {
        let policy = policy("format = \"addresses\"", "remote", &[("list", text)]).unwrap();
        assert!(image(&policy).decide(&flow("192.0.2.1")).rule.is_some(), "{text}");
        assert!(policy.warnings.iter().any(|one| one.message.starts_with(said)), "{said}: {:?}", policy.warnings);
    }
}

#[test]
fn comments_are_those_of_any_format() {
    let plain = "! title\n; a\n// b\n# c\nads.example # d\ntwo.example ; e\nthree.example // f\nfour.example\t! g\n\
        five.example;h\n";
    let blocked = ["ads.example", "two.example", "three.example", "four.example", "five.example"];
    names("", plain, &blocked, &["title"], 0);
    let addresses = "! title\n// b\n203.0.113.1 // c\n203.0.113.0/28;d\n203.0.113.9\t! e\n";
    assert_eq!(policy("", "remote", &[("list", addresses)]).unwrap().warnings, []);
    let hosts = "! title\n; a\n0.0.0.0 ads.example ; b\n0.0.0.0 two.example // c\n";
    names("", hosts, &["ads.example", "two.example"], &[], 0);
    // One line of another kind does not change the format of the rest.
    let mixed = "0.0.0.0 odd.example\none.example\ntwo.example\n";
    names("", mixed, &["one.example", "two.example"], &["odd.example"], 1);
}

#[test]
fn a_list_that_is_broken_is_an_error() {
    for text in ["", "# only a comment\n", "<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>\n"] {
        let said = policy("", "remote-name", &[("list", text)]).unwrap_err().to_string();
        assert!(said.contains("has no entries") || said.contains("is a web page, not a list"), "{said}");
    }
    let empty = policy("may-be-empty = true", "remote-name", &[("list", "")]).unwrap();
    let warned: Vec<&str> = empty.warnings.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(warned.len(), 2, "{warned:?}");
    assert!(warned.iter().any(|one| one.contains("is empty, so conditions on it never match")), "{warned:?}");
    let errors = policy("may-be-empty = true\nstrict = true", "remote-name", &[("list", "")]).unwrap_err();
    assert!(errors.to_string().contains("never match"), "{errors}");
}

#[test]
fn what_is_no_list_is_not_shown() {
    let secret = "root:$6$thesecret:19000:0:99999:7:::\n";
    let shown = policy("", "remote-name", &[("shadow", secret)]).unwrap_err().render(false);
    assert!(shown.contains("root:$6$") && !shown.contains("thesecret"), "{shown}");
}

#[test]
fn lists_stay_below_the_policy() {
    let read = |keys: &str, path: &str| {
        let text = format!("[list.l]\nfile = '{path}'\n{keys}\n[[rule]]\naction = \"block\"\nremote-name = \"@l\"\n");
        let at = PathBuf::from("etc/sluice").join(path);
        let files = BTreeMap::from([(at, b"ads.example\n".to_vec())]);
        parse(Path::new("etc/sluice/policy.toml"), &text, &files).map_err(|errors| errors.to_string())
    };
    for path in ["lists/ads.txt", "lists/../ads.txt", "/var/ads.txt"] {
        assert!(read("", path).is_ok(), "{path}");
    }
    for path in ["../ads.txt", "lists/../../ads.txt", r"..\ads.txt"] {
        assert!(read("", path).unwrap_err().contains("outside the policy's folder"), "{path}");
        assert!(read("allow-outside = true", path).is_ok(), "{path}");
    }
    for path in [r"\\server\share\ads.txt", "//server/share/ads.txt", r"\\?\UNC\server\share\ads.txt"] {
        assert!(read("allow-outside = true", path).unwrap_err().contains("on another machine"), "{path}");
    }
}

use std::{format, string::String, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::testing::{Owned, owned, pieces};

fn read(text: impl AsRef<[u8]>) -> Owned {
    owned(Request::new().push(text.as_ref()))
}

fn read_in_pieces<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Owned {
    let mut request = Request::new();
    for piece in pieces {
        request.push(piece);
    }
    owned(request.answer())
}

fn name(name: &str) -> Owned {
    owned(Answer::Name(name.as_bytes(), Flags::default()))
}

fn malformed(reason: Reason) -> Owned {
    owned(Answer::Malformed(reason))
}

fn none() -> Owned {
    owned(Answer::NoName(Flags::default()))
}

fn address() -> Owned {
    owned(Answer::NoName(Flags { address: true, ..Flags::default() }))
}

const BROWSER: &str = "GET /a/b?c=d HTTP/1.1\r\nConnection: keep-alive\r\nhOsT:  WWW.Example.com:8080\t\r\nHostile: x\r\n\
    Hos: y\r\nUser-Agent: Mozilla/5.0\r\n\r\n";

#[test]
fn the_host_of_a_request_is_found() {
    assert_eq!(read(BROWSER), name("www.example.com"));
    assert_eq!(read("GET / HTTP/1.0\r\nHost:a\r\n\r\n"), name("a"));
    assert_eq!(read("\r\n\r\nGET / HTTP/1.1\r\nHost: a.example.\r\n\r\n"), name("a.example"));
    assert_eq!(read("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n"), name("a.example"));
    assert_eq!(read(b"M-SEARCH /\x80\xff HTTP/1.1\r\nHost: a.example\r\n\r\n"), name("a.example"));
}

#[test]
fn every_cut_gives_the_same() {
    for cut in 0..BROWSER.len() {
        let (one, two) = BROWSER.as_bytes().split_at(cut);
        assert_eq!(read(one), owned(Answer::NeedMore), "{cut}");
        assert_eq!(read_in_pieces([one, two]), name("www.example.com"), "{cut}");
    }
}

#[test]
fn a_request_without_a_host_has_none() {
    assert_eq!(read("GET / HTTP/1.0\r\n\r\n"), none());
    assert_eq!(read("GET / HTTP/1.1\r\nAccept: *\r\n\r\n"), none());
    assert_eq!(read("GET / HTTP/1.1\r\nHost:\r\n\r\n"), none());
    assert_eq!(read("GET / HTTP/1.1\r\nHost: \t \r\n\r\n"), none());
    assert_eq!(read("GET / HTTP/1.1\r\nHost: :80\r\n\r\n"), none());
}

#[test]
fn an_address_is_no_name() {
    for host in ["192.0.2.1", "192.0.2.1:80", "[2001:db8::1]", "[2001:DB8::1]:80", "[::ffff:192.0.2.1]"] {
        assert_eq!(read(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), address(), "{host}");
        assert_eq!(read(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")), address(), "{host}");
    }
}

#[test]
fn the_host_of_an_absolute_target_is_the_name() {
    for target in
        ["http://A.example", "http://a.example/x", "https://a.example:443/", "ws+x://a.example?b", "h://a.example.#"]
    {
        assert_eq!(read(format!("GET {target} HTTP/1.1\r\n\r\n")), name("a.example"), "{target}");
        assert_eq!(read(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n")), name("a.example"), "{target}");
    }
}

#[test]
fn a_host_that_is_not_the_targets_is_malformed() {
    for host in ["b.example", "", "a.example.org", "a.exampl", "192.0.2.1", "[::1]"] {
        let absolute = format!("GET http://a.example/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(read(absolute), malformed(Reason::Disagreement), "{host}");
    }
    let addresses = "GET http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.2\r\n\r\n";
    assert_eq!(read(addresses), malformed(Reason::Disagreement));
    let addresses = "GET http://[::1]/ HTTP/1.1\r\nHost: [::2]\r\n\r\n";
    assert_eq!(read(addresses), malformed(Reason::Disagreement));
}

#[test]
fn a_tunnel_is_marked() {
    let tunnel = owned(Answer::Name(b"a.example", Flags { tunnel: true, ..Flags::default() }));
    assert_eq!(read("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"), tunnel);
    assert_eq!(read("CONNECT a.example:443 HTTP/1.1\r\n\r\n\x16\x03\x01"), tunnel);
    assert_eq!(read("CONNECT a:1 HTTP/1.1\r\nHost: b\r\n\r\n"), malformed(Reason::Disagreement));
    assert_eq!(read("CONNECT / HTTP/1.1\r\nHost: a.example\r\n\r\n"), malformed(Reason::Syntax));
    assert_eq!(read("CONNECTS / HTTP/1.1\r\nHost: a.example\r\n\r\n"), name("a.example"));
    assert_eq!(read("CONNEC / HTTP/1.1\r\nHost: a.example\r\n\r\n"), name("a.example"));
}

#[test]
fn two_hosts_are_malformed() {
    for second in ["a.example", "b.example", ""] {
        let text = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: y\r\nhost: {second}\r\n\r\n");
        assert_eq!(read(text), malformed(Reason::Duplicate), "{second}");
    }
}

#[test]
fn requests_behind_the_first_are_not_looked_at() {
    let second = "GET / HTTP/1.1\r\nHost: b.example\r\nHost: c\r\n\r\n";
    assert_eq!(read(String::from(BROWSER) + second), name("www.example.com"));
    assert_eq!(read_in_pieces([BROWSER.as_bytes(), second.as_bytes()]), name("www.example.com"));
}

#[test]
fn lines_end_in_cr_lf_and_have_no_controls() {
    for (text, reason) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", Reason::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Reason::LineEnd),
        ("GET / HTTP/1.1\r\nX: y\nHost: a\r\n\r\n", Reason::LineEnd),
        ("GET / HTTP/1.1\r\nX: y\rHost: a\r\n\r\n", Reason::LineEnd),
        ("GET / HTTP/1.1\r\nX: y\0\r\nHost: a\r\n\r\n", Reason::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Reason::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\n\rX", Reason::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", Reason::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", Reason::Folded),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Reason::Folded),
        ("GET / HTTP/1.1\r\nX: y\r\n\tz\r\n\r\n", Reason::Folded),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Reason::Syntax),
        ("GET / HTTP/1.1\r\nHost\r\n\r\n", Reason::Syntax),
        ("GET / HTTP/1.1\r\nX Host: a\r\n\r\n", Reason::Syntax),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", Reason::Syntax),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Reason::Syntax),
        ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", Reason::Syntax),
    ] {
        assert_eq!(read(text), malformed(reason), "{text:?}");
    }
}

#[test]
fn targets_that_servers_read_differently_are_malformed() {
    for (target, reason) in [
        ("http://a@b.example/", Reason::Name),
        ("http://a.example\\@b.example/", Reason::Name),
        ("http://a%2eb/", Reason::Name),
        ("http://a.example:80x/", Reason::Name),
        ("http://[::1", Reason::Name),
        ("http://[::1]x/", Reason::Name),
        ("http://[fe80::1%25eth0]/", Reason::Name),
        ("http:///x", Reason::Syntax),
        ("http://:80/", Reason::Syntax),
        ("http:/a.example/", Reason::Syntax),
        ("http:a.example", Reason::Syntax),
        ("a.example:80", Reason::Syntax),
        ("a.example/x", Reason::Syntax),
        ("?x", Reason::Syntax),
        ("", Reason::Syntax),
    ] {
        assert_eq!(read(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n")), malformed(reason), "{target}");
    }
    for host in ["a@b", "a b", "a,b", "a/b", "a%41", "\u{e4}.example", "a:80:80", "[::1", "a..b", "http://a"] {
        assert_eq!(read(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), malformed(Reason::Name), "{host}");
    }
}

#[test]
fn other_protocols_are_not_taken_for_http() {
    for other in [
        "HTTP/1.1 200 OK\r\n",
        "EHLO a.example\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "USER a b c :d\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /\r\n",
        "GET / http/1.1\r\n",
        "GET / HTTP/2.0\r\n",
        "GET  / HTTP/1.1\r\n",
        "\u{16}\u{3}\u{1}",
        " GET / HTTP/1.1\r\n",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n",
    ] {
        assert_eq!(read(other), owned(Answer::NotThis), "{other:?}");
    }
}

#[test]
fn what_is_longer_than_is_looked_at_is_too_long() {
    let request = |padding: usize| format!("GET / HTTP/1.1\r\nCookie: {}\r\nHost: a\r\n\r\n", "x".repeat(padding));
    let fits = usize::from(LONGEST) - request(0).len();
    assert_eq!(read(request(fits)), name("a"));
    assert_eq!(read(request(fits + 1)), owned(Answer::TooLong));
    assert_eq!(read_in_pieces(request(fits + 1).as_bytes().chunks(1000)), owned(Answer::TooLong));
    assert_eq!(read("\r\n".repeat(9000)), owned(Answer::TooLong));
}

/// The host as a reader finds it that has the whole request, of a kind that no server objects to.
fn naive(text: &str) -> Option<String> {
    let (head, _) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let target = lines.next()?.split(' ').nth(1)?;
    let fields = lines.filter_map(|line| line.split_once(':'));
    let host = fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value.trim());
    let absolute = target.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    let authority = absolute.or(host)?.to_ascii_lowercase();
    let name = authority.split(':').next().unwrap_or_default();
    (!name.is_empty()).then(|| String::from(name))
}

proptest! {
    #[test]
    fn any_cut_gives_the_answer_of_the_whole(
        absolute in any::<bool>(),
        host in proptest::option::of("[a-zA-Z0-9-]{1,9}(\\.[a-zA-Z0-9-]{1,9}){0,3}\\.[a-z]{2}(:[0-9]{1,5})?"),
        fields in proptest::collection::vec("[A-Za-z-]{1,12}: ?[ -~]{0,40}", 0..6),
        place in any::<proptest::sample::Index>(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), prop_oneof![any::<u8>(), Just(b'\n'), Just(b' '), Just(b':')]), 0..3),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        let mut lines: Vec<String> = fields.into_iter().filter(|line| !line.to_ascii_lowercase().starts_with("host:")).collect();
        let target = match &host {
            Some(host) if absolute => format!("http://{host}/x?y"),
            _ => String::from("/x?y"),
        };
        if let Some(host) = &host {
            lines.insert(place.index(lines.len() + 1), format!("Host: {host}"));
        }
        let text = format!("GET {target} HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
        // A request without a field has its empty line twice.
        let text = text.replace("\r\n\r\n\r\n", "\r\n\r\n");
        if damage.is_empty() {
            prop_assert_eq!(read(&text), naive(&text).map_or(none(), |host| name(&host)));
        }
        let mut bytes = text.into_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assert_eq!(read_in_pieces(pieces(&bytes, &cuts)), read(&bytes));
        prop_assert_eq!(read_in_pieces(bytes.chunks(1)), read(&bytes));
    }
}

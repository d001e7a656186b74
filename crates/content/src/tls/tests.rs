use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::{
    Flags,
    testing::{Owned, extension, hello, hello_start, owned, pieces, records, server_name, server_names, sized},
};

const ECH: Flags = Flags { encrypted_hello: true, address: false, tunnel: false };

fn read(bytes: &[u8]) -> Owned {
    owned(ClientHello::new().push(bytes))
}

fn read_in_pieces<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Owned {
    let mut parser = ClientHello::new();
    for piece in pieces {
        parser.push(piece);
    }
    owned(parser.answer())
}

/// The answer to a hello with these extensions, in one record.
fn hello_answer(extensions: &[Vec<u8>]) -> Owned {
    read(&records(&hello(extensions), 1 << 14))
}

fn name(name: &[u8]) -> Owned {
    owned(Answer::Name(name, Flags::default()))
}

fn malformed(reason: Reason) -> Owned {
    owned(Answer::Malformed(reason))
}

/// What a browser sends: reserved values here and there, a key share of `share` bytes, a session to resume.
fn browser(share: usize) -> Vec<Vec<u8>> {
    vec![
        extension(0x3a3a, &[]),
        extension(0x0017, &[]),
        extension(0x0033, &sized(2, &[&[0x11, 0xec][..], &sized(2, &vec![5; share])].concat())),
        server_name(b"www.Example.com"),
        extension(0x0010, &sized(2, &sized(1, b"h2"))),
        extension(0xcaca, &[0]),
        extension(0x0029, &[1; 150]),
    ]
}

#[test]
fn the_name_of_a_hello_is_found() {
    assert_eq!(hello_answer(&browser(32)), name(b"www.example.com"));
    assert_eq!(hello_answer(&[server_name(b"a.example.")]), name(b"a.example"));
}

#[test]
fn a_post_quantum_hello_of_several_segments_is_read_to_its_end() {
    let bytes = records(&hello(&browser(1216)), 1 << 14);
    assert!(bytes.len() > 1460);
    assert_eq!(read(&bytes[..1460]), owned(Answer::NeedMore));
    assert_eq!(read_in_pieces(bytes.chunks(1460)), name(b"www.example.com"));
}

#[test]
fn records_may_cut_the_hello_anywhere() {
    let message = hello(&browser(32));
    for size in 1..message.len() {
        assert_eq!(read(&records(&message, size)), name(b"www.example.com"), "{size}");
    }
}

#[test]
fn a_prefix_is_never_an_answer() {
    let bytes = records(&hello(&browser(32)), 100);
    for end in 0..bytes.len() {
        assert_eq!(read(&bytes[..end]), owned(Answer::NeedMore), "{end}");
    }
}

#[test]
fn what_comes_behind_the_hello_changes_nothing() {
    let mut bytes = records(&hello(&[server_name(b"a.example")]), 1 << 14);
    bytes.extend(records(&hello(&[server_name(b"b.example")]), 1 << 14));
    bytes.extend([0; 20_000]);
    assert_eq!(read(&bytes), name(b"a.example"));
    assert_eq!(read_in_pieces(bytes.chunks(7)), name(b"a.example"));
}

#[test]
fn a_hello_without_a_name_has_none() {
    assert_eq!(hello_answer(&[]), owned(Answer::NoName(Flags::default())));
    assert_eq!(hello_answer(&[extension(0x0017, &[])]), owned(Answer::NoName(Flags::default())));
    // Before TLS 1.3 there need not be extensions at all.
    let bare = [vec![1], sized(3, &hello_start())].concat();
    assert_eq!(read(&records(&bare, 50)), owned(Answer::NoName(Flags::default())));
}

#[test]
fn an_encrypted_hello_is_marked_and_the_outer_name_given() {
    let ech = extension(0xfe0d, &[0; 200]);
    let outer = owned(Answer::Name(b"public.example", ECH));
    assert_eq!(hello_answer(&[server_name(b"public.example"), ech.clone()]), outer);
    assert_eq!(hello_answer(&[ech.clone(), server_name(b"public.example")]), outer);
    assert_eq!(hello_answer(std::slice::from_ref(&ech)), owned(Answer::NoName(ECH)));
    assert_eq!(hello_answer(&[extension(0xffce, &[0; 9])]), owned(Answer::NoName(ECH)));
    assert_eq!(hello_answer(&[ech.clone(), ech]), malformed(Reason::Duplicate));
}

#[test]
fn a_name_that_is_there_twice_is_malformed() {
    let (one, two) = (server_name(b"a.example"), server_name(b"b.example"));
    assert_eq!(hello_answer(&[one.clone(), extension(0x0017, &[]), two]), malformed(Reason::Duplicate));
    assert_eq!(hello_answer(&[one.clone(), one]), malformed(Reason::Duplicate));
    assert_eq!(hello_answer(&[server_names(&[(0, b"a.example"), (0, b"b.example")])]), malformed(Reason::Duplicate));
}

#[test]
fn entries_of_other_types_are_passed_over() {
    let other = [(7, &b"what.is.this"[..]), (0, b"a.example"), (255, b"")];
    assert_eq!(hello_answer(&[server_names(&other)]), name(b"a.example"));
    assert_eq!(hello_answer(&[server_names(&other[..1])]), owned(Answer::NoName(Flags::default())));
}

#[test]
fn what_is_no_host_name_is_malformed() {
    assert_eq!(hello_answer(&[server_name(b"192.0.2.1")]), malformed(Reason::Address));
    for bad in [&b""[..], b".", b"2001:db8::1", b"[2001:db8::1]", b"a b", b"a\0.example", b"a.example:443"] {
        assert_eq!(hello_answer(&[server_name(bad)]), malformed(Reason::Name), "{bad:?}");
    }
    assert_eq!(hello_answer(&[server_name(&[b'a'; 300])]), malformed(Reason::Name));
}

#[test]
fn lengths_that_do_not_fit_are_malformed() {
    let list = |list: &[u8]| hello_answer(&[extension(0, list)]);
    for bad in [
        &[][..],
        &[0],
        &[0, 0],
        &[0, 1],
        &[0, 1, 0],
        &[0, 5, 0, 0, 1, b'a'],
        &[0, 4, 0, 0, 2, b'a'],
        &[0, 3, 0, 0, 0, 0],
    ] {
        assert_eq!(list(bad), malformed(Reason::Length), "{bad:?}");
    }
    // Extensions that are longer or shorter than the message.
    for (said, there) in [(9, 8), (7, 8), (0, 4), (3, 3)] {
        let body = [hello_start(), vec![0, said], vec![0; there]].concat();
        let message = [vec![1], sized(3, &body)].concat();
        assert_eq!(read(&records(&message, 99)), malformed(Reason::Length), "{said} {there}");
    }
    // A session of 33 bytes, an odd number of bytes of suites, no suites, no compression.
    for middle in [&[33][..], &[0, 0, 1], &[0, 0, 0], &[0, 0, 2, 1, 1, 0]] {
        let body = [&[3, 3][..], &[0; 32], middle, &[0; 99]].concat();
        let message = [vec![1], sized(3, &body)].concat();
        assert_eq!(read(&records(&message, 999)), malformed(Reason::Length), "{middle:?}");
    }
}

#[test]
fn records_that_no_client_sends_are_malformed() {
    let message = hello(&[server_name(b"a.example")]);
    let (front, back) = message.split_at(20);
    let front = records(front, 99);
    let put = |kind: u8, major: u8, content: &[u8]| {
        read(&[&front[..], &[kind, major, 3], &sized(2, content), &records(back, 999)].concat())
    };
    assert_eq!(put(21, 3, &[1, 0]), malformed(Reason::Interleaved));
    assert_eq!(put(20, 3, &[1]), malformed(Reason::Interleaved));
    assert_eq!(put(22, 3, &[]), malformed(Reason::Length));
    assert_eq!(put(22, 2, &[1]), malformed(Reason::Syntax));
    assert_eq!(read(&[22, 3, 1, 0x40, 1]), malformed(Reason::Length));
    assert_eq!(read(&records(&[2, 0, 0, 1, 0], 9)), malformed(Reason::NotClientHello));
}

#[test]
fn ssl_2_is_refused_and_other_protocols_are_not_taken_for_tls() {
    assert_eq!(read(&[0x80, 0x2e, 1, 0, 2, 0, 0x15]), malformed(Reason::SslV2));
    assert_eq!(read(&[0x80, 0x2e, 1, 3, 1, 0, 0x15]), malformed(Reason::SslV2));
    for other in [&b"GET / HTTP/1.1"[..], b"SSH-2.0", &[22, 2, 0], &[0x80, 1, 2], &[0x80, 1, 1, 9], &[23, 3, 3]] {
        assert_eq!(read(other), owned(Answer::NotThis), "{other:?}");
    }
}

#[test]
fn what_is_longer_than_is_looked_at_is_too_long() {
    let extensions = |padding: usize| [extension(21, &vec![0; padding]), server_name(b"a.example")];
    let overhead = records(&hello(&extensions(0)), 1 << 14).len();
    let fits = usize::from(LONGEST) - overhead;
    assert_eq!(hello_answer(&extensions(fits)), name(b"a.example"));
    assert_eq!(hello_answer(&extensions(fits + 1)), owned(Answer::TooLong));
    // The length says it before the bytes come.
    assert_eq!(read(&[22, 3, 1, 1, 0, 1, 0, 0x40, 0]), owned(Answer::TooLong));
    // Records of one byte: six bytes each, whatever the hello's length is.
    let many = records(&hello(&extensions(5000)), 1);
    assert_eq!(read(&many), owned(Answer::TooLong));
    assert_eq!(read_in_pieces(many.chunks(11)), owned(Answer::TooLong));
}

/// The name as a reader finds it that has all bytes at hand and trusts every length.
fn naive(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    while let [22, _, _, high, low, rest @ ..] = bytes {
        let (content, rest) = rest.split_at_checked(usize::from(*high) << 8 | usize::from(*low))?;
        message.extend(content);
        bytes = rest;
    }
    let skip = |bytes: &[u8], at: usize, size: usize| -> Option<usize> {
        let length = bytes.get(at..at + size)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        Some(at + size + length)
    };
    let at = skip(&message, skip(&message, skip(&message, 38, 1)?, 2)?, 1)?;
    let mut at = at + 2;
    while at < message.len() {
        let end = skip(&message, at + 2, 2)?;
        if message.get(at..at + 2)? == [0, 0] {
            return Some(message.get(at + 9..end)?.to_ascii_lowercase());
        }
        at = end;
    }
    None
}

fn any_extension() -> impl Strategy<Value = Vec<u8>> {
    (1u16..0xfe00, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, content)| extension(kind, &content))
}

proptest! {
    #[test]
    fn any_cut_gives_the_answer_of_the_whole(
        before in proptest::collection::vec(any_extension(), 0..6),
        after in proptest::collection::vec(any_extension(), 0..6),
        host in proptest::option::of("[a-zA-Z0-9-]{1,12}(\\.[a-zA-Z0-9-]{1,12}){0,3}\\.[a-z]{2}"),
        size in 1usize..400,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        let middle = host.iter().map(|host| server_name(host.as_bytes()));
        let extensions: Vec<Vec<u8>> = before.into_iter().chain(middle).chain(after).collect();
        let mut bytes = records(&hello(&extensions), size);
        if damage.is_empty() {
            let expected = naive(&bytes);
            prop_assert_eq!(expected.is_some(), host.is_some());
            prop_assert_eq!(read(&bytes), expected.map_or(owned(Answer::NoName(Flags::default())), |found| name(&found)));
        }
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assert_eq!(read_in_pieces(pieces(&bytes, &cuts)), read(&bytes));
        prop_assert_eq!(read_in_pieces(bytes.chunks(1)), read(&bytes));
    }
}

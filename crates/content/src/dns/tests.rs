use std::{format, string::String, vec, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::{
    Answer, Flags,
    testing::{Owned, owned, pieces, sized},
};

/// A name without compression.
fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    labels.flat_map(|label| sized(1, label.as_bytes())).chain([0]).collect()
}

fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    [0xbeef, flags].into_iter().chain(counts).flat_map(u16::to_be_bytes).collect()
}

fn question(name: &str) -> Vec<u8> {
    [wire(name), vec![0, 1, 0, 1]].concat()
}

/// A query as resolvers of today send it, with an EDNS record.
fn query(name: &str) -> Vec<u8> {
    [header(0x0100, [1, 0, 0, 1]), question(name), vec![0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]].concat()
}

fn record(name: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    [name, &kind.to_be_bytes(), &[0, 1], &ttl.to_be_bytes(), &sized(2, data)].concat()
}

fn name(name: &[u8]) -> Owned {
    owned(Answer::Name(name, Flags::default()))
}

fn malformed(reason: Reason) -> Owned {
    owned(Answer::Malformed(reason))
}

fn datagram(bytes: &[u8]) -> Owned {
    owned(Query::datagram(bytes).answer())
}

fn stream<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Owned {
    let mut query = Query::stream();
    for piece in pieces {
        query.push(piece);
    }
    owned(query.answer())
}

fn text(name: Name<'_>) -> Result<String, Reason> {
    name.read(&mut Text::new()).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// Each record as text.
fn told(message: &[u8]) -> Result<Vec<String>, Reason> {
    let message = Message::read(message)?;
    let records = message.records().map(|record| {
        let record = record?;
        let data = match record.data {
            Data::A(address) => format!("{address}"),
            Data::Aaaa(address) => format!("{address}"),
            Data::Cname(name) => text(name)?,
            Data::Other(bytes) => format!("{bytes:?}"),
        };
        Ok(format!("{:?} {} {} {data}", record.section, text(record.name)?, record.ttl))
    });
    records.collect()
}

#[test]
fn the_name_of_a_question_is_found() {
    assert_eq!(datagram(&query("WWW.example.com")), name(b"www.example.com"));
    assert_eq!(datagram(&query("_sip._udp.example")), name(b"_sip._udp.example"));
    assert_eq!(datagram(&query("")), owned(Answer::NoName(Flags::default())));
    assert_eq!(stream([&sized(2, &query("a.example"))[..]]), name(b"a.example"));
}

#[test]
fn labels_of_any_bytes_are_names_but_for_a_dot() {
    let odd = |label: &[u8]| {
        let bytes = [header(0x0100, [1, 0, 0, 0]), sized(1, label), wire("evil.example"), vec![0, 1, 0, 1]].concat();
        (datagram(&bytes), Message::read(&bytes).unwrap().check())
    };
    assert_eq!(odd(b"\x00 \xff/"), (name(b"\x00 \xff/.evil.example"), Ok(())));
    assert_eq!(odd(b"a.b"), (malformed(Reason::Name), Err(Reason::Name)));
}

#[test]
fn an_answer_and_other_protocols_are_no_query() {
    assert_eq!(datagram(&[header(0x8180, [1, 0, 0, 0]), question("a")].concat()), owned(Answer::NotThis));
    assert_eq!(datagram(&[0x16, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40]), owned(Answer::NotThis));
}

#[test]
fn a_query_has_one_question() {
    let several = [header(0, [2, 0, 0, 0]), question("a.example"), question("b.example")].concat();
    assert_eq!(datagram(&several), malformed(Reason::Questions));
    assert_eq!(datagram(&header(0, [0, 0, 0, 0])), malformed(Reason::Questions));
    assert_eq!(datagram(&header(0, [257, 0, 0, 0])), owned(Answer::NotThis));
    // They can be read one by one.
    let message = Message::read(&several).unwrap();
    let names: Vec<_> = message.questions().map(|question| text(question.unwrap().name).unwrap()).collect();
    assert_eq!(names, ["a.example", "b.example"]);
}

#[test]
fn a_query_that_is_cut_is_malformed() {
    let whole = query("a.example");
    let question = whole.len() - 11;
    for end in 0..question {
        assert_eq!(datagram(&whole[..end]), malformed(Reason::Length), "{end}");
        // Over TCP the length says so, or it is not there yet.
        assert_eq!(stream([&sized(2, &whole[..end])[..], &[0; 300]]), malformed(Reason::Length), "{end}");
        assert_eq!(stream([&sized(2, &whole)[..end + 2]]), owned(Answer::NeedMore), "{end}");
    }
    assert_eq!(datagram(&whole[..question]), name(b"a.example"));
}

#[test]
fn names_are_as_long_as_dns_lets_them_be() {
    let longest = [["a"; 63].concat(), ["b"; 63].concat(), ["c"; 63].concat(), ["d"; 61].concat()].join(".");
    assert_eq!(datagram(&query(&longest)), name(longest.as_bytes()));
    for longer in [longest.clone() + "d", longest + ".d"] {
        assert_eq!(datagram(&query(&longer)), malformed(Reason::Name));
        assert_eq!(Message::read(&query(&longer)).unwrap().check(), Err(Reason::Name));
    }
    let reserved = [header(0, [1, 0, 0, 0]), vec![0x40, 1, 1]].concat();
    assert_eq!(datagram(&reserved), malformed(Reason::Name));
    let endless = [header(0, [1, 0, 0, 0]), [1, b'a'].repeat(200)].concat();
    assert_eq!(Message::read(&endless).unwrap().check(), Err(Reason::Name));
}

#[test]
fn answers_are_read_with_their_compression() {
    let message = [
        header(0x8180, [1, 4, 1, 1]),
        question("www.example.com"), // 12: example at 16
        record(&[0xc0, 12], CNAME, 300, &[&sized(1, b"cdn")[..], &[0xc0, 16]].concat()), // its data at 45
        record(&[0xc0, 45], A, 60, &[192, 0, 2, 1]),
        record(&[0xc0, 45], AAAA, 0x8000_0001, &Ipv6Addr::LOCALHOST.octets()),
        record(&wire("x"), 16, 5, b"\x02hi"),
        record(&[0xc0, 16], 2, 9, &[0xc0, 12]),
        record(&[0], 41, 0, &[]),
    ]
    .concat();
    assert_eq!(
        told(&message).unwrap(),
        [
            "Answer www.example.com 300 cdn.example.com",
            "Answer cdn.example.com 60 192.0.2.1",
            "Answer cdn.example.com 0 ::1",
            "Answer x 5 [2, 104, 105]",
            "Authority example.com 9 [192, 12]",
            "Additional  0 []",
        ]
    );
    let message = Message::read(&message).unwrap();
    assert_eq!(message.check(), Ok(()));
    assert_eq!((message.id(), message.is_answer(), message.code(), message.operation()), (0xbeef, true, 0, 0));
    assert_eq!((message.is_truncated(), message.question_count()), (false, 1));
    assert_eq!(message.record_count(Section::Answer), 4);
}

#[test]
fn pointers_lead_backwards_only() {
    let at = |pointer: [u8; 2]| {
        let bytes =
            [header(0x8180, [1, 1, 0, 0]), question("a.example"), record(&pointer, A, 1, &[1, 2, 3, 4])].concat();
        told(&bytes).map(|told| told.concat())
    };
    assert_eq!(at([0xc0, 14]).unwrap(), "Answer example 1 1.2.3.4");
    // The record's name is at 27: itself, what comes behind, the header, beyond the message.
    for bad in [[0xc0, 27], [0xc0, 28], [0xc0, 29], [0xc0, 0], [0xc0, 11], [0xff, 0xff]] {
        assert_eq!(at(bad), Err(Reason::Pointer), "{bad:?}");
    }
    // Into the middle of what the pointer came from: label, pointer, label again.
    let circle = [header(0, [1, 0, 0, 0]), sized(1, b"a"), vec![0xc0, 12, 0, 1, 0, 1]].concat();
    assert_eq!(Message::read(&circle).unwrap().check(), Err(Reason::Pointer));
    assert_eq!(datagram(&circle), malformed(Reason::Pointer));
}

#[test]
fn a_chain_of_pointers_ends() {
    let chain = |links: u16| {
        let mut bytes = [header(0x8180, [1, links, 0, 0]), question("a")].concat();
        let mut last = 12u16;
        for _ in 0..links {
            let here = bytes.len() as u16;
            bytes.extend(record(&(0xc000 | last).to_be_bytes(), A, 1, &[1, 2, 3, 4]));
            last = here;
        }
        Message::read(&bytes).unwrap().check()
    };
    assert_eq!(chain(16), Ok(()));
    assert_eq!(chain(17), Err(Reason::Pointer));
}

#[test]
fn records_whose_lengths_do_not_fit_are_malformed() {
    let one = |record: Vec<u8>| told(&[header(0x8180, [0, 1, 0, 0]), record].concat());
    assert!(one(record(&[0], A, 1, &[1, 2, 3, 4])).is_ok());
    assert_eq!(one(record(&[0], A, 1, &[1, 2, 3])), Err(Reason::Length));
    assert_eq!(one(record(&[0], AAAA, 1, &[1; 15])), Err(Reason::Length));
    assert_eq!(one(record(&[0], CNAME, 1, &[0, 0])), Err(Reason::Length));
    assert_eq!(one(record(&[0], CNAME, 1, &[])), Err(Reason::Length));
    let whole = record(&[0], A, 1, &[1, 2, 3, 4]);
    for end in 0..whole.len() {
        assert_eq!(one(whole[..end].to_vec()), Err(Reason::Length), "{end}");
    }
    let over = [header(0x8180, [0, 1, 0, 0]), whole, vec![0]].concat();
    assert_eq!(Message::read(&over).unwrap().check(), Err(Reason::Length));
    assert!(Message::read(&[0; 11]).is_err());
}

#[test]
fn an_error_is_the_last_item() {
    let bytes = [header(0x8180, [9, 9, 9, 9]), question("a")].concat();
    let message = Message::read(&bytes).unwrap();
    assert_eq!(message.questions().count(), 2);
    assert_eq!(message.records().count(), 1);
}

#[test]
fn messages_over_tcp_are_framed() {
    let bytes = [sized(2, b"one"), sized(2, b""), sized(2, b"three")].concat();
    let (one, rest) = framed(&bytes).unwrap();
    let (two, rest) = framed(rest).unwrap();
    assert_eq!((one, two), (&b"one"[..], &b""[..]));
    assert_eq!((framed(&rest[..6]), framed(&rest[..1])), (None, None));
    assert_eq!(framed(rest), Some((&b"three"[..], &b""[..])));
}

/// The name at `at`, by recursion over all of the message before it.
fn naive(message: &[u8], at: usize, before: usize) -> Option<String> {
    let length = usize::from(*message.get(at)?);
    match length {
        0 => Some(String::new()),
        1..64 => {
            let label = message.get(at + 1..at + 1 + length)?;
            let rest = naive(message, at + 1 + length, before)?;
            Some(String::from_utf8_lossy(label).to_ascii_lowercase() + "." + &rest)
        }
        192.. => {
            let target = (length & 63) << 8 | usize::from(*message.get(at + 1)?);
            if target < 12 || target >= before { None } else { naive(message, target, target) }
        }
        _ => None,
    }
}

proptest! {
    #[test]
    fn any_cut_gives_the_answer_of_the_whole(
        labels in proptest::collection::vec("[a-zA-Z0-9_-]{1,20}", 0..6),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3),
        cuts in proptest::collection::vec(any::<usize>(), 0..9),
    ) {
        let host = labels.join(".");
        let mut bytes = sized(2, &query(&host));
        if damage.is_empty() && !host.is_empty() {
            prop_assert_eq!(stream([&bytes[..]]), name(host.to_ascii_lowercase().as_bytes()));
            prop_assert_eq!(datagram(&bytes[2..]), name(host.to_ascii_lowercase().as_bytes()));
        }
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assert_eq!(stream(pieces(&bytes, &cuts)), stream([&bytes[..]]));
        prop_assert_eq!(stream(bytes.chunks(1)), stream([&bytes[..]]));
    }

    #[test]
    fn names_are_those_of_a_naive_reader(
        noise in proptest::collection::vec(prop_oneof![0u8..6, Just(0xc0), 10u8..40, Just(b'a'), any::<u8>()], 0..60),
        at in 12usize..40,
    ) {
        let message = [header(0x8180, [0, 0, 0, 0]), noise].concat();
        let found = text(Name { message: &message, at });
        let expected = naive(&message, at, at);
        match found {
            Ok(found) => prop_assert_eq!(Some(found), expected.map(|name| String::from(name.trim_end_matches('.')))),
            // Too long, too many pointers, a dot in a label: all else the naive reader refuses too.
            Err(reason) => prop_assert!(expected.is_none() || reason == Reason::Name && expected.is_some_and(|name| name.contains('.'))),
        }
    }
}

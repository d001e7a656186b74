use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::{
    Flags,
    testing::{Owned, owned, pieces, sized},
};

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = sized(3, content);
    [&length[..3], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

fn start() -> Vec<u8> {
    [&PREFACE[..], &frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]), &frame(8, 0, 0, &[0, 0, 1, 0])].concat()
}

fn string(text: &[u8], coded: bool) -> Vec<u8> {
    if !coded {
        return sized(1, text);
    }
    let mut bytes = Vec::new();
    httlib_huffman::encode(text, &mut bytes).unwrap();
    let mut bytes = sized(1, &bytes);
    bytes[0] |= 0x80;
    bytes
}

/// A field of a literal name.
fn field(form: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[form][..], &string(name, false), &string(value, true)].concat()
}

const INSERTED: u8 = 0x40;
const AUTHORITY: u8 = 1;
const HOST: u8 = 38;

/// A field whose name is in the static table.
fn named(index: u8, value: &[u8]) -> Vec<u8> {
    let index = if index < 15 { vec![index] } else { vec![15, index - 15] };
    [index, string(value, true)].concat()
}

fn read(bytes: &[u8]) -> Owned {
    owned(Connection::new().push(bytes))
}

fn read_in_pieces<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Owned {
    let mut connection = Connection::new();
    for piece in pieces {
        connection.push(piece);
    }
    owned(connection.answer())
}

/// The answer to a request of these fields, behind the method.
fn request(fields: &[Vec<u8>]) -> Owned {
    read(&[start(), frame(HEADERS, END_HEADERS, 1, &[&[0x82][..], &fields.concat()].concat())].concat())
}

fn name(name: &[u8]) -> Owned {
    owned(Answer::Name(name, Flags::default()))
}

fn malformed(reason: Reason) -> Owned {
    owned(Answer::Malformed(reason))
}

fn none() -> Owned {
    owned(Answer::NoName(Flags::default()))
}

#[test]
fn the_requests_of_rfc_7541_are_read() {
    // C.3.1 and C.4.1: the first request, without and with the Huffman code.
    for block in [
        &b"\x82\x86\x84\x41\x0fwww.example.com"[..],
        b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
    ] {
        assert_eq!(read(&[start(), frame(HEADERS, 5, 1, block)].concat()), name(b"www.example.com"));
    }
}

#[test]
fn the_authority_may_be_written_in_every_form() {
    for form in [0x00, 0x10, INSERTED] {
        assert_eq!(request(&[field(form, b":authority", b"A.example:80")]), name(b"a.example"));
        assert_eq!(request(&[field(form, b"host", b"a.example")]), name(b"a.example"));
    }
    let coded = [&[0][..], &string(b":authority", true), &string(b"a.example", false)].concat();
    assert_eq!(request(&[coded]), name(b"a.example"));
    assert_eq!(request(&[named(HOST, b"a.example")]), name(b"a.example"));
    assert_eq!(
        request(&[named(AUTHORITY, b"[::1]:80")]),
        owned(Answer::NoName(Flags { address: true, ..Flags::default() }))
    );
    // Lengths of more than one byte, and fields that are not looked for.
    let long = field(INSERTED, b"x-long", &[b'z'; 120]);
    assert_eq!(request(&[named(AUTHORITY, b"a.example"), long, vec![0x90, 0xbe]]), name(b"a.example"));
}

#[test]
fn a_request_without_an_authority_has_none() {
    assert_eq!(request(&[]), none());
    assert_eq!(request(&[field(0, b"hos", b"a"), field(0, b"hosts", b"a"), field(0, b"authority", b"a")]), none());
    assert_eq!(request(&[vec![0x81]]), none());
}

#[test]
fn a_tunnel_is_marked() {
    let block = [named(2, b"CONNECT"), named(AUTHORITY, b"a.example:443")].concat();
    let tunnel = owned(Answer::Name(b"a.example", Flags { tunnel: true, ..Flags::default() }));
    assert_eq!(read(&[start(), frame(HEADERS, END_HEADERS, 1, &block)].concat()), tunnel);
}

#[test]
fn host_must_agree_with_authority_and_neither_be_there_twice() {
    let authority = named(AUTHORITY, b"a.example");
    assert_eq!(request(&[authority.clone(), named(HOST, b"A.example.")]), name(b"a.example"));
    assert_eq!(request(&[authority.clone(), named(HOST, b"b.example")]), malformed(Reason::Disagreement));
    assert_eq!(request(&[named(HOST, b"a.example"), authority.clone()]), malformed(Reason::Syntax));
    assert_eq!(
        request(&[authority.clone(), field(0, b"host", b"a.example"), named(HOST, b"a.example")]),
        malformed(Reason::Duplicate)
    );
    assert_eq!(request(&[authority.clone(), field(0, b":authority", b"a.example")]), malformed(Reason::Duplicate));
    assert_eq!(request(&[named(AUTHORITY, b"a@b")]), malformed(Reason::Name));
}

#[test]
fn fields_that_the_block_itself_put_into_the_table_are_followed() {
    let authority = field(INSERTED, b":authority", b"a.example");
    let host = field(INSERTED, b"host", b"a.example");
    let other = field(INSERTED, b"cookie", b"x");
    // 0xbe is the newest entry, 0xbf the one before; 0x7e takes the newest one's name.
    assert_eq!(request(&[authority.clone(), vec![0xbe]]), malformed(Reason::Duplicate));
    assert_eq!(request(&[authority.clone(), other.clone(), vec![0xbe]]), name(b"a.example"));
    assert_eq!(request(&[authority.clone(), other.clone(), vec![0xbf]]), malformed(Reason::Duplicate));
    assert_eq!(request(&[authority.clone(), host.clone(), vec![0xbe]]), malformed(Reason::Duplicate));
    assert_eq!(
        request(&[authority.clone(), host, other.clone(), [&[0x7f, 0][..], &string(b"b", false)].concat()]),
        malformed(Reason::Duplicate)
    );
    assert_eq!(request(&[authority.clone(), vec![0xbf]]), malformed(Reason::Compression));
    // More of them than are followed: none of the first 64 is asked for, then one behind is.
    let many = [vec![authority], vec![other; 70]].concat();
    assert_eq!(request(&many), name(b"a.example"));
    assert_eq!(request(&[many, vec![vec![0xbe]]].concat()), malformed(Reason::DynamicTable));
}

#[test]
fn blocks_that_break_hpack_are_malformed() {
    for bad in [
        &[0x80][..],
        &[0x3f, 0xe2, 0x1f],
        &[0x20],
        &[0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xff, 0x80, 0x80, 0x80, 0x80],
        &[1, 0x81, 0x1e],
        &[1, 0x84, 0xff, 0xff, 0xff, 0xff],
        &[1, 5, b'a'],
        &[0xbe],
    ] {
        assert_eq!(request(&[bad.to_vec()]), malformed(Reason::Compression), "{bad:?}");
    }
    // A smaller table may be announced first.
    let block = [vec![0x20, 0x3f, 0xe1, 0x1f, 0x82], named(AUTHORITY, b"a.example")].concat();
    assert_eq!(read(&[start(), frame(HEADERS, END_HEADERS, 1, &block)].concat()), name(b"a.example"));
}

#[test]
fn padding_priority_and_continuations_are_read() {
    let block = [vec![0x82], named(AUTHORITY, b"a.example"), field(0, b"x", b"y")].concat();
    let padded = [&[4][..], &block, &[0; 4]].concat();
    assert_eq!(read(&[start(), frame(HEADERS, 0x0c, 1, &padded)].concat()), name(b"a.example"));
    let both = [&[4, 0x80, 0, 0, 0, 9][..], &block, &[0; 4]].concat();
    assert_eq!(read(&[start(), frame(HEADERS, 0x2c, 1, &both)].concat()), name(b"a.example"));
    for cut in 0..block.len() {
        let (one, two) = block.split_at(cut);
        let one = frame(HEADERS, PRIORITY, 3, &[&[0; 5], one].concat());
        let bytes = [start(), one, frame(CONTINUATION, 0, 3, &[]), frame(CONTINUATION, END_HEADERS, 3, two)].concat();
        assert_eq!(read(&bytes), name(b"a.example"), "{cut}");
    }
    assert_eq!(read(&[start(), frame(HEADERS, 0x0c, 1, &[3, 0, 0])].concat()), malformed(Reason::Frame));
    assert_eq!(read(&[start(), frame(HEADERS, 0x0c, 1, &[])].concat()), malformed(Reason::Frame));
    assert_eq!(read(&[start(), frame(HEADERS, 0x24, 1, &[0; 4])].concat()), malformed(Reason::Frame));
}

#[test]
fn frames_where_they_must_not_be_are_malformed() {
    let headers = frame(HEADERS, 0, 1, &[0x82]);
    for bad in [
        frame(DATA, 0, 1, b"x"),
        frame(RST_STREAM, 0, 1, &[0; 4]),
        frame(PUSH_PROMISE, 0, 1, &[0; 4]),
        frame(CONTINUATION, END_HEADERS, 1, &[0x82]),
        frame(HEADERS, END_HEADERS, 0, &[0x82]),
        frame(HEADERS, END_HEADERS, 2, &[0x82]),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, 0, 1, &[]),
        [headers.clone(), frame(SETTINGS, 0, 0, &[])].concat(),
        [headers.clone(), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
        [headers.clone(), headers].concat(),
        vec![0, 0x40, 1, 0, 0, 0, 0, 0, 0],
    ] {
        assert_eq!(read(&[start(), bad.clone()].concat()), malformed(Reason::Frame), "{bad:?}");
    }
    for first in [frame(HEADERS, END_HEADERS, 1, &[0x82]), frame(8, 0, 0, &[0; 4]), frame(SETTINGS, ACK, 0, &[])] {
        assert_eq!(read(&[&PREFACE[..], &first].concat()), malformed(Reason::Frame), "{first:?}");
    }
    // Frames of unknown types are passed over.
    let request = frame(HEADERS, END_HEADERS, 1, &named(AUTHORITY, b"a.example"));
    assert_eq!(read(&[start(), frame(0x10, 0xff, 0, &[0; 9]), request].concat()), name(b"a.example"));
}

#[test]
fn other_protocols_are_not_taken_for_http_2() {
    assert_eq!(read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r "), owned(Answer::NotThis));
    assert_eq!(read(b"GET"), owned(Answer::NotThis));
}

#[test]
fn what_is_longer_than_is_looked_at_is_too_long() {
    let bytes = [start(), frame(0x10, 0, 0, &[0; 9000]), frame(0x10, 0, 0, &[0; 9000])].concat();
    assert_eq!(read(&bytes), owned(Answer::TooLong));
    assert_eq!(read_in_pieces(bytes.chunks(999)), owned(Answer::TooLong));
}

proptest! {
    #[test]
    fn any_cut_gives_the_answer_of_the_whole(
        host in proptest::option::of("[a-zA-Z0-9-]{1,9}(\\.[a-zA-Z0-9-]{1,9}){0,3}\\.[a-z]{2}"),
        fields in proptest::collection::vec(("[a-z-]{1,12}", "[ -~]{0,40}", any::<bool>()), 0..8),
        sizes in proptest::collection::vec(0usize..30, 0..6),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        let mut block = vec![0x82];
        block.extend(host.iter().flat_map(|host| named(AUTHORITY, host.as_bytes())));
        for (name, value, inserted) in fields.iter().filter(|(name, ..)| name != "host") {
            block.extend(field(if *inserted { INSERTED } else { 0 }, name.as_bytes(), value.as_bytes()));
        }
        let mut rest = &block[..];
        let mut bytes = start();
        for (count, size) in sizes.iter().enumerate() {
            let (part, behind) = rest.split_at((*size).min(rest.len()));
            bytes.extend(frame(if count == 0 { HEADERS } else { CONTINUATION }, 0, 1, part));
            rest = behind;
        }
        bytes.extend(frame(if sizes.is_empty() { HEADERS } else { CONTINUATION }, END_HEADERS, 1, rest));
        if damage.is_empty() {
            let expected = host.map_or(none(), |host| name(host.to_ascii_lowercase().as_bytes()));
            prop_assert_eq!(read(&bytes), expected);
        }
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assert_eq!(read_in_pieces(pieces(&bytes, &cuts)), read(&bytes));
        prop_assert_eq!(read_in_pieces(bytes.chunks(1)), read(&bytes));
    }
}

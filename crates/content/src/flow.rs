//! Which protocol a flow speaks, and what it asks for: the parsers of this crate behind one.
//!
//! The first bytes choose the parser, never the port: TLS begins with 22 (or, for a hello of SSL 2.0, with a byte from
//! 128), HTTP with a letter, DNS over TCP with a length below 5,376 bytes, which those are not. Of datagrams, QUIC
//! carries its version where a query of DNS cannot have those bytes.
//!
//! DNS over UDP is decided by the flow's first query. Whoever must see each one asks [`crate::dns::Query::datagram`].

use crate::{
    answer::{Answer, Flags, Reason},
    dns, http1, http2, quic, tls,
};

/// What is known of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided<'a> {
    /// More bytes are needed.
    Undecided,
    /// It asks for this name.
    Name(Protocol, &'a [u8], Flags),
    /// It asks for none.
    NoName(Protocol, Flags),
    /// It cannot be decided; more bytes do not help.
    GiveUp(Why),
}

/// Why a flow cannot be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// It speaks none of the protocols.
    Unknown,
    /// It breaks its protocol's rules.
    Malformed(Protocol, Reason),
    /// What it asks for is not within the bytes that are looked at.
    TooLong(Protocol),
}

/// What a flow speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Protocol {
    Tls,
    Http1,
    Http2,
    Dns,
    Quic,
}

fn decided(protocol: Protocol, answer: Answer<'_>) -> Decided<'_> {
    match answer {
        Answer::NeedMore => Decided::Undecided,
        Answer::Name(name, flags) => Decided::Name(protocol, name, flags),
        Answer::NoName(flags) => Decided::NoName(protocol, flags),
        Answer::NotThis => Decided::GiveUp(Why::Unknown),
        Answer::Malformed(reason) => Decided::GiveUp(Why::Malformed(protocol, reason)),
        Answer::TooLong => Decided::GiveUp(Why::TooLong(protocol)),
    }
}

/// The parser that a stream's first bytes chose.
#[derive(Clone, Debug)]
enum Parser {
    None,
    /// So many bytes are those of HTTP/2's preface.
    Preface(u8),
    Tls(tls::ClientHello),
    Http1(http1::Request),
    Http2(http2::Connection),
    Dns(dns::Query),
}

/// A TCP flow, from the first byte that its client sends.
#[derive(Clone, Debug)]
pub struct Stream(Parser);

const _: () = assert!(size_of::<Stream>() <= 384);

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

impl Stream {
    /// Nothing read yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Parser::None)
    }

    /// Reads on, in pieces of any size.
    pub fn push(&mut self, mut bytes: &[u8]) -> Decided<'_> {
        while let [first, rest @ ..] = bytes {
            match &mut self.0 {
                Parser::None => {
                    self.0 = match first {
                        22 | 0x80.. => Parser::Tls(tls::ClientHello::new()),
                        b'P' => Parser::Preface(0),
                        0..22 if !matches!(first, b'\r' | b'\n') => Parser::Dns(dns::Query::stream()),
                        _ => Parser::Http1(http1::Request::new()),
                    };
                    continue;
                }
                Parser::Preface(seen) => {
                    let (before, after) = http2::PREFACE.split_at_checked(usize::from(*seen)).unwrap_or_default();
                    self.0 = match after {
                        // It differs from what HTTP/1 could go on with.
                        [next, last @ ..] if next == first && last.is_empty() => {
                            let mut parser = http2::Connection::new();
                            parser.push(http2::PREFACE);
                            Parser::Http2(parser)
                        }
                        [next, ..] if next == first => Parser::Preface(*seen + 1),
                        _ => {
                            let mut parser = http1::Request::new();
                            parser.push(before);
                            self.0 = Parser::Http1(parser);
                            continue;
                        }
                    };
                    bytes = rest;
                    continue;
                }
                Parser::Tls(parser) => parser.push(bytes),
                Parser::Http1(parser) => parser.push(bytes),
                Parser::Http2(parser) => parser.push(bytes),
                Parser::Dns(parser) => parser.push(bytes),
            };
            break;
        }
        self.decided()
    }

    /// What is known so far.
    #[must_use]
    pub fn decided(&self) -> Decided<'_> {
        match &self.0 {
            Parser::None | Parser::Preface(_) => Decided::Undecided,
            Parser::Tls(parser) => decided(Protocol::Tls, parser.answer()),
            Parser::Http1(parser) => decided(Protocol::Http1, parser.answer()),
            Parser::Http2(parser) => decided(Protocol::Http2, parser.answer()),
            Parser::Dns(parser) => decided(Protocol::Dns, parser.answer()),
        }
    }
}

/// A UDP flow, from the first datagram that its client sends.
#[derive(Clone, Debug)]
pub struct Datagrams(Form);

#[derive(Clone, Debug)]
enum Form {
    None,
    Quic(quic::Connection),
    Dns(dns::Query),
}

const _: () = assert!(size_of::<Datagrams>() <= 408);

impl Default for Datagrams {
    fn default() -> Self {
        Self::new()
    }
}

impl Datagrams {
    /// Nothing read yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Form::None)
    }

    /// Reads the client's next datagram. Only a flow of QUIC uses the window, which must then be the same at each call.
    pub fn push(&mut self, datagram: &[u8], window: &mut quic::Window) -> Decided<'_> {
        // An empty one says nothing of what the next will be.
        if matches!(self.0, Form::None) && !datagram.is_empty() {
            let mut connection = quic::Connection::new();
            self.0 = if connection.push(datagram, window) == Answer::NotThis {
                Form::Dns(dns::Query::datagram(datagram))
            } else {
                Form::Quic(connection)
            };
        } else if let Form::Quic(connection) = &mut self.0 {
            connection.push(datagram, window);
        }
        self.decided()
    }

    /// What is known so far.
    #[must_use]
    pub fn decided(&self) -> Decided<'_> {
        match &self.0 {
            Form::None => Decided::Undecided,
            Form::Quic(connection) => decided(Protocol::Quic, connection.answer()),
            Form::Dns(query) => decided(Protocol::Dns, query.answer()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::testing::{hello, records, server_name, sized};

    /// A query for `a.example`.
    fn query() -> Vec<u8> {
        let header = [0xc0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&header[..], b"\x01a\x07example\0\0\x01\0\x01"].concat()
    }

    fn requests() -> Vec<(Protocol, Vec<u8>)> {
        let http2 = [&http2::PREFACE[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 11, 1, 5, 0, 0, 0, 1, 1, 9], b"a.example"]
            .concat();
        [
            (Protocol::Tls, records(&hello(&[server_name(b"a.example")]), 99)),
            (Protocol::Http1, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec()),
            (Protocol::Http1, b"\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec()),
            (Protocol::Http1, b"POST / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec()),
            (Protocol::Http1, b"PRI http://a.example HTTP/1.1\r\n\r\n".to_vec()),
            (Protocol::Http1, b"PRI * HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec()),
            (Protocol::Http2, http2),
            (Protocol::Dns, sized(2, &query())),
        ]
        .into()
    }

    #[test]
    fn the_first_bytes_choose_however_they_are_cut() {
        for (protocol, bytes) in requests() {
            let expected = Decided::Name(protocol, b"a.example", Flags::default());
            for size in 1..bytes.len() {
                let mut stream = Stream::new();
                for piece in bytes.chunks(size) {
                    assert_eq!(stream.decided(), Decided::Undecided);
                    stream.push(piece);
                }
                assert_eq!(stream.decided(), expected, "{size}");
                assert_eq!(stream.push(b"more"), expected);
            }
        }
    }

    #[test]
    fn streams_that_speak_none_of_them_are_given_up() {
        for other in [
            &b"SSH-2.0-x\r\n"[..],
            b"\0\x20\0\0\x80\0\0\x01\0\0\0\0\0\0",
            b"PRI * HTTP/2.1\r\n",
            b"PASS\r\n",
            b"\x17\x03\x03",
        ] {
            assert_eq!(Stream::new().push(other), Decided::GiveUp(Why::Unknown), "{other:?}");
        }
        let ssl = Decided::GiveUp(Why::Malformed(Protocol::Tls, Reason::SslV2));
        assert_eq!(Stream::new().push(&[0x80, 9, 1, 0, 2]), ssl);
        let long = [b"GET / HTTP/1.1\r\nX: ", &[b'x'; 20_000][..]].concat();
        assert_eq!(Stream::new().push(&long), Decided::GiveUp(Why::TooLong(Protocol::Http1)));
        assert_eq!(Stream::new().push(&[]), Decided::Undecided);
    }

    #[test]
    fn datagrams_are_quic_or_dns_or_given_up() {
        let mut window = quic::Window::new();
        let name = Decided::Name(Protocol::Dns, b"a.example", Flags::default());
        let mut flow = Datagrams::new();
        assert_eq!(flow.push(&[], &mut window), Decided::Undecided);
        assert_eq!(flow.push(&query(), &mut window), name);
        assert_eq!(flow.push(&[0; 99], &mut window), name);
        // A greased version first: it is QUIC, and nothing is known yet.
        let mut flow = Datagrams::new();
        assert_eq!(flow.push(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 0], &mut window), Decided::Undecided);
        let draft = Decided::GiveUp(Why::Malformed(Protocol::Quic, Reason::Version));
        assert_eq!(flow.push(&[0xc0, 0xff, 0, 0, 29, 0], &mut window), draft);
        assert_eq!(Datagrams::new().push(&[0x80, 0x60, 0x88, 1, 1, 1], &mut window), Decided::GiveUp(Why::Unknown));
    }
}

//! What a parser says of the bytes it has seen.

/// What is known after the bytes so far. Everything but [`Answer::NeedMore`] is final: more bytes do not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The bytes may become any of the others.
    NeedMore,
    /// The name: lower case, without a final dot, at most 253 bytes.
    Name(&'a [u8], Flags),
    /// The request is whole and has no name.
    NoName(Flags),
    /// The bytes are of another protocol.
    NotThis,
    /// The protocol is this one and its rules are broken, or servers are known to read it in different ways. No name is
    /// given, since it might not be the one the server finds.
    Malformed(Reason),
    /// The request goes beyond the bytes that are looked at.
    TooLong,
}

impl Answer<'_> {
    /// Whether more bytes cannot change it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        *self != Answer::NeedMore
    }
}

/// What else a request says that matters to whoever decides by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// The TLS hello carries an Encrypted ClientHello, or what looks like one: the name is that of the outer hello, and
    /// the server may be asked for another. Browsers send such an extension to all servers.
    pub encrypted_hello: bool,
    /// The host is an IP address, so there is no name.
    pub address: bool,
    /// HTTP's CONNECT: the name is that of the far end of a tunnel.
    pub tunnel: bool,
}

/// Why a request cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A length leads beyond what contains it, or leaves bytes over.
    Length,
    /// The name has letters that no host name has, an empty label, or is too long.
    Name,
    /// An IP address where only a name may be.
    Address,
    /// What may be there once is there again.
    Duplicate,
    /// Two places name different hosts.
    Disagreement,
    /// A hello of SSL 2.0.
    SslV2,
    /// TLS whose first message is no ClientHello.
    NotClientHello,
    /// A record of another type within a handshake message.
    Interleaved,
    /// A line that does not end in CR LF, or a control character within one.
    LineEnd,
    /// A header field that goes on in the next line.
    Folded,
    /// A line that is no header field, or a request line that no server should take.
    Syntax,
    /// An HTTP/2 frame where it must not be, or of a wrong size.
    Frame,
    /// An HPACK block that breaks RFC 7541.
    Compression,
    /// An entry of HPACK's dynamic table that is not followed.
    DynamicTable,
    /// A DNS name whose pointers lead forward, in a circle, or too often from one to the next.
    Pointer,
    /// A DNS query without a question, or with several.
    Questions,
    /// A version of QUIC that cannot be read.
    Version,
    /// Bytes of a QUIC handshake that were sent twice and differ.
    Overlap,
    /// QUIC packets that follow a handshake which was not seen whole.
    Unseen,
}

//! The host that an HTTP/1 request is for (RFC 9112).
//!
//! The first request of a connection is read, to the end of its header: a second Host field there must be seen. What
//! follows is not looked at, neither the body nor requests that come after it, which may name other hosts.
//!
//! Servers are known to differ in how they take a request that breaks the rules; one such is malformed here: lines that
//! end in a bare LF or have a bare CR or a NUL, folded fields, blanks before a colon, two Host fields, a Host that is
//! not the host of an absolute target, users before hosts, escapes within them.
//!
//! `httparse` was read and not taken. It keeps no state: a request that is cut is parsed from its beginning with every
//! piece, from bytes that are kept side by side, into an array for every field there is. With 16 KiB of request and
//! pieces of one byte that is no bound at all, and a flow would need the 16 KiB. It takes bare LF (RFC 9112, 2.2, lets
//! it), and leaves absolute targets and what Host means to its user.

mod field;
mod target;
#[cfg(test)]
mod tests;

use crate::{
    LONGEST,
    answer::{Answer, Flags, Reason},
    authority::Authority,
};

/// The longest method that is taken for one.
const LONGEST_METHOD: u8 = 32;
/// The method that asks for a tunnel.
const CONNECT: &[u8] = b"CONNECT";
/// What is before a version's last digit.
const VERSION: &[u8] = b"HTTP/1.";
/// A version and the line's end, as most requests have it.
const LINE_END: &[u8] = b"HTTP/1.1\r\n";
/// The field that is looked for, in lower case.
const HOST: &[u8] = b"host";

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// So many bytes of the method were seen; empty lines may be before it.
    Method(u8),
    Target(target::Place),
    /// So many bytes of the version were seen.
    Version(u8),
    VersionDigit,
    RequestLineEnd,
    LineFeed,
    FieldStart,
    /// So many bytes of a field's name are those of Host; more than all of them where they are not.
    FieldName(u8),
    /// The value of Host, before and behind its first letter, and behind a blank after it.
    HostStart,
    Host,
    HostBlank,
    /// The value of another field.
    Value,
    LastLineFeed,
    Done(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    NotThis,
    Malformed(Reason),
    TooLong,
}

/// Reads a client's side of a connection, from its first byte, in pieces of any size.
#[derive(Clone, Debug)]
pub struct Request {
    authority: Authority,
    place: Place,
    /// Bytes that may still be looked at.
    budget: u16,
    /// Whether what was seen of the method is CONNECT's.
    connect: bool,
    /// Whether Host was there.
    host: bool,
    /// What is wrong with the target; said once the line has proved to be a request's.
    fault: Option<Reason>,
}

const _: () = assert!(size_of::<Request>() <= 280);

impl Default for Request {
    fn default() -> Self {
        Self::new()
    }
}

impl Request {
    /// Nothing read yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            authority: Authority::new(),
            place: Place::Method(0),
            budget: LONGEST,
            connect: true,
            host: false,
            fault: None,
        }
    }

    /// Reads on: at most a fixed number of steps for each byte.
    pub fn push(&mut self, bytes: &[u8]) -> Answer<'_> {
        let (within, beyond) = bytes.split_at_checked(usize::from(self.budget)).unwrap_or((bytes, &[]));
        self.budget -= within.len() as u16;
        let mut rest = within;
        while !rest.is_empty() && !matches!(self.place, Place::Done(_)) {
            rest = self.read(rest);
        }
        if !beyond.is_empty() && !matches!(self.place, Place::Done(_)) {
            self.place = Place::Done(End::TooLong);
        }
        self.answer()
    }

    /// What is known so far.
    #[must_use]
    pub fn answer(&self) -> Answer<'_> {
        match self.place {
            Place::Done(End::Whole) => self.authority.answer(Flags { tunnel: self.connect, ..Flags::default() }),
            Place::Done(End::NotThis) => Answer::NotThis,
            Place::Done(End::Malformed(reason)) => Answer::Malformed(reason),
            Place::Done(End::TooLong) => Answer::TooLong,
            _ => Answer::NeedMore,
        }
    }

    /// Reads one byte or, where many are alike, as many as there are, and returns the others.
    fn read<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let [byte, rest @ ..] = bytes else { return bytes };
        let (place, rest) = match self.place {
            Place::Method(seen) => return self.read_method(seen, bytes),
            Place::Target(place) => return self.target(place, bytes),
            // The rest of the line as most have it.
            Place::Version(0) if self.fault.is_none() && bytes.starts_with(LINE_END) => {
                (Ok(Place::FieldStart), bytes.get(LINE_END.len()..).unwrap_or_default())
            }
            Place::Version(seen) => (self.version(seen, *byte), rest),
            Place::VersionDigit if byte.is_ascii_digit() => (Ok(Place::RequestLineEnd), rest),
            Place::VersionDigit => (Err(End::NotThis), rest),
            Place::RequestLineEnd => (self.end_request_line(*byte), rest),
            _ => return self.field(bytes),
        };
        self.place = place.unwrap_or_else(Place::Done);
        rest
    }

    fn read_method<'b>(&mut self, mut seen: u8, bytes: &'b [u8]) -> &'b [u8] {
        let mut rest = bytes;
        while let [byte, behind @ ..] = rest {
            rest = behind;
            match self.method(seen, *byte) {
                Ok(Place::Method(more)) => seen = more,
                place => {
                    self.place = place.unwrap_or_else(Place::Done);
                    return rest;
                }
            }
        }
        self.place = Place::Method(seen);
        rest
    }

    fn method(&mut self, seen: u8, byte: u8) -> Result<Place, End> {
        match byte {
            // Empty lines before a request (RFC 9112, 2.2).
            b'\r' | b'\n' if seen == 0 => Ok(Place::Method(0)),
            b' ' if seen > 0 => {
                self.connect &= usize::from(seen) == CONNECT.len();
                let first = if self.connect { target::Place::Authority } else { target::Place::Start };
                Ok(Place::Target(first))
            }
            _ if field::is_token(byte) && seen < LONGEST_METHOD => {
                self.connect &= CONNECT.get(usize::from(seen)) == Some(&byte);
                Ok(Place::Method(seen + 1))
            }
            _ => Err(End::NotThis),
        }
    }

    fn version(&mut self, seen: u8, byte: u8) -> Result<Place, End> {
        if VERSION.get(usize::from(seen)) != Some(&byte) {
            return Err(End::NotThis);
        }
        let seen = seen.saturating_add(1);
        Ok(if usize::from(seen) < VERSION.len() { Place::Version(seen) } else { Place::VersionDigit })
    }

    fn end_request_line(&mut self, byte: u8) -> Result<Place, End> {
        match (self.fault, byte) {
            (Some(fault), _) => Err(End::Malformed(fault)),
            (None, b'\r') => Ok(Place::LineFeed),
            (None, b'\n') => Err(End::Malformed(Reason::LineEnd)),
            (None, _) => Err(End::Malformed(Reason::Syntax)),
        }
    }
}

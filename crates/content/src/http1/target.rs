//! The request's target (RFC 9112, 3.2): a path, a whole URL, an authority for CONNECT, or an asterisk.

use super::{End, Place as Line, Request};
use crate::{answer::Reason, name::Host};

/// Where in the target the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Start,
    /// The scheme of a URL.
    Scheme,
    /// So many of the two slashes were seen.
    Slashes(u8),
    Authority,
    /// What is no part of the authority, to the blank that ends it.
    Rest,
}

impl Request {
    /// Reads on within the target, and returns what comes behind what was read.
    pub(super) fn target<'b>(&mut self, place: Place, bytes: &'b [u8]) -> &'b [u8] {
        let [byte, rest @ ..] = bytes else { return bytes };
        if place == Place::Rest {
            return self.rest_of_target(bytes);
        }
        let next = match (place, byte) {
            (_, b'\r' | b'\n') => return self.stop(End::NotThis, rest),
            (Place::Authority, b' ') => {
                self.end_authority();
                return self.end_target(rest);
            }
            // In the place of another letter it ends a target that is none.
            (_, b' ') => {
                self.fault = Some(Reason::Syntax);
                return self.end_target(rest);
            }
            (Place::Start, b'/' | b'*') => return self.rest_of_target(rest),
            (Place::Start, letter) if letter.is_ascii_alphabetic() => Place::Scheme,
            (Place::Scheme, b':') => Place::Slashes(0),
            (Place::Scheme, letter) if letter.is_ascii_alphanumeric() || matches!(letter, b'+' | b'-' | b'.') => {
                Place::Scheme
            }
            (Place::Slashes(0), b'/') => Place::Slashes(1),
            (Place::Slashes(_), b'/') => Place::Authority,
            (Place::Authority, b'/' | b'?' | b'#') => {
                self.end_authority();
                Place::Rest
            }
            (Place::Authority, letter) => {
                self.authority.push(&[*letter]);
                Place::Authority
            }
            _ => {
                self.fault = Some(Reason::Syntax);
                Place::Rest
            }
        };
        self.place = Line::Target(next);
        rest
    }

    /// Reads on behind what matters, to the blank that ends the target.
    fn rest_of_target<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let end = memchr::memchr3(b' ', b'\r', b'\n', bytes).unwrap_or(bytes.len());
        match bytes.get(end..).unwrap_or_default() {
            [b' ', behind @ ..] => self.end_target(behind),
            // Without a version it is a request of HTTP/0.9, or of another protocol.
            [_, behind @ ..] => self.stop(End::NotThis, behind),
            [] => {
                self.place = Line::Target(Place::Rest);
                &[]
            }
        }
    }

    fn end_target<'b>(&mut self, rest: &'b [u8]) -> &'b [u8] {
        self.place = Line::Version(0);
        rest
    }

    /// A URL or a tunnel without a host is as little a target as one whose host cannot be read.
    fn end_authority(&mut self) {
        match self.authority.end() {
            Ok(Host::Empty) => self.fault = Some(Reason::Syntax),
            Ok(_) => {}
            Err(reason) => self.fault = Some(reason),
        }
    }

    /// Ends the reading.
    pub(super) fn stop<'b>(&mut self, end: End, rest: &'b [u8]) -> &'b [u8] {
        self.place = Line::Done(end);
        rest
    }
}

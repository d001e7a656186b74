//! The header's fields (RFC 9112, 5), of which one matters.

use super::{End, HOST, Place, Request};
use crate::answer::Reason;

/// The letters of tokens (RFC 9110, 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        table[byte] = letter.is_ascii_alphanumeric()
            || matches!(
                letter,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

/// Whether a token may have this letter.
#[inline]
pub(super) fn is_token(letter: u8) -> bool {
    TOKEN[usize::from(letter)]
}

/// The place within the name of a field that is not Host.
const OTHER: u8 = HOST.len() as u8 + 1;

impl Request {
    /// Reads on within the header, and returns what comes behind what was read.
    pub(super) fn field<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        match self.place {
            Place::FieldName(OTHER) => return self.skip_name(bytes),
            Place::Value => return self.skip_value(bytes),
            Place::HostStart | Place::Host => {
                let end = bytes.iter().position(|letter| *letter <= b' ').unwrap_or(bytes.len());
                if end > 0 {
                    let (letters, rest) = bytes.split_at_checked(end).unwrap_or_default();
                    self.authority.push(letters);
                    self.place = Place::Host;
                    return rest;
                }
            }
            _ => {}
        }
        let [byte, rest @ ..] = bytes else { return bytes };
        // Names at once, as they mostly come.
        if self.place == Place::FieldStart {
            if let Some((name, [b':', value @ ..])) = bytes.split_first_chunk::<4>()
                && name.eq_ignore_ascii_case(HOST)
                && !self.host
            {
                (self.host, self.place) = (true, Place::HostStart);
                return value;
            }
            if is_token(*byte) && *byte | 0x20 != b'h' {
                self.place = Place::FieldName(OTHER);
                return self.skip_name(rest);
            }
        }
        let place = match (self.place, byte) {
            (Place::LineFeed, b'\n') => Ok(Place::FieldStart),
            (Place::LastLineFeed, b'\n') => Err(End::Whole),
            (Place::FieldStart, b'\r') => Ok(Place::LastLineFeed),
            (Place::FieldStart, b' ' | b'\t') => Err(End::Malformed(Reason::Folded)),
            (Place::FieldStart, b'\n') | (Place::LineFeed | Place::LastLineFeed, _) => {
                Err(End::Malformed(Reason::LineEnd))
            }
            (Place::FieldStart, letter) => self.name_letter(0, *letter),
            (Place::FieldName(seen), letter) => self.name_letter(seen, *letter),
            _ => self.host_letter(*byte),
        };
        self.place = place.unwrap_or_else(Place::Done);
        rest
    }

    fn name_letter(&mut self, seen: u8, letter: u8) -> Result<Place, End> {
        match letter {
            b':' if usize::from(seen) == HOST.len() => {
                if self.host {
                    return Err(End::Malformed(Reason::Duplicate));
                }
                self.host = true;
                Ok(Place::HostStart)
            }
            // The name of a field ends in the middle of "host".
            b':' if seen > 0 => Ok(Place::Value),
            _ if !is_token(letter) => Err(End::Malformed(Reason::Syntax)),
            _ if HOST.get(usize::from(seen)) == Some(&letter.to_ascii_lowercase()) => Ok(Place::FieldName(seen + 1)),
            _ => Ok(Place::FieldName(OTHER)),
        }
    }

    /// A letter of Host's value, whose blanks at both ends do not count.
    fn host_letter(&mut self, letter: u8) -> Result<Place, End> {
        match (letter, self.place) {
            (b'\r', _) => match self.authority.end() {
                Ok(_) => Ok(Place::LineFeed),
                Err(reason) => Err(End::Malformed(reason)),
            },
            (b'\n' | 0, _) => Err(End::Malformed(Reason::LineEnd)),
            (b' ' | b'\t', Place::HostStart) => Ok(Place::HostStart),
            (b' ' | b'\t', _) => Ok(Place::HostBlank),
            (_, Place::HostBlank) => Err(End::Malformed(Reason::Name)),
            // Another control: no host has it.
            _ => {
                self.authority.push(&[letter]);
                Ok(Place::Host)
            }
        }
    }

    /// Skips the rest of another field's name.
    fn skip_name<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let end = bytes.iter().position(|letter| !is_token(*letter)).unwrap_or(bytes.len());
        match bytes.get(end..).unwrap_or_default() {
            [b':', rest @ ..] => {
                self.place = Place::Value;
                self.skip_value(rest)
            }
            [_, rest @ ..] => self.stop(End::Malformed(Reason::Syntax), rest),
            [] => &[],
        }
    }

    /// Skips another field's value.
    fn skip_value<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let end = memchr::memchr3(b'\r', b'\n', 0, bytes).unwrap_or(bytes.len());
        match bytes.get(end..).unwrap_or_default() {
            [b'\r', b'\n', rest @ ..] => {
                self.place = Place::FieldStart;
                rest
            }
            [b'\r', rest @ ..] => {
                self.place = Place::LineFeed;
                rest
            }
            [_, rest @ ..] => self.stop(End::Malformed(Reason::LineEnd), rest),
            [] => &[],
        }
    }
}

//! The name that a query asks for, from pieces of any size.

use super::name::{HEADER, Text};
use crate::answer::{Answer, Flags, Reason};

/// The highest operation code in use (RFC 8490).
const LAST_OPERATION: u8 = 6;
/// Bytes of a question behind its name: type and class.
const BEHIND_NAME: u8 = 4;

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The first or second byte of the length that is before a message over TCP.
    Framing(u8),
    /// So many bytes of the header were seen.
    Header(u8),
    LabelLength,
    /// So many bytes of the label are to come.
    Label(u8),
    /// So many bytes of type and class are to come.
    BehindName(u8),
    Done(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    NotThis,
    Malformed(Reason),
}

/// Reads the first question of a client's side of a conversation.
///
/// A query has one question (RFC 9619). More are malformed here, since servers differ in which they answer;
/// [`super::Message::questions`] has them all.
#[derive(Clone, Debug)]
pub struct Query {
    name: Text,
    place: Place,
    /// Bytes of the message that may still come, where a length said so.
    left: u16,
    /// The first byte of a number of two.
    high: u8,
}

const _: () = assert!(size_of::<Query>() <= 264);

impl Query {
    /// A query over TCP: its length comes first.
    #[must_use]
    pub const fn stream() -> Self {
        Self { name: Text::new(), place: Place::Framing(0), left: u16::MAX, high: 0 }
    }

    /// Reads a query that is one datagram.
    #[must_use]
    pub fn datagram(bytes: &[u8]) -> Self {
        let mut query = Self { place: Place::Header(0), ..Self::stream() };
        if !query.push(bytes).is_final() {
            query.place = Place::Done(End::Malformed(Reason::Length));
        }
        query
    }

    /// Reads on. What comes behind the question is not looked at.
    pub fn push(&mut self, mut bytes: &[u8]) -> Answer<'_> {
        while let [first, rest @ ..] = bytes
            && !matches!(self.place, Place::Done(_))
        {
            bytes = match self.place {
                Place::Label(left) => {
                    let (letters, rest) = bytes.split_at_checked(usize::from(left)).unwrap_or((bytes, &[]));
                    self.label(left, letters);
                    rest
                }
                _ => {
                    self.byte(*first);
                    rest
                }
            };
        }
        self.answer()
    }

    /// What is known so far.
    #[must_use]
    pub fn answer(&self) -> Answer<'_> {
        match self.place {
            Place::Done(End::Whole) if self.name.as_bytes().is_empty() => Answer::NoName(Flags::default()),
            Place::Done(End::Whole) => Answer::Name(self.name.as_bytes(), Flags::default()),
            Place::Done(End::NotThis) => Answer::NotThis,
            Place::Done(End::Malformed(reason)) => Answer::Malformed(reason),
            _ => Answer::NeedMore,
        }
    }

    /// Goes on to a place that needs so many bytes of the message.
    fn go(&mut self, place: Place, needs: u16) {
        self.place = if self.left < needs { Place::Done(End::Malformed(Reason::Length)) } else { place };
    }

    fn label(&mut self, left: u8, letters: &[u8]) {
        let remaining = left.saturating_sub(letters.len() as u8);
        self.left = self.left.saturating_sub(letters.len() as u16);
        self.place = match self.name.add(letters) {
            Err(reason) => Place::Done(End::Malformed(reason)),
            Ok(()) if remaining > 0 => Place::Label(remaining),
            Ok(()) => return self.go(Place::LabelLength, 1),
        };
    }

    fn byte(&mut self, byte: u8) {
        match self.place {
            Place::Framing(0) => (self.high, self.place) = (byte, Place::Framing(1)),
            Place::Framing(_) => {
                self.left = u16::from_be_bytes([self.high, byte]);
                self.go(Place::Header(0), HEADER as u16);
            }
            Place::Header(at) => self.header(at, byte),
            Place::LabelLength => {
                self.left = self.left.saturating_sub(1);
                match byte {
                    0 => self.go(Place::BehindName(BEHIND_NAME), u16::from(BEHIND_NAME)),
                    1..64 => match self.name.begin_label() {
                        Ok(()) => self.go(Place::Label(byte), u16::from(byte)),
                        Err(reason) => self.place = Place::Done(End::Malformed(reason)),
                    },
                    // Nothing before the first name can be pointed to.
                    0xc0.. => self.place = Place::Done(End::Malformed(Reason::Pointer)),
                    _ => self.place = Place::Done(End::Malformed(Reason::Name)),
                }
            }
            Place::BehindName(left) => {
                self.place = if left > 1 { Place::BehindName(left - 1) } else { Place::Done(End::Whole) };
            }
            Place::Label(_) | Place::Done(_) => {}
        }
    }

    fn header(&mut self, at: u8, byte: u8) {
        self.left = self.left.saturating_sub(1);
        self.place = match at {
            // The first bit says that this is an answer, the next four what is asked.
            2 if byte & 0x80 != 0 || byte >> 3 > LAST_OPERATION => Place::Done(End::NotThis),
            4 => {
                self.high = byte;
                Place::Header(5)
            }
            // So many questions are in no query, but such bytes in messages of other protocols.
            5 if self.high != 0 => Place::Done(End::NotThis),
            5 if byte != 1 => Place::Done(End::Malformed(Reason::Questions)),
            11 => return self.go(Place::LabelLength, 1),
            _ => Place::Header(at.saturating_add(1)),
        };
    }
}

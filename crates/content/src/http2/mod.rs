//! The `:authority` of the first request of an HTTP/2 connection that begins without TLS ("prior knowledge", RFC 9113,
//! 3.3).
//!
//! The frames before the first request are passed over. A `host` field, where there is one, must name the same host
//! (8.3.1). Requests behind the first one are not looked at.
//!
//! HPACK crates by others (`fluke-hpack`, `httlib-hpack`, that of `h2`) keep fields and table on a heap.

mod hpack;
mod huffman;
#[cfg(test)]
mod tests;

use self::hpack::Block;
use crate::{
    LONGEST,
    answer::{Answer, Reason},
};

/// What a client begins with.
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest frame before the server has allowed longer ones.
const LONGEST_FRAME: u32 = 1 << 14;
/// Bytes of a frame's header.
const HEADER: u8 = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;

const ACK: u8 = 0x01;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// The bytes that the flag stands for.
const PRIORITY_SIZE: u32 = 5;

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// So many bytes of the preface were seen.
    Preface(u8),
    /// So many bytes of a frame's header were seen.
    Header(u8),
    PadLength,
    Priority,
    Fragment,
    Padding,
    /// A frame that does not matter.
    Other,
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
pub struct Connection {
    block: Block,
    place: Place,
    budget: u16,
    /// The frame's header: length, type, flags, stream.
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
    /// Bytes left of the part of the frame that is being read, and of its padding.
    left: u32,
    padding: u8,
    /// Whether SETTINGS were seen.
    begun: bool,
    /// The stream whose header goes on.
    request: Option<u32>,
}

const _: () = assert!(size_of::<Connection>() <= 360);

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl Connection {
    /// Nothing read yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            block: Block::new(),
            place: Place::Preface(0),
            budget: LONGEST,
            length: 0,
            kind: 0,
            flags: 0,
            stream: 0,
            left: 0,
            padding: 0,
            begun: false,
            request: None,
        }
    }

    /// Reads on: at most a fixed number of steps for each byte.
    pub fn push(&mut self, bytes: &[u8]) -> Answer<'_> {
        let (mut rest, beyond) = bytes.split_at_checked(usize::from(self.budget)).unwrap_or((bytes, &[]));
        self.budget -= rest.len() as u16;
        while !rest.is_empty() && !matches!(self.place, Place::Done(_)) {
            rest = self.read(rest).unwrap_or_else(|end| {
                self.place = Place::Done(end);
                &[]
            });
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
            Place::Done(End::Whole) => self.block.answer(),
            Place::Done(End::NotThis) => Answer::NotThis,
            Place::Done(End::Malformed(reason)) => Answer::Malformed(reason),
            Place::Done(End::TooLong) => Answer::TooLong,
            _ => Answer::NeedMore,
        }
    }

    fn read<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], End> {
        let [byte, behind @ ..] = bytes else { return Ok(bytes) };
        match self.place {
            Place::Preface(seen) => {
                if PREFACE.get(usize::from(seen)) != Some(byte) {
                    return Err(End::NotThis);
                }
                let seen = seen.saturating_add(1);
                self.place = if usize::from(seen) < PREFACE.len() { Place::Preface(seen) } else { Place::Header(0) };
                Ok(behind)
            }
            Place::Header(seen) => {
                self.header_byte(seen, *byte)?;
                Ok(behind)
            }
            Place::PadLength => {
                self.padding = *byte;
                self.left = self.left.checked_sub(1 + u32::from(*byte)).ok_or(End::Malformed(Reason::Frame))?;
                self.begin_priority()?;
                Ok(behind)
            }
            _ => {
                let (part, behind) = bytes.split_at_checked(self.left as usize).unwrap_or((bytes, &[]));
                self.left = self.left.saturating_sub(part.len() as u32);
                if self.place == Place::Fragment {
                    self.block.push(part).map_err(End::Malformed)?;
                }
                if self.left == 0 {
                    self.end_part()?;
                }
                Ok(behind)
            }
        }
    }

    fn header_byte(&mut self, seen: u8, byte: u8) -> Result<(), End> {
        match seen {
            0 => self.length = u32::from(byte),
            1 | 2 => self.length = self.length << 8 | u32::from(byte),
            3 => self.kind = byte,
            4 => (self.flags, self.stream) = (byte, 0),
            _ => self.stream = self.stream << 8 | u32::from(byte),
        }
        let seen = seen.saturating_add(1);
        if seen < HEADER {
            self.place = Place::Header(seen);
            return Ok(());
        }
        self.stream &= u32::MAX >> 1;
        self.begin_frame()
    }

    fn begin_frame(&mut self) -> Result<(), End> {
        let broken = Err(End::Malformed(Reason::Frame));
        if self.length > LONGEST_FRAME {
            return broken;
        }
        self.left = self.length;
        let flagged = |flag| self.flags & flag != 0;
        match (self.kind, self.request) {
            (CONTINUATION, Some(stream)) if stream == self.stream => self.begin_fragment(),
            (_, Some(_)) | (CONTINUATION, None) => broken,
            // The first frame of all (RFC 9113, 3.4).
            (SETTINGS, _) if self.stream == 0 && self.length.is_multiple_of(6) && (self.begun || !flagged(ACK)) => {
                self.begun = true;
                self.begin_part(Place::Other)
            }
            (SETTINGS, _) => broken,
            _ if !self.begun => broken,
            (HEADERS, _) if self.stream.is_multiple_of(2) => broken,
            (HEADERS, _) => {
                self.request = Some(self.stream);
                self.padding = 0;
                if !flagged(PADDED) {
                    return self.begin_priority();
                }
                if self.left == 0 {
                    return broken;
                }
                self.place = Place::PadLength;
                Ok(())
            }
            // Before a request there is no stream to send data on, to end, or to push to.
            (DATA | RST_STREAM | PUSH_PROMISE, _) => broken,
            _ => self.begin_part(Place::Other),
        }
    }

    fn begin_priority(&mut self) -> Result<(), End> {
        if self.flags & PRIORITY == 0 {
            return self.begin_fragment();
        }
        self.length = self.left.checked_sub(PRIORITY_SIZE).ok_or(End::Malformed(Reason::Frame))?;
        self.left = PRIORITY_SIZE;
        self.begin_part(Place::Priority)
    }

    fn begin_fragment(&mut self) -> Result<(), End> {
        self.begin_part(Place::Fragment)
    }

    /// Goes to a part of the frame, and beyond it where it is empty.
    fn begin_part(&mut self, place: Place) -> Result<(), End> {
        self.place = place;
        if self.left == 0 { self.end_part() } else { Ok(()) }
    }

    fn end_part(&mut self) -> Result<(), End> {
        match self.place {
            Place::Priority => {
                self.left = self.length;
                self.begin_fragment()
            }
            Place::Fragment if self.padding > 0 => {
                self.left = core::mem::take(&mut self.padding).into();
                self.begin_part(Place::Padding)
            }
            Place::Fragment | Place::Padding if self.flags & END_HEADERS != 0 => {
                Err(if self.block.is_end() { End::Whole } else { End::Malformed(Reason::Compression) })
            }
            _ => {
                self.place = Place::Header(0);
                Ok(())
            }
        }
    }
}

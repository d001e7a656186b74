//! The server name of a TLS connection.
//!
//! The answer comes with the hello's last byte and not with the name's: an extension behind the name may repeat it, or
//! say that another name is encrypted. A second hello, which a server may ask for, must have the same name (RFC 8446,
//! 4.1.2) and is not looked at.

mod hello;
#[cfg(test)]
mod tests;

pub use hello::Hello;

use crate::{
    LONGEST,
    answer::{Answer, Reason},
};

/// The record type of handshake messages.
const HANDSHAKE: u8 = 22;
/// The first byte of every version number from SSL 3.0 to TLS 1.3.
const MAJOR: u8 = 3;
/// The most bytes of a record that is not encrypted.
const LONGEST_RECORD: u16 = 1 << 14;

/// What ends the reading before the hello does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    NotThis,
    Malformed(Reason),
    TooLong,
}

/// Reads the records of a client's side of a connection, from its first byte, in pieces of any size.
#[derive(Clone, Debug)]
pub struct ClientHello {
    hello: Hello,
    stop: Option<Stop>,
    /// Bytes that may still be looked at.
    budget: u16,
    /// Bytes left of the record that is being read.
    record: u16,
    /// Bytes of the record header that were seen.
    header: u8,
    /// Its first byte.
    kind: u8,
    /// The first half of its length.
    length: u8,
    /// Whether a record was read.
    begun: bool,
}

const _: () = assert!(size_of::<ClientHello>() <= 320);

impl Default for ClientHello {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientHello {
    /// Nothing read yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            hello: Hello::new(LONGEST as u32),
            stop: None,
            budget: LONGEST,
            record: 0,
            header: 0,
            kind: 0,
            length: 0,
            begun: false,
        }
    }

    /// Reads on: at most a fixed number of steps for each byte.
    pub fn push(&mut self, bytes: &[u8]) -> Answer<'_> {
        let (within, beyond) = bytes.split_at_checked(usize::from(self.budget)).unwrap_or((bytes, &[]));
        self.budget -= within.len() as u16;
        self.read(within);
        if !beyond.is_empty() && !self.answer().is_final() {
            self.stop = Some(Stop::TooLong);
        }
        self.answer()
    }

    /// What is known so far.
    #[must_use]
    pub fn answer(&self) -> Answer<'_> {
        match self.stop {
            None => self.hello.answer(),
            Some(Stop::NotThis) => Answer::NotThis,
            Some(Stop::Malformed(reason)) => Answer::Malformed(reason),
            Some(Stop::TooLong) => Answer::TooLong,
        }
    }

    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.answer().is_final() {
            if self.record > 0 {
                let (content, rest) = bytes.split_at_checked(usize::from(self.record)).unwrap_or((bytes, &[]));
                self.record -= content.len() as u16;
                self.hello.push(content);
                bytes = rest;
            } else if let [byte, rest @ ..] = bytes {
                if let Err(stop) = self.header_byte(*byte) {
                    self.stop = Some(stop);
                }
                bytes = rest;
            }
        }
    }

    /// One of the five bytes before a record: type, version, length.
    fn header_byte(&mut self, byte: u8) -> Result<(), Stop> {
        let at = self.header;
        self.header = (at + 1) % 5;
        match (at, self.kind) {
            (0, _) => {
                self.kind = byte;
                match byte {
                    HANDSHAKE => Ok(()),
                    _ if self.begun => Err(Stop::Malformed(Reason::Interleaved)),
                    // The first half of the length of an SSL 2.0 record.
                    0x80.. => Ok(()),
                    _ => Err(Stop::NotThis),
                }
            }
            (1, HANDSHAKE) if byte != MAJOR && self.begun => Err(Stop::Malformed(Reason::Syntax)),
            (1, HANDSHAKE) if byte != MAJOR => Err(Stop::NotThis),
            (2, HANDSHAKE) | (1, _) => Ok(()),
            (3, HANDSHAKE) => {
                self.length = byte;
                Ok(())
            }
            (4, HANDSHAKE) => {
                self.record = u16::from_be_bytes([self.length, byte]);
                self.begun = true;
                if (1..=LONGEST_RECORD).contains(&self.record) { Ok(()) } else { Err(Stop::Malformed(Reason::Length)) }
            }
            // SSL 2.0: the message's type, of which 1 is a hello, and the version it asks for.
            (2, _) if byte == 1 => Ok(()),
            (3, _) if matches!(byte, 0 | MAJOR) => Err(Stop::Malformed(Reason::SslV2)),
            _ => Err(Stop::NotThis),
        }
    }
}

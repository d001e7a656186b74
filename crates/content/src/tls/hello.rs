//! A ClientHello, as a handshake message without records (RFC 8446, 4.1.2; RFC 6066, 3).
//!
//! Every field is a number that is gathered byte by byte, a run of bytes that is skipped, or the name. Nothing else is
//! kept, so a field may be cut anywhere.

use crate::{
    answer::{Answer, Flags, Reason},
    name::{Host, NameBuffer},
};

/// The handshake type of a ClientHello.
const CLIENT_HELLO: u32 = 1;
/// The extension with the name.
const SERVER_NAME: u32 = 0;
/// Encrypted ClientHello (RFC 9849).
const ENCRYPTED_CLIENT_HELLO: u32 = 0xfe0d;
/// Its forerunner, which had an extension of its own for the name.
const ENCRYPTED_SERVER_NAME: u32 = 0xffce;
/// The name type of a host name.
const HOST_NAME: u32 = 0;
/// The random bytes of a hello.
const RANDOM: u32 = 32;
/// The most bytes of a session's identifier.
const LONGEST_SESSION: u32 = 32;

/// What the bytes at hand belong to, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    MessageType,
    MessageLength,
    Version,
    Random,
    SessionLength,
    Session,
    SuitesLength,
    Suites,
    CompressionsLength,
    Compressions,
    ExtensionsLength,
    ExtensionType,
    ExtensionLength,
    Extension,
    ListLength,
    EntryType,
    EntryLength,
    Entry,
    HostName,
}

/// What has become of the hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    Whole,
    Malformed(Reason),
    TooLong,
}

/// Reads a ClientHello from pieces of any size.
#[derive(Clone, Debug)]
pub struct Hello {
    name: NameBuffer,
    state: State,
    field: Field,
    /// Bytes that the field still wants.
    left: u32,
    /// The number that is being gathered.
    number: u32,
    /// Bytes of the message behind this field, and behind the extension that it is in.
    message: u32,
    /// Bytes behind this field of the server_name extension.
    list: u32,
    extension: u32,
    /// The longest message that is read.
    longest: u32,
    seen_list: bool,
    seen_host: bool,
    flags: Flags,
}

const _: () = assert!(size_of::<Hello>() <= 304);

impl Hello {
    /// A hello of at most `longest` bytes, with the four of its header.
    #[must_use]
    pub const fn new(longest: u32) -> Self {
        Self {
            name: NameBuffer::new(),
            state: State::Reading,
            field: Field::MessageType,
            left: 1,
            number: 0,
            message: 0,
            list: 0,
            extension: 0,
            longest,
            seen_list: false,
            seen_host: false,
            flags: Flags { encrypted_hello: false, address: false, tunnel: false },
        }
    }

    /// Reads on. What comes behind the hello is not looked at.
    pub fn push(&mut self, mut bytes: &[u8]) -> Answer<'_> {
        while self.state == State::Reading && !bytes.is_empty() {
            match self.field {
                Field::Random
                | Field::Session
                | Field::Suites
                | Field::Compressions
                | Field::Extension
                | Field::Entry => {
                    bytes = self.take(bytes).1;
                }
                Field::HostName => {
                    let (letters, rest) = self.take(bytes);
                    self.name.push(letters);
                    bytes = rest;
                }
                _ => {
                    let (digits, rest) = self.take(bytes);
                    for digit in digits {
                        self.number = self.number << 8 | u32::from(*digit);
                    }
                    bytes = rest;
                }
            }
            while self.left == 0 && self.state == State::Reading {
                if let Err(state) = self.next_field() {
                    self.state = state;
                }
            }
        }
        self.answer()
    }

    /// What is known so far.
    #[must_use]
    pub fn answer(&self) -> Answer<'_> {
        match self.state {
            State::Reading => Answer::NeedMore,
            State::Whole if self.seen_host => Answer::Name(self.name.name(), self.flags),
            State::Whole => Answer::NoName(self.flags),
            State::Malformed(reason) => Answer::Malformed(reason),
            State::TooLong => Answer::TooLong,
        }
    }

    /// As many bytes as the field wants, and the rest.
    #[inline]
    fn take<'b>(&mut self, bytes: &'b [u8]) -> (&'b [u8], &'b [u8]) {
        let (taken, rest) = bytes.split_at_checked(self.left as usize).unwrap_or((bytes, &[]));
        self.left -= taken.len() as u32;
        (taken, rest)
    }

    /// The field has ended: what its bytes mean, and which is next.
    fn next_field(&mut self) -> Result<(), State> {
        let number = core::mem::take(&mut self.number);
        match self.field {
            Field::MessageType if number != CLIENT_HELLO => Err(State::Malformed(Reason::NotClientHello)),
            Field::MessageType => {
                self.message = 3;
                self.enter(Field::MessageLength, 3)
            }
            Field::MessageLength if number.saturating_add(4) > self.longest => Err(State::TooLong),
            Field::MessageLength => {
                self.message = number;
                self.enter(Field::Version, 2)
            }
            Field::Version => self.enter(Field::Random, RANDOM),
            Field::Random => self.enter(Field::SessionLength, 1),
            Field::SessionLength if number > LONGEST_SESSION => Err(State::Malformed(Reason::Length)),
            Field::SessionLength => self.enter(Field::Session, number),
            Field::Session => self.enter(Field::SuitesLength, 2),
            Field::SuitesLength if number == 0 || !number.is_multiple_of(2) => Err(State::Malformed(Reason::Length)),
            Field::SuitesLength => self.enter(Field::Suites, number),
            Field::Suites => self.enter(Field::CompressionsLength, 1),
            Field::CompressionsLength if number == 0 => Err(State::Malformed(Reason::Length)),
            Field::CompressionsLength => self.enter(Field::Compressions, number),
            // Hellos before TLS 1.3 may end here.
            Field::Compressions if self.message == 0 => Err(State::Whole),
            Field::Compressions => self.enter(Field::ExtensionsLength, 2),
            Field::ExtensionsLength if number != self.message => Err(State::Malformed(Reason::Length)),
            Field::ExtensionsLength | Field::Extension => self.enter_extension(),
            Field::ExtensionType => {
                self.extension = number;
                self.enter(Field::ExtensionLength, 2)
            }
            Field::ExtensionLength => self.enter_content(number),
            Field::ListLength if number != self.list || number == 0 => Err(State::Malformed(Reason::Length)),
            Field::ListLength => self.enter_in_list(Field::EntryType, 1),
            Field::EntryType => {
                self.extension = number;
                self.enter_in_list(Field::EntryLength, 2)
            }
            Field::EntryLength if self.extension != HOST_NAME => self.enter_in_list(Field::Entry, number),
            Field::EntryLength if self.seen_host => Err(State::Malformed(Reason::Duplicate)),
            Field::EntryLength => self.enter_in_list(Field::HostName, number),
            Field::HostName => {
                self.seen_host = true;
                match self.name.end() {
                    Host::Name => self.next_entry(),
                    Host::Address => Err(State::Malformed(Reason::Address)),
                    Host::Empty | Host::Bad => Err(State::Malformed(Reason::Name)),
                }
            }
            Field::Entry => self.next_entry(),
        }
    }

    /// The next extension, or the end of the hello.
    fn enter_extension(&mut self) -> Result<(), State> {
        if self.message == 0 {
            return Err(State::Whole);
        }
        self.enter(Field::ExtensionType, 2)
    }

    fn enter_content(&mut self, length: u32) -> Result<(), State> {
        match self.extension {
            SERVER_NAME if self.seen_list => return Err(State::Malformed(Reason::Duplicate)),
            SERVER_NAME => {
                self.seen_list = true;
                self.message = self.message.checked_sub(length).ok_or(State::Malformed(Reason::Length))?;
                self.list = length;
                return self.enter_in_list(Field::ListLength, 2);
            }
            ENCRYPTED_CLIENT_HELLO if self.flags.encrypted_hello => return Err(State::Malformed(Reason::Duplicate)),
            ENCRYPTED_CLIENT_HELLO | ENCRYPTED_SERVER_NAME => self.flags.encrypted_hello = true,
            _ => {}
        }
        self.enter(Field::Extension, length)
    }

    fn next_entry(&mut self) -> Result<(), State> {
        if self.list == 0 { self.enter_extension() } else { self.enter_in_list(Field::EntryType, 1) }
    }

    /// Goes to a field of the message.
    fn enter(&mut self, field: Field, length: u32) -> Result<(), State> {
        self.message = self.message.checked_sub(length).ok_or(State::Malformed(Reason::Length))?;
        (self.field, self.left) = (field, length);
        Ok(())
    }

    /// Goes to a field of the server_name extension, whose bytes are already taken from the message.
    fn enter_in_list(&mut self, field: Field, length: u32) -> Result<(), State> {
        self.list = self.list.checked_sub(length).ok_or(State::Malformed(Reason::Length))?;
        (self.field, self.left) = (field, length);
        Ok(())
    }
}

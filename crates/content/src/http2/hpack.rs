//! The first header block of a connection (RFC 7541), in which `:authority` and `host` are looked for.
//!
//! HPACK's dynamic table is empty when the block begins, and what the block puts into it can only be named again within
//! it. Of each such entry two bits are kept: whether its name is one of the two. So nothing is missed for want of a
//! table.

use super::huffman::Bits;
use crate::{
    answer::{Answer, Flags, Reason},
    authority::Authority,
};

/// The entries of the static table (RFC 7541, appendix A).
const STATIC: u32 = 61;
/// The size of the dynamic table, which a client may only lower (RFC 9113, 6.5.2).
const TABLE_SIZE: u32 = 4096;
/// The largest number that is read: more is in no block that is short enough.
const LARGEST: u32 = 1 << 16;
/// How many entries of the dynamic table are followed.
const FOLLOWED: u8 = 64;
const AUTHORITY: &[u8] = b":authority";
const HOST: &[u8] = b"host";
const CONNECT: &[u8] = b"CONNECT";

/// What a field's name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Authority,
    Method,
    OtherPseudo,
    Host,
    Other,
    /// It is one that the block itself put into the table.
    Unknown,
}

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Name and value stand in a table.
    Indexed,
    /// The field is put into the table.
    Inserted,
    Literal,
    TableSize,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Field,
    /// The number that a field begins with goes on.
    Index(Form),
    NameLength,
    MoreNameLength,
    Name,
    ValueLength,
    MoreValueLength,
    Value,
}

/// Letters that are held against a word while they pass.
#[derive(Clone, Copy, Debug)]
struct Matcher {
    at: u8,
    same: bool,
}

impl Matcher {
    const NEW: Self = Self { at: 0, same: true };

    fn push(&mut self, word: &[u8], letter: u8) {
        self.same &= word.get(usize::from(self.at)) == Some(&letter);
        self.at = self.at.saturating_add(1);
    }

    fn is(self, word: &[u8]) -> bool {
        self.same && usize::from(self.at) == word.len()
    }
}

/// A block that is being read.
#[derive(Clone, Debug)]
pub(super) struct Block {
    authority: Authority,
    place: Place,
    name: Name,
    inserts: bool,
    /// The number that is gathered, how far its next bits are shifted, and then how much of a string is left.
    number: u32,
    shift: u8,
    coded: bool,
    bits: Bits,
    is_authority: Matcher,
    is_host: Matcher,
    is_connect: Matcher,
    pseudo: bool,
    begun: bool,
    regular: bool,
    seen_authority: bool,
    seen_host: bool,
    tunnel: bool,
    /// How many fields were put into the table, and which of them are an authority, or a host.
    inserted: u8,
    authorities: u64,
    hosts: u64,
}

impl Block {
    pub(super) const fn new() -> Self {
        Self {
            authority: Authority::new(),
            place: Place::Field,
            name: Name::Other,
            inserts: false,
            number: 0,
            shift: 0,
            coded: false,
            bits: Bits::NONE,
            is_authority: Matcher::NEW,
            is_host: Matcher::NEW,
            is_connect: Matcher::NEW,
            pseudo: false,
            begun: false,
            regular: false,
            seen_authority: false,
            seen_host: false,
            tunnel: false,
            inserted: 0,
            authorities: 0,
            hosts: 0,
        }
    }

    /// Reads on.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        bytes.iter().try_for_each(|byte| self.byte(*byte))
    }

    /// Whether the block may end here.
    pub(super) fn is_end(&self) -> bool {
        self.place == Place::Field
    }

    pub(super) fn answer(&self) -> Answer<'_> {
        self.authority.answer(Flags { tunnel: self.tunnel, ..Flags::default() })
    }

    fn byte(&mut self, byte: u8) -> Result<(), Reason> {
        match self.place {
            Place::Field => {
                let (form, bits) = match byte {
                    0x80.. => (Form::Indexed, 7),
                    0x40.. => (Form::Inserted, 6),
                    0x20.. => (Form::TableSize, 5),
                    _ => (Form::Literal, 4),
                };
                if self.first(byte, bits) { self.index(form) } else { self.go(Place::Index(form)) }
            }
            Place::Index(form) => {
                if self.more(byte)? {
                    self.index(form)
                } else {
                    Ok(())
                }
            }
            Place::NameLength | Place::ValueLength => {
                self.coded = byte & 0x80 != 0;
                let whole = self.first(byte, 7);
                let is_name = self.place == Place::NameLength;
                match (whole, is_name) {
                    (true, _) => self.begin_string(is_name),
                    (false, true) => self.go(Place::MoreNameLength),
                    (false, false) => self.go(Place::MoreValueLength),
                }
            }
            Place::MoreNameLength => {
                if self.more(byte)? {
                    self.begin_string(true)
                } else {
                    Ok(())
                }
            }
            Place::MoreValueLength => {
                if self.more(byte)? {
                    self.begin_string(false)
                } else {
                    Ok(())
                }
            }
            Place::Name | Place::Value => {
                let is_name = self.place == Place::Name;
                if self.coded {
                    let mut bits = self.bits;
                    bits.push(byte, |letter| self.letter(is_name, letter)).ok_or(Reason::Compression)?;
                    self.bits = bits;
                } else {
                    self.letter(is_name, byte);
                }
                self.number = self.number.saturating_sub(1);
                if self.number == 0 { self.end_string(is_name) } else { Ok(()) }
            }
        }
    }

    fn go(&mut self, place: Place) -> Result<(), Reason> {
        self.place = place;
        Ok(())
    }

    /// The first byte of a number (RFC 7541, 5.1); whether it is the last.
    fn first(&mut self, byte: u8, bits: u8) -> bool {
        let mask = (1 << bits) - 1;
        (self.number, self.shift) = (u32::from(byte & mask), 0);
        byte & mask != mask
    }

    fn more(&mut self, byte: u8) -> Result<bool, Reason> {
        let part = u32::from(byte & 0x7f).checked_shl(self.shift.into()).ok_or(Reason::Compression)?;
        self.number = self.number.saturating_add(part);
        self.shift += 7;
        if self.number > LARGEST || self.shift > 21 { Err(Reason::Compression) } else { Ok(byte & 0x80 == 0) }
    }

    /// The number that a field begins with is whole.
    fn index(&mut self, form: Form) -> Result<(), Reason> {
        let index = self.number;
        if form == Form::TableSize {
            let allowed = !self.begun && index <= TABLE_SIZE;
            return if allowed { self.go(Place::Field) } else { Err(Reason::Compression) };
        }
        self.begun = true;
        self.inserts = form == Form::Inserted;
        if index == 0 {
            (self.is_authority, self.is_host, self.pseudo) = (Matcher::NEW, Matcher::NEW, false);
            return if form == Form::Indexed { Err(Reason::Compression) } else { self.go(Place::NameLength) };
        }
        self.name = match index {
            1 => Name::Authority,
            2 | 3 => Name::Method,
            4..15 => Name::OtherPseudo,
            38 => Name::Host,
            ..=STATIC => Name::Other,
            _ => self.followed(index - STATIC - 1)?,
        };
        self.begin_field()?;
        // The static table has no value for either name.
        if form == Form::Indexed { self.end_field() } else { self.go(Place::ValueLength) }
    }

    /// What the name is of the entry that was put into the table so many entries ago.
    fn followed(&self, ago: u32) -> Result<Name, Reason> {
        let entry = u32::from(self.inserted).checked_sub(ago + 1).ok_or(Reason::Compression)?;
        match entry {
            _ if entry >= FOLLOWED.into() => Err(Reason::DynamicTable),
            _ if self.authorities >> entry & 1 != 0 => Ok(Name::Authority),
            _ if self.hosts >> entry & 1 != 0 => Ok(Name::Host),
            _ => Ok(Name::Unknown),
        }
    }

    fn begin_string(&mut self, is_name: bool) -> Result<(), Reason> {
        self.bits = Bits::NONE;
        self.place = if is_name { Place::Name } else { Place::Value };
        if self.number == 0 { self.end_string(is_name) } else { Ok(()) }
    }

    fn letter(&mut self, is_name: bool, letter: u8) {
        match self.name {
            _ if is_name => {
                self.pseudo |= self.is_host.at == 0 && letter == b':';
                self.is_authority.push(AUTHORITY, letter);
                self.is_host.push(HOST, letter);
            }
            Name::Authority | Name::Host => self.authority.push(&[letter]),
            Name::Method => self.is_connect.push(CONNECT, letter),
            _ => {}
        }
    }

    fn end_string(&mut self, is_name: bool) -> Result<(), Reason> {
        if self.coded && !self.bits.is_end() {
            return Err(Reason::Compression);
        }
        if !is_name {
            return self.end_field();
        }
        self.name = if self.is_authority.is(AUTHORITY) {
            Name::Authority
        } else if self.is_host.is(HOST) {
            Name::Host
        } else if self.pseudo {
            Name::OtherPseudo
        } else {
            Name::Other
        };
        self.begin_field()?;
        self.go(Place::ValueLength)
    }

    /// A field's name is known.
    fn begin_field(&mut self) -> Result<(), Reason> {
        self.is_connect = Matcher::NEW;
        let seen = match self.name {
            Name::Authority => core::mem::replace(&mut self.seen_authority, true),
            Name::Host => core::mem::replace(&mut self.seen_host, true),
            _ => false,
        };
        if seen {
            return Err(Reason::Duplicate);
        }
        match self.name {
            // Pseudo-header fields come before all others (RFC 9113, 8.3).
            Name::Authority | Name::Method | Name::OtherPseudo if self.regular => Err(Reason::Syntax),
            Name::Host | Name::Other => {
                self.regular = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn end_field(&mut self) -> Result<(), Reason> {
        match self.name {
            Name::Authority | Name::Host => {
                self.authority.end()?;
            }
            Name::Method => self.tunnel |= self.is_connect.is(CONNECT),
            _ => {}
        }
        if self.inserts {
            let entry = 1u64.checked_shl(self.inserted.into()).unwrap_or(0);
            match self.name {
                Name::Authority => self.authorities |= entry,
                Name::Host => self.hosts |= entry,
                _ => {}
            }
            self.inserted = self.inserted.saturating_add(1);
            if self.inserted == u8::MAX {
                return Err(Reason::DynamicTable);
            }
        }
        self.go(Place::Field)
    }
}

//! Questions and answers of DNS (RFC 1035).
//!
//! [`Query`] finds the name that a client asks for in pieces of a stream. [`Message`] reads what a whole message has,
//! for whoever learns names from answers.
//!
//! Parsers by others were read and not taken. `domain` needs neither a standard library nor an allocator, refuses
//! pointers that lead forward, and is well kept, but reads its names through `expect` and `unwrap`, which a linker
//! cannot prove away. `simple-dns` and `hickory-proto` put names and records on a heap, and `dns-parser` needs the
//! standard library. None reads a question that is cut.

mod answer;
mod name;
mod query;
#[cfg(test)]
mod tests;

use core::net::{Ipv4Addr, Ipv6Addr};

pub use name::{Name, Text};
pub use query::Query;

use crate::answer::Reason;
use name::HEADER;

/// Class IN.
pub const IN: u16 = 1;
/// Type A.
pub const A: u16 = 1;
/// Type CNAME.
pub const CNAME: u16 = 5;
/// Type AAAA.
pub const AAAA: u16 = 28;

/// A message whose header is there; what follows is read on the way, and may turn out to be broken.
#[derive(Clone, Copy, Debug)]
pub struct Message<'m> {
    bytes: &'m [u8],
    words: [u16; 6],
}

/// Where in a message a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What was asked for.
    Answer,
    /// Who could say more.
    Authority,
    /// What else is worth knowing.
    Additional,
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Question<'m> {
    /// What is asked about.
    pub name: Name<'m>,
    /// The type of records that are wanted.
    pub kind: u16,
    /// Their class.
    pub class: u16,
}

/// A resource record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'m> {
    /// Where it is.
    pub section: Section,
    /// Whose record it is.
    pub name: Name<'m>,
    /// Its type.
    pub kind: u16,
    /// Its class.
    pub class: u16,
    /// For how many seconds it holds (RFC 2181, 8: none where the first bit is set).
    pub ttl: u32,
    /// What it says.
    pub data: Data<'m>,
}

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub enum Data<'m> {
    /// An IPv4 address of the name.
    A(Ipv4Addr),
    /// An IPv6 address of the name.
    Aaaa(Ipv6Addr),
    /// The name that this one stands for.
    Cname(Name<'m>),
    /// Anything else.
    Other(&'m [u8]),
}

/// The message at the start of a TCP stream's bytes, and the bytes behind it; `None` until it is whole.
#[must_use]
pub fn framed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Reason> {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(Reason::Length)?;
    Ok(u16::from_be_bytes(*found))
}

impl<'m> Message<'m> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Reason::Length`]: there is none.
    pub fn read(bytes: &'m [u8]) -> Result<Self, Reason> {
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(Reason::Length)?;
        let mut words = [0; 6];
        for (word, pair) in words.iter_mut().zip(header.as_chunks::<2>().0) {
            *word = u16::from_be_bytes(*pair);
        }
        Ok(Self { bytes, words })
    }

    /// The number by which an answer belongs to its query.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.words[0]
    }

    /// Whether it is an answer.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        self.words[1] & 0x8000 != 0
    }

    /// What is asked: 0 is a query.
    #[must_use]
    pub fn operation(&self) -> u8 {
        (self.words[1] >> 11 & 15) as u8
    }

    /// Whether it was cut to fit into a datagram.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.words[1] & 0x0200 != 0
    }

    /// The answer's code: 0 is none of the errors.
    #[must_use]
    pub fn code(&self) -> u8 {
        (self.words[1] & 15) as u8
    }

    /// How many questions it says to have.
    #[must_use]
    pub fn question_count(&self) -> u16 {
        self.words[2]
    }

    /// How many records of a section it says to have.
    #[must_use]
    pub fn record_count(&self, section: Section) -> u16 {
        match section {
            Section::Answer => self.words[3],
            Section::Authority => self.words[4],
            Section::Additional => self.words[5],
        }
    }

    /// Its questions. The first error is the last item.
    #[must_use]
    pub fn questions(&self) -> Questions<'m> {
        Questions { bytes: self.bytes, at: HEADER, left: self.question_count() }
    }

    /// Its records, section by section. The first error, in the questions too, is the last item.
    #[must_use]
    pub fn records(&self) -> Records<'m> {
        let mut questions = self.questions();
        let error = questions.by_ref().find_map(Result::err);
        let left = [self.words[3], self.words[4], self.words[5]];
        Records { bytes: self.bytes, at: questions.at, left, error }
    }

    /// Reads all of it, every name among it: nothing may be broken, and nothing left over.
    ///
    /// # Errors
    /// What is broken first.
    pub fn check(&self) -> Result<(), Reason> {
        let mut text = Text::new();
        for question in self.questions() {
            question?.name.read(&mut text)?;
        }
        let mut records = self.records();
        for record in records.by_ref() {
            let record = record?;
            record.name.read(&mut text)?;
            if let Data::Cname(name) = record.data {
                name.read(&mut text)?;
            }
        }
        if records.at == self.bytes.len() { Ok(()) } else { Err(Reason::Length) }
    }
}

/// The questions of a message.
#[derive(Clone, Debug)]
pub struct Questions<'m> {
    bytes: &'m [u8],
    at: usize,
    left: u16,
}

impl<'m> Iterator for Questions<'m> {
    type Item = Result<Question<'m>, Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let question = self.question();
        if question.is_err() {
            self.left = 0;
        }
        Some(question)
    }
}

impl<'m> Questions<'m> {
    fn question(&mut self) -> Result<Question<'m>, Reason> {
        let name = Name { message: self.bytes, at: self.at };
        let end = name::end(self.bytes, self.at)?;
        let question = Question { name, kind: u16_at(self.bytes, end)?, class: u16_at(self.bytes, end + 2)? };
        self.at = end + 4;
        Ok(question)
    }
}

/// The records of a message.
#[derive(Clone, Debug)]
pub struct Records<'m> {
    bytes: &'m [u8],
    at: usize,
    left: [u16; 3],
    error: Option<Reason>,
}

impl<'m> Iterator for Records<'m> {
    type Item = Result<Record<'m>, Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.error.take() {
            self.left = [0; 3];
            return Some(Err(error));
        }
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        let (left, section) = self.left.iter_mut().zip(sections).find(|(left, _)| **left > 0)?;
        *left -= 1;
        let record = self.record(section);
        if record.is_err() {
            self.left = [0; 3];
        }
        Some(record)
    }
}

impl<'m> Records<'m> {
    fn record(&mut self, section: Section) -> Result<Record<'m>, Reason> {
        let bytes = self.bytes;
        let name = Name { message: bytes, at: self.at };
        let end = name::end(bytes, self.at)?;
        let (kind, class) = (u16_at(bytes, end)?, u16_at(bytes, end + 2)?);
        let ttl = u32::from(u16_at(bytes, end + 4)?) << 16 | u32::from(u16_at(bytes, end + 6)?);
        let (start, length) = (end + 10, usize::from(u16_at(bytes, end + 8)?));
        let content = bytes.get(start..start + length).ok_or(Reason::Length)?;
        let data = match (class, kind) {
            (IN, A) => Data::A(Ipv4Addr::from(<[u8; 4]>::try_from(content).map_err(|_| Reason::Length)?)),
            (IN, AAAA) => Data::Aaaa(Ipv6Addr::from(<[u8; 16]>::try_from(content).map_err(|_| Reason::Length)?)),
            (IN, CNAME) if name::end(bytes, start)? == start + length => {
                Data::Cname(Name { message: bytes, at: start })
            }
            (IN, CNAME) => return Err(Reason::Length),
            _ => Data::Other(content),
        };
        self.at = start + length;
        Ok(Record { section, name, kind, class, ttl: if ttl >> 31 == 0 { ttl } else { 0 }, data })
    }
}

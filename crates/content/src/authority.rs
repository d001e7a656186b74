//! `host [":" port]`, as Host, CONNECT and `:authority` have it (RFC 9110, 4.2 and 7.2), letter by letter.
//!
//! A user before the host is refused: RFC 9110 (4.2.4) calls it an error, and what a server makes of it differs.

use crate::{
    answer::{Answer, Flags, Reason},
    name::{Host, NameBuffer},
};

/// Where in the authority the next letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    Host,
    /// Within the brackets of an IPv6 address.
    Brackets,
    Bracketed,
    Port,
    /// What no server should take.
    Bad,
}

/// An authority that grows, and a second one that is compared with it.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    name: NameBuffer,
    place: Place,
    /// What the first turned out to be, once it has ended.
    first: Option<Host>,
}

impl Authority {
    pub(crate) const fn new() -> Self {
        Self { name: NameBuffer::new(), place: Place::Start, first: None }
    }

    #[inline]
    pub(crate) fn push(&mut self, letters: &[u8]) {
        let mut rest = letters;
        // A name up to its port is one run.
        if matches!(self.place, Place::Start | Place::Host) {
            let end = memchr::memchr2(b':', b'[', letters).unwrap_or(letters.len());
            if end > 0 {
                let (name, behind) = letters.split_at_checked(end).unwrap_or_default();
                self.name.push(name);
                (self.place, rest) = (Place::Host, behind);
            }
        }
        for letter in rest {
            self.push_letter(*letter);
        }
    }

    #[inline]
    fn push_letter(&mut self, letter: u8) {
        self.place = match (self.place, letter) {
            (Place::Start, b'[') => {
                self.name.keep(letter);
                Place::Brackets
            }
            (Place::Start | Place::Host | Place::Bracketed, b':') => Place::Port,
            (Place::Start | Place::Host, _) => {
                self.name.push(&[letter]);
                Place::Host
            }
            (Place::Brackets, b']') => {
                self.name.keep(letter);
                Place::Bracketed
            }
            (Place::Brackets, b':' | b'.' | b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.name.keep(letter.to_ascii_lowercase());
                Place::Brackets
            }
            (Place::Port, b'0'..=b'9') => Place::Port,
            _ => Place::Bad,
        };
    }

    /// Ends it. A second one must be the first again.
    ///
    /// # Errors
    /// No server should take it.
    pub(crate) fn end(&mut self) -> Result<Host, Reason> {
        let host = match self.place {
            Place::Bad | Place::Brackets => Host::Bad,
            Place::Bracketed => Host::Address,
            _ if self.bracketed() => Host::Address,
            _ => self.name.end(),
        };
        match (self.first, host) {
            (_, Host::Bad) => return Err(Reason::Name),
            (None, _) => self.first = Some(host),
            (Some(first), _) if first == host && self.name.is_same() => {}
            (Some(_), _) => return Err(Reason::Disagreement),
        }
        self.place = Place::Start;
        self.name.compare();
        Ok(host)
    }

    /// Whether a port was read behind an address in brackets.
    fn bracketed(&self) -> bool {
        self.name.current().first() == Some(&b'[')
    }

    /// The name, or that there is none.
    pub(crate) fn answer(&self, flags: Flags) -> Answer<'_> {
        match self.first {
            Some(Host::Name) => Answer::Name(self.name.name(), flags),
            Some(Host::Address) => Answer::NoName(Flags { address: true, ..flags }),
            _ => Answer::NoName(flags),
        }
    }
}

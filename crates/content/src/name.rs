//! A host name as it is collected byte by byte, in the form in which policies have names.

/// The most bytes of a name, without a final dot.
pub const LONGEST_NAME: usize = 253;
/// The most bytes of a label.
const LONGEST_LABEL: u32 = 63;

/// What a host turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Empty,
    Name,
    /// Its last label is a number, so it is an IPv4 address in one of the forms that programs take
    /// (URL Standard, "ends in a number"); no name ends so.
    Address,
    Bad,
}

/// Letters, digits, hyphen and, as names in use have it, underscore, folded to lower case, and dots; 0 for what no host
/// name has.
const FOLDED: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        if letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_' | b'.') {
            table[byte] = letter.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// A name that grows. A second one can be compared with the first, letter by letter, without keeping it.
#[derive(Clone, Debug)]
pub(crate) struct NameBuffer {
    /// With room for a final dot.
    bytes: [u8; LONGEST_NAME + 1],
    /// Letters so far, of the name that is being read.
    length: u8,
    /// Letters so far of its last label.
    label: u8,
    bad: bool,
    /// The length of the first name, while a second is compared with it.
    first: Option<u8>,
    differs: bool,
}

impl NameBuffer {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; LONGEST_NAME + 1], length: 0, label: 0, bad: false, first: None, differs: false }
    }

    /// Adds letters as they were sent.
    #[inline]
    pub(crate) fn push(&mut self, letters: &[u8]) {
        let start = usize::from(self.length);
        let places = self.bytes.get_mut(start..start + letters.len());
        let (Some(places), None) = (places, self.first) else {
            letters.iter().for_each(|letter| self.push_letter(*letter));
            return;
        };
        // Where the label began, counted as the letters are: it waits for one comparison a letter, a length that
        // grows would wait for three.
        let (mut at, mut begin) = (u32::from(self.label), 0);
        for (place, letter) in places.iter_mut().zip(letters) {
            let folded = FOLDED[usize::from(*letter)];
            *place = folded;
            let (dot, label) = (folded == b'.', at - begin);
            at += 1;
            self.bad |= (folded == 0) | (dot & (label == 0)) | (!dot & (label >= LONGEST_LABEL));
            begin = if dot { at } else { begin };
        }
        self.label = (at - begin) as u8;
        self.length = self.length.saturating_add(letters.len() as u8);
    }

    fn push_letter(&mut self, letter: u8) {
        let folded = FOLDED[usize::from(letter)];
        let (dot, label) = (folded == b'.', u32::from(self.label));
        self.bad |= (folded == 0) | (dot & (label == 0)) | (!dot & (label >= LONGEST_LABEL));
        self.label = if dot { 0 } else { self.label.saturating_add(1) };
        self.keep(folded);
    }

    /// Adds a letter of what is no name and must only be compared: an address in brackets.
    pub(crate) fn keep(&mut self, letter: u8) {
        let Some(place) = self.bytes.get_mut(usize::from(self.length)) else {
            self.bad = true;
            return;
        };
        if let Some(first) = self.first {
            // Beyond the first name's end a final dot may stand; other letters make the lengths differ.
            self.differs |= self.length < first && *place != letter;
        } else {
            *place = letter;
        }
        self.length = self.length.saturating_add(1);
    }

    /// Ends the name, and takes its final dot off.
    pub(crate) fn end(&mut self) -> Host {
        if self.length == 0 {
            return Host::Empty;
        }
        if self.label == 0 {
            self.length = self.length.saturating_sub(1);
        }
        if self.bad || self.length == 0 || usize::from(self.length) > LONGEST_NAME {
            return Host::Bad;
        }
        let last = self.current().rsplit(|letter| *letter == b'.').next().unwrap_or_default();
        let number = match last {
            [b'0', b'x', hex @ ..] => hex.iter().all(u8::is_ascii_hexdigit),
            digits => digits.iter().all(u8::is_ascii_digit),
        };
        if number { Host::Address } else { Host::Name }
    }

    /// Begins a second name, to be compared with the first, which has ended.
    pub(crate) fn compare(&mut self) {
        self.first = Some(self.length);
        (self.length, self.label, self.bad, self.differs) = (0, 0, false, false);
    }

    /// Whether the second name, which has ended, is the first.
    pub(crate) fn is_same(&self) -> bool {
        !self.differs && self.first == Some(self.length)
    }

    /// What is being read, or was compared.
    pub(crate) fn current(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// The first name.
    pub(crate) fn name(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.first.unwrap_or(self.length))).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn read(text: &[u8]) -> (Host, Vec<u8>) {
        let mut buffer = NameBuffer::new();
        buffer.push(text);
        (buffer.end(), buffer.name().to_vec())
    }

    #[test]
    fn names_are_folded_and_lose_their_final_dot() {
        assert_eq!(read(b"WWW.Example.COM"), (Host::Name, b"www.example.com".to_vec()));
        assert_eq!(read(b"a_b-c.example."), (Host::Name, b"a_b-c.example".to_vec()));
        assert_eq!(read(b"localhost"), (Host::Name, b"localhost".to_vec()));
        assert_eq!(read(b"").0, Host::Empty);
    }

    #[test]
    fn what_no_host_name_has_is_bad() {
        for bad in [&b"."[..], b"a..b", b".a", b"a b", b"a\0b", b"a/b", b"a%41", b"a@b", b"\xc3\xa4.de", b"a.."] {
            assert_eq!(read(bad).0, Host::Bad, "{bad:?}");
        }
    }

    #[test]
    fn lengths_are_those_of_dns() {
        let label = [b'a'; 63];
        assert_eq!(read(&label).0, Host::Name);
        assert_eq!(read(&[b'a'; 64]).0, Host::Bad);
        let mut longest = [label, label, label].join(&b'.');
        longest.push(b'.');
        longest.extend([b'b'; 61]);
        assert_eq!(longest.len(), LONGEST_NAME);
        assert_eq!(read(&longest), (Host::Name, longest.clone()));
        let mut dotted = longest.clone();
        dotted.push(b'.');
        assert_eq!(read(&dotted), (Host::Name, longest.clone()));
        longest.push(b'b');
        assert_eq!(read(&longest).0, Host::Bad);
        dotted.push(b'.');
        assert_eq!(read(&dotted).0, Host::Bad);
    }

    #[test]
    fn a_name_that_ends_in_a_number_is_an_address() {
        for address in [&b"192.0.2.1"[..], b"192.0.2.1.", b"3221225985", b"0x7f.1", b"a.0x", b"1.2"] {
            assert_eq!(read(address).0, Host::Address, "{address:?}");
        }
        for name in [&b"1.a"[..], b"0xg", b"1a", b"3com.com"] {
            assert_eq!(read(name).0, Host::Name, "{name:?}");
        }
    }

    #[test]
    fn a_second_name_is_compared_and_not_kept() {
        for (second, same) in [
            (&b"EXAMPLE.com."[..], true),
            (b"example.co", false),
            (b"example.comm", false),
            (b"example.org", false),
            (b"", false),
        ] {
            let mut buffer = NameBuffer::new();
            buffer.push(b"example.com");
            assert_eq!(buffer.end(), Host::Name);
            buffer.compare();
            buffer.push(second);
            buffer.end();
            assert_eq!((buffer.is_same(), buffer.name()), (same, &b"example.com"[..]), "{second:?}");
        }
    }
}

//! Names in a message, compressed or not (RFC 1035, 3.1 and 4.1.4).

use crate::{LONGEST_NAME, answer::Reason};

/// The bytes of a message's header, which no pointer can lead into.
pub(super) const HEADER: usize = 12;
/// The two bits that make a length a pointer.
const POINTER: u8 = 0xc0;
/// The most pointers of one name. Each must lead to a place before the one that the last led to, so they end anyhow;
/// this bounds the steps.
const MOST_POINTERS: u8 = 16;
/// The most labels of a name, which has at most 255 bytes.
const MOST_LABELS: usize = 127;

/// A name as text: lower case, labels with dots between, without the final one. Labels may be of any bytes except a
/// dot, since names of DNS are not only names of hosts.
#[derive(Clone, Debug)]
pub struct Text {
    bytes: [u8; LONGEST_NAME],
    length: u8,
}

impl Default for Text {
    fn default() -> Self {
        Self::new()
    }
}

impl Text {
    /// The root's name.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; LONGEST_NAME], length: 0 }
    }

    /// The text. The root's is empty.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Begins a label.
    pub(super) fn begin_label(&mut self) -> Result<(), Reason> {
        if self.length == 0 { Ok(()) } else { self.put(b'.') }
    }

    /// Adds a piece of the label.
    pub(super) fn add(&mut self, letters: &[u8]) -> Result<(), Reason> {
        let start = usize::from(self.length);
        let room = self.bytes.get_mut(start..start.saturating_add(letters.len())).ok_or(Reason::Name)?;
        let mut dot = false;
        for (place, letter) in room.iter_mut().zip(letters) {
            dot |= *letter == b'.';
            *place = letter.to_ascii_lowercase();
        }
        self.length = self.length.saturating_add(letters.len() as u8);
        if dot { Err(Reason::Name) } else { Ok(()) }
    }

    fn put(&mut self, letter: u8) -> Result<(), Reason> {
        *self.bytes.get_mut(usize::from(self.length)).ok_or(Reason::Name)? = letter;
        self.length = self.length.saturating_add(1);
        Ok(())
    }
}

/// One step through a name.
enum Step<'m> {
    Label(&'m [u8]),
    Pointer(usize),
    End,
}

/// The step at `at`, and where it ends.
fn step(message: &[u8], at: usize) -> Result<(Step<'_>, usize), Reason> {
    let rest = message.get(at..).unwrap_or_default();
    match rest {
        [0, ..] => Ok((Step::End, at + 1)),
        [first, second, ..] if *first >= POINTER => {
            Ok((Step::Pointer(usize::from(*first & !POINTER) << 8 | usize::from(*second)), at + 2))
        }
        [length, rest @ ..] if *length < 64 => {
            let label = rest.get(..usize::from(*length)).ok_or(Reason::Length)?;
            Ok((Step::Label(label), at + 1 + label.len()))
        }
        // Lengths of 64 to 191 have no meaning (RFC 6891, 5).
        [length, ..] if *length < POINTER => Err(Reason::Name),
        _ => Err(Reason::Length),
    }
}

/// Where the name at `at` ends in the message. Its pointer is not followed.
pub(super) fn end(message: &[u8], mut at: usize) -> Result<usize, Reason> {
    for _ in 0..=MOST_LABELS {
        let (step, next) = step(message, at)?;
        if !matches!(step, Step::Label(_)) {
            return Ok(next);
        }
        at = next;
    }
    Err(Reason::Name)
}

/// A name within a message.
#[derive(Clone, Copy, Debug)]
pub struct Name<'m> {
    pub(super) message: &'m [u8],
    pub(super) at: usize,
}

impl Name<'_> {
    /// Writes the name into `text`, following its pointers, in at most some 300 steps.
    ///
    /// # Errors
    /// The name is broken: see [`Reason::Pointer`], [`Reason::Name`] and [`Reason::Length`].
    pub fn read<'t>(&self, text: &'t mut Text) -> Result<&'t [u8], Reason> {
        text.length = 0;
        let (mut at, mut begin, mut pointers) = (self.at, self.at, 0);
        loop {
            match step(self.message, at)? {
                (Step::End, _) => return Ok(text.as_bytes()),
                (Step::Label(label), next) => {
                    text.begin_label()?;
                    text.add(label)?;
                    at = next;
                }
                (Step::Pointer(target), _) => {
                    pointers += 1;
                    if !(HEADER..begin).contains(&target) || pointers > MOST_POINTERS {
                        return Err(Reason::Pointer);
                    }
                    (at, begin) = (target, target);
                }
            }
        }
    }
}

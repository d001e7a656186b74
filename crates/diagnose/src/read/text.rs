//! UTF-16 as UTF-8, piece by piece.

use std::io::{self, ErrorKind, Read};

/// How the bytes are read.
#[derive(Clone, Copy, Debug)]
enum Form {
    Unknown,
    Utf8,
    Utf16 { big: bool },
}

/// Bytes of a text in UTF-8 or UTF-16, as UTF-8 without its byte order mark. UTF-8 is not checked here.
pub(super) struct Text<R> {
    input: R,
    form: Form,
    raw: Vec<u8>,
    /// Decoded and not yet given out.
    ready: Vec<u8>,
    given: usize,
    /// The first half of a surrogate pair.
    high: Option<u16>,
}

/// How much is read at once.
const PIECE: usize = 64 << 10;

impl<R: Read> Text<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, form: Form::Unknown, raw: Vec::new(), ready: Vec::new(), given: 0, high: None }
    }

    /// Reads the next piece into `ready`; it stays empty at the end.
    fn more(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.given = 0;
        while self.ready.is_empty() {
            let kept = self.raw.len();
            let read = (&mut self.input).take(PIECE as u64).read_to_end(&mut self.raw)?;
            if let Form::Unknown = self.form {
                self.form = form(&mut self.raw);
            }
            match self.form {
                Form::Utf16 { big } => self.decode(big),
                _ => std::mem::swap(&mut self.ready, &mut self.raw),
            }
            if read == 0 {
                if !self.raw.is_empty() || self.high.is_some() {
                    let what = "the UTF-16 text ends in the middle of a character";
                    return Err(io::Error::new(ErrorKind::InvalidData, what));
                }
                debug_assert!(kept < 2, "all but half a unit was decoded");
                break;
            }
        }
        Ok(())
    }

    fn decode(&mut self, big: bool) {
        let whole = self.raw.len() / 2 * 2;
        let mut push = |c: char| self.ready.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        for pair in self.raw[..whole].chunks_exact(2) {
            let pair = [pair[0], pair[1]];
            let unit = if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
            match (self.high.take(), unit) {
                (Some(high), 0xDC00..=0xDFFF) => {
                    let code = 0x1_0000 + ((u32::from(high) & 0x3FF) << 10 | u32::from(unit) & 0x3FF);
                    push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                // Windows' own names may have halves of characters; they are shown as such.
                (high, unit) => {
                    if high.is_some() {
                        push(char::REPLACEMENT_CHARACTER);
                    }
                    match unit {
                        0xD800..=0xDBFF => self.high = Some(unit),
                        unit => push(char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER)),
                    }
                }
            }
        }
        self.raw.drain(..whole);
    }
}

/// The form that the first bytes tell; the byte order mark is taken away.
fn form(raw: &mut Vec<u8>) -> Form {
    let (form, mark) = match raw.as_slice() {
        [0xEF, 0xBB, 0xBF, ..] => (Form::Utf8, 3),
        [0xFF, 0xFE, ..] => (Form::Utf16 { big: false }, 2),
        [0xFE, 0xFF, ..] => (Form::Utf16 { big: true }, 2),
        [b'<', 0, ..] => (Form::Utf16 { big: false }, 0),
        [0, b'<', ..] => (Form::Utf16 { big: true }, 0),
        _ => (Form::Utf8, 0),
    };
    raw.drain(..mark);
    form
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.given == self.ready.len() {
            self.more()?;
        }
        let rest = &self.ready[self.given..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(bytes: &[u8]) -> io::Result<String> {
        let mut text = Vec::new();
        Text::new(bytes).read_to_end(&mut text)?;
        Ok(String::from_utf8(text).expect("UTF-8"))
    }

    fn utf16(text: &str, big: bool) -> Vec<u8> {
        text.encode_utf16().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    }

    proptest! {
        #[test]
        fn every_form_gives_the_text(text in "<[ -~äλ𝄞\n]{0,300}") {
            prop_assert_eq!(decoded(text.as_bytes()).unwrap(), text.clone());
            for big in [false, true] {
                prop_assert_eq!(decoded(&utf16(&text, big)).unwrap(), text.clone());
                prop_assert_eq!(decoded(&utf16(&format!("\u{FEFF}{text}"), big)).unwrap(), text.clone());
            }
            prop_assert_eq!(decoded(format!("\u{FEFF}{text}").as_bytes()).unwrap(), text);
        }
    }

    #[test]
    fn halves_of_characters_are_told_and_a_cut_text_is_refused() {
        let mut lone = utf16("<a", false);
        lone.extend([0x34, 0xD8]);
        lone.extend(utf16("b", false));
        assert_eq!(decoded(&lone).unwrap(), "<a\u{FFFD}b");
        assert!(decoded(&[0xFF, 0xFE, b'<', 0, b'a']).is_err());
        assert!(decoded(&[0xFF, 0xFE, 0x34, 0xD8]).is_err());
        assert_eq!(decoded(&[]).unwrap(), "");
    }
}

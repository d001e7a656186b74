//! Decodes bytes of foreign files as text: UTF-8, UTF-16, or a named code page.

use std::{borrow::Cow, fmt, str::FromStr};

/// Whether a letter acts on nothing: not on a terminal, as control characters do, and not on the letters around it, as
/// those do that turn text around or cannot be seen.
#[must_use]
pub fn is_harmless(letter: char) -> bool {
    let acts = matches!(letter,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fdd0}'..='\u{fdef}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !letter.is_control() && !acts
}

/// A text as it is shown: letters that act on something are escaped as in Rust.
#[must_use]
pub fn harmless(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_harmless(letter) { shown.push(letter) } else { shown.extend(letter.escape_default()) }
    }
    Cow::Owned(shown)
}

/// A file's text encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8.
    Utf8,
    /// UTF-16, low byte first: what Windows calls Unicode.
    Utf16Le,
    /// UTF-16, high byte first.
    Utf16Be,
    /// A DOS code page, as used by consoles (437, 850, ...).
    Oem(u16),
    /// An encoding of the WHATWG standard, which include the ANSI code pages of Windows.
    Other(&'static encoding_rs::Encoding),
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let digits = ["cp", "oem", "windows-", "ibm"].iter().find_map(|prefix| lower.strip_prefix(prefix));
        let page: Option<u16> = digits.unwrap_or(&lower).parse().ok();
        match (lower.as_str(), page) {
            ("utf-8" | "utf8", _) | (_, Some(65001)) => Ok(Self::Utf8),
            ("utf-16" | "utf-16le" | "unicode", _) | (_, Some(1200)) => Ok(Self::Utf16Le),
            ("utf-16be", _) | (_, Some(1201)) => Ok(Self::Utf16Be),
            (_, Some(page)) if oem_cp::code_table::DECODING_TABLE_CP_MAP.contains_key(&page) => Ok(Self::Oem(page)),
            (_, Some(page @ (1250..=1258 | 874))) => label(&format!("windows-{page}")),
            (_, Some(932)) => label("shift_jis"),
            (_, Some(936)) => label("gbk"),
            (_, Some(949)) => label("euc-kr"),
            (_, Some(950)) => label("big5"),
            _ => label(&lower),
        }
    }
}

fn label(text: &str) -> Result<Encoding, String> {
    encoding_rs::Encoding::for_label(text.as_bytes()).map(Encoding::Other).ok_or_else(|| {
        format!(
            "`{text}` is not a known encoding: expected utf-8, utf-16le, utf-16be, cp437, cp850, \
             windows-1252 or similar"
        )
    })
}

/// Why bytes are not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotText {
    /// This line has bytes that are not valid in the encoding.
    Line(usize),
    /// UTF-16 with half a character at its end.
    Cut,
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(
                f,
                "line {line}: not UTF-8 or UTF-16; if the file uses a code page, name it (cp850 for a console \
                 in Western Europe, cp437 for one in the United States, windows-1252 for an editor)"
            ),
            Self::Cut => f.write_str("the UTF-16 text ends in the middle of a character"),
        }
    }
}

impl std::error::Error for NotText {}

/// Decodes a file. Without an encoding it is UTF-8 or UTF-16, by its byte order mark or by its zero bytes. Concatenated
/// files have marks at the beginning of lines; they are removed.
///
/// # Errors
/// [`NotText`].
pub fn decode(bytes: &[u8], encoding: Option<Encoding>) -> Result<String, NotText> {
    let text = match encoding.unwrap_or_else(|| guess(bytes)) {
        Encoding::Utf8 => match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => text.to_owned(),
            Ok(text) => return Err(NotText::Line(line(bytes, text.find('\0').unwrap_or(0)))),
            Err(error) => return Err(NotText::Line(line(bytes, error.valid_up_to()))),
        },
        Encoding::Utf16Le => wide(bytes, u16::from_le_bytes)?,
        Encoding::Utf16Be => wide(bytes, u16::from_be_bytes)?,
        Encoding::Oem(page) => match oem_cp::code_table::DECODING_TABLE_CP_MAP.get(&page) {
            Some(table) => table.decode_string_lossy(bytes),
            None => return Err(NotText::Line(1)),
        },
        Encoding::Other(encoding) => {
            let found = encoding.decode_without_bom_handling_and_without_replacement(bytes);
            found.ok_or(NotText::Line(1))?.into_owned()
        }
    };
    let mut plain = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        plain.push_str(line.trim_start_matches('\u{feff}'));
    }
    Ok(plain)
}

fn line(bytes: &[u8], at: usize) -> usize {
    bytes.iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// The encoding that a file without one is taken to have: UTF-8, or UTF-16 by its mark or its zero bytes.
#[must_use]
pub fn guess(bytes: &[u8]) -> Encoding {
    match bytes {
        [0xff, 0xfe, ..] => return Encoding::Utf16Le,
        [0xfe, 0xff, ..] => return Encoding::Utf16Be,
        _ => {}
    }
    // Without a mark, mostly ASCII text in UTF-16 has a zero in every other byte.
    let head = &bytes[..bytes.len().min(1024)];
    let zeros = |odd: usize| head.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    let half = head.len() / 2;
    match (zeros(0), zeros(1)) {
        (0, high) if half > 0 && high * 2 > half => Encoding::Utf16Le,
        (high, 0) if half > 0 && high * 2 > half => Encoding::Utf16Be,
        _ => Encoding::Utf8,
    }
}

fn wide(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, NotText> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(NotText::Cut);
    }
    let mut text = String::with_capacity(pairs.len());
    for letter in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        match letter {
            Ok(letter) => text.push(letter),
            Err(_) => return Err(NotText::Line(text.lines().count().max(1))),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, mark: bool, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        mark.then_some(0xfeff).into_iter().chain(text.encode_utf16()).flat_map(unit).collect()
    }

    #[test]
    fn unicode_is_told_by_its_bytes() {
        let text = "Regel;Zulässig\r\nzwei\r\n";
        for mark in [true, false] {
            assert_eq!(decode(&utf16(text, mark, u16::to_le_bytes), None).as_deref(), Ok(text), "{mark}");
            assert_eq!(decode(&utf16(text, mark, u16::to_be_bytes), None).as_deref(), Ok(text), "{mark}");
        }
        assert_eq!(decode(text.as_bytes(), None).as_deref(), Ok(text));
        assert_eq!(decode(b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", None).as_deref(), Ok("a\nb\n"));
        let twice = [utf16("a\n", true, u16::to_le_bytes), utf16("b\n", true, u16::to_le_bytes)].concat();
        assert_eq!(decode(&twice, None).as_deref(), Ok("a\nb\n"));
        assert_eq!(decode(&[], None).as_deref(), Ok(""));
        assert_eq!(decode(&[0xff, 0xfe], None).as_deref(), Ok(""));
    }

    #[test]
    fn what_is_no_unicode_needs_its_code_page() {
        assert_eq!(decode(b"one\nRegel f\x81r\n", None), Err(NotText::Line(2)));
        for (name, bytes) in
            [("cp850", &b"f\x81r"[..]), ("437", b"f\x81r"), ("windows-1252", b"f\xfcr"), ("1252", b"f\xfcr")]
        {
            assert_eq!(decode(bytes, Some(name.parse().unwrap())).as_deref(), Ok("für"), "{name}");
        }
        assert_eq!(decode("für".as_bytes(), Some("utf-8".parse().unwrap())).as_deref(), Ok("für"));
        assert_eq!(decode(&[0xff, 0xfe, b'a'], None), Err(NotText::Cut));
        assert_eq!(decode(b"abc\0def ghi", None), Err(NotText::Line(1)));
        assert!("klingon".parse::<Encoding>().is_err());
    }
}

//! Text on its way to a terminal, in which nothing but this program's own styles acts on that terminal.
//!
//! Paths, rule names, notes, files and what a driver reports are written by others, and a terminal obeys what is in them:
//! colours, a title, a line that looks like one of ours. Whatever a report writes therefore goes through a [`Page`], which
//! shows such characters escaped. A report writes line by line: a line break within what one `write!` writes is foreign.

use std::fmt::{self, Arguments, Display};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::sync::OnceLock;

use anstyle::AnsiColor;

/// Errors.
pub(crate) const ERROR: Style = Style(0);
/// Warnings.
pub(crate) const WARNING: Style = Style(1);
/// Success.
pub(crate) const GOOD: Style = Style(2);
/// Refusals.
pub(crate) const BAD: Style = Style(3);
/// Labels.
pub(crate) const LABEL: Style = Style(4);

/// What each style looks like.
const LOOKS: [anstyle::Style; 5] = [
    AnsiColor::Red.on_default().bold(),
    AnsiColor::Yellow.on_default().bold(),
    AnsiColor::Green.on_default(),
    AnsiColor::Red.on_default(),
    anstyle::Style::new().bold(),
];

/// What begins a mark; no text needs it.
const MARK: char = '\u{fdd0}';

/// A style: `{GOOD}` begins it and `{GOOD:#}` ends it. It stands in the text as a mark that a [`Page`] turns into what a
/// terminal obeys. Foreign text cannot have one: each run of the program draws its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style(usize);

impl Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if f.alternate() { "e" } else { "b" };
        write!(f, "{MARK}{}{what}{}", secret(), self.0)
    }
}

/// What this run's marks have.
fn secret() -> &'static str {
    static SECRET: OnceLock<String> = OnceLock::new();
    SECRET.get_or_init(|| format!("{:016x}", RandomState::new().build_hasher().finish()))
}

/// The style that a mark at the beginning of `text` stands for, as a terminal knows it, and what follows the mark.
fn marked(text: &str) -> Option<(String, &str)> {
    let rest = text.strip_prefix(MARK)?.strip_prefix(secret())?;
    let (what, rest) = rest.split_at_checked(1)?;
    let (number, rest) = rest.split_at_checked(1)?;
    let look = LOOKS.get(number.parse::<usize>().ok()?)?;
    Some((if what == "b" { format!("{look}") } else { format!("{look:#}") }, rest))
}

/// A stream of lines of text.
#[derive(Debug)]
pub(crate) struct Page<W>(W);

impl<W: Write> Page<W> {
    pub(crate) fn new(stream: W) -> Self {
        Self(stream)
    }

    /// The stream, for what has been made harmless already.
    pub(crate) fn stream(&mut self) -> &mut W {
        &mut self.0
    }

    fn lines(&mut self, text: &str) -> io::Result<()> {
        let (line, end) = text.strip_suffix('\n').map_or((text, ""), |line| (line, "\n"));
        let mut shown = String::with_capacity(text.len());
        let mut rest = line;
        while let Some(at) = rest.find(MARK) {
            shown += &sluice_policy::text::harmless(&rest[..at]);
            rest = &rest[at..];
            match marked(rest) {
                Some((look, after)) => {
                    shown += &look;
                    rest = after;
                }
                None => {
                    let (mark, after) = rest.split_at(MARK.len_utf8());
                    shown += &sluice_policy::text::harmless(mark);
                    rest = after;
                }
            }
        }
        shown += &sluice_policy::text::harmless(rest);
        shown += end;
        self.0.write_all(shown.as_bytes())
    }
}

impl<W: Write> Write for Page<W> {
    /// Whatever is written other than by `write!`: text without a line break.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines(&String::from_utf8_lossy(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    fn write_fmt(&mut self, text: Arguments<'_>) -> io::Result<()> {
        self.lines(&text.to_string())
    }
}

/// JSON in which nothing acts on a terminal either: serde_json leaves DEL, the C1 controls and the marks that turn text
/// around as they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Harmless;

impl serde_json::ser::Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut from = 0;
        for (at, letter) in fragment.char_indices().filter(|(_, letter)| !sluice_policy::text::is_harmless(*letter)) {
            out.write_all(&fragment.as_bytes()[from..at])?;
            for unit in letter.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            from = at + letter.len_utf8();
        }
        out.write_all(&fragment.as_bytes()[from..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;

    fn written(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut page = Page::new(Vec::new());
        write(&mut page).unwrap();
        String::from_utf8(page.0).unwrap()
    }

    #[test]
    fn styles_act_and_foreign_text_does_not() {
        let name = "a\u{1b}[31m\nb\u{9b}\u{202e}";
        let shown = written(|out| writeln!(out, "{GOOD}good{GOOD:#}: {name}"));
        assert_eq!(shown, "\u{1b}[32mgood\u{1b}[0m: a\\u{1b}[31m\\nb\\u{9b}\\u{202e}\n");
    }

    #[test]
    fn nobody_else_makes_a_mark() {
        for text in ["\u{fdd0}", "\u{fdd0}0000000000000000b0", "\u{fdd0}é"] {
            let shown = written(|out| write!(out, "{text}"));
            assert_eq!(shown, text.replace('\u{fdd0}', "\\u{fdd0}"));
        }
    }

    #[test]
    fn json_says_the_same_and_acts_on_nothing() {
        let text = "é\u{1b}\u{7f}\u{9b}\u{202e}\u{e0041}";
        let mut json = Vec::new();
        text.serialize(&mut serde_json::Serializer::with_formatter(&mut json, Harmless)).unwrap();
        let json = String::from_utf8(json).unwrap();
        assert_eq!(json, r#""é\u001b\u007f\u009b\u202e\udb40\udc41""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}

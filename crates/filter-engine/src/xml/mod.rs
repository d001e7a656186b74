//! The XML forms of `netsh wfp show netevents`, `show filters` and `show state`.
//!
//! As files written by those commands show: UTF-8 with a byte order mark, a standalone declaration, one element per
//! line, tabs; an array is an element with `numItems` and children named `item`, an empty one is a self-closed element
//! without the attribute, and so is a null pointer, an empty blob or an empty string. GUIDs with a symbolic name are
//! printed by that name, others in braces; the bits of a flag set without a name are printed together as eight
//! hexadecimal digits.

mod events;
mod flags;
mod policy;
mod state;
mod value;

pub use events::net_events;
pub use flags::{FlagsOf, flag_names};
pub use policy::{action_name, filters};
pub use state::state;
pub use value::{data_type_name, match_type_name};

use crate::netevent::FileTime;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use std::fmt::Display;
use std::io::{self, Write};

/// Writes elements.
struct Xml<W: Write>(Writer<W>);

impl<W: Write> Xml<W> {
    /// Starts a document.
    fn new(mut out: W) -> io::Result<Self> {
        out.write_all(b"\xEF\xBB\xBF")?;
        let mut writer = Writer::new_with_indent(out, b'\t', 1);
        writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), Some("yes"))))?;
        Ok(Self(writer))
    }

    /// Ends the document.
    fn finish(self) -> io::Result<()> {
        let mut out = self.0.into_inner();
        out.write_all(b"\n")?;
        out.flush()
    }

    /// An element with children.
    fn element(&mut self, name: &str, children: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        self.0.write_event(Event::Start(BytesStart::new(name)))?;
        children(self)?;
        self.0.write_event(Event::End(BytesEnd::new(name)))
    }

    /// An element with text; an empty text makes a self-closed one.
    fn text(&mut self, name: &str, value: impl Display) -> io::Result<()> {
        // A character that XML cannot carry becomes a dot, as netsh prints what is not printable.
        let text: String = value.to_string().chars().map(|c| if is_xml(c) { c } else { '.' }).collect();
        if text.is_empty() {
            return self.empty(name);
        }
        self.0.write_event(Event::Start(BytesStart::new(name)))?;
        self.0.write_event(Event::Text(BytesText::new(&text)))?;
        self.0.write_event(Event::End(BytesEnd::new(name)))
    }

    fn empty(&mut self, name: &str) -> io::Result<()> {
        self.0.write_event(Event::Empty(BytesStart::new(name)))
    }

    /// An array with its count.
    fn items<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T) -> io::Result<()>,
    ) -> io::Result<()> {
        let items: Vec<T> = items.into_iter().collect();
        if items.is_empty() {
            return self.empty(name);
        }
        let mut start = BytesStart::new(name);
        start.push_attribute(("numItems", items.len().to_string().as_str()));
        self.0.write_event(Event::Start(start))?;
        for item in items {
            each(self, item)?;
        }
        self.0.write_event(Event::End(BytesEnd::new(name)))
    }

    /// A set of flags.
    fn flags(&mut self, name: &str, set: u32, names: &[(u32, &str)]) -> io::Result<()> {
        self.items(name, flags::spell(set, names), |xml, flag| xml.text("item", flag))
    }

    /// A blob: its bytes, and their text.
    fn blob(&mut self, name: &str, bytes: &[u8], as_string: impl FnOnce(&[u8]) -> String) -> io::Result<()> {
        if bytes.is_empty() {
            return self.empty(name);
        }
        self.element(name, |xml| {
            xml.text("data", value::hex(bytes))?;
            xml.text("asString", as_string(bytes))
        })
    }

    fn display(&mut self, name: &str, description: &str) -> io::Result<()> {
        self.element("displayData", |xml| {
            xml.text("name", name)?;
            xml.text("description", description)
        })
    }
}

/// `Char` of XML 1.0.
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`.
#[must_use]
pub fn time(time: FileTime) -> String {
    const DAY: u64 = 24 * 60 * 60;
    // Days since 0000-03-01 of the proleptic Gregorian calendar: a year then ends with its leap day.
    const TO_1601: u64 = 584_694;
    let seconds = time.0 / 10_000_000;
    let (days, second) = (seconds / DAY + TO_1601, seconds % DAY);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, turn) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        era * 400 + year + turn,
        second / 3600,
        second / 60 % 60,
        second % 60,
        time.0 / 10_000 % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn times_are_written_as_windows_writes_them() {
        assert_eq!(time(FileTime(0)), "1601-01-01T00:00:00.000Z", "an unset time");
        for (unix, millis, text) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, 999, "2000-02-28T23:59:59.999Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000Z"),
            (4_107_542_400, 5, "2100-03-01T00:00:00.005Z"),
            (1_704_067_199, 1, "2023-12-31T23:59:59.001Z"),
        ] {
            let at = UNIX_EPOCH + Duration::from_secs(unix) + Duration::from_millis(millis);
            assert_eq!(time(FileTime::from(at)), text);
        }
    }

    #[test]
    fn what_xml_cannot_carry_becomes_a_dot() {
        let mut out = Vec::new();
        let mut xml = Xml::new(&mut out).expect("memory");
        xml.text("a", "x\u{1}<&>\u{FFFF}").expect("memory");
        xml.empty("b").expect("memory");
        xml.finish().expect("memory");
        let text = String::from_utf8(out).expect("UTF-8");
        let head = "\u{FEFF}<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n";
        assert_eq!(text, format!("{head}<a>x.&lt;&amp;&gt;.</a>\n<b/>\n"));
    }
}

//! Tables and paragraphs that fit the terminal.

use crate::page::Style;
use sluice_policy::text::harmless;
use std::io::{self, Write};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The width to fit, if any: COLUMNS, or that of the terminal; a pipe has none.
pub(super) fn width() -> Option<usize> {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns >= 40);
    asked.or_else(|| terminal_size::terminal_size().map(|(width, _)| usize::from(width.0).max(40)))
}

/// A column of a table.
#[derive(Clone, Copy)]
pub(super) struct Column {
    name: &'static str,
    right: bool,
    /// May be shortened, to this many letters at least; 0: never.
    least: usize,
}

impl Column {
    /// Its text is never shortened.
    pub(super) const fn fixed(name: &'static str) -> Self {
        Self { name, right: false, least: 0 }
    }

    /// A number.
    pub(super) const fn number(name: &'static str) -> Self {
        Self { name, right: true, least: 0 }
    }

    /// Its text is shortened where the terminal is narrow.
    pub(super) const fn text(name: &'static str, least: usize) -> Self {
        Self { name, right: false, least }
    }
}

/// A cell: its text, and its style.
pub(super) struct Cell(String, Option<Style>);

impl<T: std::fmt::Display> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(harmless(&text.to_string()).into_owned(), None)
    }
}

impl Cell {
    pub(super) fn styled(self, style: Style) -> Self {
        Self(self.0, Some(style))
    }
}

/// A table. Its columns are as wide as their widest cell, or narrower where the terminal is.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    indent: usize,
}

/// Between columns.
const GAP: usize = 2;

impl Table {
    pub(super) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), indent: 0 }
    }

    /// Without a line of names, and indented.
    pub(super) fn indented(columns: &[Column], indent: usize) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), indent }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Writes the rows; with `named`, the columns' names above them.
    pub(super) fn write(&self, out: &mut dyn Write, named: bool) -> io::Result<()> {
        let widths = self.widths(width(), named);
        if named {
            let names = self.columns.iter().map(|column| Cell(column.name.to_owned(), Some(crate::page::LABEL)));
            self.line(out, &widths, &names.collect::<Vec<_>>())?;
        }
        self.rows.iter().try_for_each(|row| self.line(out, &widths, row))
    }

    fn widths(&self, limit: Option<usize>, named: bool) -> Vec<usize> {
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.0.width());
                cells.max().unwrap_or(0).max(if named { column.name.width() } else { 0 })
            })
            .collect();
        let Some(limit) = limit else { return widths };
        // The widest of those that may be shortened gives way, letter by letter.
        while self.indent + widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1) > limit {
            let widest = widths
                .iter()
                .zip(&self.columns)
                .enumerate()
                .filter(|(_, (width, column))| column.least > 0 && **width > column.least)
                .max_by_key(|(_, (width, _))| **width);
            let Some((widest, _)) = widest else { break };
            widths[widest] -= 1;
        }
        widths
    }

    fn line(&self, out: &mut dyn Write, widths: &[usize], cells: &[Cell]) -> io::Result<()> {
        write!(out, "{:indent$}", "", indent = self.indent)?;
        let last = cells.iter().rposition(|cell| !cell.0.is_empty()).unwrap_or(0);
        for (index, ((cell, width), column)) in cells.iter().zip(widths).zip(&self.columns).enumerate() {
            if index > last {
                break;
            }
            let text = shortened(&cell.0, *width);
            let room = width.saturating_sub(text.width());
            if column.right {
                write!(out, "{:room$}", "")?;
            }
            match cell.1 {
                Some(style) => write!(out, "{style}{text}{style:#}")?,
                None => write!(out, "{text}")?,
            }
            if index < last {
                let after = if column.right { GAP } else { room + GAP };
                write!(out, "{:after$}", "")?;
            }
        }
        writeln!(out)
    }
}

/// A text of at most `width` columns; one that is cut ends with an ellipsis.
fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 1;
    for letter in text.chars() {
        used += letter.width().unwrap_or(0);
        if used > width {
            break;
        }
        short.push(letter);
    }
    short.push('…');
    short
}

/// Writes a paragraph whose lines after the first are indented by `indent`. It begins with `lead` and then the label,
/// with its style.
pub(crate) fn paragraph(
    out: &mut dyn Write,
    lead: &str,
    (label, style): (&str, Option<Style>),
    text: &str,
    indent: usize,
) -> io::Result<()> {
    let limit = width().unwrap_or(usize::MAX);
    let lead = harmless(lead);
    let start = lead.width();
    write!(out, "{lead}")?;
    match style {
        Some(style) => write!(out, "{style}{label}{style:#}")?,
        None => write!(out, "{label}")?,
    }
    let mut used = start + label.width();
    let mut space = usize::from(!label.is_empty());
    let text = harmless(text);
    for word in text.split(' ') {
        if used + space + word.width() > limit && used > indent {
            writeln!(out)?;
            write!(out, "{:indent$}{word}", "")?;
            used = indent + word.width();
        } else {
            write!(out, "{:space$}{word}", "")?;
            used += space + word.width();
        }
        space = 1;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(limit: usize) -> Vec<String> {
        let mut table = Table::new(&[Column::number("ID"), Column::text("NAME", 6), Column::text("WHAT", 6)]);
        table.row(["7".into(), "short".into(), "a long text of many letters".into()]);
        table.row(["70123".into(), "a name that is long".into(), "".into()]);
        let widths = table.widths(Some(limit), true);
        let mut out = Vec::new();
        table.rows.iter().for_each(|row| table.line(&mut out, &widths, row).expect("memory"));
        String::from_utf8(out).expect("text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_widest_text_gives_way_and_numbers_stand_right() {
        assert_eq!(lines(80)[0], "    7  short                a long text of many letters");
        let narrow = lines(40);
        assert_eq!(narrow, ["    7  short             a long text of…", "70123  a name that is …"]);
        assert!(narrow.iter().all(|line| line.width() <= 40));
        // Narrower than it can be, it is as narrow as it can be.
        assert_eq!(lines(1)[0], "    7  short   a lon…");
    }

    #[test]
    fn a_paragraph_keeps_its_words_apart() {
        let mut out = Vec::new();
        paragraph(&mut out, "  ", ("then", None), &"word ".repeat(60), 30).expect("memory");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.split_whitespace().filter(|word| *word == "word").count(), 60, "{text}");
        assert!(text.starts_with("  then word word"), "{text}");
    }

    #[test]
    fn wide_letters_count_twice() {
        assert_eq!(shortened("漢字漢字", 5), "漢字…");
        assert_eq!(shortened("漢字", 4), "漢字");
    }
}

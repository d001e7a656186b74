//! Walks TOML tables: every key is taken by name, and leftover keys are reported.

use crate::diagnostic::{Diagnostic, Severity};
use std::{ops::Range, path::Path};
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

/// The file being read and the errors found so far.
pub(super) struct Context<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Context<'_> {
    fn report(
        &mut self,
        severity: Severity,
        item: &At,
        message: String,
        expected: Option<String>,
        help: Option<String>,
    ) {
        let mut diagnostic =
            Diagnostic::new(severity, self.path, self.text, item.span.clone()).message(message).key(&item.key);
        if let Some(expected) = expected {
            diagnostic = diagnostic.expected(expected);
        }
        if let Some(help) = help {
            diagnostic = diagnostic.help(help);
        }
        self.diagnostics.push(diagnostic);
    }

    pub(super) fn error(&mut self, at: &At, message: impl Into<String>) {
        self.report(Severity::Error, at, message.into(), None, None);
    }

    pub(super) fn expected(&mut self, at: &At, message: impl Into<String>, expected: impl Into<String>) {
        self.report(Severity::Error, at, message.into(), Some(expected.into()), None);
    }

    pub(super) fn error_with_help(&mut self, at: &At, message: impl Into<String>, help: impl Into<String>) {
        self.report(Severity::Error, at, message.into(), None, Some(help.into()));
    }

    pub(super) fn warning(&mut self, at: &At, message: impl Into<String>, help: Option<String>) {
        self.report(Severity::Warning, at, message.into(), None, help);
    }
}

/// A place in the file: its bytes and its key.
#[derive(Clone, Debug)]
pub(super) struct At {
    pub(super) span: Range<usize>,
    pub(super) key: String,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Item<'t> {
    pub(super) value: &'t DeValue<'t>,
    pub(super) at: At,
}

/// One word of a value that is a string, a number, or a list of them.
#[derive(Clone, Debug)]
pub(super) struct Word<'t> {
    pub(super) text: &'t str,
    pub(super) at: At,
}

impl<'t> Item<'t> {
    pub(super) fn text(&self, context: &mut Context<'_>) -> Option<&'t str> {
        let text = self.value.as_str();
        if text.is_none() {
            context.expected(&self.at, format!("this is {}", kind(self.value)), "a string");
        }
        text
    }

    pub(super) fn flag(&self, context: &mut Context<'_>) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            context.expected(&self.at, format!("this is {}", kind(self.value)), "true or false");
        }
        flag
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, context: &mut Context<'_>, choices: &[(&str, T)]) -> Option<T> {
        let words = || one_of(choices.iter().map(|(word, _)| *word));
        let Some(text) = self.value.as_str() else {
            context.expected(&self.at, format!("this is {}", kind(self.value)), words());
            return None;
        };
        let found = choices.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let message = match nearest(text, choices.iter().map(|(word, _)| *word)) {
                Some(near) => format!("`{text}` is not understood; did you mean `{near}`?"),
                None => format!("`{text}` is not understood"),
            };
            context.expected(&self.at, message, words());
        }
        found.map(|(_, value)| *value)
    }

    /// The words of a string, a number, or a list of strings and numbers.
    pub(super) fn words(&self, context: &mut Context<'_>, expected: &str) -> Vec<Word<'t>> {
        let mut words = Vec::new();
        match self.value {
            DeValue::Array(array) => {
                if array.is_empty() {
                    context.expected(&self.at, "the list is empty, so the rule could never match", expected);
                }
                for (index, value) in array.iter().enumerate() {
                    let at = At { span: value.span(), key: format!("{}[{index}]", self.at.key) };
                    word(context, value.get_ref(), at, expected, &mut words);
                }
            }
            value => word(context, value, self.at.clone(), expected, &mut words),
        }
        words
    }
}

fn word<'t>(context: &mut Context<'_>, value: &'t DeValue<'t>, at: At, expected: &str, words: &mut Vec<Word<'t>>) {
    let text = match value {
        DeValue::String(text) => text.as_ref(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
        other => return context.expected(&at, format!("this is {}", kind(other)), expected),
    };
    words.push(Word { text: text.trim(), at });
}

/// A table whose keys are taken one by one.
pub(super) struct Reader<'t> {
    table: &'t DeTable<'t>,
    pub(super) at: At,
    known: Vec<&'static str>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(table: &'t DeTable<'t>, span: Range<usize>, key: impl Into<String>) -> Self {
        Self { table, at: At { span, key: key.into() }, known: Vec::new() }
    }

    /// Reads a value as a table.
    pub(super) fn of(context: &mut Context<'_>, value: &'t Spanned<DeValue<'t>>, key: String) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Self::new(table, value.span(), key)),
            other => {
                context.expected(&At { span: value.span(), key }, format!("this is {}", kind(other)), "a table");
                None
            }
        }
    }

    /// The value of `key`, if present.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Item<'t>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        Some(Item { value: value.get_ref(), at: At { span: value.span(), key: self.join(key) } })
    }

    /// The tables of `[[key]]`.
    pub(super) fn tables(&mut self, context: &mut Context<'_>, key: &'static str) -> Vec<Reader<'t>> {
        let Some(item) = self.take(key) else { return Vec::new() };
        let Some(array): Option<&'t DeArray<'t>> = item.value.as_array() else {
            let message = format!("this is {}", kind(item.value));
            context.expected(&item.at, message, format!("tables, each beginning with [[{}]]", self.join(key)));
            return Vec::new();
        };
        let base = self.join(key);
        array
            .iter()
            .enumerate()
            .filter_map(|(index, value)| Reader::of(context, value, format!("{base}[{index}]")))
            .collect()
    }

    /// The tables of `[key.NAME]`, in name order.
    pub(super) fn named(&mut self, context: &mut Context<'_>, key: &'static str) -> Vec<(&'t str, Reader<'t>)> {
        self.known.push(key);
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let Some(outer) = Reader::of(context, value, self.join(key)) else { return Vec::new() };
        let mut named = Vec::new();
        for (name, value) in outer.table.iter() {
            if let Some(reader) = Reader::of(context, value, format!("{}.{}", outer.at.key, name.get_ref())) {
                named.push((name.get_ref().as_ref(), reader));
            }
        }
        named
    }

    /// Reports the keys that were not taken.
    pub(super) fn finish(self, context: &mut Context<'_>) {
        for (name, _) in self.table.iter() {
            let text = name.get_ref().as_ref();
            if self.known.contains(&text) {
                continue;
            }
            let at = At { span: name.span(), key: self.join(text) };
            let message = match nearest(text, self.known.iter().copied()) {
                Some(near) => format!("unknown key `{text}`; did you mean `{near}`?"),
                None => format!("unknown key `{text}`"),
            };
            context.expected(&at, message, one_of(self.known.iter().copied()));
        }
    }

    fn join(&self, key: &str) -> String {
        if self.at.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at.key) }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `a`, `b` or `c`.
pub(super) fn one_of<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<_> = words.map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// The word that differs least, if it is close enough to be what was meant.
pub(super) fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    words
        .map(|word| (distance(&text.replace('_', "-"), word), word))
        .min()
        .filter(|(distance, word)| *distance <= 1 + word.len() / 4)
        .map(|(_, word)| word)
}

/// Insertions, deletions and replacements from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

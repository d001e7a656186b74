//! What is wrong with a policy file or a list, and where.

use crate::text::harmless;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;
use std::{fmt, ops::Range, path::PathBuf};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy can be compiled, but probably does not do what its author intended.
    Warning,
    /// The policy cannot be compiled.
    Error,
}

/// One finding. It carries its line, so that it can be shown when the file is no longer available.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// The file.
    pub file: PathBuf,
    /// 1-based line.
    pub line: usize,
    /// 1-based column, in characters.
    pub column: usize,
    /// The key at fault, as in `rule[3].remote-port`; empty in list files.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// What would be accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    #[serde(skip)]
    excerpt: String,
    #[serde(skip)]
    marked: Range<usize>,
}

/// The longest excerpt kept of a line: lists can have lines of any length.
const EXCERPT: usize = 240;
/// The same for a file that is probably not a list.
const SHORT: usize = 12;

impl Diagnostic {
    /// A finding about the bytes `span` of `text`.
    pub(crate) fn new(severity: Severity, file: &std::path::Path, text: &str, span: Range<usize>) -> Self {
        let floor = |mut at: usize| {
            at = at.min(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let (start, end) = (floor(span.start), floor(span.end.max(span.start)));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let excerpt_start = floor(line_start.max(start.saturating_sub(EXCERPT / 2)));
        let excerpt_end = floor(line_end.min(excerpt_start + EXCERPT));
        Self {
            severity,
            message: String::new(),
            file: file.to_owned(),
            line: text[..line_start].bytes().filter(|&byte| byte == b'\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            key: String::new(),
            expected: None,
            help: None,
            excerpt: text[excerpt_start..excerpt_end].trim_end_matches('\r').to_owned(),
            marked: start - excerpt_start..end.clamp(start, excerpt_end.max(start)) - excerpt_start,
        }
    }

    /// The same with only a short excerpt of its line, which may be from a file not meant to be shown.
    pub(crate) fn shortened(mut self) -> Self {
        let end = self.excerpt.char_indices().nth(SHORT).map_or(self.excerpt.len(), |(at, _)| at);
        if end < self.excerpt.len() {
            self.excerpt.truncate(end);
            self.excerpt.push_str("...");
        }
        self.marked = self.marked.start.min(end)..self.marked.end.min(end);
        self
    }

    pub(crate) fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    pub(crate) fn key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    pub(crate) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The excerpt before what is marked, that, and the rest.
    fn excerpt_parts(&self) -> [&str; 3] {
        let length = self.excerpt.len();
        let (before, rest) = self.excerpt.split_at(self.marked.start.min(length));
        let (marked, after) = rest.split_at(self.marked.end.min(length).saturating_sub(before.len()));
        [before, marked, after]
    }

    /// The finding with its line, marked, as for a terminal.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let path = harmless(&self.file.display().to_string()).into_owned();
        // A tab is a tab; whatever else would act on the terminal is escaped, and the mark moves with it.
        let [before, marked, after] =
            self.excerpt_parts().map(|part| part.split('\t').map(harmless).collect::<Vec<_>>());
        let [before, marked, after] = [before, marked, after].map(|part| part.join("\t"));
        let mut annotation = AnnotationKind::Primary.span(before.len()..before.len() + marked.len());
        let excerpt = before + &marked + &after;
        let label = self.expected.as_ref().map(|expected| format!("expected {}", harmless(expected)));
        annotation = annotation.label(label);
        let mut group = level
            .primary_title(harmless(&self.message))
            .element(Snippet::source(&excerpt).line_start(self.line).path(path).fold(false).annotation(annotation));
        if !self.key.is_empty() {
            group = group.element(Level::NOTE.message(format!("key: {}", harmless(&self.key))));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(harmless(help)));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group]).to_string()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:{}:{}: {severity}: ", self.file.display(), self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Some(expected) = &self.expected {
            write!(f, " (expected {expected})")?;
        }
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}

/// Everything found wrong with a policy, in file order; at least one is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Errors {
    /// The findings, warnings among them.
    pub diagnostics: Vec<Diagnostic>,
}

impl Errors {
    /// All findings as for a terminal.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        render(&self.diagnostics, colour)
    }
}

/// Findings that a person is shown: one mistake in a list of thousands is made thousands of times.
const SHOWN: usize = 50;

/// Findings as for a terminal, a blank line between, the first [`SHOWN`] of them.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], colour: bool) -> String {
    let shown = diagnostics.iter().take(SHOWN).map(|diagnostic| diagnostic.render(colour) + "\n");
    let rest = diagnostics.len().saturating_sub(SHOWN);
    let rest = (rest > 0).then(|| format!("{rest} more are not shown; --json has them all\n"));
    shown.chain(rest).collect::<Vec<_>>().join("\n")
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

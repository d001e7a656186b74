//! Rules about the shape of files and commits.

use std::fmt;

/// Longest source file. A longer one does two jobs.
const MAX_LINES: usize = 600;
/// Longest first line of a commit message, in characters.
const MAX_SUBJECT: usize = 72;

/// Words that must not be committed: marks of unfinished work.
const FORBIDDEN: [&str; 3] = [concat!("FIX", "ME"), concat!("XX", "X:"), concat!("TO", "DO:")];

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    LongFile { file: String, lines: usize },
    ForbiddenWord { file: String, line: usize, word: &'static str },
    LongSubject { subject: String, length: usize },
    SubjectForm { subject: String },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LongFile { file, lines } => {
                write!(f, "{file}: {lines} lines, at most {MAX_LINES}: split it by its jobs")
            }
            Self::ForbiddenWord { file, line, word } => {
                write!(f, "{file}:{line}: {word} (document what is missing, or do it)")
            }
            Self::LongSubject { subject, length } => {
                write!(f, "commit {subject:?}: {length} characters, at most {MAX_SUBJECT}")
            }
            Self::SubjectForm { subject } => {
                write!(f, "commit {subject:?}: expected `area: verb ...` in lower case")
            }
        }
    }
}

/// Rules about files.
pub(super) fn broken_by_file(file: &str, text: &str) -> Vec<Broken> {
    let mut broken = Vec::new();
    let lines = text.lines().count();
    if file.ends_with(".rs") && lines > MAX_LINES {
        broken.push(Broken::LongFile { file: file.to_owned(), lines });
    }
    for (number, line) in text.lines().enumerate() {
        if let Some(word) = FORBIDDEN.into_iter().find(|word| line.contains(word)) {
            broken.push(Broken::ForbiddenWord { file: file.to_owned(), line: number + 1, word });
        }
    }
    broken
}

/// Rules about the first line of a commit message.
pub(super) fn broken_by_subject(subject: &str) -> Vec<Broken> {
    let mut broken = Vec::new();
    let length = subject.chars().count();
    if length > MAX_SUBJECT {
        broken.push(Broken::LongSubject { subject: subject.to_owned(), length });
    }
    let in_form = subject.split_once(": ").is_some_and(|(area, rest)| {
        let area_in_form =
            !area.is_empty() && area.chars().all(|c| c.is_ascii_lowercase() || "0123456789 ,./_-".contains(c));
        area_in_form && rest.starts_with(|c: char| c.is_ascii_lowercase()) && !rest.ends_with('.')
    });
    if !in_form {
        broken.push(Broken::SubjectForm { subject: subject.to_owned() });
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_counts_for_sources_only() {
        let text = "x\n".repeat(MAX_LINES + 1);
        assert_eq!(broken_by_file("a.rs", &text), [Broken::LongFile { file: "a.rs".into(), lines: MAX_LINES + 1 }]);
        assert_eq!(broken_by_file("a.h", &text), []);
        assert_eq!(broken_by_file("a.rs", &"x\n".repeat(MAX_LINES)), []);
    }

    #[test]
    fn a_forbidden_word_is_found_with_its_line() {
        let broken = broken_by_file("doc.md", &format!("fine\nnot fine: {}\n", FORBIDDEN[0]));
        assert_eq!(broken, [Broken::ForbiddenWord { file: "doc.md".into(), line: 2, word: FORBIDDEN[0] }]);
    }

    #[test]
    fn subjects_have_an_area_and_a_lower_case_verb() {
        for good in ["driver: build it on Linux", "wfp-sys, kmdf-entry: check layout", "ntsim/wdf: complete requests"] {
            assert_eq!(broken_by_subject(good), [], "{good}");
        }
        for bad in
            ["Build it", "driver: Build it", "Driver: build it", "driver: build it.", "driver:build it", ": build"]
        {
            assert_eq!(broken_by_subject(bad), [Broken::SubjectForm { subject: bad.into() }]);
        }
        let long = format!("area: {}", "a".repeat(67));
        assert_eq!(broken_by_subject(&long), [Broken::LongSubject { subject: long.clone(), length: 73 }]);
    }
}

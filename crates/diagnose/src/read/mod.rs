//! Reads the XML files of `netsh wfp`, element by element: a file of hundreds of megabytes takes the memory of its
//! largest element.
//!
//! A file is UTF-8 or UTF-16, with a byte order mark or without. The elements known here are read, all others are
//! skipped, so that the files of any version of Windows can be read; what is expected of a known element and is missing
//! or malformed is an error that names the line. Nothing is guessed.

mod cabinet;
mod convert;
mod document;
mod event;
mod log;
mod meter;
mod text;
mod tree;

pub use cabinet::{Cabinet, CabinetError, is_cabinet};
pub use document::{Item, read};
pub use event::audit_name;
pub use log::{is_log, read_log};

use std::fmt;

/// The most source text of one element that is kept: a filter with all its conditions, an event.
pub const MOST_OF_ELEMENT: u64 = 32 << 20;

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ReadError {
    /// The line, from 1; 0 when no line is at fault.
    pub line: u64,
    /// What is there and what was expected.
    pub what: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.what),
            line => write!(f, "line {line}: {}", self.what),
        }
    }
}

impl ReadError {
    fn at(line: u64, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

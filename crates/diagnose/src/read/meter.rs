//! Counts lines, and bounds how much of the text one element can take.

use super::MOST_OF_ELEMENT;
use std::io::{self, BufRead, ErrorKind, Read};

/// A reader that knows its line.
pub(super) struct Meter<R> {
    input: R,
    line: u64,
    /// How much was read since the bound was set.
    since: u64,
}

impl<R> Meter<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, line: 1, since: 0 }
    }

    /// The line of what comes next.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Counts from here.
    pub(super) fn start_element(&mut self) {
        self.since = 0;
    }
}

impl<R: BufRead> Read for Meter<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(out.len());
        out[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Meter<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.since > MOST_OF_ELEMENT {
            let what = format!("an element of more than {} MiB", MOST_OF_ELEMENT >> 20);
            return Err(io::Error::new(ErrorKind::FileTooLarge, what));
        }
        let available = self.input.fill_buf()?;
        // A small piece at a time: where the element ends, nothing behind it has been counted.
        Ok(&available[..available.len().min(4096)])
    }

    fn consume(&mut self, count: usize) {
        if let Ok(available) = self.input.fill_buf() {
            let taken = &available[..count.min(available.len())];
            self.line += taken.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        self.since += count as u64;
        self.input.consume(count);
    }
}

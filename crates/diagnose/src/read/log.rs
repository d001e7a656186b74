//! The Security log as Windows keeps it: .evtx.

use super::document::{Item, read};
use super::{MOST_OF_ELEMENT, ReadError};
use std::io::{Read, Seek};
use std::ops::ControlFlow;

/// The first bytes of a log.
const SIGNATURE: &[u8] = b"ElfFile\0";

/// Whether a file begins as a log does.
#[must_use]
pub fn is_log(start: &[u8]) -> bool {
    start.starts_with(SIGNATURE)
}

/// Reads the audits of drops in a log, in its order. Returns how many records could not be read: a log that was copied
/// while Windows wrote it has some at its end.
///
/// # Errors
/// [`ReadError`]: the file is no log, or no record of it can be read.
pub fn read_log(input: impl Read + Seek, each: &mut dyn FnMut(Item) -> ControlFlow<()>) -> Result<u64, ReadError> {
    let broken = |what: String| ReadError { line: 0, what: format!("not an event log that can be read: {what}") };
    let mut parser = evtx::EvtxParser::from_read_seek(input).map_err(|error| broken(one_line(&error)))?;
    let (mut good, mut bad, mut first) = (0_u64, 0, None);
    let mut ended = false;
    for record in parser.records() {
        let record = record.map_err(|error| one_line(&error)).and_then(|record| {
            if record.data.len() as u64 > MOST_OF_ELEMENT {
                return Err(format!("record {} is longer than {} MiB", record.event_record_id, MOST_OF_ELEMENT >> 20));
            }
            let mut pass = |item| {
                ended = each(item).is_break();
                if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            read(record.data.as_bytes(), &mut pass)
                .map_err(|error| format!("record {}: {}", record.event_record_id, error.what))
        });
        match record {
            Ok(()) => good += 1,
            Err(what) => {
                bad += 1;
                first.get_or_insert(what);
            }
        }
        if ended {
            break;
        }
    }
    match first {
        Some(what) if good == 0 => Err(broken(what)),
        _ => Ok(bad),
    }
}

/// An error with its causes, on one line.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_said = next.to_string();
        if !said.contains(&next_said) {
            said = said + ": " + &next_said;
        }
        cause = next.source();
    }
    let line: Vec<&str> = said.split_whitespace().collect();
    let line: String = line.join(" ").chars().take(200).collect();
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn what_is_no_log_is_refused_on_one_line() {
        let mut header = vec![0; 4096];
        header[..8].copy_from_slice(SIGNATURE);
        for bytes in [&b"ElfFile\0"[..], b"", &[0xFF; 9000]] {
            let error = read_log(Cursor::new(bytes), &mut |_| ControlFlow::Continue(())).expect_err("no log");
            assert!(error.what.starts_with("not an event log") && !error.what.contains('\n'), "{error}");
        }
        assert!(is_log(&header) && !is_log(b"ElfFilf"));
    }
}

//! A file of lines that grows to a size and then makes room for the next.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long after a failure the next try may come.
const RETRY: Duration = Duration::from_secs(1);
/// How much of the end is searched for the last lines.
const TAIL: u64 = 64 << 10;

/// Lines in a file of bounded size, with a number of older files beside it: `name.jsonl`, `name.1.jsonl`, which is the one
/// before, and so on. A line is in one file, whole.
///
/// What cannot be written is counted and does not disturb the caller; once lines can be written again, the first of them
/// is one that says how many are missing.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    most: u64,
    older: u32,
    open: Option<(File, u64)>,
    missing: u64,
    failed: Option<Instant>,
}

/// What became of a line.
#[derive(Debug)]
pub enum Written {
    /// It is in the file.
    Yes,
    /// It is, behind a line that says that so many are missing.
    Again(u64),
    /// It is not, and neither is what comes now: why not. Said once.
    Not(io::Error),
    /// It is not, for the reason given before.
    Still,
}

impl Lines {
    /// Lines at `path`, of at most `most` bytes a file, with `older` files before it. Nothing is opened yet.
    #[must_use]
    pub fn new(path: &Path, most: u64, older: u32) -> Self {
        Self { path: path.to_owned(), most, older, open: None, missing: 0, failed: None }
    }

    /// Where the newest lines are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many lines are missing since the last that was written.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Adds a line, which has no line break. `gap` makes the line that tells of missing ones.
    pub fn add(&mut self, line: &str, gap: impl FnOnce(u64) -> String) -> Written {
        let now = Instant::now();
        if self.failed.is_some_and(|at| now.duration_since(at) < RETRY) {
            self.missing += 1;
            return Written::Still;
        }
        let missing = self.missing;
        let told = if missing > 0 { format!("{}\n", gap(missing)) } else { String::new() };
        match self.write(format!("{told}{line}\n").as_bytes()) {
            Ok(()) => {
                (self.missing, self.failed) = (0, None);
                if missing > 0 { Written::Again(missing) } else { Written::Yes }
            }
            Err(error) => {
                self.missing += 1;
                self.open = None;
                if self.failed.replace(now).is_some() { Written::Still } else { Written::Not(error) }
            }
        }
    }

    /// The last lines that are in the file, the newest first; none if there is no file that can be read.
    #[must_use]
    pub fn last(&self) -> Vec<String> {
        let read = || {
            let mut file = crate::open(&self.path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            let mut bytes = Vec::new();
            file.take(TAIL).read_to_end(&mut bytes)?;
            io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().map_or_else(|_| Vec::new(), |text| text.lines().rev().map(str::to_owned).collect())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (mut file, mut length) = match self.open.take() {
            Some(open) => open,
            None => self.opened()?,
        };
        if length > 0 && length.saturating_add(bytes.len() as u64) > self.most {
            drop(file);
            self.turn()?;
            (file, length) = self.opened()?;
        }
        if let Err(error) = file.write_all(bytes) {
            // A part of a line is of no use, and the next one must not follow it.
            let _ = file.set_len(length);
            return Err(error);
        }
        self.open = Some((file, length + bytes.len() as u64));
        Ok(())
    }

    /// The file, at its end, behind a whole line.
    fn opened(&self) -> io::Result<(File, u64)> {
        if let Ok(found) = fs::metadata(&self.path)
            && !found.is_file()
        {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        {
            // Who talks with whom is nobody else's business.
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let mut file = options.open(&self.path)?;
        let mut length = file.metadata()?.len();
        if length > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(length - 1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                length += 1;
            }
        }
        Ok((file, length))
    }

    /// Gives every file the name of the one before it; the oldest goes.
    fn turn(&self) -> io::Result<()> {
        for number in (0..self.older).rev() {
            let (from, to) = (self.named(number), self.named(number + 1));
            match fs::rename(&from, &to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The file's name with a number before its extension; 0 is the newest.
    fn named(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let name = match self.path.extension() {
            Some(extension) => format!("{stem}.{number}.{}", extension.to_string_lossy()),
            None => format!("{stem}.{number}"),
        };
        self.path.with_file_name(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(count: u64) -> String {
        format!("{count} missing")
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn files_are_bounded_in_size_and_number_and_lines_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let mut lines = Lines::new(&path, 20, 2);
        for number in 0..10 {
            assert!(matches!(lines.add(&format!("line {number}"), gap), Written::Yes));
        }
        // Seven bytes each: two fit.
        assert_eq!(text(&path), "line 8\nline 9\n");
        assert_eq!(text(&folder.path().join("decisions.1.jsonl")), "line 6\nline 7\n");
        assert_eq!(text(&folder.path().join("decisions.2.jsonl")), "line 4\nline 5\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        assert_eq!(lines.last(), ["line 9", "line 8"]);
        // One that is longer than a file has one for itself.
        lines.add(&"x".repeat(50), gap);
        assert_eq!(text(&path).len(), 51);
        let mut none = Lines::new(&path, 20, 0);
        none.add("alone", gap);
        assert_eq!(text(&path), "alone\n");
    }

    #[test]
    fn what_an_interruption_left_is_no_part_of_the_next_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "whole\nhal").unwrap();
        Lines::new(&path, 1000, 1).add("next", gap);
        assert_eq!(text(&path), "whole\nhal\nnext\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted_said_once_and_told_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/decisions.jsonl");
        let mut lines = Lines::new(&path, 1000, 1);
        assert!(matches!(lines.add("one", gap), Written::Not(_)));
        assert!(matches!(lines.add("two", gap), Written::Still));
        lines.failed = Some(Instant::now() - RETRY);
        assert!(matches!(lines.add("three", gap), Written::Still), "the same trouble is not said again");
        assert_eq!(lines.missing(), 3);
        fs::create_dir(folder.path().join("none")).unwrap();
        lines.failed = Some(Instant::now() - RETRY);
        assert!(matches!(lines.add("four", gap), Written::Again(3)));
        assert_eq!(text(&path), "3 missing\nfour\n");
        // A folder in its place is no file.
        let mut lines = Lines::new(folder.path(), 1000, 1);
        assert!(matches!(lines.add("one", gap), Written::Not(_)));
    }

    /// `/dev/full` takes nothing, as a disk that is full.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_is_refused() {
        let mut lines = Lines::new(Path::new("/dev/full"), 1000, 1);
        assert!(matches!(lines.add("one", gap), Written::Not(_)));
    }
}

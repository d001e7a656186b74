//! Reading.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

/// What stands for standard input on a command line.
pub const STDIN: &str = "-";

/// Opens a regular file, and links to one, for reading. Never waits for another program.
///
/// # Errors
/// The file cannot be opened, or is a directory, a pipe, a socket or a device: [`ErrorKind::InvalidInput`], and the
/// message says which.
pub fn open(path: &Path) -> io::Result<File> {
    let file = platform::open(path)?;
    match platform::not_regular(&file)? {
        None => Ok(file),
        Some(what) => Err(io::Error::new(ErrorKind::InvalidInput, format!("it is {what}, not a regular file"))),
    }
}

/// The content of a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open`]; the file is longer: [`ErrorKind::FileTooLarge`]; reading fails.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    if length > limit {
        return Err(too_large(limit));
    }
    // A file of /proc says 0 and has more.
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    bounded(file, limit, &mut bytes)?;
    Ok(bytes)
}

/// As [`read`](fn@read), where [`STDIN`] stands for standard input, which may be anything.
///
/// # Errors
/// As [`read`](fn@read).
pub fn read_or_stdin(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    if path.as_os_str() != STDIN {
        return read(path, limit);
    }
    let mut bytes = Vec::new();
    bounded(io::stdin().lock(), limit, &mut bytes)?;
    Ok(bytes)
}

/// Reads to the end, which comes after `limit` bytes at the latest.
fn bounded(input: impl Read, limit: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    input.take(limit.saturating_add(1)).read_to_end(bytes)?;
    if bytes.len() as u64 > limit { Err(too_large(limit)) } else { Ok(()) }
}

fn too_large(limit: u64) -> io::Error {
    let limit = match limit {
        0..1024 => format!("{limit} bytes"),
        1024..1_048_576 => format!("{} KiB", limit / 1024),
        _ => format!("{} MiB", limit / 1_048_576),
    };
    io::Error::new(ErrorKind::FileTooLarge, format!("it is longer than the {limit} that are read"))
}

#[cfg(unix)]
mod platform {
    use std::{
        fs::{File, OpenOptions},
        io,
        os::unix::fs::{FileTypeExt, OpenOptionsExt},
        path::Path,
    };

    /// Without O_NONBLOCK the open of a pipe waits for a writer.
    pub(super) fn open(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
    }

    pub(super) fn not_regular(file: &File) -> io::Result<Option<&'static str>> {
        let kind = file.metadata()?.file_type();
        Ok(match () {
            () if kind.is_file() => None,
            () if kind.is_dir() => Some("a directory"),
            () if kind.is_fifo() => Some("a pipe"),
            () if kind.is_socket() => Some("a socket"),
            () => Some("a device"),
        })
    }
}

#[cfg(windows)]
mod platform {
    use std::{
        fs::{File, OpenOptions},
        io,
        os::windows::fs::OpenOptionsExt,
        path::Path,
    };

    /// FILE_FLAG_BACKUP_SEMANTICS (fileapi.h): without it a directory answers "access denied", which names no cause.
    const BACKUP_SEMANTICS: u32 = 0x0200_0000;

    pub(super) fn open(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(BACKUP_SEMANTICS).open(path)
    }

    pub(super) fn not_regular(file: &File) -> io::Result<Option<&'static str>> {
        let kind = winapi_util::file::typ(file)?;
        Ok(match () {
            () if kind.is_pipe() => Some("a pipe"),
            () if !kind.is_disk() => Some("a device"),
            () if file.metadata()?.is_dir() => Some("a directory"),
            () => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_file_is_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read_or_stdin(&path, 5).unwrap(), b"12345");
        let error = read(&path, 4).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::FileTooLarge, "it is longer than the 4 bytes that are read")
        );
        assert_eq!(read(&folder.path().join("none"), 4).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn what_says_no_length_is_bounded_all_the_same() {
        let mut bytes = Vec::new();
        let error = bounded(io::repeat(0), 3 << 20, &mut bytes).unwrap_err();
        assert_eq!(error.to_string(), "it is longer than the 3 MiB that are read");
        assert_eq!(bytes.len(), (3 << 20) + 1);
    }

    #[test]
    fn a_directory_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(folder.path(), 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "it is a directory, not a regular file");
    }

    #[cfg(unix)]
    #[test]
    fn nothing_waits_for_a_pipe_or_a_device() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for (path, what) in [
            (pipe.as_path(), "a pipe"),
            (&link, "a pipe"),
            (Path::new("/dev/zero"), "a device"),
            (Path::new("/dev/null"), "a device"),
        ] {
            let error = read(path, 4).unwrap_err();
            assert_eq!(error.to_string(), format!("it is {what}, not a regular file"), "{}", path.display());
        }
    }
}

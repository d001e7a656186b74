//! Writing.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

/// What stands for standard output on a command line.
pub const STDOUT: &str = "-";

/// Whether a path means standard output, where a report would mix with the content.
#[must_use]
pub fn is_stdout(path: &Path) -> bool {
    let path = path.as_os_str();
    path == STDOUT || (cfg!(unix) && ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == *name))
}

/// Puts `bytes` where `path` says: into a regular file all of them or none, so that whoever reads it sees the old or
/// the new content; into anything else (standard output, a pipe, a device) as they come. A link stays, and what it
/// leads to is written. A new file is its owner's alone; an old one keeps its permissions.
///
/// # Errors
/// `path` is one of the files that were `read`, in whatever way it is spelled: [`ErrorKind::InvalidInput`]. It is a
/// directory, or a link that leads nowhere. Writing fails. In each case nothing of a regular file has changed.
pub fn replace(path: &Path, bytes: &[u8], read: &[PathBuf]) -> io::Result<()> {
    if is_stdout(path) {
        let mut out = io::stdout().lock();
        return out.write_all(bytes).and_then(|()| out.flush());
    }
    not_over(path, read)?;
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(found) if !found.is_file() || is_stream(path) => OpenOptions::new().write(true).open(path)?.write_all(bytes),
        Ok(found) => by_rename(&fs::canonicalize(path)?, bytes, Some(found.permissions())),
        Err(_) if fs::symlink_metadata(path).is_ok() => {
            Err(io::Error::new(ErrorKind::NotFound, "it is a link that leads nowhere"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound && !is_stream(path) => by_rename(path, bytes, None),
        Err(error) => Err(error),
    }
}

/// Holds an output against the files that are read.
///
/// # Errors
/// `path` is one of them, in whatever way it is spelled: [`ErrorKind::InvalidInput`].
pub fn not_over<P: AsRef<Path>>(path: &Path, read: &[P]) -> io::Result<()> {
    let same = |input: &&P| same_file::is_same_file(path, input).unwrap_or(false);
    match read.iter().find(same) {
        None => Ok(()),
        Some(input) => {
            let what = format!("it is read as {} and would be lost", input.as_ref().display());
            Err(io::Error::new(ErrorKind::InvalidInput, what))
        }
    }
}

/// Whether a path names something of the running system, which is never replaced, whatever it says it is: `/dev/fd/3`
/// is a regular file where the shell opened one. On Windows `NUL` and `CON` are such names; they say of themselves
/// that they are not files.
fn is_stream(path: &Path) -> bool {
    cfg!(unix) && ["/dev", "/proc", "/sys"].iter().any(|root| path.starts_with(root))
}

fn by_rename(path: &Path, bytes: &[u8], permissions: Option<fs::Permissions>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    if let Some(permissions) = permissions {
        file.as_file().set_permissions(permissions)?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        fs::write(&path, "old").unwrap();
        replace(&path, b"new", &[]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let taken = folder.path().join("folder");
        fs::create_dir(&taken).unwrap();
        assert_eq!(replace(&taken, b"new", &[]).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(replace(&folder.path().join("no/such"), b"new", &[]).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing half written is left");
    }

    #[test]
    fn what_was_read_is_never_written() {
        let folder = tempfile::tempdir().unwrap();
        let (input, same) = (folder.path().join("policy.toml"), folder.path().join("same"));
        fs::write(&input, "text").unwrap();
        fs::hard_link(&input, &same).unwrap();
        let around = folder.path().join("../").join(folder.path().file_name().unwrap()).join("policy.toml");
        for path in [&input, &same, &around] {
            let error = replace(path, b"new", std::slice::from_ref(&input)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}", path.display());
        }
        assert_eq!(fs::read(&input).unwrap(), b"text");
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_and_permissions_too() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link, lost) = (folder.path().join("file"), folder.path().join("link"), folder.path().join("lost"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        replace(&link, b"new", &[]).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        symlink(folder.path().join("nowhere"), &lost).unwrap();
        assert_eq!(replace(&lost, b"new", &[]).unwrap_err().to_string(), "it is a link that leads nowhere");
        assert!(!folder.path().join("nowhere").exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_device_stays_a_device_and_a_pipe_a_pipe() {
        use std::{io::Read, os::unix::fs::FileTypeExt};
        replace(Path::new("/dev/null"), b"new", &[]).unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut text = String::new();
                fs::File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            }
        });
        replace(&pipe, b"new", &[]).unwrap();
        assert_eq!(reader.join().unwrap(), "new");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_file_may_be_called_dash_below_a_folder() {
        assert!(is_stdout(Path::new("-")) && !is_stdout(Path::new("./-")));
    }
}

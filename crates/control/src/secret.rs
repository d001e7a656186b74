//! Files that only their owner and administrators read.

use std::io::{self, Write};
use std::path::Path;

/// Writes a new file that nobody else can read: on Unix its owner alone, on Windows its owner, SYSTEM and administrators,
/// whatever its folder would give it.
///
/// # Errors
/// There is a file of that name already ([`io::ErrorKind::AlreadyExists`]), or writing fails: then it is deleted again.
pub fn write_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    #[cfg(windows)]
    let file = crate::windows::new_secret_file(path);
    #[cfg(not(windows))]
    let file = {
        use std::os::unix::fs::OpenOptionsExt;
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    };
    let mut file = file?;
    file.write_all(content).and_then(|()| file.sync_all()).inspect_err(|_| {
        // It has nothing of use.
        let _ = std::fs::remove_file(path);
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_its_owners_alone_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_secret(&path, b"one").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(write_secret(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
        assert_eq!(write_secret(&link, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!folder.path().join("elsewhere").exists());
    }
}

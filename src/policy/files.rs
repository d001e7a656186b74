//! Reads policies, images and exports; holds the assumptions made when a policy is examined away from its machine.

use crate::failure::Failure;
use sluice_control::{ControlError, assumed_app_id};
use sluice_policy::model::Moment;
use sluice_policy::{CompileOptions, Errors, Image};
use std::io::Write;
use std::path::Path;

/// A policy that is not valid.
pub(super) fn invalid(errors: Errors) -> Failure {
    Failure::Control(ControlError::Policy(errors))
}

/// An unusable file.
pub(super) fn unusable(path: &Path, problem: impl ToString) -> Failure {
    Failure::Input { path: path.to_owned(), problem: problem.to_string() }
}

/// The bytes of a file.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| unusable(path, error))
}

/// Validates an image with the driver's own validator.
pub(super) fn validate(path: &Path, bytes: Vec<u8>) -> Result<Image<Vec<u8>>, Failure> {
    Image::validate(bytes).map_err(|error| unusable(path, error))
}

/// Options for examining a policy: the key of an image that is never loaded need not be secret.
pub(super) fn options(at: Option<Moment>) -> CompileOptions<'static> {
    CompileOptions { application: &assumed_app_id, key: [0x5a; 16], at }
}

/// A random key.
pub(super) fn drawn_key() -> Result<[u8; 16], Failure> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| Failure::Output(std::io::Error::other(error.to_string())))?;
    Ok(key)
}

/// Writes `bytes` to `path` atomically: a reader sees the old file or the new one.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map(drop).map_err(|source| Failure::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("image");
        std::fs::write(&path, "old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        let taken = folder.path().join("folder");
        std::fs::create_dir(&taken).unwrap();
        assert!(matches!(replace(&taken, b"new"), Err(Failure::Write { .. })));
        assert!(matches!(replace(&folder.path().join("no/such"), b"new"), Err(Failure::Write { .. })));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no partial file is left");
    }
}

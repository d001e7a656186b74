//! Reads policies and compiled images.

use crate::disk::{Disk, MAX_POLICY_FILE};
use crate::error::ControlError;
use sluice_policy::image::MAGIC;
use sluice_policy::model::{Policy, assumed_luid};
use sluice_policy::text::{self, Encoding};
use sluice_policy::{Files, Image, InvalidImage, parse};
use sluice_protocol::ioctl::MAX_POLICY_BYTES;
use std::path::Path;

/// What can be loaded.
pub(crate) enum Loadable {
    Policy(Policy),
    Image(Box<Image<Vec<u8>>>),
}

/// Reads a policy or a compiled image, which begins with bytes that no text has.
pub(crate) fn read_loadable(file: &Path) -> Result<Loadable, ControlError> {
    let failed = |source| ControlError::PolicyFile { path: file.to_owned(), source };
    let bytes = sluice_files::read_or_stdin(file, MAX_POLICY_BYTES as u64).map_err(failed)?;
    if bytes.starts_with(&sluice_bundle::MAGIC) {
        return Err(ControlError::BundleToLoad(file.to_owned()));
    }
    if !bytes.starts_with(&MAGIC) {
        return policy_of(file, bytes, &Disk::default()).map(Loadable::Policy);
    }
    let invalid = |error: InvalidImage| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()));
    Image::validate(bytes).map(|image| Loadable::Image(Box::new(image))).map_err(invalid)
}

/// Reads a policy, or standard input for `-`, and its lists.
///
/// # Errors
/// The file cannot be read, is not UTF-8, or is not a valid policy.
pub fn read_policy(file: &Path) -> Result<Policy, ControlError> {
    read_policy_with(file, &Disk::default())
}

/// As [`read_policy`], with the lists from `files`.
///
/// # Errors
/// As [`read_policy`].
pub fn read_policy_with(file: &Path, files: &dyn Files) -> Result<Policy, ControlError> {
    let failed = |source| ControlError::PolicyFile { path: file.to_owned(), source };
    policy_of(file, sluice_files::read_or_stdin(file, MAX_POLICY_FILE).map_err(failed)?, files)
}

/// The policy that a file's bytes are.
pub(crate) fn policy_of(file: &Path, text: Vec<u8>, files: &dyn Files) -> Result<Policy, ControlError> {
    let failed = |source| ControlError::PolicyFile { path: file.to_owned(), source };
    if text.len() as u64 > MAX_POLICY_FILE {
        let what = format!("it is longer than the {} MiB that are read", MAX_POLICY_FILE >> 20);
        return Err(failed(std::io::Error::new(std::io::ErrorKind::FileTooLarge, what)));
    }
    let invalid = |what: String| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
    if text::guess(&text) != Encoding::Utf8 {
        let what = "it is UTF-16, as PowerShell's `>` writes it; save it as UTF-8 (`Out-File -Encoding utf8`)";
        return Err(invalid(what.to_owned()));
    }
    let text = String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        invalid(format!("line {line}: not UTF-8"))
    })?;
    parse(file, &text, files).map_err(ControlError::Policy)
}

/// Reads a policy and its lists away from its machine: interfaces that it names by alias are taken to be there.
///
/// # Errors
/// As [`read_policy`].
pub fn read_policy_elsewhere(file: &Path) -> Result<Policy, ControlError> {
    Ok(read_policy(file)?.on_machine(|alias| Some(assumed_luid(alias))))
}

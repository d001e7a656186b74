//! Reads policies, images and exports; holds the assumptions made when a policy is examined away from its machine.

use crate::failure::Failure;
use sluice_control::{ControlError, assumed_app_id};
use sluice_policy::model::Moment;
use sluice_policy::{CompileOptions, Errors, Image};
use sluice_protocol::ioctl::MAX_POLICY_BYTES;
use std::path::{Path, PathBuf};

/// A policy that is not valid.
pub(super) fn invalid(errors: Errors) -> Failure {
    Failure::Control(ControlError::Policy(errors))
}

/// An unusable file.
pub(super) fn unusable(path: &Path, problem: impl ToString) -> Failure {
    Failure::Input { path: path.to_owned(), problem: problem.to_string() }
}

/// The longest file that is read: no image and no export is longer.
const MAX_FILE: u64 = MAX_POLICY_BYTES as u64;

/// The bytes of a file, or of standard input for `-`.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    sluice_files::read_or_stdin(path, MAX_FILE).map_err(|error| unusable(path, error))
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

/// Puts `bytes` where `path` says, but not into a file that was `read`.
pub(super) fn replace(path: &Path, bytes: &[u8], read: &[PathBuf]) -> Result<(), Failure> {
    sluice_files::replace(path, bytes, read).map_err(|source| Failure::Write { path: path.to_owned(), source })
}

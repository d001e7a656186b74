//! Refusals, as user mode sees them.

use crate::code;
use serde::{Deserialize, Serialize};

/// The operating system's refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{operation}: {message} ({})", code::Shown(*code))]
pub struct HostError {
    /// The call that failed, by its Windows name: `FwpmFilterAdd0`, `CreateServiceW`.
    pub operation: String,
    /// A Win32 error or HRESULT (`FWP_E_*`): what the user-mode call returns on Windows.
    pub code: u32,
    /// What it means.
    pub message: String,
}

impl HostError {
    /// A refusal of `operation` with a Win32 or `FWP_E_*` code; the message is that code's, where this crate knows it.
    #[must_use]
    pub fn new(operation: &str, code: u32) -> Self {
        Self { operation: operation.to_owned(), code, message: code::message(code).to_owned() }
    }

    /// The same with a message from the caller.
    #[must_use]
    pub fn with_message(operation: &str, code: u32, message: impl Into<String>) -> Self {
        Self { operation: operation.to_owned(), code, message: message.into() }
    }
}

/// The result of a call over the seam.
pub type HostResult<T> = Result<T, HostError>;

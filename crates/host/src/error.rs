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

    /// The same with a message from the caller. The number that Rust's own messages end with, as in `(os error 5)`, is
    /// left out: every refusal shows its code.
    #[must_use]
    pub fn with_message(operation: &str, code: u32, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some(at) = message.rfind(" (os error ").filter(|_| message.ends_with(')')) {
            message.truncate(at);
        }
        message.truncate(message.trim_end_matches('.').len());
        Self { operation: operation.to_owned(), code, message }
    }
}

/// The result of a call over the seam.
pub type HostResult<T> = Result<T, HostError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_said_once() {
        let message = "the RPC protocol sequence is not supported. (os error 1764)";
        let error = HostError::with_message("FwpmEngineOpen0", 1764, message);
        assert_eq!(error.to_string(), "FwpmEngineOpen0: the RPC protocol sequence is not supported (error 1764)");
    }
}

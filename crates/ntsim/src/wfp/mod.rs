//! The Windows Filtering Platform.

pub mod fwpm;
pub mod fwps;

/// The platform's state on one machine.
#[derive(Debug, Default)]
pub struct Platform {}

impl Platform {
    /// A platform with the built-in layers and nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

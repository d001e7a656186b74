//! The Kernel-Mode Driver Framework.

use crate::export::Export;

/// What WDFLDR.SYS exports.
pub const EXPORTS: &[Export] = &[];

/// The framework's state on one machine.
#[derive(Debug, Default)]
pub struct Framework {}

impl Framework {
    /// An empty framework.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

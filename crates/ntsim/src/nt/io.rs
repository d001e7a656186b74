//! Exports of ntoskrnl.exe.

use crate::export::Export;

/// The exports of this room.
pub const EXPORTS: &[Export] = &[];

/// Devices, symbolic links and open files.
#[derive(Debug, Default)]
pub struct IoManager {}

impl IoManager {
    /// No device yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

//! Exports of ntoskrnl.exe.

use crate::export::Export;

/// The exports of this room.
pub const EXPORTS: &[Export] = &[];

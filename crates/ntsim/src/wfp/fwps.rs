//! Exports of fwpkclnt.sys.

use crate::export::Export;

/// The exports of this room.
pub const EXPORTS: &[Export] = &[];

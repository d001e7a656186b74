//! NDIS.SYS: net buffer lists and what drivers do with them.

use crate::export::Export;

/// What NDIS.SYS exports.
pub const EXPORTS: &[Export] = &[];

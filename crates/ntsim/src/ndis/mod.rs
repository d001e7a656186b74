//! NDIS.SYS: packets as drivers see them.

pub mod layout;
pub mod packet;

pub use layout::{Mdl, NetBuffer, NetBufferList};
pub use packet::PacketBuffer;

use crate::export::Export;

/// The exports of this room.
pub const EXPORTS: &[Export] = &[];

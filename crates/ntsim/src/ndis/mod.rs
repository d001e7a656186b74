//! NDIS.SYS: packets as drivers see them.
//!
//! [`layout`] has the structures, [`packet`] shows a packet of ours to drivers, [`pool`] has what drivers allocate
//! themselves and clones, [`data`] reads the bytes behind a `NET_BUFFER` and moves where they begin, [`miniport`] registers
//! miniport drivers.

pub mod data;
mod exports;
pub mod layout;
pub mod miniport;
pub mod packet;
pub mod pool;

pub use exports::EXPORTS;
pub use layout::{Mdl, NetBuffer, NetBufferList};
pub use packet::PacketBuffer;

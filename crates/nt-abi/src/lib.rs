//! What a driver and a Windows kernel pass each other, x64: levels, statuses, strings, packets, and the structures of
//! the Windows Filtering Platform.
//!
//! Structures are written down from the published layouts, and every size and offset is asserted when this crate is
//! compiled. It calls no driver and knows no machine: it only lays memory out and reads it, on any 64-bit platform.

pub mod fwp;
pub mod irql;
pub mod ndis;
pub mod packet;
pub mod status;
pub mod string;
mod words;

pub use irql::Irql;
pub use ndis::{Mdl, NetBuffer, NetBufferList};
pub use packet::PacketBuffer;
pub use status::NtStatus;
pub use string::{AnsiString, OwnedUnicodeString, UnicodeString};

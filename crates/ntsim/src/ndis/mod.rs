//! NDIS.SYS: packets as drivers see them.
//!
//! The structures are in `nt-abi`. [`pool`] has what drivers allocate, and clones; [`data`] reads the bytes behind a
//! `NET_BUFFER` and moves the data start; [`miniport`] registers miniport drivers.

pub mod data;
mod exports;
pub mod miniport;
pub mod pool;

pub use exports::EXPORTS;

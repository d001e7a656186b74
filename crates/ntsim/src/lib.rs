//! `ntsim`: a simulated Windows kernel that loads a real driver (`.sys`) on Linux and runs it at native speed.
//!
//! The path of a packet through the rooms: [`net`] or [`replay`] reads it, [`tcpip`] carries it through the [`shim`],
//! which makes the classify calls that Windows' network stack makes; the [`filter_engine`] walks the layer's sublayers
//! and filters and calls the driver's callout through [`fwpkclnt`] and [`cpu`], and the verdict comes back the same
//! way. [`pe`] loads the driver, [`nt`], [`wdf`], [`ndis`], [`netio`] and [`fwpkclnt`] are what it imports, [`machine`]
//! owns it all, and [`host`] lets an administrator's program control it, from another process too
//! ([`sluice_host::remote`]).
//!
//! One rule holds in every room: **no lock is held while driver code runs**, because a bugcheck abandons the stack.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

pub mod cpu;
pub mod export;
pub mod fwpkclnt;
pub mod host;
pub mod machine;
pub mod ndis;
pub mod net;
pub mod netio;
pub mod nt;
pub mod pe;
pub mod replay;
pub mod tcpip;
pub mod trace;
pub mod verifier;
pub mod wdf;

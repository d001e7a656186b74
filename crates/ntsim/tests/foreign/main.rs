//! Drivers that nobody here wrote run unmodified.
//!
//! WinDivert64.sys (WinDivert 2.2, signed, KMDF 1.9) ships inside the Python package pydivert; the tests fetch it into
//! target/ and never keep it in the repository. Where it cannot be fetched, or the system allows no namespaces or TUN
//! device, they say so and do nothing.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(dead_code, unreachable_pub, reason = "modules of one test program")]

mod divert;
mod fetch;
mod handle;
mod inject;
mod load;
mod network;
mod old;
mod others;
mod rig;
mod sockets;

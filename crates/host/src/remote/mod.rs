//! Lets another process administer the simulated machine.
//!
//! [`serve`] offers a machine's [`Host`](crate::Host) on a Unix socket; [`RemoteHost`] is the same trait on
//! the other side. A connection is a handle: one carries the plain calls, and each open engine or device has its own.
//! So a waiting read blocks nobody else, and when a client dies, the kernel closes its sockets and the server its
//! handles.
//!
//! The socket file is created with mode 0600, and the server asks the kernel who is connecting: it serves only its own
//! user and root. Input is still treated as hostile: every length is bounded, memory grows only with bytes received,
//! and a message that does not decode to its last byte ends the connection.

mod client;
mod server;
mod wire;

pub use client::RemoteHost;
pub use server::{Server, serve};

/// The environment variable that names the socket of a simulated machine.
pub const SOCKET_VARIABLE: &str = "NTSIM_SOCKET";

#[cfg(test)]
mod tests;

//! The name that the first bytes of a flow ask for, found while they pass.
//!
//! No parser here keeps the bytes it reads: each is a state machine of a fixed size that is handed the bytes in pieces
//! of any size, as a stream callout has them, and gives the same answer however they were cut. None allocates, recurses
//! or has a path that can panic (`tests/no_panic.rs` builds the crate without a standard library and looks), and each
//! takes at most a fixed number of steps for a byte.
//!
//! | protocol | read by | bytes of state |
//! |---|---|---|
//! | TLS | [`tls::ClientHello`] | 320 |
//! | HTTP/1 | [`http1::Request`] | 280 |
//! | HTTP/2 without TLS | [`http2::Connection`] | 360 |
//! | QUIC | [`quic::Connection`], with a [`quic::Window`] of 4,228 that is needed until the name is found | 400 |
//! | DNS | [`dns::Query`], and [`dns::Message`] for all that a message says | 264 |
//! | whichever of them a flow speaks | [`flow::Stream`], [`flow::Datagrams`] | 384, 408 |
//!
//! At most [`LONGEST`] bytes of a flow are looked at, then the answer is [`Answer::TooLong`].
//!
//! # What an answer is worth
//!
//! [`Answer::Name`] is given where every server that keeps the protocol's rules finds the same name. Where servers are
//! known to differ, or the rules are broken, it is [`Answer::Malformed`]: a program that wants to be taken for another
//! one would otherwise show this crate one name and the server another. What becomes of such a flow, and of one without
//! a name, is for the caller's rules to say.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod answer;
mod authority;
pub mod dns;
pub mod flow;
pub mod http1;
pub mod http2;
mod name;
pub mod quic;
#[cfg(test)]
mod testing;
pub mod tls;

pub use answer::{Answer, Flags, Reason};
pub use name::LONGEST_NAME;

/// The most bytes of a flow that are looked at.
pub const LONGEST: u16 = 1 << 14;
